//! The walk over everything that the header leads to, which records what is wrong and goes on.
//!
//! What is a problem, and how it counts, is what `qemu-img check` says; the oracle of the tests.

use std::collections::BTreeSet;

use block::Storage;
use byteorder::{BigEndian, ByteOrder};

use super::problem::{CheckReport, Problem, Severity};
use super::tally::Tally;
use crate::geometry::Geometry;
use crate::header::Roots;
use crate::image::{Image, State};
use crate::l2_entry::{COMPRESSED, COPIED, OFFSET, Stream, Subclusters, ZERO};
use crate::l2_table::L2Table;
use crate::refcount::decode_block;
use crate::{Autoclear, Error, Result, bitmap, limits, snapshot};

/// Bits of an L1 entry that must be 0.
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits of a standard L2 entry that must be 0.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Bits of a refcount table entry that must be 0.
const REFCOUNT_TABLE_RESERVED: u64 = 0x1ff;
/// Bits of an entry of a bitmap's table that must be 0.
const BITMAP_TABLE_RESERVED: u64 = 0xff00_0000_0000_01fe;
/// Bytes of all L1 tables, those of snapshots included, that are walked at most.
const ALL_L1_BYTES: u64 = 1 << 30;
/// Clusters beyond the end of the file that are remembered, so that a repair puts nothing there.
const MAX_BEYOND: usize = 1 << 20;

/// Reads what may lie, in part or wholly, beyond the end of the file: there it reads as zeros, as for QEMU.
pub(super) fn read_padded(storage: &dyn Storage, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len as usize];
    let inside = storage.len().saturating_sub(offset).min(len) as usize;
    if inside > 0 {
        storage.read_at(offset, &mut bytes[..inside])?;
    }
    Ok(bytes)
}

pub(super) fn read_words(storage: &dyn Storage, offset: u64, len: u64) -> Result<Vec<u64>> {
    let bytes = read_padded(storage, offset, len)?;
    let mut words = vec![0; bytes.len() / 8];
    BigEndian::read_u64_into(&bytes, &mut words);
    Ok(words)
}

/// The refcounts on disk, as far as they can be read.
pub(super) struct Refcounts<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    /// The refcount table, as it is.
    pub(super) table: Vec<u64>,
    /// One bit for each cluster of the file: whether its refcount is exactly 1.
    single: Vec<u64>,
}

impl<'a> Refcounts<'a> {
    pub(super) fn read(storage: &'a dyn Storage, geometry: Geometry, roots: &Roots) -> Result<Self> {
        let len = u64::from(roots.refcount_table_clusters) << geometry.cluster_bits;
        let table = read_words(storage, roots.refcount_table_offset, len)?;
        let clusters = storage.len().div_ceil(geometry.cluster_size());
        let mut refcounts = Self { storage, geometry, table, single: Vec::new() };
        if clusters > limits::HOST_CLUSTERS {
            return Err(Error::Unsupported(format!("checking a file of {clusters} clusters")));
        }
        refcounts.single = vec![0; clusters.div_ceil(64) as usize];
        let per_block = geometry.refcounts_per_block();
        for index in 0..clusters.div_ceil(per_block) {
            let first = index * per_block;
            if geometry.refcount_order == 4 {
                if let Some(bytes) = refcounts.block_bytes(index)? {
                    refcounts.note_singles(first, clusters, &bytes);
                }
                continue;
            }
            let Some(counts) = refcounts.block(index)? else { continue };
            for (cluster, _) in (first..clusters).zip(&counts).filter(|&(_, &count)| count == 1) {
                refcounts.single[(cluster / 64) as usize] |= 1 << (cluster % 64);
            }
        }
        Ok(refcounts)
    }

    /// The counts of a block: none where there is no such block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the table's entry cannot be followed.
    pub(super) fn block(&self, index: u64) -> Result<Option<Vec<u64>>> {
        let bytes = self.block_bytes(index)?;
        Ok(bytes.map(|bytes| decode_block(&bytes, self.geometry.refcount_order)))
    }

