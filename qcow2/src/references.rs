//! Who uses which cluster of the file: counted by walking everything that the header leads to.
//!
//! The counts are what the refcounts on disk ought to be. They rebuild those of an image with the dirty bit, find
//! leaks, and make sure that a cluster that the refcounts call free is really free before it is written.

use std::collections::BTreeMap;

use block::{ExtentKind, ReadAt};

use crate::geometry::Geometry;
use crate::image::{Image, State};
use crate::l2_entry::{L2Entry, OFFSET, Subclusters};
use crate::refcount::RefcountTable;
use crate::{Error, Result, bitmap, limits, snapshot};

/// Bytes of all L1 tables, those of snapshots included, that are walked at most.
const ALL_L1_BYTES: u64 = 1 << 30;

/// What the walk is to follow besides the active tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) snapshots: bool,
    pub(crate) bitmaps: bool,
}

/// References to each cluster of the file.
#[derive(Debug, Clone)]
pub(crate) struct References {
    counts: Vec<u32>,
    /// Whether any cluster reached is compressed.
    pub(crate) any_compressed: bool,
    /// Whether any host cluster reached is set aside for more than it holds.
    pub(crate) any_partly_held: bool,
}

impl References {
    /// None, for a file of `clusters` clusters.
    fn none(clusters: u64) -> Result<Self> {
        if clusters > limits::HOST_CLUSTERS {
            return Err(Error::Unsupported(format!("changing a file of {clusters} clusters")));
        }
        Ok(Self { counts: vec![0; clusters as usize], any_compressed: false, any_partly_held: false })
    }

    pub(crate) fn get(&self, cluster: u64) -> u32 {
        usize::try_from(cluster).ok().and_then(|index| self.counts.get(index)).copied().unwrap_or(0)
    }

    /// Clusters for which a count is kept; those beyond have none.
    pub(crate) fn len(&self) -> u64 {
        self.counts.len() as u64
    }

    /// The cluster after the last one that is used.
    pub(crate) fn end(&self) -> u64 {
        self.counts.iter().rposition(|&count| count != 0).map_or(0, |last| last as u64 + 1)
    }

    /// Adds a reference to a cluster that may lie beyond the end of the file.
    pub(crate) fn allocate(&mut self, cluster: u64) {
        // Allocations are bounded by `limits::HOST_CLUSTERS`, so the index fits.
        let index = cluster as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
    }

    /// Takes one reference away.
    pub(crate) fn release(&mut self, cluster: u64) {
        if let Some(count) = usize::try_from(cluster).ok().and_then(|index| self.counts.get_mut(index)) {
            *count = count.saturating_sub(1);
        }
    }

    /// The counts of one refcount block, padded with zeros.
    pub(crate) fn block(&self, index: usize, per_block: usize) -> Vec<u64> {
        let mut counts = vec![0; per_block];
        let held = self.counts.get(index * per_block..).unwrap_or_default();
        counts.iter_mut().zip(held).for_each(|(to, &from)| *to = u64::from(from));
        counts
    }

