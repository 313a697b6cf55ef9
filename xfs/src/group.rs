//! An allocation group in memory: free space, inode chunks, reverse mappings and reference counts, each as one sorted
//! list. All changes are made here; the trees on the disk are built anew from the lists when changes are flushed.

use std::collections::BTreeMap;

use crate::bytes::{be16, be32, be64, checksum, le32, uuid};
use crate::file_system::FileSystem;
use crate::limits::MAX_LEVELS;
use crate::rmap::{Owner, Rmap};
use crate::superblock::ro_compat;
use crate::tree::{Tree, TreeKind};
use crate::{Error, Result};

/// Set in the start of a reference count record that stands for copies not yet in place.
const COW_FLAG: u32 = 1 << 31;
const INODES_PER_CHUNK: u32 = 64;

/// 64 inodes that lie together. Of a sparse chunk some do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// A bit for each four inodes that do not exist.
    pub(crate) holes: u16,
    /// How many exist.
    pub(crate) count: u8,
    pub(crate) free_count: u8,
    /// A bit for each inode that is not in use, and each that does not exist.
    pub(crate) free: u64,
}

impl Chunk {
    /// Which inodes exist.
    pub(crate) fn exists(&self, index: u32) -> bool {
        self.holes >> (index / 4) & 1 == 0
    }

    /// The first that exists and is not in use.
    pub(crate) fn first_free(&self) -> Option<u32> {
        (0..INODES_PER_CHUNK).find(|index| self.free >> index & 1 != 0 && self.exists(*index))
    }
}

/// A group whose lists were read and found sound.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) number: u32,
    pub(crate) len: u32,
    pub(crate) agf: Vec<u8>,
    pub(crate) agi: Vec<u8>,
    /// Blocks that the kernel keeps for growing trees.
    pub(crate) free_list: Vec<u32>,
    /// Free space: first block and length.
    pub(crate) free: BTreeMap<u32, u32>,
    /// Inode chunks by their first inode.
    pub(crate) chunks: BTreeMap<u32, Chunk>,
    pub(crate) rmap: Option<Rmap>,
    /// Shared space: first block, and length and number of owners.
    pub(crate) shared: Option<BTreeMap<u32, (u32, u32)>>,
    pub(crate) trees: Vec<Tree>,
    pub(crate) changed: bool,
}

