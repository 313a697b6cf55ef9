//! The B+trees of a group, built as a whole from sorted records. "Short Format B+trees".

use crate::bytes::{be16, be32, put, put_checksum, put16, put32, put64};
use crate::file_system::FileSystem;
use crate::group::Group;
use crate::rmap::{OWN_AG, OWN_INOBT, OWN_REFC, Owner};
use crate::superblock::{Superblock, incompat, ro_compat};
use crate::{Error, Result};

const HEADER: usize = 56;
const NO_SIBLING: u32 = u32::MAX;
/// Rounds in which the trees' own blocks are dealt out: each settles all but what its own changes bring.
const MAX_ROUNDS: usize = 64;

/// The trees of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TreeKind {
    FreeByBlock,
    FreeBySize,
    Inodes,
    FreeInodes,
    ReverseMap,
    References,
}

/// A tree's blocks.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) kind: TreeKind,
    pub(crate) blocks: Vec<u32>,
    /// How many records it had when it was read.
    pub(crate) loaded: usize,
}

impl TreeKind {
    pub(crate) const ALL: [Self; 6] =
        [Self::FreeByBlock, Self::FreeBySize, Self::Inodes, Self::FreeInodes, Self::ReverseMap, Self::References];

    pub(crate) fn exists(self, sb: &Superblock) -> bool {
        match self {
            Self::FreeByBlock | Self::FreeBySize | Self::Inodes => true,
            Self::FreeInodes => sb.has_ro(ro_compat::FINOBT),
            Self::ReverseMap => sb.has_ro(ro_compat::RMAPBT),
            Self::References => sb.has_ro(ro_compat::REFLINK),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FreeByBlock => "free space by block",
            Self::FreeBySize => "free space by size",
            Self::Inodes => "inodes",
            Self::FreeInodes => "free inodes",
            Self::ReverseMap => "reverse mappings",
            Self::References => "reference counts",
        }
    }

