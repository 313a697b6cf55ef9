//! Reading: from an offset of the virtual disk to where its bytes are.

use std::sync::{Arc, PoisonError};

use block::{AllocationUnit, Error as BlockError, Extent, ExtentKind, ReadAt, Storage};

use crate::address::GuestCluster;
use crate::geometry::Geometry;
use crate::image::{Image, State};
use crate::l2_entry::{self, L2Entry, OFFSET, Stream};
use crate::l2_table::L2Table;
use crate::slice_cache::{SliceGuard, entries_per_slice, slice_bits};
use crate::{Error, Result, backing, compress};

/// A run of the virtual disk that is held in one way, in this image (its backing file apart).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappedExtent {
    /// Bytes in this run.
    pub len: u64,
    /// How they are held.
    pub kind: MappedKind,
}

/// How bytes of the virtual disk are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappedKind {
    /// In the file, or in the external data file where there is one, from this offset on.
    Data {
        /// Offset in that file in bytes.
        host_offset: u64,
    },
    /// As [`MappedKind::Data`], but encrypted: what lies there is not what the disk holds.
    Encrypted {
        /// Offset in that file in bytes.
        host_offset: u64,
    },
    /// They read as zeros; space may be set aside from this offset of the file on.
    Zero {
        /// Offset in the file in bytes.
        host_offset: Option<u64>,
    },
    /// In a compressed stream; the run is within one cluster.
    Compressed,
    /// Not in this image: they come from the backing file, or read as zeros.
    Unallocated,
}

impl Image {
    /// How the bytes from `offset` on are held: the kind of the first, and for how many bytes (at most `max_len`) it holds.
    ///
    /// # Errors
    /// [`Error::Io`] with [`block::Error::OutOfBounds`] outside the disk; [`Error::Corrupt`] for tables that contradict
    /// the format.
    pub fn map(&self, offset: u64, max_len: u64) -> Result<MappedExtent> {
        BlockError::check_range(offset, max_len.max(1), self.geometry.disk_len)?;
        let extent = self.map_in(&self.state(), offset, max_len)?;
        Ok(match extent.kind {
            MappedKind::Data { host_offset } if self.crypt.is_some() => {
                MappedExtent { kind: MappedKind::Encrypted { host_offset }, ..extent }
            }
            _ => extent,
        })
    }

    pub(crate) fn map_in(&self, state: &State, offset: u64, max_len: u64) -> Result<MappedExtent> {
        let run = self.run_at(state, offset, max_len)?;
        Ok(MappedExtent { len: run.len, kind: run.held.kind() })
    }

    /// How the bytes from `offset` on are held, and for how many of them it holds: at most `max_len`, and as far as one
    /// slice of an L2 table tells.
    fn run_at(&self, state: &State, offset: u64, max_len: u64) -> Result<Run> {
        let geometry = &self.geometry;
        let cluster = geometry.guest_cluster_at(offset);
        let within = offset - geometry.guest_offset(cluster);
        let (l1_index, l2_index) = geometry.table_indices(cluster);
        let left = |entries: u64, index: u64| ((entries - index) << geometry.cluster_bits) - within;
        if let Some((host, table)) = state.pending.table(l1_index) {
            let limit = max_len.min(left(geometry.l2_entries(), l2_index as u64));
            return self.run_in(table, geometry.host_offset(host), l2_index, within, limit);
        }
        let Some(table_offset) = self.l2_offset(state, l1_index)? else {
            let len = max_len.min(left(geometry.l2_entries(), l2_index as u64));
            return Ok(Run { len, held: Held::Unallocated });
        };
        let per_slice = entries_per_slice(geometry);
        let guard = self.l2_slice(table_offset, cluster.0 >> slice_bits(geometry))?;
        let Some(slice) = guard.as_ref() else { return Ok(Run { len: max_len, held: Held::Unallocated }) };
        // Fewer than 512.
        let first = (cluster.0 & (per_slice - 1)) as usize;
        let limit = max_len.min(left(per_slice, first as u64));
        let slice_offset = table_offset + (l2_index - first) as u64 * geometry.l2_entry_size();
        self.run_in(&slice.entries, slice_offset, first, within, limit)
    }