impl FileSystem {
    /// A sector of a group's header: 1 is free space's, 2 inodes', 3 the free list's.
    pub(crate) fn header_sector(&self, group: u32, sector: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.sb.sector_size];
        self.store.read(self.sector_offset(group, sector), &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn sector_offset(&self, group: u32, sector: u64) -> u64 {
        u64::from(group) * u64::from(self.sb.ag_blocks) * self.sb.block_size as u64
            + sector * self.sb.sector_size as u64
    }

    fn checked_header(&self, group: u32, sector: u64, magic: &[u8], crc: usize, id: usize) -> Result<Vec<u8>> {
        let bytes = self.header_sector(group, sector)?;
        let wrong = |rule: &str| {
            let magic = String::from_utf8_lossy(magic).into_owned();
            Error::corrupt("group header", format_args!("{magic} of group {group}"), rule)
        };
        if !bytes.starts_with(magic) {
            return Err(wrong("the magic number is right"));
        }
        if checksum(&bytes, crc) != le32(&bytes, crc) {
            return Err(wrong("the checksum is right"));
        }
        let number = be32(&bytes, if sector == 3 { 4 } else { 8 });
        if uuid(&bytes, id) != self.sb.meta_uuid || number != group {
            return Err(wrong("UUID and number are its own"));
        }
        Ok(bytes)
    }

    /// Reads a group, and checks that what it says of itself holds together.
    pub(crate) fn load_group(&self, number: u32) -> Result<Group> {
        let agf = self.checked_header(number, 1, b"XAGF", 216, 64)?;
        let agi = self.checked_header(number, 2, b"XAGI", 312, 296)?;
        let list = self.checked_header(number, 3, b"XAFL", 32, 8)?;
        let len = self.sb.ag_len(number);
        let wrong = |rule: String| Error::corrupt("group", format_args!("group {number}"), rule);
        if be32(&agf, 12) != len || be32(&agi, 12) != len {
            return Err(wrong(format!("it has {len} blocks, found {} and {}", be32(&agf, 12), be32(&agi, 12))));
        }
        let mut group = Group {
            number,
            len,
            free_list: Vec::new(),
            free: BTreeMap::new(),
            chunks: BTreeMap::new(),
            rmap: self.sb.has_ro(ro_compat::RMAPBT).then(Rmap::default),
            shared: self.sb.has_ro(ro_compat::REFLINK).then(BTreeMap::new),
            trees: Vec::new(),
            changed: false,
            agf,
            agi,
        };
        group.read_free_list(&list, self.sb.sector_size).map_err(&wrong)?;
        for kind in TreeKind::ALL.into_iter().filter(|kind| kind.exists(&self.sb)) {
            self.read_tree_into(&mut group, kind)?;
        }
        group.check_counters(&self.sb).map_err(wrong)?;
        Ok(group)
    }

    fn read_tree_into(&self, group: &mut Group, kind: TreeKind) -> Result<()> {
        let (root, levels) = kind.root(&group.agf, &group.agi);
        let number = group.number;
        let wrong = |block: u32, rule: String| {
            Error::corrupt(kind.name(), format_args!("block {block} of group {number}"), rule)
        };
        if levels == 0 || levels > MAX_LEVELS.into() {
            return Err(wrong(root, format!("a tree has 1 to {MAX_LEVELS} levels, found {levels}")));
        }
        let mut blocks = vec![root];
        let mut all = Vec::new();
        let mut records: Vec<u8> = Vec::new();
        for level in (0..levels).rev() {
            let mut below = Vec::new();
            for block in blocks {
                if block >= group.len || all.len() as u32 >= group.len {
                    return Err(wrong(block, format!("a tree lies in its group of {} blocks", group.len)));
                }
                all.push(block);
                let linear = u64::from(group.number) * u64::from(self.sb.ag_blocks) + u64::from(block);
                let bytes = self.store.block(linear)?;
                let (count, capacity) = (usize::from(be16(&bytes, 6)), kind.capacity(self.sb.block_size, level == 0));
                if !bytes.starts_with(kind.magic()) || u32::from(be16(&bytes, 4)) != level || count > capacity {
                    return Err(wrong(
                        block,
                        format!("magic number, level {level} and count are right, found {count}"),
                    ));
                }
                let place = (be64(&bytes, 16), uuid(&bytes, 32), be32(&bytes, 48));
                if checksum(&bytes, 52) != le32(&bytes, 52)
                    || place != (self.sb.daddr(linear), self.sb.meta_uuid, group.number)
                {
                    return Err(wrong(block, "checksum, place, UUID and group are its own".to_owned()));
                }
                if level == 0 {
                    records.extend_from_slice(&bytes[56..56 + count * kind.record_len()]);
                } else {
                    let pointers = 56 + capacity * kind.key_len();
                    below.extend((0..count).map(|at| be32(&bytes, pointers + at * 4)));
                }
            }
            blocks = below;
        }
        let count = records.len() / kind.record_len();
        group.take_records(kind, &records).map_err(|rule| wrong(root, rule))?;
        group.trees.push(Tree { kind, blocks: all, loaded: count });
        Ok(())
    }
}

impl Group {
    fn read_free_list(&mut self, list: &[u8], sector_size: usize) -> Result<(), String> {
        let (first, last, count) = (be32(&self.agf, 40), be32(&self.agf, 44), be32(&self.agf, 48));
        let slots = ((sector_size - 36) / 4) as u32;
        let fits =
            first < slots && last < slots && count <= slots && (count == 0 || (first + count - 1) % slots == last);
        if !fits {
            return Err(format!("its free list of {slots} is right, found {count} from {first} to {last}"));
        }
        for at in 0..count {
            let block = be32(list, 36 + ((first + at) % slots) as usize * 4);
            if block >= self.len {
                return Err(format!("its free list names its blocks, found {block}"));
            }
            self.free_list.push(block);
        }
        Ok(())
    }

