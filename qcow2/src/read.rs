//! Reading: from an offset of the virtual disk to where its bytes are.

use std::sync::Arc;

use block::{AllocationUnit, Error as BlockError, Extent, ExtentKind, ReadAt, Storage};

use crate::geometry::Geometry;
use crate::image::{Image, State};
use crate::l2_entry::{self, L2Entry, OFFSET, Stream};
use crate::l2_table::L2Table;
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
        self.map_in(&self.state(), offset, max_len)
    }

    pub(crate) fn map_in(&self, state: &State, offset: u64, max_len: u64) -> Result<MappedExtent> {
        let geometry = &self.geometry;
        let cluster = geometry.guest_cluster_at(offset);
        let within = offset - geometry.guest_offset(cluster);
        let (l1_index, l2_index) = geometry.table_indices(cluster);
        let table_left = (geometry.l2_entries() - l2_index as u64) * geometry.cluster_size() - within;
        let limit = max_len.min(table_left);
        let Some((table_offset, table)) = self.l2_table(state, l1_index)? else {
            return Ok(MappedExtent { len: limit, kind: MappedKind::Unallocated });
        };
        let first = piece_at(self.decode_entry(table_offset, &table, l2_index)?, within, geometry);
        let (kind, mut len) = (first.kind, first.len);
        let mut index = l2_index;
        let mut at_cluster_end = within + len == geometry.cluster_size();
        while len < limit && at_cluster_end && kind != MappedKind::Compressed {
            index += 1;
            let piece = piece_at(self.decode_entry(table_offset, &table, index)?, 0, geometry);
            let next = piece.kind;
            let continues = match (kind, next) {
                (MappedKind::Unallocated, MappedKind::Unallocated) => true,
                (MappedKind::Data { host_offset: a }, MappedKind::Data { host_offset: b }) => {
                    a.checked_add(len) == Some(b)
                }
                (MappedKind::Zero { host_offset: None }, MappedKind::Zero { host_offset: None }) => true,
                (MappedKind::Zero { host_offset: Some(a) }, MappedKind::Zero { host_offset: Some(b) }) => {
                    a.checked_add(len) == Some(b)
                }
                _ => false,
            };
            if !continues {
                break;
            }
            len += piece.len;
            at_cluster_end = piece.len == geometry.cluster_size();
        }
        Ok(MappedExtent { len: len.min(limit), kind })
    }

    /// The L2 table that an L1 entry leads to, with its offset in the file.
    pub(crate) fn l2_table(&self, state: &State, l1_index: usize) -> Result<Option<(u64, Arc<L2Table>)>> {
        let raw = state.l1.get(l1_index).copied().unwrap_or(0);
        let offset = raw & OFFSET;
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
        self.read_l2_table(offset).map(|table| Some((offset, table)))
    }

    /// The L2 table at `offset` of the file.
    pub(crate) fn read_l2_table(&self, offset: u64) -> Result<Arc<L2Table>> {
        if let Some(table) = self.l2_tables.get(offset) {
            return Ok(table);
        }
        let bytes = read_structure(&*self.storage, offset, self.geometry.cluster_size())?;
        let table = Arc::new(L2Table::decode(&bytes, &self.geometry));
        self.l2_tables.insert(offset, Arc::clone(&table));
        Ok(table)
    }

    /// What an entry of the table at `table_offset` of the file says.
    pub(crate) fn decode_entry(&self, table_offset: u64, table: &L2Table, index: usize) -> Result<L2Entry> {
        let at = table_offset + index as u64 * self.geometry.l2_entry_size();
        l2_entry::decode(table.get(index), self.version, &self.geometry, at)
    }

    /// Reads the file, which may end within a cluster; what lies beyond reads as zeros. A run that starts beyond the
    /// end is a damaged mapping.
    fn read_host(storage: &dyn Storage, host_offset: u64, buf: &mut [u8]) -> Result<()> {
        let available = storage.len().saturating_sub(host_offset).min(buf.len() as u64) as usize;
        if available == 0 {
            return Err(Error::corrupt("L2 entry", host_offset, "a cluster must start before the end of the file"));
        }
        let (inside, beyond) = buf.split_at_mut(available);
        beyond.fill(0);
        Ok(storage.read_at(host_offset, inside)?)
    }

    /// The whole cluster that a compressed stream holds.
    pub(crate) fn decompressed(&self, stream: Stream) -> Result<Arc<[u8]>> {
        if let Some(cluster) = self.decompressed.get(stream.offset) {
            return Ok(cluster);
        }
        let mut cluster = vec![0; self.geometry.cluster_len()];
        self.decompress(&self.read_stream(stream)?, stream, &mut cluster)?;
        let cluster: Arc<[u8]> = cluster.into();
        self.decompressed.insert(stream.offset, Arc::clone(&cluster));
        Ok(cluster)
    }

    /// The bytes of a compressed stream, and nothing that follows them in its last sector.
    pub(crate) fn stream_bytes(&self, stream: Stream) -> Result<Vec<u8>> {
        let mut bytes = self.read_stream(stream)?;
        let len = self.decompress(&bytes, stream, &mut vec![0; self.geometry.cluster_len()])?;
        bytes.truncate(len);
        Ok(bytes)
    }

    fn read_stream(&self, stream: Stream) -> Result<Vec<u8>> {
        let longest = 2 * self.geometry.cluster_len() + 512;
        let mut bytes = vec![0; usize::try_from(stream.len).unwrap_or(usize::MAX).min(longest)];
        Self::read_host(&*self.storage, stream.offset, &mut bytes)?;
        Ok(bytes)
    }

    fn decompress(&self, bytes: &[u8], stream: Stream, cluster: &mut [u8]) -> Result<usize> {
        compress::decompress(self.compression, bytes, cluster)
            .map_err(|reason| Error::corrupt("compressed cluster", stream.offset, reason))
    }

    /// The compressed stream of the cluster at `offset` of the virtual disk, which [`Image::map`] called compressed.
    fn stream_at(&self, state: &State, offset: u64) -> Result<Option<Stream>> {
        let (l1_index, l2_index) = self.geometry.table_indices(self.geometry.guest_cluster_at(offset));
        let Some((table_offset, table)) = self.l2_table(state, l1_index)? else { return Ok(None) };
        match self.decode_entry(table_offset, &table, l2_index)? {
            L2Entry::Compressed(stream) => Ok(Some(stream)),
            _ => Ok(None),
        }
    }

    pub(crate) fn read_in(&self, state: &State, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let extent = self.map_in(state, offset, buf.len() as u64)?;
            // At most the length of `buf`, so it fits.
            let (part, rest) = std::mem::take(&mut buf).split_at_mut(extent.len as usize);
            match extent.kind {
                MappedKind::Data { host_offset } => Self::read_host(self.data_storage(), host_offset, part)?,
                MappedKind::Zero { .. } => part.fill(0),
                MappedKind::Unallocated => match &self.backing {
                    Some(below) => backing::read_padded(&**below, offset, part)?,
                    None => part.fill(0),
                },
                MappedKind::Compressed => {
                    if let Some(stream) = self.stream_at(state, offset)? {
                        let cluster = self.decompressed(stream)?;
                        let within = (offset % self.geometry.cluster_size()) as usize;
                        part.copy_from_slice(&cluster[within..within + part.len()]);
                    }
                }
            }
            offset += part.len() as u64;
            buf = rest;
        }
        Ok(())
    }
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
fn piece_at(entry: L2Entry, within: u64, geometry: &Geometry) -> MappedExtent {
    let to_end = geometry.cluster_size() - within;
    match entry {
        L2Entry::Unallocated => MappedExtent { len: to_end, kind: MappedKind::Unallocated },
        L2Entry::Zero { host, .. } => {
            MappedExtent { len: to_end, kind: MappedKind::Zero { host_offset: host.map(|host| host + within) } }
        }
        L2Entry::Data { host, .. } => {
            MappedExtent { len: to_end, kind: MappedKind::Data { host_offset: host + within } }
        }
        L2Entry::Compressed(_) => MappedExtent { len: to_end, kind: MappedKind::Compressed },
        L2Entry::Mixed { host, subclusters, .. } => {
            // Less than 32: `within` lies in the cluster.
            let index = (within / geometry.subcluster_size()) as u32;
            let end = u64::from(index + subclusters.run(index)) * geometry.subcluster_size();
            let kind = match host {
                Some(host) if subclusters.allocated >> index & 1 != 0 => {
                    MappedKind::Data { host_offset: host + within }
                }
                _ if subclusters.zero >> index & 1 != 0 => {
                    MappedKind::Zero { host_offset: host.map(|host| host + within) }
                }
                _ => MappedKind::Unallocated,
            };
            MappedExtent { len: end - within, kind }
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
        let extent = self.map(offset, max_len)?;
        let kind = match extent.kind {
            MappedKind::Data { .. } | MappedKind::Compressed => ExtentKind::Data,
            MappedKind::Zero { host_offset: Some(_) } => ExtentKind::Zero,
            MappedKind::Zero { host_offset: None } => ExtentKind::Hole,
            MappedKind::Unallocated => match &self.backing {
                Some(below) => return backing::extent_padded(&**below, offset, extent.len),
                None => ExtentKind::Hole,
            },
        };
        Ok(Extent { len: extent.len, kind })
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        Some(AllocationUnit { len: self.geometry.cluster_size(), start: 0 })
    }
}
