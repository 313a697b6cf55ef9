//! Changes of metadata that are still to be written: made in memory as clusters are written, and brought to the file
//! together, in the order that their safety needs.
//!
//! Data goes to the file at once, to clusters that nothing on the disk leads to. What leads there waits here until the
//! caller flushes, or until it grows heavy. Then ([`Image::settle`]): refcounts and new L2 tables are written, and flushed
//! with the data; the entries of L1 and L2 tables that lead to them are written; and where clusters were given up, these are
//! flushed before the clusters are punched and their refcounts lowered. A crash in between leaves leaked clusters at worst.

use std::collections::BTreeMap;
use std::ops::Range;

use block::{ReadAt, WriteAt};

use crate::address::{GuestCluster, HostCluster};
use crate::commit;
use crate::image::{Image, State};
use crate::l2_entry::{COPIED, L2Entry, RawEntry};
use crate::l2_table::L2Table;
use crate::refcount::encode_block;
use crate::slice_cache::entries_per_slice;
use crate::{Error, Result};

/// Bytes of tables and refcounts that wait at most, beside what one write adds.
const HEAVY: usize = 16 << 20;
/// Clusters that wait to be freed at most, beside what one write adds.
const MANY_FREED: usize = 1 << 16;

/// Metadata that changed since it was last written.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Refcount blocks that changed, by index.
    refcounts: BTreeMap<usize, Vec<u64>>,
    /// L2 tables that changed, by their index in the L1 table.
    tables: BTreeMap<usize, ChangedTable>,
    /// Clusters that nothing leads to any more, once the new tables are in place.
    freed: Vec<u64>,
    /// Parts of clusters that nothing leads to any more, once the new tables are in place: offset and length.
    freed_parts: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct ChangedTable {
    host: HostCluster,
    /// Whether it is not yet where the L1 table on the disk leads to.
    is_new: bool,
    table: L2Table,
    /// The entries that changed, with those between them.
    changed: Range<usize>,
}

impl Pending {
    /// The L2 table that an L1 entry leads to, with its offset in the file, if it changed.
    pub(crate) fn table(&self, l1_index: usize) -> Option<(HostCluster, &L2Table)> {
        self.tables.get(&l1_index).map(|changed| (changed.host, &changed.table))
    }

    fn is_empty(&self) -> bool {
        self.refcounts.is_empty() && self.tables.is_empty() && self.freed.is_empty() && self.freed_parts.is_empty()
    }

    fn is_heavy(&self, cluster_len: usize) -> bool {
        let refcounts: usize = self.refcounts.values().map(|counts| counts.len() * 8).sum();
        // Parts of clusters that stay are punched at once: they may be written again.
        refcounts + self.tables.len() * cluster_len > HEAVY
            || self.freed.len() > MANY_FREED
            || !self.freed_parts.is_empty()
    }
}

impl Image {
    /// Writes all changes of metadata that wait.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.state().pending.is_empty() {
            return Ok(());
        }
        self.poison_on_error(|| Round::new(self, &mut self.state_mut()).settle())
    }

    /// The state, when no change of metadata waits: the file says what the image is.
    pub(crate) fn settled(&self) -> Result<crossbeam_utils::sync::ShardedLockReadGuard<'_, State>> {
        self.settle()?;
        Ok(self.state())
    }
}

/// One change of the image in place.
pub(crate) struct Round<'a> {
    pub(crate) image: &'a Image,
    pub(crate) state: &'a mut State,
}

impl<'a> Round<'a> {
    pub(crate) fn new(image: &'a Image, state: &'a mut State) -> Self {
        Self { image, state }
    }

    pub(crate) fn free_later(&mut self, entry: L2Entry) -> Result<()> {
        let geometry = &self.image.geometry;
        if let Some(host) = entry.host().filter(|_| geometry.external_data) {
            self.free_part_later(host, geometry.cluster_size());
        } else if let L2Entry::Compressed(stream) = entry {
            self.image.check_data(self.state, stream.offset, stream.len)?;
            self.state.pending.freed.extend(stream.host_clusters(geometry));
        } else if let Some(host) = entry.host() {
            self.image.check_data(self.state, host, geometry.cluster_size())?;
            self.state.pending.freed.push(geometry.host_cluster_at(host).0);
        }
        Ok(())
    }