    /// A block as it is on the disk.
    fn block_bytes(&self, index: u64) -> Result<Option<Vec<u8>>> {
        match self.entry(index) {
            0 => Ok(None),
            offset if !self.geometry.is_aligned(offset) => Ok(None),
            offset => read_padded(self.storage, offset, self.geometry.cluster_size()).map(Some),
        }
    }

    /// Notes which of the clusters from `first` on, below `clusters`, have a refcount of 1. A block of two bytes a count begins
    /// at a multiple of 64 clusters.
    fn note_singles(&mut self, first: u64, clusters: u64, block: &[u8]) {
        let words = self.single.get_mut((first / 64) as usize..).unwrap_or_default();
        for (word, counts) in words.iter_mut().zip(block.as_chunks::<2>().0.chunks(64)) {
            let bit = |(at, count): (usize, &[u8; 2])| u64::from(*count == [0, 1]) << at;
            *word = counts.iter().enumerate().map(bit).fold(0, |word, bit| word | bit);
        }
        // Those beyond the end of the file are looked up one by one.
        if let Some(last) = self.single.last_mut().filter(|_| !clusters.is_multiple_of(64)) {
            *last &= (1 << (clusters % 64)) - 1;
        }
    }

    /// Whether all refcounts of `clusters` are exactly 1.
    fn all_single(&self, clusters: std::ops::Range<u64>) -> bool {
        let (first, last) = (clusters.start / 64, (clusters.end - 1) / 64);
        let Some(words) = self.single.get(first as usize..=last as usize) else { return false };
        words.iter().zip(first..).all(|(word, index)| {
            let mut wanted = u64::MAX;
            if index == first {
                wanted &= u64::MAX << (clusters.start % 64);
            }
            if index == last {
                wanted &= u64::MAX >> (63 - (clusters.end - 1) % 64);
            }
            word & wanted == wanted
        })
    }

    /// Where a block is, or 0.
    fn entry(&self, index: u64) -> u64 {
        let raw = usize::try_from(index).ok().and_then(|index| self.table.get(index)).copied().unwrap_or(0);
        raw & !REFCOUNT_TABLE_RESERVED
    }

    /// Whether the table's entry for a cluster cannot be followed, so that its refcount is not known.
    pub(super) fn is_unknown(&self, cluster: u64) -> bool {
        !self.geometry.is_aligned(self.entry(cluster / self.geometry.refcounts_per_block()))
    }

    /// Whether a refcount is exactly 1.
    pub(super) fn is_single(&self, cluster: u64) -> Result<bool> {
        if let Some(word) = usize::try_from(cluster / 64).ok().and_then(|word| self.single.get(word)) {
            return Ok(word >> (cluster % 64) & 1 == 1);
        }
        // Beyond the end of the file, where only a damaged image leads.
        let per_block = self.geometry.refcounts_per_block();
        let offset = self.entry(cluster / per_block);
        if offset == 0 || !self.geometry.is_aligned(offset) {
            return Ok(false);
        }
        let bytes = read_padded(self.storage, offset, self.geometry.cluster_size())?;
        let counts = decode_block(&bytes, self.geometry.refcount_order);
        Ok(counts.get((cluster % per_block) as usize) == Some(&1))
    }
}

