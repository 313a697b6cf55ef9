//! The commit: new tables beside the old ones, and the one sector that switches between them.

mod contents;

use std::collections::{BTreeMap, BTreeSet};

use block::{ReadAt, Storage, WriteAt};
use byteorder::{BigEndian, ByteOrder};

use crate::address::{GuestCluster, HostCluster};
use crate::features::{Autoclear, Incompatible};
use crate::geometry::Geometry;
use crate::header_area::HeaderRewrite;
use crate::image::{Image, State};
use crate::l2_entry::{COPIED, L2Entry, OFFSET};
use crate::l2_table::L2Table;
use crate::occupied::Occupied;
use crate::refcount::{RefcountTable, encode_block};
use crate::references::{Accounting, References, Scope};
use crate::snapshot::{self, Entry};
use crate::transaction::{Committed, Content};
use crate::{Error, Result, limits, reclaim};

/// Hands out clusters that are free on disk, each once.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    /// No cluster before this one is left.
    next: u64,
    /// Clusters handed out from `next` on, which happens only for runs.
    taken: BTreeSet<u64>,
    /// The cluster after the last one handed out.
    end: u64,
}

impl Allocator {
    /// The first of `count` clusters in a row.
    pub(crate) fn allocate(&mut self, accounting: &Accounting, count: u64) -> Result<HostCluster> {
        let mut start = self.next;
        loop {
            let in_use = (start..start + count).rev().find(|&c| !accounting.is_free(c) || self.taken.contains(&c));
            match in_use {
                Some(cluster) => start = cluster + 1,
                None => break,
            }
            if start > limits::HOST_CLUSTERS {
                return Err(Error::Unsupported("a file with that many clusters".to_owned()));
            }
        }
        if count == 1 {
            self.next = start + 1;
            self.taken.remove(&start);
        } else {
            self.taken.extend(start..start + count);
        }
        self.end = self.end.max(start + count);
        Ok(HostCluster(start))
    }
}

/// What is to be committed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) clusters: BTreeMap<u64, Content>,
    pub(crate) allocator: Allocator,
    pub(crate) delete_snapshots: bool,
    /// Commit even where nothing changed, so that feature bits are put right.
    pub(crate) force: bool,
    /// Entries that the refcount table is to have at least.
    pub(crate) refcount_blocks: usize,
    pub(crate) relayout: Option<Relayout>,
    /// Another header, extensions and backing file's name.
    pub(crate) header: Option<HeaderRewrite>,
}

/// A change of what the image consists of, beside the contents of clusters. Persistent bitmaps stay what they are.
#[derive(Debug)]
pub(crate) struct Relayout {
    /// The references after it, but for those to clusters that the commit will write.
    pub(crate) counts: References,
    /// The active L1 table to start from, where it is another.
    pub(crate) l1: Option<Vec<u64>>,
    /// The snapshot table to be, where it is another. A new snapshot holds what the disk holds after the commit.
    pub(crate) snapshots: Option<Vec<Entry>>,
    pub(crate) disk_len: u64,
}

/// Writes one cluster, making the file longer where needed.
pub(crate) fn write_cluster(image: &Image, host: HostCluster, bytes: &[u8]) -> Result<()> {
    let offset = image.geometry.host_offset(host);
    let end = offset + bytes.len() as u64;
    if image.storage.len() < end {
        image.storage.set_len(end)?;
    }
    Ok(image.storage.write_at(offset, bytes)?)
}

/// Commits `changes`, then gives back what is no longer used. See [`crate::Transaction::commit`] for what it promises.
pub(crate) fn commit(image: &Image, accounting: &Accounting, mut changes: Changes) -> Result<Committed> {
    let state = &mut *image.state_mut();
    let new_l1 = changes.relayout.as_mut().and_then(|relayout| relayout.l1.as_mut()).map(std::mem::take);
    let old_l1 = new_l1.map(|l1| std::mem::replace(&mut state.l1, l1.into()));
    let result = commit_to(image, state, accounting, changes);
    if state.occupied.is_some() && result.is_ok() {
        state.occupied = Some(Occupied::read(image, state)?);
    }
    if let (Err(_), Some(l1)) = (&result, old_l1) {
        state.l1 = l1;
    }
    result
}

