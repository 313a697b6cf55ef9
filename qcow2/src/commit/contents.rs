//! Where the contents of changed clusters go, before anything on disk leads there.

use std::collections::BTreeSet;

use block::{ReadAt, Storage, WriteAt};

use super::Commit;
use crate::Result;
use crate::address::{GuestCluster, HostCluster};
use crate::l2_entry::{self, L2Entry, RawEntry, Subclusters};
use crate::transaction::{Content, is_zero};

impl Commit<'_> {
    /// A compressed stream that is freed may share its host clusters with others, and would stay readable there. Those
    /// others are rewritten, so that the host clusters hold nothing live and can be given back whole. (Where snapshots
    /// stay, the old contents stay with them.)
    pub(super) fn move_neighbours_of_freed_streams(&mut self) -> Result<()> {
        if !self.counts.any_compressed || (self.state.header.roots.snapshots > 0 && !self.delete_snapshots) {
            return Ok(());
        }
        let geometry = self.image.geometry;
        let mut emptied = BTreeSet::new();
        for &cluster in self.clusters.keys() {
            if let L2Entry::Compressed(stream) = self.old_entry(GuestCluster(cluster))? {
                emptied.extend(stream.host_clusters(&geometry));
            }
        }
        if emptied.is_empty() {
            return Ok(());
        }
        for l1_index in 0..self.image.l1(self.state)?.len() {
            let Some((offset, table)) = self.image.l2_table(self.state, l1_index)? else { continue };
            for l2_index in 0..table.len() {
                let cluster = l1_index as u64 * geometry.l2_entries() + l2_index as u64;
                if self.clusters.contains_key(&cluster) {
                    continue;
                }
                let L2Entry::Compressed(stream) = self.image.decode_entry(offset, &table, l2_index)? else { continue };
                if stream.host_clusters(&geometry).any(|host| emptied.contains(&host)) {
                    let bytes = self.image.stream_bytes(stream)?;
                    let entry = self.place_stream(&bytes)?;
                    self.clusters.insert(cluster, Content::Moved(entry));
                }
            }
        }
        Ok(())
    }

    /// Writes a compressed stream behind the last one so written, or to clusters of its own; returns its L2 entry.
    fn place_stream(&mut self, bytes: &[u8]) -> Result<RawEntry> {
        let geometry = self.image.geometry;
        let size = geometry.cluster_size();
        let len = bytes.len() as u64;
        let room = self.stream_end.next_multiple_of(size) - self.stream_end;
        let shared = u64::from(self.counts.get(self.stream_end >> geometry.cluster_bits));
        let offset = if len <= room && shared < geometry.refcount_max() {
            self.counts.allocate(self.stream_end >> geometry.cluster_bits);
            self.stream_end
        } else {
            // A stream is shorter than a cluster, or the image is a hostile one.
            geometry.host_offset(self.allocate(len.div_ceil(size))?)
        };
        let end = offset + len;
        if self.image.storage.len() < end {
            self.image.storage.set_len(end)?;
        }
        self.image.storage.write_at(offset, bytes)?;
        self.stream_end = end;
        Ok(RawEntry::compressed(l2_entry::encode_compressed(offset, len, &geometry)?))
    }

    /// The new L2 entry of a cluster. Its data is written at once: nothing on disk leads there yet.
    pub(super) fn place(&mut self, cluster: GuestCluster, content: &Content) -> Result<RawEntry> {
        let geometry = self.image.geometry;
        let zero: &[u8];
        let zeros;
        let bytes = match content {
            Content::Spilled(host) => return Ok(RawEntry::data(geometry.host_offset(*host), &geometry)),
            Content::Moved(entry) => return Ok(*entry),
            Content::Data(bytes) if !is_zero(bytes) => &**bytes,
            Content::Data(_) | Content::Zero => {
                let offset = geometry.guest_offset(cluster);
                let backed = self.image.backing.as_ref().is_some_and(|below| below.len() > offset);
                if !backed {
                    return Ok(RawEntry::UNALLOCATED);
                }
                if self.version >= 3 {
                    return Ok(RawEntry::zero(&geometry));
                }
                // Version 2 cannot say "zeros" above a backing file but by zeros.
                zeros = vec![0; geometry.cluster_len()];
                zero = &zeros;
                zero
            }
        };
        if geometry.external_data {
            // Its place is where it is on the disk; what it held there before is what it holds now, as far as the disk went.
            let offset = geometry.guest_offset(cluster);
            let on_disk = (self.disk_len - offset).min(bytes.len() as u64) as usize;
            self.image.write_data(offset, &bytes[..on_disk])?;
            return Ok(RawEntry::data(offset, &geometry));
        }
        let host = self.allocate(1)?;
        if geometry.extended_l2 {
            return self.place_subclusters(cluster, host, bytes);
        }
        self.image.write_data_cluster(host, bytes)?;
        Ok(RawEntry::data(geometry.host_offset(host), &geometry))
    }

    /// Writes the subclusters that are not zeros; returns the entry that says which those are.
    fn place_subclusters(&mut self, cluster: GuestCluster, host: HostCluster, bytes: &[u8]) -> Result<RawEntry> {
        let geometry = self.image.geometry;
        let (offset, size) = (geometry.host_offset(host), geometry.subcluster_size());
        if self.image.storage.len() < offset + geometry.cluster_size() {
            self.image.storage.set_len(offset + geometry.cluster_size())?;
        }
        let mut allocated = 0;
        for (index, part) in bytes.chunks(size as usize).enumerate().filter(|(_, part)| !is_zero(part)) {
            allocated |= 1 << index;
            self.image.write_data(offset + index as u64 * size, part)?;
        }
        let backed = self.image.backing.as_ref().is_some_and(|below| below.len() > geometry.guest_offset(cluster));
        let zero = if backed { !allocated } else { 0 };
        // What the cluster held before it was free is to go from the rest of it.
        self.counts.any_partly_held |= allocated != u32::MAX;
        Ok(RawEntry::subclusters(offset, Subclusters { allocated, zero }, &geometry))
    }
}