    /// How the bytes from `within` of the cluster of entry `first` on are held. `table`, which is at `table_offset` of the file,
    /// tells so for `limit` bytes at least.
    fn run_in(&self, table: &L2Table, table_offset: u64, first: usize, within: u64, limit: u64) -> Result<Run> {
        let geometry = &self.geometry;
        let piece =
            |index, within| Ok::<_, Error>(piece_at(self.decode_entry(table_offset, table, index)?, within, geometry));
        let mut run = piece(first, within)?;
        let mut index = first;
        let mut at_cluster_end = within + run.len == geometry.cluster_size();
        while run.len < limit && at_cluster_end {
            index += 1;
            let next = piece(index, 0)?;
            if !run.continues_with(&next) {
                break;
            }
            run.len += next.len;
            at_cluster_end = next.len == geometry.cluster_size();
        }
        Ok(Run { len: run.len.min(limit), ..run })
    }

    /// Where in the file the L2 table is that an L1 entry leads to.
    fn l2_offset(&self, state: &State, l1_index: usize) -> Result<Option<u64>> {
        let offset = self.l1(state)?.get(l1_index).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        if !self.geometry.is_aligned(offset) {
            let at = state.header.roots.l1_offset + l1_index as u64 * 8;
            return Err(Error::corrupt(
                "L1 entry",
                at,
                format!("an L2 table's offset must be aligned, found {offset:#x}"),
            ));
        }
        Ok(Some(offset))
    }

    /// The slice `number`, counted from the start of the disk, of the L2 table at `table_offset` of the file.
    fn l2_slice(&self, table_offset: u64, number: u64) -> Result<SliceGuard> {
        if let Some(slice) = self.slices.get(number, table_offset) {
            return Ok(slice);
        }
        let per_slice = entries_per_slice(&self.geometry);
        let len = per_slice * self.geometry.l2_entry_size();
        let within = number % (self.geometry.l2_entries() / per_slice) * len;
        let bytes = read_cluster_part(&*self.storage, table_offset, within, len)?;
        Ok(self.slices.insert(number, table_offset, L2Table::decode(&bytes, &self.geometry)))
    }

    /// What the entry of a cluster says.
    pub(crate) fn entry_of(&self, state: &State, cluster: GuestCluster) -> Result<L2Entry> {
        let (l1_index, l2_index) = self.geometry.table_indices(cluster);
        if let Some((host, table)) = state.pending.table(l1_index) {
            return self.decode_entry(self.geometry.host_offset(host), table, l2_index);
        }
        let Some(table_offset) = self.l2_offset(state, l1_index)? else { return Ok(L2Entry::Unallocated) };
        let per_slice = entries_per_slice(&self.geometry);
        let guard = self.l2_slice(table_offset, cluster.0 / per_slice)?;
        let Some(slice) = guard.as_ref() else { return Ok(L2Entry::Unallocated) };
        let at = table_offset + l2_index as u64 * self.geometry.l2_entry_size();
        let raw = slice.entries.get((cluster.0 % per_slice) as usize);
        l2_entry::decode(raw, self.version, &self.geometry, at)
    }

    /// The L2 table that an L1 entry leads to, with its offset in the file.
    pub(crate) fn l2_table(&self, state: &State, l1_index: usize) -> Result<Option<(u64, Arc<L2Table>)>> {
        let Some(offset) = self.l2_offset(state, l1_index)? else { return Ok(None) };
        self.read_l2_table(offset).map(|table| Some((offset, table)))
    }

    /// The L2 table at `offset` of the file.
    pub(crate) fn read_l2_table(&self, offset: u64) -> Result<Arc<L2Table>> {
        let bytes = read_structure(&*self.storage, offset, self.geometry.cluster_size())?;
        Ok(Arc::new(L2Table::decode(&bytes, &self.geometry)))
    }