/// What is walked, and with what result.
pub(super) struct Walk<'a> {
    image: &'a Image,
    geometry: Geometry,
    storage: &'a dyn Storage,
    /// The file's length, as QEMU counts it: in whole sectors.
    file_len: u64,
    problems: &'a mut dyn FnMut(&Problem),
    pub(super) tally: Tally,
    pub(super) report: CheckReport,
    /// Clusters beyond the end of the file that something leads to.
    pub(super) beyond: BTreeSet<u64>,
    /// COPIED flags that contradict the refcounts on disk; they are in the report, too.
    pub(super) wrong_flags: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(image: &'a Image, problems: &'a mut dyn FnMut(&Problem)) -> Result<Self> {
        let geometry = image.geometry;
        let file_len = image.storage.len().next_multiple_of(512);
        Ok(Self {
            image,
            geometry,
            storage: &*image.storage,
            file_len,
            problems,
            tally: Tally::none(file_len.div_ceil(geometry.cluster_size()))?,
            report: CheckReport {
                total_clusters: geometry.guest_clusters(),
                image_end_offset: geometry.cluster_size(),
                ..CheckReport::default()
            },
            beyond: BTreeSet::new(),
            wrong_flags: 0,
        })
    }

    fn problem(&mut self, severity: Severity, structure: &'static str, offset: u64, fault: String) {
        match severity {
            Severity::Leak => self.report.leaks += 1,
            Severity::Corruption => self.report.corruptions += 1,
            Severity::CheckError => self.report.check_errors += 1,
        }
        (self.problems)(&Problem { severity, structure, offset, fault });
    }

    fn corruption(&mut self, structure: &'static str, offset: u64, fault: impl Into<String>) {
        self.problem(Severity::Corruption, structure, offset, fault.into());
    }

    /// Counts the clusters of `len` bytes at `offset`.
    fn count(&mut self, structure: &'static str, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = offset.saturating_add(len);
        let (first, last) = (offset >> self.geometry.cluster_bits, (end - 1) >> self.geometry.cluster_bits);
        // The file may end within its last cluster.
        if end.saturating_sub(self.file_len) >= self.geometry.cluster_size() {
            self.corruption(structure, offset, format!("{len} bytes must lie within the file"));
            // A few entries can name many clusters; those of one L1 table at most are worth remembering.
            self.beyond.extend((first..=last).take(1 << 16));
            if self.beyond.len() > MAX_BEYOND {
                return Err(Error::Unsupported("an image with that many entries that lead out of it".to_owned()));
            }
            return Ok(());
        }
        for cluster in first..=last {
            if self.tally.get(cluster) == self.geometry.refcount_max() {
                let bits = 1u32 << self.geometry.refcount_order;
                let at = cluster << self.geometry.cluster_bits;
                self.corruption(structure, at, format!("the cluster is used more often than {bits} bits can count"));
            } else {
                self.tally.add(cluster);
            }
        }
        Ok(())
    }

    /// Counts the header and all that it leads to, but for the refcounts' own structures.
    pub(super) fn walk(&mut self, state: &State, refcounts: &Refcounts<'_>) -> Result<()> {
        let roots = state.header.roots;
        self.count("header", 0, self.geometry.cluster_size())?;
        self.walk_l1(roots.l1_offset, self.image.l1(state)?, Some(refcounts))?;
        if roots.snapshots > 0 {
            self.walk_snapshots(&roots)?;
        }
        if let Some(crypto) = self.image.extensions.crypto {
            self.count("LUKS header", crypto.offset, crypto.len)?;
        }
        self.walk_bitmaps(&roots)
    }

    /// Walks an L1 table, the active one where `refcounts` is given: its flags and its order are looked at, too.
    fn walk_l1(&mut self, offset: u64, l1: &[u64], refcounts: Option<&Refcounts<'_>>) -> Result<()> {
        self.count("L1 table", offset, l1.len() as u64 * 8)?;
        for (index, &raw) in l1.iter().enumerate().filter(|&(_, &raw)| raw != 0) {
            let at = offset + index as u64 * 8;
            if raw & L1_RESERVED != 0 {
                self.corruption("L1 entry", at, format!("reserved bits are set in {raw:#x}"));
            }
            let table = raw & OFFSET;
            self.count("L2 table", table, self.geometry.cluster_size())?;
            if !self.geometry.is_aligned(table) {
                self.corruption("L1 entry", at, format!("an L2 table's offset must be aligned, found {table:#x}"));
            }
            if let Some(refcounts) = refcounts.filter(|_| table != 0) {
                self.check_flag("L1 entry", at, raw, table, refcounts)?;
            }
            self.walk_l2(table, refcounts)?;
        }
        Ok(())
    }

    /// Whether COPIED says what the refcount on disk says.
    fn check_flag(
        &mut self,
        structure: &'static str,
        at: u64,
        raw: u64,
        host: u64,
        refcounts: &Refcounts<'_>,
    ) -> Result<()> {
        let cluster = host >> self.geometry.cluster_bits;
        let single = refcounts.is_single(cluster)?;
        if single != (raw & COPIED != 0) && !refcounts.is_unknown(cluster) {
            self.wrong_flags += 1;
            let fault = if single {
                "COPIED must be set: the refcount is 1"
            } else {
                "COPIED must not be set: the refcount is not 1"
            };
            self.corruption(structure, at, fault);
        }
        Ok(())
    }

    fn walk_l2(&mut self, offset: u64, refcounts: Option<&Refcounts<'_>>) -> Result<()> {
        // QEMU looks at no flag in a table that is none.
        let flagged = refcounts.filter(|_| offset != 0);
        let size = self.geometry.cluster_size();
        let table = L2Table::decode(&read_padded(self.storage, offset, size)?, &self.geometry);
        let mut expected = 0;
        let mut next = 0;
        while next < table.len() {
            let (index, entry) = (next, table.get(next));
            next += 1;
            if entry.is_empty() {
                continue;
            }
            let sound = self.count_sound_run(&table, index, refcounts);
            if sound > 0 {
                let host = entry.descriptor & OFFSET;
                if refcounts.is_some() {
                    self.report.allocated_clusters += sound;
                    self.report.fragmented_clusters += u64::from(expected != 0 && host != expected);
                    expected = host + sound * size;
                }
                // At most the length of the table.
                next = index + sound as usize;
                continue;
            }
            let at = offset + index as u64 * self.geometry.l2_entry_size();
            let raw = entry.descriptor;
            if raw & COMPRESSED != 0 {
                if raw & COPIED != 0 {
                    self.corruption("L2 entry", at, "COPIED must not be set for a compressed cluster");
                }
                if entry.bitmap != 0 {
                    self.corruption("L2 entry", at, "a compressed cluster must not have subclusters");
                    continue;
                }
                if self.geometry.external_data {
                    self.corruption("L2 entry", at, "no cluster may be compressed in an external data file");
                    continue;
                }
                let stream = Stream::decode(raw, &self.geometry);
                self.count("compressed cluster", stream.offset, stream.len)?;
                if refcounts.is_some() {
                    self.report.allocated_clusters += 1;
                    self.report.compressed_clusters += 1;
                    self.report.fragmented_clusters += 1;
                }
                continue;
            }
            if raw & L2_RESERVED != 0 {
                self.corruption("L2 entry", at, format!("reserved bits are set in {raw:#x}"));
            }
            let host = raw & OFFSET;
            let subclusters = Subclusters::decode(entry.bitmap);
            // In an external data file, which has no refcounts, clusters in use are those with the flag.
            let external = self.geometry.external_data;
            if host == 0 && !(external && raw & COPIED != 0) {
                if subclusters.allocated != 0 {
                    self.corruption("L2 entry", at, "subclusters must be allocated in a host cluster");
                }
                continue;
            }
            if subclusters.allocated & subclusters.zero != 0 {
                self.corruption("L2 entry", at, "a subcluster must not be both allocated and zero");
            }
            if !self.geometry.is_aligned(host) {
                self.corruption("L2 entry", at, format!("a cluster's offset must be aligned, found {host:#x}"));
            }
            if refcounts.is_some() {
                self.report.allocated_clusters += 1;
                self.report.fragmented_clusters += u64::from(expected != 0 && host != expected);
                expected = host + size;
                if let Some(refcounts) = flagged.filter(|_| !external) {
                    self.check_flag("L2 entry", at, raw, host, refcounts)?;
                }
            }
            if !external {
                self.count("cluster", host, size)?;
            }
        }
        Ok(())
    }

    /// Counts the clusters of a run of ordinary entries from `index` on which follow one another in the file, and of which none
    /// is wrong; returns how many those are. Where it is none, the entry needs a closer look.
    fn count_sound_run(&mut self, table: &L2Table, index: usize, refcounts: Option<&Refcounts<'_>>) -> u64 {
        let geometry = &self.geometry;
        let first = table.get(index).descriptor;
        let (host, size) = (first & OFFSET, geometry.cluster_size());
        let ordinary = first & !OFFSET == COPIED && host != 0 && geometry.is_aligned(host);
        if !ordinary || geometry.extended_l2 || geometry.external_data || host > self.file_len {
            return 0;
        }
        // The last cluster of the file may be there in part, and is looked at by itself.
        let most = (self.file_len - host) >> geometry.cluster_bits;
        let words = table.words().get(index..).unwrap_or_default();
        let follows = |&(&word, at): &(&u64, u64)| word == first + at * size;
        let run = words.iter().zip(0..most).take_while(follows).count() as u64;
        let clusters = host >> geometry.cluster_bits..(host >> geometry.cluster_bits) + run;
        let sound = run > 0
            && refcounts.is_none_or(|refcounts| refcounts.all_single(clusters.clone()))
            && self.tally.add_run(clusters, self.geometry.refcount_max());
        if sound { run } else { 0 }
    }

    fn walk_snapshots(&mut self, roots: &Roots) -> Result<()> {
        let (snapshots, table_len) = match snapshot::read_entries(self.storage, roots) {
            Ok(table) => table,
            Err(error) => {
                let fault = format!("the snapshot table cannot be read: {error}");
                self.problem(Severity::CheckError, "snapshot table", roots.snapshots_offset, fault);
                return Ok(());
            }
        };
        let (sound, broken): (Vec<_>, Vec<_>) =
            snapshots.iter().partition(|snapshot| snapshot.check_l1_place(&self.geometry).is_ok());
        for snapshot in broken {
            self.corruption(
                "snapshot table entry",
                snapshot.entry.0,
                "its L1 table must be aligned and at most 32 MiB",
            );
        }
        for snapshot in snapshots.iter().filter(|snapshot| self.image.version >= 3 && snapshot.disk_size.is_none()) {
            self.corruption("snapshot table entry", snapshot.entry.0, "it must tell the length of the disk");
        }
        let all_l1: u64 = sound.iter().map(|snapshot| u64::from(snapshot.l1_entries) * 8).sum();
        if all_l1 > ALL_L1_BYTES {
            return Err(Error::Unsupported(format!("snapshots with {all_l1} bytes of L1 tables")));
        }
        for snapshot in sound {
            let l1 = read_words(self.storage, snapshot.l1_offset, u64::from(snapshot.l1_entries) * 8)?;
            self.walk_l1(snapshot.l1_offset, &l1, None)?;
        }
        self.count("snapshot table", roots.snapshots_offset, table_len)
    }

    /// The persistent bitmaps: their directory, tables and data. Specification: "Bitmaps".
    fn walk_bitmaps(&mut self, roots: &Roots) -> Result<()> {
        let consistent = roots.autoclear.contains(Autoclear::BITMAPS);
        let Some(bitmaps) = self.image.extensions.bitmaps.filter(|_| consistent) else { return Ok(()) };
        let directory = match bitmap::read_directory(self.storage, &self.geometry, &bitmaps) {
            Ok(directory) => directory,
            // QEMU does not open such an image.
            Err(Error::Corrupt(corrupt)) => {
                self.corruption(corrupt.structure, corrupt.offset, corrupt.expected);
                return Ok(());
            }
            Err(Error::Io(block::Error::OutOfBounds { .. })) => {
                self.corruption("bitmap directory", bitmaps.directory_offset, "it must start within the file");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.count("bitmap directory", bitmaps.directory_offset, bitmaps.directory_len)?;
        for bitmap in directory {
            let (table_offset, table_len) = (bitmap.table_offset, bitmap.table_entries * 8);
            self.count("bitmap table", table_offset, table_len)?;
            // What of it lies beyond the end of the file reads as zeros, and those lead nowhere.
            let held = table_len.min(self.file_len.saturating_sub(table_offset)) / 8 * 8;
            let table = read_words(self.storage, table_offset, held)?;
            for (index, &raw) in table.iter().enumerate() {
                let (at, host) = (table_offset.saturating_add(index as u64 * 8), raw & OFFSET);
                if raw & BITMAP_TABLE_RESERVED != 0
                    || (host != 0 && (raw & ZERO != 0 || !self.geometry.is_aligned(host)))
                {
                    self.corruption("bitmap table entry", at, format!("the entry {raw:#x} makes no sense"));
                } else if host != 0 {
                    self.count("bitmap data", host, self.geometry.cluster_size())?;
                }
            }
        }
        Ok(())
    }

    /// Counts the refcount table and its blocks.
    pub(super) fn walk_refcounts(&mut self, roots: &Roots, refcounts: &Refcounts<'_>) -> Result<()> {
        let len = refcounts.table.len() as u64 * 8;
        self.count("refcount table", roots.refcount_table_offset, len)?;
        for (index, &raw) in refcounts.table.iter().enumerate().filter(|&(_, &raw)| raw != 0) {
            let at = roots.refcount_table_offset + index as u64 * 8;
            let offset = raw & !REFCOUNT_TABLE_RESERVED;
            let cluster = offset >> self.geometry.cluster_bits;
            if raw & REFCOUNT_TABLE_RESERVED != 0 {
                self.corruption("refcount table entry", at, format!("reserved bits are set in {raw:#x}"));
            } else if !self.geometry.is_aligned(offset) {
                let fault = format!("a refcount block's offset must be aligned, found {offset:#x}");
                self.corruption("refcount table entry", at, fault);
            } else if cluster >= self.tally.len() {
                self.corruption("refcount block", offset, "it must lie within the file");
                self.beyond.insert(cluster);
            } else {
                self.count("refcount block", offset, self.geometry.cluster_size())?;
                let users = self.tally.get(cluster);
                if users != 1 {
                    self.corruption("refcount block", offset, format!("its cluster is used {users} times"));
                }
            }
        }
        Ok(())
    }

    /// Compares the refcounts on disk with what was counted.
    pub(super) fn compare(&mut self, refcounts: &Refcounts<'_>) -> Result<()> {
        let (per_block, clusters) = (self.geometry.refcounts_per_block(), self.tally.len());
        for index in 0..clusters.div_ceil(per_block) {
            let range = index * per_block..clusters.min((index + 1) * per_block);
            if refcounts.is_unknown(range.start) {
                for cluster in range {
                    let at = cluster << self.geometry.cluster_bits;
                    self.problem(Severity::CheckError, "refcount", at, "it cannot be read".to_owned());
                }
                continue;
            }
            let bytes = refcounts.block_bytes(index)?;
            if self.geometry.refcount_order == 4
                && let Some(bytes) = &bytes
                && self.tally.equals(range.clone(), bytes)
            {
                if let Some(end) = self.tally.last_used(range) {
                    self.report.image_end_offset = end << self.geometry.cluster_bits;
                }
                continue;
            }
            let Some(counts) = bytes.map(|bytes| decode_block(&bytes, self.geometry.refcount_order)) else {
                if !self.tally.is_unused(range.clone()) {
                    range.for_each(|cluster| self.compare_one(cluster, 0));
                }
                continue;
            };
            for (cluster, count) in range.zip(counts) {
                self.compare_one(cluster, count);
            }
        }
        Ok(())
    }

    fn compare_one(&mut self, cluster: u64, found: u64) {
        let needed = self.tally.get(cluster);
        let end = (cluster + 1) << self.geometry.cluster_bits;
        if found > 0 || needed > 0 {
            self.report.image_end_offset = end;
        }
        if found != needed {
            let at = cluster << self.geometry.cluster_bits;
            let severity = if found < needed { Severity::Corruption } else { Severity::Leak };
            self.problem(severity, "refcount", at, format!("it is {found} for a cluster used {needed} times"));
        }
    }
}