    pub(crate) fn magic(self) -> &'static [u8; 4] {
        match self {
            Self::FreeByBlock => b"AB3B",
            Self::FreeBySize => b"AB3C",
            Self::Inodes => b"IAB3",
            Self::FreeInodes => b"FIB3",
            Self::ReverseMap => b"RMB3",
            Self::References => b"R3FC",
        }
    }

    pub(crate) fn record_len(self) -> usize {
        match self {
            Self::FreeByBlock | Self::FreeBySize => 8,
            Self::Inodes | Self::FreeInodes => 16,
            Self::ReverseMap => 24,
            Self::References => 12,
        }
    }

    /// Bytes of the keys of one pointer.
    pub(crate) fn key_len(self) -> usize {
        match self {
            Self::FreeByBlock | Self::FreeBySize => 8,
            Self::Inodes | Self::FreeInodes | Self::References => 4,
            Self::ReverseMap => 40,
        }
    }

    pub(crate) fn capacity(self, block_size: usize, is_leaf: bool) -> usize {
        (block_size - HEADER) / if is_leaf { self.record_len() } else { self.key_len() + 4 }
    }

    /// Whether its blocks count as free space's own.
    pub(crate) fn is_of_space(self) -> bool {
        matches!(self, Self::FreeByBlock | Self::FreeBySize | Self::ReverseMap)
    }

    fn owner(self) -> Owner {
        Owner::special(match self {
            Self::FreeByBlock | Self::FreeBySize | Self::ReverseMap => OWN_AG,
            Self::Inodes | Self::FreeInodes => OWN_INOBT,
            Self::References => OWN_REFC,
        })
    }

    /// Where root and number of levels are: in the header of space or of inodes.
    fn place(self) -> (bool, usize, usize) {
        match self {
            Self::FreeByBlock => (true, 16, 28),
            Self::FreeBySize => (true, 20, 32),
            Self::ReverseMap => (true, 24, 36),
            Self::References => (true, 88, 92),
            Self::Inodes => (false, 20, 24),
            Self::FreeInodes => (false, 328, 332),
        }
    }

    pub(crate) fn root(self, agf: &[u8], agi: &[u8]) -> (u32, u32) {
        let (space, root, level) = self.place();
        let header = if space { agf } else { agi };
        (be32(header, root), be32(header, level))
    }

    /// How many blocks a tree of `count` records takes that has `held` now. A range would do: leaves may be half full.
    fn blocks_for(self, block_size: usize, count: usize, held: usize) -> usize {
        let leaf = self.capacity(block_size, true);
        let (least, most) = (count.div_ceil(leaf).max(1), (count / (leaf / 2).max(1)).max(1));
        let total = |leaves: usize| self.levels(block_size, leaves).iter().sum::<usize>();
        if held <= total(least) {
            return total(least);
        }
        // Of the numbers that would do, the least that is not below what there is.
        (least..=most.max(least)).map(total).find(|total| *total >= held).unwrap_or_else(|| total(most.max(least)))
    }

    /// Blocks of each level, leaves first.
    fn levels(self, block_size: usize, leaves: usize) -> Vec<usize> {
        let node = self.capacity(block_size, false);
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().copied().filter(|last| *last > 1) {
            levels.push(last.div_ceil(node));
        }
        levels
    }

    /// The keys of a record, low and high; most trees only have the low one.
    fn keys(self, record: &[u8]) -> Vec<u8> {
        if self != Self::ReverseMap {
            return record[..self.key_len()].to_vec();
        }
        let (start, len) = (be32(record, 0), be32(record, 4));
        let owner = Owner::decode(crate::bytes::be64(record, 8), crate::bytes::be64(record, 16));
        let mut keys = vec![0; 40];
        let mut high = owner;
        if owner.has_offsets() {
            high.offset += u64::from(len) - 1;
        }
        for (at, start, owner) in [(0, start, owner), (20, start + len - 1, high)] {
            put32(&mut keys, at, start);
            put64(&mut keys, at + 4, owner.owner);
            put64(&mut keys, at + 12, owner.packed(true));
        }
        keys
    }

    /// The keys of a block from those of what is in it.
    fn join(self, keys: &[Vec<u8>]) -> Vec<u8> {
        let mut joined = keys.first().cloned().unwrap_or_default();
        if self == Self::ReverseMap {
            let order =
                |key: &&[u8]| (be32(key, 0), crate::bytes::be64(key, 4), crate::bytes::be64(key, 12) & ((1 << 54) - 1));
            if let Some(high) = keys.iter().map(|key| &key[20..]).max_by_key(order) {
                joined[20..].copy_from_slice(high);
            }
        }
        joined
    }
}