fn commit_to(image: &Image, state: &mut State, accounting: &Accounting, changes: Changes) -> Result<Committed> {
    let keeps_bitmaps = changes.relayout.is_some();
    let autoclear = state.header.roots.autoclear;
    let changed = !changes.clusters.is_empty()
        || (changes.delete_snapshots && state.header.roots.snapshots > 0)
        || changes.force
        || changes.relayout.is_some()
        || state.header.roots.incompatible.contains(Incompatible::DIRTY)
        || accounting.is_inexact();
    let mut committed = Committed::default();
    let counts = if changed {
        let mut commit = Commit::new(image, state, accounting, changes)?;
        commit.move_neighbours_of_freed_streams()?;
        commit.build_tables()?;
        let counts = commit.switch(&mut committed)?;
        if autoclear.contains(Autoclear::BITMAPS) && !keeps_bitmaps {
            committed.bitmaps_dropped = image.extensions.bitmaps.map_or(0, |bitmaps| bitmaps.count);
        }
        counts
    } else {
        accounting.references.clone()
    };
    committed.changed = changed;
    let reclaimed = reclaim::reclaim(image, state, &counts)?;
    committed.host_bytes_reclaimed = reclaimed.bytes;
    if changed || reclaimed.bytes > 0 {
        image.storage.flush()?;
    }
    Ok(committed)
}

struct Commit<'a> {
    image: &'a Image,
    state: &'a mut State,
    accounting: &'a Accounting,
    clusters: BTreeMap<u64, Content>,
    allocator: Allocator,
    /// The references after the commit.
    counts: References,
    /// Refcounts of clusters that did not change may, so every COPIED flag is to be looked at.
    recheck_copied: bool,
    delete_snapshots: bool,
    refcount_blocks: usize,
    l1_replaced: bool,
    snapshots: Option<Vec<Entry>>,
    disk_len: u64,
    keeps_bitmaps: bool,
    /// The version that the image is to have.
    version: u32,
    header: Option<HeaderRewrite>,
    /// Where the last compressed stream that moved ends.
    stream_end: u64,
    /// Tables that are to be written, by place.
    tables: BTreeMap<HostCluster, Vec<u8>>,
    l1: Vec<u64>,
    written: u64,
}

impl<'a> Commit<'a> {
    fn new(image: &'a Image, state: &'a mut State, accounting: &'a Accounting, changes: Changes) -> Result<Self> {
        let drops_bitmaps = state.header.roots.autoclear.contains(Autoclear::BITMAPS);
        let delete_snapshots = changes.delete_snapshots && state.header.roots.snapshots > 0;
        let (mut l1_replaced, mut snapshots, mut disk_len) = (false, None, image.geometry.disk_len);
        let keeps_bitmaps = changes.relayout.is_some();
        let mut counts = if let Some(relayout) = changes.relayout {
            (l1_replaced, snapshots, disk_len) = (relayout.l1.is_some(), relayout.snapshots, relayout.disk_len);
            relayout.counts
        } else if delete_snapshots || drops_bitmaps {
            let scope = Scope { snapshots: !delete_snapshots, bitmaps: false };
            References::walk(image, state, &accounting.table, scope)?
        } else {
            accounting.references.clone()
        };
        let mut written = 0;
        for content in changes.clusters.values() {
            if let Content::Spilled(host) = content {
                counts.allocate(host.0);
                written += 1;
            }
        }
        Ok(Self {
            recheck_copied: delete_snapshots || keeps_bitmaps || accounting.is_inexact(),
            l1: image.l1(state)?.to_vec(),
            image,
            state,
            accounting,
            clusters: changes.clusters,
            allocator: changes.allocator,
            counts,
            delete_snapshots,
            refcount_blocks: changes.refcount_blocks,
            l1_replaced,
            snapshots,
            disk_len,
            keeps_bitmaps,
            version: changes.header.as_ref().map_or(image.version, |header| header.version),
            header: changes.header,
            stream_end: 0,
            tables: BTreeMap::new(),
            written,
        })
    }

    fn allocate(&mut self, count: u64) -> Result<HostCluster> {
        let first = self.allocator.allocate(self.accounting, count)?;
        (first.0..first.0 + count).for_each(|cluster| self.counts.allocate(cluster));
        self.written += count;
        Ok(first)
    }