    /// Has `len` bytes at `offset`, in a cluster that stays, punched once no entry on the disk says that they hold something.
    pub(crate) fn free_part_later(&mut self, offset: u64, len: u64) {
        self.state.pending.freed_parts.push((offset, len));
    }

    pub(crate) fn set_entry(&mut self, cluster: GuestCluster, raw: RawEntry) -> Result<()> {
        let geometry = self.image.geometry;
        let (l1_index, l2_index) = geometry.table_indices(cluster);
        if !self.state.pending.tables.contains_key(&l1_index) {
            let old = self.image.l2_table(self.state, l1_index)?;
            let own = self.image.l1(self.state)?.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
            let (host, is_new, table) = match old {
                Some((offset, table)) if own => (geometry.host_cluster_at(offset), false, (*table).clone()),
                Some((offset, table)) => {
                    self.state.pending.freed.push(geometry.host_cluster_at(offset).0);
                    (self.allocate()?, true, (*table).clone())
                }
                None => (self.allocate()?, true, L2Table::empty(&geometry)),
            };
            if let Some(occupied) = self.state.occupied.as_mut().filter(|_| is_new) {
                occupied.insert("L2 table", geometry.host_offset(host));
            }
            let changed = l2_index..l2_index;
            self.state.pending.tables.insert(l1_index, ChangedTable { host, is_new, table, changed });
        }
        if let Some(ChangedTable { table, changed, .. }) = self.state.pending.tables.get_mut(&l1_index) {
            table.set(l2_index, raw);
            *changed = changed.start.min(l2_index)..changed.end.max(l2_index + 1);
        }
        Ok(())
    }

    /// The refcounts of block `index`, which is made where there is none.
    pub(crate) fn refcount_block(&mut self, index: usize) -> Result<&mut Vec<u64>> {
        if !self.state.pending.refcounts.contains_key(&index) {
            let geometry = &self.image.geometry;
            let mut counts = self.state.refcounts.read_block(&*self.image.storage, geometry, index)?;
            let Some(place) = self.state.refcounts.blocks.get_mut(index) else {
                return Err(Error::Unsupported("a refcount table of more than 8 MiB".to_owned()));
            };
            if *place == 0 {
                // A block for clusters that nobody uses yet can be the first of them, and count itself.
                let host = HostCluster(index as u64 * geometry.refcounts_per_block());
                let offset = geometry.host_offset(host);
                if let Some(occupied) = &mut self.state.occupied {
                    occupied.check("new refcount block", offset, geometry.cluster_size())?;
                    occupied.insert("refcount block", offset);
                }
                if let Some(count) = counts.first_mut() {
                    *count = 1;
                }
                commit::write_cluster(self.image, host, &encode_block(&counts, geometry.refcount_order))?;
                self.image.storage.flush()?;
                let entry = self.state.header.roots.refcount_table_offset + index as u64 * 8;
                self.image.storage.write_at(entry, &offset.to_be_bytes())?;
                *place = offset;
            }
            self.state.pending.refcounts.insert(index, counts);
        }
        self.state.pending.refcounts.get_mut(&index).ok_or_else(|| Error::Invalid("refcount block".to_owned()))
    }

    pub(crate) fn allocate(&mut self) -> Result<HostCluster> {
        let per_block = self.image.geometry.refcounts_per_block();
        loop {
            let cluster = self.state.first_free;
            let counts = self.refcount_block((cluster / per_block) as usize)?;
            let from = (cluster % per_block) as usize;
            match counts[from..].iter().position(|&count| count == 0) {
                Some(free) => {
                    counts[from + free] = 1;
                    let found = HostCluster(cluster + free as u64);
                    self.state.first_free = found.0 + 1;
                    if let Some(occupied) = &self.state.occupied {
                        let geometry = &self.image.geometry;
                        occupied.check("free cluster", geometry.host_offset(found), geometry.cluster_size())?;
                    }
                    return Ok(found);
                }
                None => self.state.first_free = (cluster / per_block + 1) * per_block,
            }
        }
    }