    /// What an entry of the table at `table_offset` of the file says.
    pub(crate) fn decode_entry(&self, table_offset: u64, table: &L2Table, index: usize) -> Result<L2Entry> {
        let at = table_offset + index as u64 * self.geometry.l2_entry_size();
        l2_entry::decode(table.get(index), self.version, &self.geometry, at)
    }

    /// Reads the file, which may end within a cluster; what lies beyond reads as zeros. A run that starts beyond the
    /// end is a damaged mapping.
    pub(crate) fn read_host(storage: &dyn Storage, host_offset: u64, buf: &mut [u8]) -> Result<()> {
        let available = storage.len().saturating_sub(host_offset).min(buf.len() as u64) as usize;
        if available == 0 {
            return Err(Error::corrupt("L2 entry", host_offset, "a cluster must start before the end of the file"));
        }
        let (inside, beyond) = buf.split_at_mut(available);
        beyond.fill(0);
        Ok(storage.read_at(host_offset, inside)?)
    }

    /// The whole cluster that a compressed stream holds, kept for those who read its neighbours.
    pub(crate) fn decompressed(&self, stream: Stream) -> Result<Arc<Vec<u8>>> {
        if let Some(cluster) = self.decompressed.get(stream.offset) {
            return Ok(cluster);
        }
        let mut cluster = vec![0; self.geometry.cluster_len()];
        self.decompress_into(stream, &mut cluster)?;
        let cluster = Arc::new(cluster);
        self.decompressed.insert(stream.offset, Arc::clone(&cluster));
        Ok(cluster)
    }

    /// Fills `cluster`, which is a whole one, from a compressed stream.
    fn decompress_into(&self, stream: Stream, cluster: &mut [u8]) -> Result<()> {
        let pool = || self.decompressors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut decompressor = pool().pop().unwrap_or_default();
        decompressor.input.resize(self.stream_len(stream), 0);
        Self::read_host(&*self.storage, stream.offset, &mut decompressor.input)?;
        let result = decompressor.decompress_input(self.compression, cluster);
        let mut kept = pool();
        if kept.len() < DECOMPRESSORS {
            kept.push(decompressor);
        }
        drop(kept);
        result.map_err(|reason| Error::corrupt("compressed cluster", stream.offset, reason))
    }