    /// Adds every reference of `other`.
    pub(crate) fn add_all(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, &more)| *count = count.saturating_add(more));
        self.any_compressed |= other.any_compressed;
    }

    /// Takes every reference of `other` away.
    pub(crate) fn release_all(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, &less)| *count = count.saturating_sub(less));
    }

    /// The greatest of the counts.
    pub(crate) fn greatest(&self) -> u32 {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// Adds `times` references to the clusters of `len` bytes at `offset`, which must lie in the file.
    fn add(&mut self, geometry: &Geometry, structure: &'static str, offset: u64, len: u64, times: u32) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let last = offset.checked_add(len - 1).map(|last| last >> geometry.cluster_bits);
        let Some(last) = last.filter(|&last| last < self.counts.len() as u64) else {
            return Err(Error::corrupt(structure, offset, format!("{len} bytes must lie within the file")));
        };
        for count in &mut self.counts[(offset >> geometry.cluster_bits) as usize..=last as usize] {
            *count = count.saturating_add(times);
        }
        Ok(())
    }

    /// Walks everything in `scope`.
    pub(crate) fn walk(image: &Image, state: &State, refcounts: &RefcountTable, scope: Scope) -> Result<Self> {
        let geometry = &image.geometry;
        let roots = &state.header.roots;
        let mut found = Self::none(image.storage.len().div_ceil(geometry.cluster_size()))?;
        found.add(geometry, "header", 0, geometry.cluster_size().min(image.storage.len()), 1)?;
        let table_len = u64::from(roots.refcount_table_clusters) << geometry.cluster_bits;
        found.add(geometry, "refcount table", roots.refcount_table_offset, table_len, 1)?;
        for &offset in refcounts.blocks.iter().filter(|&&offset| offset != 0) {
            found.add(geometry, "refcount block", offset, geometry.cluster_size(), 1)?;
        }

        if let Some(crypto) = image.extensions.crypto {
            found.add(geometry, "LUKS header", crypto.offset, crypto.len, 1)?;
        }

        // L2 tables that several L1 tables share are read once and counted as often as they are reached.
        let mut l2_tables = BTreeMap::new();
        found.add(geometry, "L1 table", roots.l1_offset, u64::from(roots.l1_entries) * 8, 1)?;
        collect_l2_tables(image.l1(state)?, &mut l2_tables);
        if scope.snapshots && roots.snapshots > 0 {
            let (snapshots, table_len) = snapshot::read_table(&*image.storage, roots, geometry)?;
            found.add(geometry, "snapshot table", roots.snapshots_offset, table_len, 1)?;
            let all_l1: u64 = snapshots.iter().map(|snapshot| u64::from(snapshot.l1_entries) * 8).sum();
            if all_l1 > ALL_L1_BYTES {
                return Err(Error::Unsupported(format!("snapshots with {all_l1} bytes of L1 tables")));
            }
            for snapshot in &snapshots {
                let len = u64::from(snapshot.l1_entries) * 8;
                found.add(geometry, "snapshot's L1 table", snapshot.l1_offset, len, 1)?;
                collect_l2_tables(&snapshot.read_l1(&*image.storage)?, &mut l2_tables);
            }
        }
        found.add_l2_tables(image, &l2_tables)?;
        if scope.bitmaps {
            found.add_bitmaps(image, state)?;
        }
        Ok(found)
    }

    /// What an L1 table leads to: its L2 tables, and all that they lead to.
    pub(crate) fn of_l1(image: &Image, l1: &[u64]) -> Result<Self> {
        let geometry = &image.geometry;
        let mut found = Self::none(image.storage.len().div_ceil(geometry.cluster_size()))?;
        let mut l2_tables = BTreeMap::new();
        collect_l2_tables(l1, &mut l2_tables);
        found.add_l2_tables(image, &l2_tables)?;
        Ok(found)
    }

    /// What the persistent bitmaps take: their directory, tables and bits.
    pub(crate) fn of_bitmaps(image: &Image) -> Result<Self> {
        let mut found = Self::none(image.storage.len().div_ceil(image.geometry.cluster_size()))?;
        found.add_bitmaps(image, &image.state())?;
        Ok(found)
    }

    fn add_l2_tables(&mut self, image: &Image, l2_tables: &BTreeMap<u64, u32>) -> Result<()> {
        let geometry = &image.geometry;
        for (&offset, &times) in l2_tables {
            if !geometry.is_aligned(offset) {
                return Err(Error::corrupt("L1 entry", offset, "an L2 table's offset must be aligned"));
            }
            self.add(geometry, "L2 table", offset, geometry.cluster_size(), times)?;
            self.add_l2_table(image, offset, times)?;
        }
        Ok(())
    }

    fn add_l2_table(&mut self, image: &Image, offset: u64, times: u32) -> Result<()> {
        let geometry = &image.geometry;
        let held = image.storage.extent_at(offset, geometry.cluster_size().min(image.storage.len() - offset))?;
        if held.kind == ExtentKind::Hole && held.len == geometry.cluster_size() {
            return Ok(());
        }
        let table = image.read_l2_table(offset)?;
        for (index, _) in table.iter().enumerate().filter(|(_, raw)| !raw.is_empty()) {
            let entry = image.decode_entry(offset, &table, index)?;
            // Clusters of an external data file are not counted.
            if geometry.external_data {
                continue;
            }
            if let L2Entry::Compressed(stream) = entry {
                self.any_compressed = true;
                self.add(geometry, "L2 entry's compressed cluster", stream.offset, stream.len, times)?;
            } else if let Some(host) = entry.host() {
                self.any_partly_held |= entry.subclusters() != Subclusters::DATA;
                // The file may end within its last cluster.
                self.add(geometry, "L2 entry's cluster", host, 1, times)?;
            }
        }
        Ok(())
    }

    /// The persistent bitmaps: their directory, tables and data. Specification: "Bitmaps".
    fn add_bitmaps(&mut self, image: &Image, state: &State) -> Result<()> {
        let geometry = &image.geometry;
        let consistent = state.header.roots.autoclear.contains(crate::Autoclear::BITMAPS);
        let Some(bitmaps) = image.extensions.bitmaps.filter(|_| consistent) else { return Ok(()) };
        self.add(geometry, "bitmap directory", bitmaps.directory_offset, bitmaps.directory_len, 1)?;
        for bitmap in bitmap::read_directory(&*image.storage, geometry, &bitmaps)? {
            self.add(geometry, "bitmap table", bitmap.table_offset, bitmap.table_entries * 8, 1)?;
            for host in bitmap.read_table(&*image.storage)?.iter().map(|entry| entry & OFFSET).filter(|&host| host != 0)
            {
                self.add(geometry, "bitmap data", host, 1, 1)?;
            }
        }
        Ok(())
    }
}