impl Group {
    /// A tree's records in their order, as bytes.
    fn records(&self, kind: TreeKind, sb: &Superblock) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |numbers: &[u32]| numbers.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        match kind {
            TreeKind::FreeByBlock => self.free.iter().for_each(|(start, len)| put(&[*start, *len])),
            TreeKind::FreeBySize => {
                let mut by_size: Vec<_> = self.free.iter().map(|(start, len)| (*len, *start)).collect();
                by_size.sort_unstable();
                by_size.iter().for_each(|(len, start)| put(&[*start, *len]));
            }
            TreeKind::Inodes | TreeKind::FreeInodes => {
                let sparse = sb.has_incompat(incompat::SPINODES);
                let wanted = self.chunks.iter().filter(|(_, chunk)| kind == TreeKind::Inodes || chunk.free_count > 0);
                for (start, chunk) in wanted {
                    let counts = if sparse { u32::from(chunk.holes) << 16 | u32::from(chunk.count) << 8 } else { 0 };
                    let free = [(chunk.free >> 32) as u32, chunk.free as u32];
                    put(&[*start, counts | u32::from(chunk.free_count), free[0], free[1]]);
                }
            }
            TreeKind::ReverseMap => {
                for (start, len, owner) in self.rmap.iter().flat_map(|rmap| rmap.records()) {
                    let packed = owner.packed(false);
                    put(&[
                        start,
                        len,
                        (owner.owner >> 32) as u32,
                        owner.owner as u32,
                        (packed >> 32) as u32,
                        packed as u32,
                    ]);
                }
            }
            TreeKind::References => {
                for (start, (len, owners)) in self.shared.iter().flatten() {
                    put(&[*start, *len, *owners]);
                }
            }
        }
        bytes
    }

    fn record_count(&self, kind: TreeKind) -> usize {
        match kind {
            TreeKind::FreeByBlock | TreeKind::FreeBySize => self.free.len(),
            TreeKind::Inodes => self.chunks.len(),
            TreeKind::FreeInodes => self.chunks.values().filter(|chunk| chunk.free_count > 0).count(),
            TreeKind::ReverseMap => self.rmap.as_ref().map_or(0, crate::rmap::Rmap::len),
            TreeKind::References => self.shared.as_ref().map_or(0, std::collections::BTreeMap::len),
        }
    }

    /// Gives each tree the blocks that it needs: what it takes and gives changes free space, and so the trees.
    /// Returns the blocks that were given back.
    fn deal_blocks(&mut self, block_size: usize) -> Result<Vec<u32>> {
        let mut given = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let mut settled = true;
            for index in 0..self.trees.len() {
                let (kind, held) = (self.trees[index].kind, self.trees[index].blocks.len());
                let wanted = kind.blocks_for(block_size, self.record_count(kind), held);
                for _ in held..wanted {
                    settled = false;
                    // The end of the longest run: so as to cut no run in two.
                    let longest = self.free.iter().max_by_key(|(_, len)| **len).map(|(start, len)| start + len - 1);
                    let block = longest.ok_or(Error::NoSpace("no block is left for a group's trees"))?;
                    self.take_free(block, 1)?;
                    self.trees[index].blocks.push(block);
                    given.retain(|given| *given != block);
                    if let Some(rmap) = &mut self.rmap {
                        rmap.add(kind.owner(), block, 1);
                    }
                }
                for _ in wanted..held {
                    settled = false;
                    let Some(block) = self.trees[index].blocks.pop() else { break };
                    self.give_free(block, 1)?;
                    given.push(block);
                    if let Some(rmap) = &mut self.rmap {
                        rmap.remove(kind.owner(), block, 1)?;
                    }
                }
            }
            if settled {
                return Ok(given);
            }
        }
        Err(self.corrupt("the trees' own blocks can be dealt out"))
    }

    /// Builds a tree; returns its blocks' bytes by number, root and number of levels.
    fn build(&self, tree: &Tree, sb: &Superblock) -> (Vec<(u32, Vec<u8>)>, u32, u32) {
        let kind = tree.kind;
        let records = self.records(kind, sb);
        let count = records.len() / kind.record_len();
        let leaf = kind.capacity(sb.block_size, true);
        let least = count.div_ceil(leaf).max(1);
        let fits = |leaves: &usize| kind.levels(sb.block_size, *leaves).iter().sum::<usize>() == tree.blocks.len();
        let leaves = (least..=tree.blocks.len()).find(fits).unwrap_or(least);
        let levels = kind.levels(sb.block_size, leaves);
        let mut free = tree.blocks.clone();
        free.sort_unstable();
        let mut free = free.into_iter();
        let mut built = Vec::new();
        // What the next level points to: keys and block.
        let mut below: Vec<(Vec<u8>, u32)> = Vec::new();
        for (level, blocks) in levels.iter().enumerate() {
            let places: Vec<u32> = free.by_ref().take(*blocks).collect();
            let items = if level == 0 { count } else { below.len() };
            let mut above = Vec::new();
            for (at, place) in places.iter().enumerate() {
                // Dealt out evenly.
                let range = at * items / blocks..(at + 1) * items / blocks;
                let mut bytes = vec![0; sb.block_size];
                put(&mut bytes, 0, kind.magic());
                put16(&mut bytes, 4, level as u16);
                put16(&mut bytes, 6, range.len() as u16);
                put32(&mut bytes, 8, if at == 0 { NO_SIBLING } else { places[at - 1] });
                put32(&mut bytes, 12, places.get(at + 1).copied().unwrap_or(NO_SIBLING));
                let linear = u64::from(self.number) * u64::from(sb.ag_blocks) + u64::from(*place);
                put64(&mut bytes, 16, sb.daddr(linear));
                put(&mut bytes, 32, &sb.meta_uuid);
                put32(&mut bytes, 48, self.number);
                let mut keys = Vec::new();
                if level == 0 {
                    let len = kind.record_len();
                    put(&mut bytes, HEADER, &records[range.start * len..range.end * len]);
                    keys.extend(
                        records[range.start * len..range.end * len].chunks_exact(len).map(|record| kind.keys(record)),
                    );
                } else {
                    let capacity = kind.capacity(sb.block_size, false);
                    for (slot, (key, block)) in below[range].iter().enumerate() {
                        put(&mut bytes, HEADER + slot * kind.key_len(), key);
                        put32(&mut bytes, HEADER + capacity * kind.key_len() + slot * 4, *block);
                        keys.push(key.clone());
                    }
                }
                put_checksum(&mut bytes, 52);
                above.push((kind.join(&keys), *place));
                built.push((*place, bytes));
            }
            below = above;
        }
        (built, below.first().map_or(0, |(_, block)| *block), levels.len() as u32)
    }
}