    fn take_records(&mut self, kind: TreeKind, records: &[u8]) -> Result<(), String> {
        let mut last = 0_u32;
        for record in records.chunks_exact(kind.record_len()) {
            let (start, len) = (be32(record, 0), be32(record, 4));
            match kind {
                TreeKind::FreeByBlock => {
                    if len == 0 || start < last || start.checked_add(len).is_none_or(|end| end > self.len) {
                        return Err(format!("free space ascends in the group, found {len} blocks at {start}"));
                    }
                    last = start + len;
                    self.free.insert(start, len);
                }
                TreeKind::FreeBySize => {
                    if self.free.get(&start) != Some(&len) {
                        return Err(format!("both trees of free space say the same, found {len} blocks at {start}"));
                    }
                }
                TreeKind::Inodes => {
                    self.take_chunk(start, record, last)?;
                    last = start.saturating_add(INODES_PER_CHUNK);
                }
                TreeKind::FreeInodes => {
                    let chunk = self.chunks.get(&start).filter(|chunk| chunk.free_count > 0);
                    if chunk.is_none_or(|chunk| chunk.free != be64(record, 8)) {
                        return Err(format!("both trees of inodes say the same, found inode {start}"));
                    }
                }
                TreeKind::ReverseMap => {
                    let (owner, offset) = (be64(record, 8), be64(record, 16));
                    if len == 0 || start.checked_add(len).is_none_or(|end| end > self.len) {
                        return Err(format!("owners are of blocks in the group, found {len} blocks at {start}"));
                    }
                    if let Some(rmap) = &mut self.rmap {
                        rmap.load(Owner::decode(owner, offset), start, len)?;
                    }
                }
                TreeKind::References => {
                    let block = start & !COW_FLAG;
                    let fits = start >= last && len > 0 && block.checked_add(len).is_some_and(|end| end <= self.len);
                    let owners = be32(record, 8);
                    if !fits || (owners < 2 && start & COW_FLAG == 0) {
                        return Err(format!(
                            "shared space ascends in the group, found {len} blocks at {start}, {owners} owners"
                        ));
                    }
                    last = start.saturating_add(len);
                    if let Some(shared) = &mut self.shared {
                        shared.insert(start, (len, owners));
                    }
                }
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self, start: u32, record: &[u8], last: u32) -> Result<(), String> {
        let free = be64(record, 8);
        let mut chunk = Chunk { holes: be16(record, 4), count: record[6], free_count: record[7], free };
        // Without sparse chunks all of the word is the count of free inodes.
        if chunk.count == 0 && chunk.holes == 0 {
            chunk.count = INODES_PER_CHUNK as u8;
        }
        let exist = (0..INODES_PER_CHUNK).filter(|index| chunk.exists(*index)).count();
        let unused = (0..INODES_PER_CHUNK).filter(|index| chunk.exists(*index) && free >> index & 1 != 0).count();
        if start < last || exist != usize::from(chunk.count) || unused != usize::from(chunk.free_count) {
            return Err(format!("chunks of inodes ascend and count right, found that of inode {start}"));
        }
        self.chunks.insert(start, chunk);
        Ok(())
    }

    fn check_counters(&self, sb: &crate::superblock::Superblock) -> Result<(), String> {
        let free: u64 = self.free.values().map(|len| u64::from(*len)).sum();
        let longest = self.free.values().copied().max().unwrap_or(0);
        if free != u64::from(be32(&self.agf, 52)) || longest != be32(&self.agf, 56) {
            return Err(format!("free blocks are counted right, found {} for {free}", be32(&self.agf, 52)));
        }
        let (count, unused) = self.inode_counts();
        if (count, unused) != (be32(&self.agi, 16), be32(&self.agi, 28)) {
            return Err(format!("inodes are counted right, found {} for {count}", be32(&self.agi, 16)));
        }
        for tree in &self.trees {
            let expected = match tree.kind {
                TreeKind::FreeByBlock | TreeKind::FreeBySize => self.free.len(),
                TreeKind::Inodes => self.chunks.len(),
                TreeKind::FreeInodes => self.chunks.values().filter(|chunk| chunk.free_count > 0).count(),
                TreeKind::ReverseMap | TreeKind::References => tree.loaded,
            };
            if tree.loaded != expected {
                return Err(format!("its tree of {} has {expected} records, found {}", tree.kind.name(), tree.loaded));
            }
        }
        if be32(&self.agf, 60) != self.tree_overhead() {
            return Err(format!(
                "blocks of trees are counted right, found {} for {}",
                be32(&self.agf, 60),
                self.tree_overhead()
            ));
        }
        self.check_disjoint(sb, &[])
    }

    /// Blocks of the trees of space, but their roots.
    pub(crate) fn tree_overhead(&self) -> u32 {
        let counted = self.trees.iter().filter(|tree| tree.kind.is_of_space());
        counted.map(|tree| tree.blocks.len() as u32 - 1).sum()
    }

    pub(crate) fn inode_counts(&self) -> (u32, u32) {
        self.chunks.values().fold((0, 0), |(count, unused), chunk| {
            (count + u32::from(chunk.count), unused + u32::from(chunk.free_count))
        })
    }

    /// Free blocks, those kept for trees and in them among them: what the superblock counts.
    pub(crate) fn counted_free(&self) -> u64 {
        let free: u64 = self.free.values().map(|len| u64::from(*len)).sum();
        free + self.free_list.len() as u64 + u64::from(self.tree_overhead())
    }

    /// That nothing of the group's own, nothing free and none of `more` (first block and length) overlap.
    pub(crate) fn check_disjoint(&self, sb: &crate::superblock::Superblock, more: &[(u32, u32)]) -> Result<(), String> {
        let header_blocks = (4 * sb.sector_size).div_ceil(sb.block_size) as u32;
        let mut runs: Vec<(u32, u32)> = vec![(0, header_blocks)];
        runs.extend(self.free.iter().map(|(start, len)| (*start, *len)));
        runs.extend(
            self.free_list.iter().chain(self.trees.iter().flat_map(|tree| &tree.blocks)).map(|block| (*block, 1)),
        );
        for (start, chunk) in &self.chunks {
            let per_block = sb.inodes_per_block;
            if per_block >= INODES_PER_CHUNK {
                continue;
            }
            let blocks = INODES_PER_CHUNK / per_block;
            for block in 0..blocks {
                if chunk.exists(block * per_block) {
                    runs.push((start / per_block + block, 1));
                }
            }
        }
        runs.extend_from_slice(more);
        runs.sort_unstable();
        match runs.windows(2).find(|pair| u64::from(pair[0].0) + u64::from(pair[0].1) > u64::from(pair[1].0)) {
            Some(pair) => Err(format!("a block is one thing only, found two at {}", pair[1].0)),
            None => Ok(()),
        }
    }

    /// Takes blocks out of the free space that holds them.
    pub(crate) fn take_free(&mut self, start: u32, len: u32) -> Result<()> {
        let found = self.free.range(..=start).next_back().map(|(start, len)| (*start, *len));
        let Some((first, run)) = found.filter(|(first, run)| start + len <= first + run) else {
            return Err(self.corrupt(format!("{len} blocks at {start} are free")));
        };
        self.free.remove(&first);
        if first < start {
            self.free.insert(first, start - first);
        }
        if start + len < first + run {
            self.free.insert(start + len, first + run - start - len);
        }
        self.changed = true;
        Ok(())
    }

    /// Makes blocks free. That they are not free already is what stops a double free.
    pub(crate) fn give_free(&mut self, start: u32, len: u32) -> Result<()> {
        let (mut start, mut len) = (start, len);
        let end = u64::from(start) + u64::from(len);
        let before = self.free.range(..=start).next_back().map(|(start, len)| (*start, *len));
        let after = self.free.range(start..).next().map(|(start, len)| (*start, *len));
        let overlaps = before.is_some_and(|(first, run)| first + run > start)
            || after.is_some_and(|(first, _)| u64::from(first) < end)
            || end > self.len.into()
            || len == 0;
        if overlaps {
            return Err(self.corrupt(format!("{len} blocks at {start} that are freed were in use")));
        }
        if let Some((first, run)) = before.filter(|(first, run)| first + run == start) {
            self.free.remove(&first);
            (start, len) = (first, run + len);
        }
        if let Some((first, run)) = after.filter(|(first, _)| u64::from(*first) == end) {
            self.free.remove(&first);
            len += run;
        }
        self.free.insert(start, len);
        self.changed = true;
        Ok(())
    }

    /// Takes one owner from blocks; gives those that had no other.
    pub(crate) fn drop_reference(&mut self, start: u32, len: u32) -> Result<Vec<(u32, u32)>> {
        let mut unshared = Vec::new();
        let counted = self.change_owners(start, start + len, |at, len, owners| {
            if owners == 1 {
                unshared.push((at, len));
            }
            owners - 1
        });
        Ok(if counted { unshared } else { vec![(start, len)] })
    }

    /// Gives blocks that are in use one owner more; those that had one have two then.
    pub(crate) fn add_reference(&mut self, start: u32, len: u32) -> Result<()> {
        if self.change_owners(start, start + len, |_, _, owners| owners.saturating_add(1)) {
            return Ok(());
        }
        Err(self.corrupt("blocks are shared where counts are kept"))
    }

    /// Gives each run of blocks that have as many owners the number of owners that `change` makes of its start, its
    /// length and theirs. Only two and more are recorded. False where no counts are kept.
    fn change_owners(&mut self, start: u32, end: u32, mut change: impl FnMut(u32, u32, u32) -> u32) -> bool {
        let Some(shared) = &mut self.shared else { return false };
        let mut at = start;
        while at < end {
            let before = shared.range(..=at).next_back().map(|(first, (len, owners))| (*first, *len, *owners));
            let (stop, owners) = match before.filter(|(first, run, _)| first + run > at) {
                Some((first, run, owners)) => {
                    // A part of a record: what is around it stays.
                    let stop = end.min(first + run);
                    shared.remove(&first);
                    if first < at {
                        shared.insert(first, (at - first, owners));
                    }
                    if stop < first + run {
                        shared.insert(stop, (first + run - stop, owners));
                    }
                    (stop, owners)
                }
                None => (shared.range(at..end).next().map_or(end, |(first, _)| *first), 1),
            };
            let owners = change(at, stop - at, owners);
            if owners > 1 {
                shared.insert(at, (stop - at, owners));
            }
            at = stop;
        }
        self.join_shared(start, end);
        self.changed = true;
        true
    }

    /// Makes neighbours with as many owners one record, around and in some blocks.
    fn join_shared(&mut self, start: u32, end: u32) {
        let Some(shared) = &mut self.shared else { return };
        let from = shared.range(..start).next_back().map_or(start, |(first, _)| *first);
        let mut previous: Option<(u32, u32, u32)> = None;
        let around: Vec<_> =
            shared.range(from..=end.min(COW_FLAG - 1)).map(|(first, (len, owners))| (*first, *len, *owners)).collect();
        for (first, run, owners) in around {
            match previous {
                Some((start, len, same)) if start + len == first && same == owners => {
                    shared.remove(&first);
                    shared.insert(start, (len + run, owners));
                    previous = Some((start, len + run, owners));
                }
                _ => previous = Some((first, run, owners)),
            }
        }
    }

    /// Notes blocks that are set aside for a copy.
    pub(crate) fn add_copy(&mut self, start: u32, len: u32) -> Result<()> {
        self.changed = true;
        match self.shared.as_mut().map(|shared| shared.insert(start | COW_FLAG, (len, 1))) {
            Some(None) => Ok(()),
            _ => Err(self.corrupt(format!("{len} blocks at {start} that are set aside were not before"))),
        }
    }

    /// Notes that blocks are no longer set aside for a copy.
    pub(crate) fn remove_copy(&mut self, start: u32, len: u32) -> Result<()> {
        self.changed = true;
        let (start, end) = (start | COW_FLAG, (start | COW_FLAG) + len);
        let found = self.shared.as_ref().and_then(|shared| shared.range(..=start).next_back());
        let found = found.map(|(first, (run, _))| (*first, *run)).filter(|(first, run)| first + run >= end);
        let (Some((first, run)), Some(shared)) = (found, &mut self.shared) else {
            return Err(self.corrupt(format!("{len} blocks at {} were set aside", start & !COW_FLAG)));
        };
        shared.remove(&first);
        if first < start {
            shared.insert(first, (start - first, 1));
        }
        if end < first + run {
            shared.insert(end, (first + run - end, 1));
        }
        Ok(())
    }

    /// Takes all blocks that are set aside for copies: first block and length.
    pub(crate) fn take_copies(&mut self) -> Vec<(u32, u32)> {
        let copies = self.shared.as_mut().map(|shared| shared.split_off(&COW_FLAG)).unwrap_or_default();
        self.changed |= !copies.is_empty();
        copies.into_iter().map(|(start, (len, _))| (start & !COW_FLAG, len)).collect()
    }

    /// Whether blocks are set aside for copies.
    pub(crate) fn has_copies(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.range(COW_FLAG..).next().is_some())
    }

    /// Whether any of some blocks has several owners.
    pub(crate) fn is_shared(&self, start: u32, len: u32) -> bool {
        self.shared.as_ref().is_some_and(|shared| {
            let end = (start + len).min(COW_FLAG);
            shared.range(..end).next_back().is_some_and(|(first, (run, _))| first + run > start)
        })
    }

    pub(crate) fn corrupt(&self, rule: impl Into<String>) -> Error {
        Error::corrupt("group", format_args!("group {}", self.number), rule)
    }
}