fn collect_l2_tables(l1: &[u64], tables: &mut BTreeMap<u64, u32>) {
    for raw in l1 {
        if raw & OFFSET != 0 {
            *tables.entry(raw & OFFSET).or_default() += 1;
        }
    }
}

/// The refcounts on disk, and what they ought to be, of the image as it is.
#[derive(Debug)]
pub(crate) struct Accounting {
    /// References from everything, bitmaps and snapshots included.
    pub(crate) references: References,
    /// The refcounts on disk.
    pub(crate) on_disk: References,
    pub(crate) table: RefcountTable,
}

impl Accounting {
    /// Reads and counts. Unless the dirty bit says that refcounts may be wrong, a cluster in use with too low a refcount
    /// is an error: something else may have been, or may be, written over it.
    pub(crate) fn take(image: &Image, state: &State) -> Result<Self> {
        let geometry = &image.geometry;
        let table = RefcountTable::read(&*image.storage, &state.header.roots, geometry)?;
        let references = References::walk(image, state, &table, Scope { snapshots: true, bitmaps: true })?;
        let per_block = geometry.refcounts_per_block() as usize;
        let mut on_disk = References::none(0)?;
        for (index, &offset) in table.blocks.iter().enumerate() {
            if offset == 0 {
                continue;
            }
            let counts = table.read_block(&*image.storage, geometry, index)?;
            let used = counts.iter().rposition(|&count| count != 0).map_or(0, |last| last + 1);
            let end = index * per_block + used;
            if end as u64 > limits::HOST_CLUSTERS {
                return Err(Error::corrupt(
                    "refcount block",
                    offset,
                    "must not count clusters far beyond the file's end",
                ));
            }
            on_disk.counts.resize(end.max(on_disk.counts.len()), 0);
            for (to, &from) in on_disk.counts[index * per_block..].iter_mut().zip(&counts[..used]) {
                *to = u32::try_from(from).unwrap_or(u32::MAX);
            }
        }
        let dirty = state.header.roots.incompatible.contains(crate::Incompatible::DIRTY);
        for cluster in 0..references.len() {
            let (needed, found) = (references.get(cluster), on_disk.get(cluster));
            if found < needed && !dirty {
                return Err(Error::corrupt(
                    "refcount",
                    cluster << geometry.cluster_bits,
                    format!("a cluster used {needed} times must have that refcount, found {found}"),
                ));
            }
        }
        Ok(Self { references, on_disk, table })
    }

    /// Whether a cluster may be written without touching anything that the image on disk needs.
    pub(crate) fn is_free(&self, cluster: u64) -> bool {
        self.references.get(cluster) == 0 && self.on_disk.get(cluster) == 0
    }

    /// Whether some clusters have a refcount and nobody who uses them, or the refcounts are not to be trusted.
    pub(crate) fn is_inexact(&self) -> bool {
        let clusters = self.references.len().max(self.on_disk.len());
        (0..clusters).any(|cluster| self.references.get(cluster) != self.on_disk.get(cluster))
    }
}