    fn write_refcounts(&mut self) -> Result<()> {
        for (index, counts) in std::mem::take(&mut self.state.pending.refcounts) {
            let offset = self.state.refcounts.blocks[index];
            self.image.storage.write_at(offset, &encode_block(&counts, self.image.geometry.refcount_order))?;
        }
        Ok(())
    }

    /// Writes what waits, if that is much.
    pub(crate) fn settle_if_heavy(self) -> Result<()> {
        let heavy = self.state.pending.is_heavy(self.image.geometry.cluster_len());
        if heavy { self.settle() } else { Ok(()) }
    }

    /// Writes what waits, in the order that its safety needs.
    pub(crate) fn settle(mut self) -> Result<()> {
        let geometry = self.image.geometry;
        self.write_refcounts()?;
        let tables = std::mem::take(&mut self.state.pending.tables);
        for changed in tables.values().filter(|changed| changed.is_new) {
            commit::write_cluster(self.image, changed.host, &changed.table.encode())?;
        }
        if !tables.is_empty() {
            self.image.flush_all()?;
        }
        for (l1_index, ChangedTable { host, is_new, table, changed }) in tables {
            let offset = geometry.host_offset(host);
            if is_new {
                self.state.l1.set(l1_index, offset | COPIED);
                let entry = self.state.header.roots.l1_offset + l1_index as u64 * 8;
                self.image.storage.write_at(entry, &(offset | COPIED).to_be_bytes())?;
            } else {
                // Entries between those that changed are written as they are on the disk.
                let size = geometry.l2_entry_size() as usize;
                let bytes = &table.encode()[changed.start * size..changed.end * size];
                self.image.storage.write_at(offset + (changed.start * size) as u64, bytes)?;
            }
            let per_table = (geometry.l2_entries() / entries_per_slice(&geometry)).max(1);
            let first = l1_index as u64 * per_table;
            self.image.slices.remove(first..first + per_table);
        }
        self.free()
    }

    /// Frees what nothing leads to any more.
    fn free(&mut self) -> Result<()> {
        let geometry = self.image.geometry;
        let parts = std::mem::take(&mut self.state.pending.freed_parts);
        let freed = std::mem::take(&mut self.state.pending.freed);
        if freed.is_empty() && parts.is_empty() {
            return Ok(());
        }
        self.image.storage.flush()?;
        for (offset, len) in parts {
            let storage = self.image.data_storage();
            let held = len.min(storage.len().saturating_sub(offset));
            if held > 0 {
                storage.discard(offset, held)?;
            }
        }
        self.state.forget_streams();
        let mut unused = Vec::new();
        for cluster in freed {
            let per_block = geometry.refcounts_per_block();
            let counts = self.refcount_block((cluster / per_block) as usize)?;
            let Some(count) = counts.get_mut((cluster % per_block) as usize).filter(|count| **count > 0) else {
                return Err(Error::corrupt(
                    "refcount",
                    cluster << geometry.cluster_bits,
                    "a cluster in use must have one",
                ));
            };
            *count -= 1;
            if *count == 0 {
                unused.push(cluster);
            }
        }
        self.write_refcounts()?;
        for cluster in unused {
            self.state.first_free = self.state.first_free.min(cluster);
            let offset = cluster << geometry.cluster_bits;
            if let Some(occupied) = &mut self.state.occupied {
                occupied.remove(offset);
            }
            let len = geometry.cluster_size().min(self.image.storage.len().saturating_sub(offset));
            self.image.storage.discard(offset, len)?;
        }
        // A compressed stream's place may be used anew, for another stream.
        self.image.decompressed.clear();
        Ok(())
    }
}