impl FileSystem {
    /// Writes all trees of a group anew, and its headers.
    pub(crate) fn write_group(&mut self, group: &mut Group) -> Result<()> {
        let first = u64::from(group.number) * u64::from(self.sb.ag_blocks);
        for block in group.deal_blocks(self.sb.block_size)? {
            let linear = first + u64::from(block);
            self.store.forget(linear..linear + 1);
        }
        for tree in group.trees.clone() {
            let (blocks, root, levels) = group.build(&tree, &self.sb);
            for (block, mut bytes) in blocks {
                // What has not changed keeps all of it, its LSN among it.
                let linear = first + u64::from(block);
                let old = self.store.block(linear)?;
                let lsn = be64_lsn(&old);
                if old.starts_with(tree.kind.magic()) && be16(&old, 4) == be16(&bytes, 4) {
                    put64(&mut bytes, 24, lsn);
                    put_checksum(&mut bytes, 52);
                }
                if *old != bytes {
                    self.store.put(linear, bytes)?;
                }
            }
            let (space, root_at, level_at) = tree.kind.place();
            let header = if space { &mut group.agf } else { &mut group.agi };
            put32(header, root_at, root);
            put32(header, level_at, levels);
            let count = tree.blocks.len() as u32;
            let counted = self.sb.has_ro(ro_compat::INOBTCNT);
            match tree.kind {
                TreeKind::ReverseMap => put32(&mut group.agf, 80, count),
                TreeKind::References => put32(&mut group.agf, 84, count),
                TreeKind::Inodes if counted => put32(&mut group.agi, 336, count),
                TreeKind::FreeInodes if counted => put32(&mut group.agi, 340, count),
                _ => {}
            }
        }
        let free: u32 = group.free.values().sum();
        let longest = group.free.values().copied().max().unwrap_or(0);
        let overhead = group.tree_overhead();
        let (inodes, unused) = group.inode_counts();
        for (at, value) in [(52, free), (56, longest), (60, overhead)] {
            put32(&mut group.agf, at, value);
        }
        put32(&mut group.agi, 16, inodes);
        put32(&mut group.agi, 28, unused);
        put_checksum(&mut group.agf, 216);
        put_checksum(&mut group.agi, 312);
        for (sector, bytes) in [(1, group.agf.clone()), (2, group.agi.clone())] {
            self.put_header_sector(group.number, sector, &bytes)?;
        }
        group.changed = false;
        Ok(())
    }

    /// Puts a sector of a group's header back into the block that holds it.
    pub(crate) fn put_header_sector(&mut self, group: u32, sector: u64, bytes: &[u8]) -> Result<()> {
        let offset = self.sector_offset(group, sector);
        let size = self.sb.block_size as u64;
        let mut block = self.store.block(offset / size)?.to_vec();
        put(&mut block, (offset % size) as usize, bytes);
        self.store.put(offset / size, block)
    }
}

/// The LSN in the header of a tree's block.
fn be64_lsn(bytes: &[u8]) -> u64 {
    crate::bytes::be64(bytes, 24)
}