    /// The old entry of a cluster.
    fn old_entry(&self, cluster: GuestCluster) -> Result<L2Entry> {
        Ok(self.image.entry(self.state, cluster)?.0)
    }

    fn release(&mut self, entry: L2Entry) {
        if self.image.geometry.external_data {
            // Clusters of the data file have no refcounts.
            return;
        }
        if let L2Entry::Compressed(stream) = entry {
            stream.host_clusters(&self.image.geometry).for_each(|host| self.counts.release(host));
        } else if let Some(host) = entry.host() {
            self.counts.release(self.image.geometry.host_cluster_at(host).0);
        }
    }

    /// Builds the L2 tables that change and the L1 table.
    fn build_tables(&mut self) -> Result<()> {
        let geometry = self.image.geometry;
        let mut l2_tables: BTreeMap<usize, L2Table> = BTreeMap::new();
        for (cluster, content) in std::mem::take(&mut self.clusters) {
            let cluster = GuestCluster(cluster);
            let (l1_index, l2_index) = geometry.table_indices(cluster);
            let old = self.old_entry(cluster)?;
            let raw = self.place(cluster, &content)?;
            self.release(old);
            if let std::collections::btree_map::Entry::Vacant(vacant) = l2_tables.entry(l1_index) {
                let table = self.image.l2_table(self.state, l1_index)?;
                vacant.insert(table.map_or_else(|| L2Table::empty(&geometry), |(_, table)| (*table).clone()));
            }
            if let Some(table) = l2_tables.get_mut(&l1_index) {
                table.set(l2_index, raw);
            }
        }
        if self.recheck_copied {
            self.recheck_copied_flags(&mut l2_tables)?;
        }
        for (l1_index, table) in l2_tables {
            let old = self.image.l2_table(self.state, l1_index)?;
            if old.as_ref().map_or_else(|| table.is_empty(), |(_, old)| **old == table) {
                continue;
            }
            if let Some((offset, _)) = old {
                self.counts.release(geometry.host_cluster_at(offset).0);
            }
            self.l1[l1_index] = if table.is_empty() {
                0
            } else {
                let host = self.allocate(1)?;
                self.tables.insert(host, table.encode());
                geometry.host_offset(host) | COPIED
            };
        }
        Ok(())
    }

    /// Sets the COPIED flag of every active entry to what the new counts say.
    fn recheck_copied_flags(&mut self, l2_tables: &mut BTreeMap<usize, L2Table>) -> Result<()> {
        let geometry = self.image.geometry;
        for l1_index in 0..self.l1.len() {
            let Some((offset, old)) = self.image.l2_table(self.state, l1_index)? else { continue };
            let mut table = l2_tables.get(&l1_index).cloned().unwrap_or_else(|| (*old).clone());
            // Clusters of an external data file have no refcounts, and their flags stay.
            let counted = if geometry.external_data { 0 } else { table.len() };
            for l2_index in 0..counted {
                if let Some(host) = self.image.decode_entry(offset, &table, l2_index)?.host() {
                    let single = self.counts.get(geometry.host_cluster_at(host).0) == 1;
                    table.set(l2_index, table.get(l2_index).with_copied(single));
                }
            }
            if table != *old {
                l2_tables.insert(l1_index, table);
            }
            // A table that does change gets a place, and a flag, of its own.
            let single = self.counts.get(geometry.host_cluster_at(offset).0) == 1;
            let raw = self.l1[l1_index] & OFFSET;
            self.l1[l1_index] = if single { raw | COPIED } else { raw };
        }
        Ok(())
    }