    /// The bytes of a compressed stream, and nothing that follows them in its last sector.
    pub(crate) fn stream_bytes(&self, stream: Stream) -> Result<Vec<u8>> {
        let mut bytes = self.read_stream(stream)?;
        let len = self.decompress(&bytes, stream, &mut vec![0; self.geometry.cluster_len()])?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn read_stream(&self, stream: Stream) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.stream_len(stream)];
        Self::read_host(&*self.storage, stream.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Bytes of a stream, as far as one that holds a cluster can take.
    fn stream_len(&self, stream: Stream) -> usize {
        let longest = 2 * self.geometry.cluster_len() + 512;
        usize::try_from(stream.len).unwrap_or(usize::MAX).min(longest)
    }

    fn decompress(&self, bytes: &[u8], stream: Stream, cluster: &mut [u8]) -> Result<usize> {
        compress::decompress(self.compression, bytes, cluster)
            .map_err(|reason| Error::corrupt("compressed cluster", stream.offset, reason))
    }

    pub(crate) fn read_in(&self, state: &State, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let run = self.run_at(state, offset, buf.len() as u64)?;
            // At most the length of `buf`, so it fits.
            let (part, rest) = std::mem::take(&mut buf).split_at_mut(run.len as usize);
            match run.held {
                Held::Data { host } => self.read_data(host, part)?,
                Held::Zero { .. } => part.fill(0),
                Held::Unallocated => match &self.backing {
                    Some(below) => backing::read_padded(&**below, offset, part)?,
                    None => part.fill(0),
                },
                Held::Compressed(_) if self.threads > 1 && part.len() + rest.len() >= self.shared_read_len() => {
                    let done = self.read_compressed(state, offset, part, rest)?;
                    offset += done as u64;
                    buf = rest.split_at_mut(done - part.len()).1;
                    continue;
                }
                Held::Compressed(stream) => self.read_stream_at(offset, stream, part)?,
            }
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }

    fn extent_in(&self, state: &State, offset: u64, max_len: u64) -> Result<Extent> {
        let run = self.run_at(state, offset, max_len)?;
        let kind = match run.held {
            Held::Data { .. } | Held::Compressed(_) => ExtentKind::Data,
            Held::Zero { host: Some(_) } => ExtentKind::Zero,
            Held::Zero { host: None } => ExtentKind::Hole,
            Held::Unallocated => match &self.backing {
                Some(below) => return Ok(backing::extent_padded(&**below, offset, run.len)?),
                None => ExtentKind::Hole,
            },
        };
        Ok(Extent { len: run.len, kind })
    }

    /// Compressed bytes from which on starting threads pays.
    fn shared_read_len(&self) -> usize {
        (8 * self.geometry.cluster_len()).max(256 << 10)
    }

    /// Reads compressed clusters from `offset` on into `first`, and on into `rest` as far as they follow one another, by several
    /// threads. Returns how many bytes it read.
    fn read_compressed(&self, state: &State, offset: u64, first: &mut [u8], mut rest: &mut [u8]) -> Result<usize> {
        let mut pieces = Vec::new();
        let mut at = offset;
        let mut part = first;
        loop {
            match self.run_at(state, at, part.len() as u64)? {
                Run { held: Held::Compressed(stream), len } if len == part.len() as u64 => {
                    pieces.push((at, stream, part))
                }
                _ => break,
            }
            at += pieces.last().map_or(0, |(_, _, part)| part.len() as u64);
            if rest.is_empty() {
                break;
            }
            let next = self.geometry.cluster_len().min(rest.len());
            (part, rest) = std::mem::take(&mut rest).split_at_mut(next);
        }
        let share = pieces.len().div_ceil(self.threads).max(1);
        let read = |pieces: &mut [(u64, Stream, &mut [u8])]| {
            pieces.iter_mut().try_for_each(|(at, stream, part)| self.read_stream_at(*at, *stream, part))
        };
        std::thread::scope(|scope| {
            let mut shares = pieces.chunks_mut(share);
            let own = shares.next();
            let threads: Vec<_> = shares.map(|share| scope.spawn(move || read(share))).collect();
            let mut result = own.map_or(Ok(()), read);
            for thread in threads {
                match thread.join() {
                    Ok(read) => result = result.and(read),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })?;
        // The pieces lie within `first` and `rest`, so it fits.
        Ok((at - offset) as usize)
    }

    /// Reads `part`, at `offset` of the disk and within one compressed cluster.
    fn read_stream_at(&self, offset: u64, stream: Stream, part: &mut [u8]) -> Result<()> {
        if part.len() < self.geometry.cluster_len() {
            let cluster = self.decompressed(stream)?;
            let within = (offset % self.geometry.cluster_size()) as usize;
            part.copy_from_slice(&cluster[within..within + part.len()]);
            return Ok(());
        }
        // A whole cluster that is read has no neighbours to serve, so it need not be kept.
        match self.decompressed.get(stream.offset) {
            Some(cluster) => part.copy_from_slice(&cluster),
            None => self.decompress_into(stream, part)?,
        }
        Ok(())
    }
}

/// A run of the disk that is held in one way, as [`MappedExtent`], with where its compressed stream is.
#[derive(Debug, Clone, Copy)]
struct Run {
    len: u64,
    held: Held,
}

#[derive(Debug, Clone, Copy)]
enum Held {
    Data { host: u64 },
    Zero { host: Option<u64> },
    Compressed(Stream),
    Unallocated,
}

impl Held {
    fn kind(self) -> MappedKind {
        match self {
            Self::Data { host } => MappedKind::Data { host_offset: host },
            Self::Zero { host } => MappedKind::Zero { host_offset: host },
            Self::Compressed(_) => MappedKind::Compressed,
            Self::Unallocated => MappedKind::Unallocated,
        }
    }
}

impl Run {
    /// Whether `next` goes on where this one ends, in the same way.
    fn continues_with(&self, next: &Self) -> bool {
        match (self.held, next.held) {
            (Held::Unallocated, Held::Unallocated) | (Held::Zero { host: None }, Held::Zero { host: None }) => true,
            (Held::Data { host: a }, Held::Data { host: b })
            | (Held::Zero { host: Some(a) }, Held::Zero { host: Some(b) }) => a.checked_add(self.len) == Some(b),
            _ => false,
        }
    }
}

/// Runs that one extent is made of at most, so that to ask for one takes bounded time.
const EXTENT_RUNS: usize = 64;

/// Decompressors that are kept for the next read, so many threads may decompress at once without making new ones.
const DECOMPRESSORS: usize = 16;

/// Reads `len` bytes that begin `within` a cluster of the file, of which at least the first byte must be there; what lies
/// beyond the end of the file reads as zeros.
fn read_cluster_part(storage: &dyn Storage, cluster: u64, within: u64, len: u64) -> Result<Vec<u8>> {
    if cluster.saturating_add(within) < storage.len() {
        return read_structure(storage, cluster + within, len);
    }
    BlockError::check_range(cluster, 1, storage.len())?;
    // At most a cluster.
    Ok(vec![0; len as usize])
}

/// Reads a table of the file, or a cluster of one. It must start within the file; where it ends beyond the file's end it reads as
/// zeros there, as for QEMU.
pub(crate) fn read_structure(storage: &dyn Storage, offset: u64, len: u64) -> Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new()); // an empty one may be said to be anywhere
    }
    let inside = storage.len().saturating_sub(offset).clamp(1, len);
    let mut bytes = block::read_vec(storage, offset, inside)?;
    // Callers bound the length of tables.
    bytes.resize(len as usize, 0);
    Ok(bytes)
}

