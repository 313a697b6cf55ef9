//! The block map of ext2 and ext3, changed: blocks added with the indirect blocks they need, and removed.

use std::ops::Range;

use crate::block_map::{DIRECT, map_path, pointer};
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

fn set_pointer(bytes: &mut [u8], index: usize, block: u64) {
    if let Some(bytes) = bytes.get_mut(index * 4..index * 4 + 4) {
        // A block map's numbers have 32 bits; `map_indirect_blocks` lets no greater one in.
        bytes.copy_from_slice(&(block as u32).to_le_bytes());
    }
}

/// Blocks to be freed, gathered while they follow each other.
#[derive(Default)]
struct Freed {
    start: u64,
    len: u64,
}

impl FileSystem {
    /// Lets logical blocks from `logical` on, which must be a hole, be the `len` blocks from `block` on.
    pub(crate) fn map_indirect_blocks(&mut self, inode: &mut Inode, logical: u32, block: u64, len: u32) -> Result<()> {
        self.check_no_clusters(inode)?;
        if block + u64::from(len) > 1 << 32 {
            return Err(Error::NoSpace("blocks that a block map can hold"));
        }
        for n in 0..len {
            self.map_indirect_block(inode, logical + n, block + u64::from(n))?;
        }
        Ok(())
    }

    /// Fails where blocks are given out in clusters, which kernels do not let block maps have.
    fn check_no_clusters(&self, inode: &Inode) -> Result<()> {
        if self.superblock.cluster_ratio > 1 {
            return Err(Error::Unsupported(format!("bigalloc with the block map of inode {}", inode.number)));
        }
        Ok(())
    }

    fn map_indirect_block(&mut self, inode: &mut Inode, logical: u32, block: u64) -> Result<()> {
        let too_large = || Error::FileTooLarge(u64::from(logical) << self.superblock.block_bits);
        let path = map_path(logical, self.superblock.block_size).ok_or_else(too_large)?;
        let mut next = self.checked_pointer(inode, pointer(&inode.raw.i_block, path.root))?;
        if path.levels == 0 {
            set_pointer(&mut inode.raw.i_block, path.root, block);
            return Ok(());
        }
        if next == 0 {
            next = self.new_indirect_block(inode, block)?;
            set_pointer(&mut inode.raw.i_block, path.root, next);
        }
        for level in 0..path.levels {
            let index = path.indexes[level] as usize;
            if level + 1 == path.levels {
                set_pointer(self.cache.modify(next, BlockKind::Indirect, |_| Ok(()))?, index, block);
                break;
            }
            let bytes = self.cache.get(next, BlockKind::Indirect, |_| Ok(()))?;
            let mut below = self.checked_pointer(inode, pointer(&bytes, index))?;
            if below == 0 {
                below = self.new_indirect_block(inode, block)?;
                set_pointer(self.cache.modify(next, BlockKind::Indirect, |_| Ok(()))?, index, below);
            }
            next = below;
        }
        Ok(())
    }

    fn new_indirect_block(&mut self, inode: &mut Inode, goal: u64) -> Result<u64> {
        let block = self.allocate_blocks(goal, 1)?.start;
        if block > u64::from(u32::MAX) {
            self.free_blocks_run(block, 1)?;
            return Err(Error::NoSpace("blocks that a block map can hold"));
        }
        self.count_clusters(inode, 1)?;
        self.cache.put(block, BlockKind::Indirect, vec![0; self.superblock.block_size])?;
        Ok(block)
    }

    /// Frees the blocks in a range of logical blocks, and the indirect blocks that are then empty.
    pub(crate) fn remove_from_block_map(&mut self, inode: &mut Inode, range: Range<u32>) -> Result<()> {
        self.check_no_clusters(inode)?;
        let mut freed = Freed::default();
        for index in (range.start.min(DIRECT)..range.end.min(DIRECT)).map(|index| index as usize) {
            let block = self.checked_pointer(inode, pointer(&inode.raw.i_block, index))?;
            set_pointer(&mut inode.raw.i_block, index, 0);
            self.gather(inode, &mut freed, block)?;
        }
        let per_block = (self.superblock.block_size / 4) as u64;
        let mut first = u64::from(DIRECT);
        for levels in 1..=3u32 {
            let reach = per_block.pow(levels);
            let root = DIRECT as usize + levels as usize - 1;
            let block = self.checked_pointer(inode, pointer(&inode.raw.i_block, root))?;
            let within = |bound: u32| u64::from(bound).saturating_sub(first).min(reach);
            let part = within(range.start)..within(range.end);
            if block != 0 && !part.is_empty() && self.remove_from_indirect(inode, block, levels, part, &mut freed)? {
                set_pointer(&mut inode.raw.i_block, root, 0);
                self.gather(inode, &mut freed, block)?;
            }
            first += reach;
        }
        self.release(inode, &mut freed)
    }

    /// Frees the blocks in `range` of those that an indirect block maps. Says whether it maps nothing any more.
    fn remove_from_indirect(
        &mut self,
        inode: &mut Inode,
        block: u64,
        levels: u32,
        range: Range<u64>,
        freed: &mut Freed,
    ) -> Result<bool> {
        let per_block = (self.superblock.block_size / 4) as u64;
        let below = per_block.pow(levels - 1);
        let bytes = self.cache.get(block, BlockKind::Indirect, |_| Ok(()))?;
        let mut cleared = Vec::new();
        for index in range.start / below..range.end.div_ceil(below).min(per_block) {
            let child = self.checked_pointer(inode, pointer(&bytes, index as usize))?;
            if child == 0 {
                continue;
            }
            let within = |bound: u64| bound.saturating_sub(index * below).min(below);
            let part = within(range.start)..within(range.end);
            if levels > 1 && !self.remove_from_indirect(inode, child, levels - 1, part, freed)? {
                continue;
            }
            self.gather(inode, freed, child)?;
            cleared.push(index as usize);
        }
        let left =
            (0..per_block as usize).any(|index| pointer(&bytes, index) != 0 && cleared.binary_search(&index).is_err());
        drop(bytes);
        // A block that goes need not be written.
        if left && !cleared.is_empty() {
            let bytes = self.cache.modify(block, BlockKind::Indirect, |_| Ok(()))?;
            cleared.into_iter().for_each(|index| set_pointer(bytes, index, 0));
        }
        Ok(!left)
    }

    fn gather(&mut self, inode: &mut Inode, freed: &mut Freed, block: u64) -> Result<()> {
        if block == 0 {
            return Ok(());
        }
        if freed.len == 0 || block != freed.start + freed.len {
            self.release(inode, freed)?;
            freed.start = block;
        }
        freed.len += 1;
        Ok(())
    }

    fn release(&mut self, inode: &mut Inode, freed: &mut Freed) -> Result<()> {
        let Freed { start, len } = std::mem::take(freed);
        if len > 0 {
            self.free_blocks_run(start, len)?;
            self.discount_clusters(inode, len)?;
        }
        Ok(())
    }
}