    /// Writes all tables, flushes, switches the header, flushes. Returns the references from then on.
    fn switch(mut self, committed: &mut Committed) -> Result<References> {
        let geometry = self.image.geometry;
        let mut roots = self.state.header.roots;
        let shared = self.snapshots.as_ref().is_some_and(|entries| entries.iter().any(|entry| entry.is_new));
        if shared {
            // Whatever the tables lead to is counted twice already.
            for raw in self.l1.iter_mut().filter(|raw| **raw & OFFSET != 0) {
                self.counts.allocate(geometry.host_cluster_at(*raw & OFFSET).0);
                *raw &= !COPIED;
            }
        }
        if self.l1 != self.image.l1(self.state)? || self.l1_replaced {
            let clusters = (u64::from(roots.l1_entries) * 8).div_ceil(geometry.cluster_size());
            let old = geometry.host_cluster_at(roots.l1_offset).0;
            (old..old + clusters).for_each(|cluster| self.counts.release(cluster));
            roots.l1_offset = self.place_l1()?;
            // At most 32 MiB of table, so it fits.
            roots.l1_entries = self.l1.len() as u32;
        }
        if let Some(mut entries) = self.snapshots.take() {
            for entry in entries.iter_mut().filter(|entry| entry.is_new) {
                entry.set_l1(self.place_l1()?, self.l1.len() as u32);
            }
            roots.snapshots = entries.len() as u32;
            roots.snapshots_offset = 0;
            if !entries.is_empty() {
                roots.snapshots_offset = self.place_table(snapshot::encode_table(&entries))?;
            }
        }
        if self.delete_snapshots {
            roots.snapshots = 0;
            roots.snapshots_offset = 0;
        }
        let mut kept = Autoclear::empty();
        kept.set(Autoclear::BITMAPS, self.keeps_bitmaps);
        kept.set(Autoclear::RAW_EXTERNAL_DATA, self.image.is_data_file_raw(self.state));
        roots.autoclear &= kept;
        roots.incompatible.remove(Incompatible::DIRTY);
        let table = self.build_refcounts(&mut roots)?;

        for (&host, bytes) in &self.tables {
            write_cluster(self.image, host, bytes)?;
        }
        if let Some(header) = &self.header {
            header.write_before(&*self.image.storage)?;
        }
        self.image.flush_all()?;
        self.state.header.geometry = Geometry { disk_len: self.disk_len, ..geometry };
        self.state.header.version = self.version;
        let sector = self.header.map_or_else(|| first_sector(self.image), |header| Ok(header.sector))?;
        write_first_sector(self.image, self.state, &roots, sector)?;

        committed.clusters_written = self.written;
        let before = &self.accounting.references;
        let freed = |&cluster: &u64| before.get(cluster) > 0 && self.counts.get(cluster) == 0;
        committed.clusters_freed = (0..before.len()).filter(freed).count() as u64;
        self.state.header.roots = roots;
        self.state.l1 = self.l1.into();
        self.state.refcounts = table;
        self.state.first_free = 0;
        self.state.forget_streams();
        self.image.slices.clear();
        self.image.decompressed.clear();
        Ok(self.counts)
    }

    /// Sets clusters aside for a copy of the L1 table; returns its offset.
    fn place_l1(&mut self) -> Result<u64> {
        let mut bytes = vec![0; self.l1.len() * 8];
        BigEndian::write_u64_into(&self.l1, &mut bytes);
        self.place_table(bytes)
    }

    /// Sets clusters aside for a table; returns its offset.
    fn place_table(&mut self, mut bytes: Vec<u8>) -> Result<u64> {
        let geometry = self.image.geometry;
        let clusters = (bytes.len() as u64).div_ceil(geometry.cluster_size()).max(1);
        let first = self.allocate(clusters)?;
        bytes.resize((clusters << geometry.cluster_bits) as usize, 0);
        self.tables.insert(first, bytes);
        Ok(geometry.host_offset(first))
    }

