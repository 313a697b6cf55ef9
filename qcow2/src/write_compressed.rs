//! Writing whole clusters compressed, into an image that is there.
//!
//! A stream goes behind the last one where that cluster of the file has room, or its neighbour is free; each cluster that a
//! stream touches counts it. Nothing else differs from other writing in place.

use block::Error as BlockError;

use crate::address::{GuestCluster, HostCluster};
use crate::compress::Compressor;
use crate::image::{Image, State};
use crate::l2_entry::{self, RawEntry};
use crate::pending::Round;
use crate::{Error, Result, pipeline};

/// Clusters that one round handles.
const ROUND: usize = 64;

/// A cluster as it is to be written.
enum Packed {
    Stream(Vec<u8>),
    /// It would be no shorter.
    Plain,
}

impl Image {
    /// Writes whole clusters, each compressed, as the image says how, where it gets shorter by that. What is written is safe after
    /// a flush, as with [`block::WriteAt::write_at`]. They are compressed by as many threads as the image was opened with.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `offset` is no multiple of the cluster size, or the end neither that nor the disk's end;
    /// [`Error::Unsupported`] with an external data file or encryption, which do not go with compression; else as
    /// [`block::WriteAt::write_at`].
    pub fn write_compressed(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let written = self.write_compressed_in_place(offset, buf);
        self.mark_if_corrupt(written)
    }

    fn write_compressed_in_place(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.refuse_external_data("compressing clusters")?;
        if self.is_encrypted() {
            return Err(Error::Unsupported("compressing clusters of an encrypted image".to_owned()));
        }
        let geometry = self.geometry;
        let end = offset.saturating_add(buf.len() as u64);
        BlockError::check_range(offset, buf.len() as u64, geometry.disk_len)?;
        let is_edge = |at: u64| at.is_multiple_of(geometry.cluster_size());
        if !is_edge(offset) || !(is_edge(end) || end == geometry.disk_len) {
            return Err(Error::Invalid(format!("compressed clusters are written whole, not from {offset} to {end}")));
        }
        self.record_dirty(offset, buf.len() as u64)?;
        let len = ROUND * geometry.cluster_len();
        for (at, part) in (offset..).step_by(len).zip(buf.chunks(len)) {
            self.write_compressed_round(at, part)?;
        }
        Ok(())
    }

    fn write_compressed_round(&self, offset: u64, part: &[u8]) -> Result<()> {
        let geometry = self.geometry;
        let mut clusters = part.chunks(geometry.cluster_len());
        let workers = self.threads.min(clusters.len());
        let mut packers = Vec::new();
        for _ in 0..workers {
            let compressor = Compressor::new(self.compression, geometry.cluster_len(), false);
            let mut compressor = compressor.map_err(Error::Unsupported)?;
            packers.push(move |bytes: &[u8]| {
                let mut padded = Vec::new();
                let mut whole = bytes;
                if bytes.len() < geometry.cluster_len() {
                    padded.extend_from_slice(bytes);
                    padded.resize(geometry.cluster_len(), 0);
                    whole = &padded;
                }
                Ok(compressor.compress(whole).map_or(Packed::Plain, |stream| Packed::Stream(stream.to_vec())))
            });
        }
        let mut packed = Vec::with_capacity(clusters.len());
        pipeline::in_order(
            packers,
            || Ok(clusters.next()),
            |cluster| {
                packed.push(cluster);
                Ok(())
            },
        )?;
        let first = geometry.guest_cluster_at(offset);
        // What is not compressed is written as it is, with the others' order.
        let mut streams = Vec::new();
        for (index, (cluster, bytes)) in packed.into_iter().zip(part.chunks(geometry.cluster_len())).enumerate() {
            let place = GuestCluster(first.0 + index as u64);
            match cluster {
                Packed::Stream(stream) => streams.push((place, stream)),
                Packed::Plain => block::WriteAt::write_at(self, geometry.guest_offset(place), bytes)?,
            }
        }
        let _turn = self.allocating();
        self.prepare(streams.len() as u64 + 1)?;
        self.poison_on_error(|| Round::new(self, &mut self.state_mut()).write_streams(&streams))
    }
}

impl Round<'_> {
    fn write_streams(mut self, streams: &[(GuestCluster, Vec<u8>)]) -> Result<()> {
        let geometry = self.image.geometry;
        for (cluster, stream) in streams {
            let (old, _) = self.image.entry(self.state, *cluster)?;
            self.free_later(old)?;
            let len = stream.len() as u64;
            let offset = self.allocate_stream(len)?;
            // The last sector that the entry names is in the file as a whole.
            let end = (offset + len).next_multiple_of(geometry.cluster_size());
            if self.image.storage.len() < end {
                self.image.storage.set_len(end)?;
            }
            self.image.storage.write_at(offset, stream)?;
            let descriptor = l2_entry::encode_compressed(offset, len, &geometry)?;
            self.set_entry(*cluster, RawEntry::compressed(descriptor))?;
        }
        self.settle_if_heavy()
    }

    /// Takes `len` bytes, fewer than a cluster has, for a compressed stream.
    fn allocate_stream(&mut self, len: u64) -> Result<u64> {
        let geometry = self.image.geometry;
        let end = self.state.stream_end;
        let room = end.next_multiple_of(geometry.cluster_size()) - end;
        let last = geometry.host_cluster_at(end);
        let offset = if room > 0 && len <= room && self.share(last)? {
            end
        } else {
            let new = self.allocate()?;
            let follows = room > 0 && len > room && new.0 == last.0 + 1;
            if follows && self.share(last)? { end } else { geometry.host_offset(new) }
        };
        self.state.stream_end = offset + len;
        Ok(offset)
    }

    /// Counts another stream in a cluster of the file; says whether its refcount can hold that.
    fn share(&mut self, host: HostCluster) -> Result<bool> {
        let geometry = self.image.geometry;
        let per_block = geometry.refcounts_per_block();
        let counts = self.refcount_block((host.0 / per_block) as usize)?;
        match counts.get_mut((host.0 % per_block) as usize) {
            Some(count) if *count > 0 && *count < geometry.refcount_max() => {
                *count += 1;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl State {
    /// Has the next compressed stream go to a cluster of its own: the one with the last may be another's by now.
    pub(crate) fn forget_streams(&mut self) {
        self.stream_end = 0;
    }
}