/// How the byte at `within` of a cluster is held, and the rest of the cluster as far as it is held so.
fn piece_at(entry: L2Entry, within: u64, geometry: &Geometry) -> Run {
    let to_end = geometry.cluster_size() - within;
    match entry {
        L2Entry::Unallocated => Run { len: to_end, held: Held::Unallocated },
        L2Entry::Zero { host, .. } => Run { len: to_end, held: Held::Zero { host: host.map(|host| host + within) } },
        L2Entry::Data { host, .. } => Run { len: to_end, held: Held::Data { host: host + within } },
        L2Entry::Compressed(stream) => Run { len: to_end, held: Held::Compressed(stream) },
        L2Entry::Mixed { host, subclusters, .. } => {
            // Less than 32: `within` lies in the cluster.
            let index = (within / geometry.subcluster_size()) as u32;
            let end = u64::from(index + subclusters.run(index)) * geometry.subcluster_size();
            let held = match host {
                Some(host) if subclusters.allocated >> index & 1 != 0 => Held::Data { host: host + within },
                _ if subclusters.zero >> index & 1 != 0 => Held::Zero { host: host.map(|host| host + within) },
                _ => Held::Unallocated,
            };
            Run { len: end - within, held }
        }
    }
}

impl ReadAt for Image {
    fn len(&self) -> u64 {
        self.geometry.disk_len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        BlockError::check_range(offset, buf.len() as u64, self.geometry.disk_len)?;
        // The lock is held until the bytes are read, so that a cluster freed meanwhile is not read after its reuse.
        let read = self.read_in(&self.state(), offset, buf);
        Ok(self.mark_if_corrupt(read)?)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        BlockError::check_range(offset, max_len.max(1), self.geometry.disk_len)?;
        let state = self.state();
        let mut extent = self.extent_in(&state, offset, max_len)?;
        // Clusters that lie apart in the file are still one extent; some are enough for a caller to work on.
        for _ in 0..EXTENT_RUNS {
            if extent.len >= max_len {
                break;
            }
            let next = self.extent_in(&state, offset + extent.len, max_len - extent.len)?;
            if next.kind != extent.kind {
                break;
            }
            extent.len += next.len;
        }
        Ok(extent)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        Some(AllocationUnit { len: self.geometry.cluster_size(), start: 0 })
    }
}