    /// Builds the refcount blocks whose counts change, and the table that leads to them. They count themselves, so
    /// placing one may change another: rounds go on until none does.
    fn build_refcounts(&mut self, roots: &mut crate::header::Roots) -> Result<RefcountTable> {
        let geometry = self.image.geometry;
        let per_block = geometry.refcounts_per_block() as usize;
        let mut blocks = self.accounting.table.blocks.clone();
        if self.state.header.geometry.refcount_order != geometry.refcount_order {
            // Counts of another width: all blocks are written anew.
            for old in std::mem::take(&mut blocks).into_iter().filter(|&old| old != 0) {
                self.counts.release(geometry.host_cluster_at(old).0);
            }
        }
        let mut rewritten: BTreeMap<usize, Option<HostCluster>> = BTreeMap::new();
        let mut table: Option<(HostCluster, u64)> = None;
        loop {
            let mut settled = true;
            let held = self.counts.len().max(self.accounting.on_disk.len()) as usize;
            for index in 0..held.div_ceil(per_block) {
                let placed = rewritten.get(&index).copied();
                if matches!(placed, Some(Some(_))) {
                    continue;
                }
                let counts = self.counts.block(index, per_block);
                let used = counts.iter().any(|&count| count != 0);
                let old = blocks.get(index).copied().filter(|&old| old != 0 && placed.is_none());
                if placed.is_none()
                    && counts == self.accounting.on_disk.block(index, per_block)
                    && used == old.is_some()
                {
                    continue;
                }
                if !used && placed.is_some() {
                    continue;
                }
                if let Some(old) = old {
                    self.counts.release(geometry.host_cluster_at(old).0);
                }
                let new = if used { Some(self.allocate(1)?) } else { None };
                rewritten.insert(index, new);
                settled = false;
            }
            let blocks_needed = rewritten.keys().next_back().map_or(0, |last| last + 1).max(blocks.len());
            let blocks_needed = blocks_needed.max(self.refcount_blocks) as u64;
            let clusters = (blocks_needed * 8).div_ceil(geometry.cluster_size()).max(1);
            let outgrown = self.refcount_blocks > blocks.len();
            if (!rewritten.is_empty() || outgrown) && table.is_none_or(|(_, placed)| placed < clusters) {
                if clusters << geometry.cluster_bits > limits::REFCOUNT_TABLE_BYTES.max(geometry.cluster_size()) {
                    return Err(Error::Unsupported("a refcount table of more than 8 MiB".to_owned()));
                }
                let (old, len) = table.map_or(
                    (geometry.host_cluster_at(roots.refcount_table_offset), u64::from(roots.refcount_table_clusters)),
                    |placed| placed,
                );
                (old.0..old.0 + len).for_each(|cluster| self.counts.release(cluster));
                table = Some((self.allocate(clusters)?, clusters));
                settled = false;
            }
            if settled {
                break;
            }
        }
        for (index, place) in rewritten {
            if blocks.len() <= index {
                blocks.resize(index + 1, 0);
            }
            blocks[index] = place.map_or(0, |host| geometry.host_offset(host));
            if let Some(host) = place {
                let counts = self.counts.block(index, per_block);
                if let Some(count) = counts.iter().find(|&&count| count > geometry.refcount_max()) {
                    return Err(Error::Unsupported(format!(
                        "a refcount of {count} in {} bits",
                        1 << geometry.refcount_order
                    )));
                }
                self.tables.insert(host, encode_block(&counts, geometry.refcount_order));
            }
        }
        if let Some((first, clusters)) = table {
            let len = (clusters << geometry.cluster_bits) as usize;
            blocks.resize(len / 8, 0);
            let mut bytes = vec![0; len];
            BigEndian::write_u64_into(&blocks, &mut bytes);
            self.tables.insert(first, bytes);
            roots.refcount_table_offset = geometry.host_offset(first);
            // At most 8 MiB of table, so it fits.
            roots.refcount_table_clusters = clusters as u32;
        }
        Ok(RefcountTable { blocks })
    }
}

/// Writes `roots` into the header's sector, and flushes.
pub(crate) fn write_roots(image: &Image, state: &State, roots: &crate::header::Roots) -> Result<()> {
    write_first_sector(image, state, roots, first_sector(image)?)
}

fn first_sector(image: &Image) -> Result<[u8; 512]> {
    let mut sector = [0; 512];
    let len = image.storage.len().min(512) as usize;
    image.storage.read_at(0, &mut sector[..len])?;
    Ok(sector)
}

/// Writes the first sector with `roots` in it, and flushes.
pub(crate) fn write_first_sector(
    image: &Image,
    state: &State,
    roots: &crate::header::Roots,
    mut sector: [u8; 512],
) -> Result<()> {
    state.header.patch_roots(&mut sector, roots);
    if image.storage.len() < 512 {
        image.storage.set_len(512)?;
    }
    image.storage.write_at(0, &sector)?;
    Ok(image.storage.flush()?)
}
