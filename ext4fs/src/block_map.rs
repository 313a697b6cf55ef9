//! The block map of ext2 and ext3: 12 direct blocks, then one, two and three levels of indirect blocks. Read.
//!
//! <https://docs.kernel.org/filesystems/ext4/ifork.html#direct-indirect-block-addressing>

use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::mapping::{Mapping, Place};
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

/// Blocks that the inode points to itself.
pub(crate) const DIRECT: u32 = 12;

/// Where in the map a logical block is: the entry of `i_block`, and the index at each level below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapPath {
    /// Index in `i_block`.
    pub root: usize,
    /// Levels of indirect blocks below.
    pub levels: usize,
    /// The index at each level, from the top.
    pub indexes: [u32; 3],
}

/// The path to a logical block, or `None` where the map cannot reach it.
pub(crate) fn map_path(logical: u32, block_size: usize) -> Option<MapPath> {
    if logical < DIRECT {
        return Some(MapPath { root: logical as usize, levels: 0, indexes: [0; 3] });
    }
    let per_block = (block_size / 4) as u64;
    let mut rest = u64::from(logical - DIRECT);
    let mut reach = per_block;
    for levels in 1..=3 {
        if rest < reach {
            let mut indexes = [0; 3];
            for level in (0..levels).rev() {
                indexes[level] = (rest % per_block) as u32;
                rest /= per_block;
            }
            return Some(MapPath { root: DIRECT as usize + levels - 1, levels, indexes });
        }
        rest -= reach;
        reach *= per_block;
    }
    None
}

/// The `index`th number of an indirect block or of `i_block`.
pub(crate) fn pointer(bytes: &[u8], index: usize) -> u64 {
    bytes.get(index * 4..index * 4 + 4).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
}

/// How many pointers from `index` on continue the run that begins there: neighbours, or nothing.
fn run_len(bytes: &[u8], index: usize) -> u32 {
    let first = pointer(bytes, index);
    let mut len = 1;
    while (index + len) * 4 + 4 <= bytes.len() {
        let next = pointer(bytes, index + len);
        if if first == 0 { next != 0 } else { next != first + len as u64 } {
            break;
        }
        len += 1;
    }
    len as u32
}

impl FileSystem {
    pub(crate) fn map_indirect(&self, inode: &Inode, logical: u32) -> Result<Mapping> {
        let Some(path) = map_path(logical, self.superblock.block_size) else {
            return Ok(Mapping { logical, len: u32::MAX - logical, place: Place::Hole });
        };
        let place = |block: u64| if block == 0 { Place::Hole } else { Place::Written(block) };
        if path.levels == 0 {
            let block = self.checked_pointer(inode, pointer(&inode.raw.i_block, path.root))?;
            let len = run_len(&inode.raw.i_block[..DIRECT as usize * 4], path.root);
            self.checked_pointer(inode, if block == 0 { 0 } else { block + u64::from(len) - 1 })?;
            return Ok(Mapping { logical, len, place: place(block) });
        }
        let per_block = (self.superblock.block_size / 4) as u64;
        let mut block = self.checked_pointer(inode, pointer(&inode.raw.i_block, path.root))?;
        for level in 0..path.levels {
            let index = path.indexes[level];
            if block == 0 {
                // The whole tree below is missing: the hole reaches to its end.
                let covered = per_block.pow((path.levels - level) as u32);
                let mut before = 0;
                for below in level..path.levels {
                    before = before * per_block + u64::from(path.indexes[below]);
                }
                let len = (covered - before).min(u64::from(u32::MAX - logical)).max(1) as u32;
                return Ok(Mapping { logical, len, place: Place::Hole });
            }
            let bytes = self.cache.get(block, BlockKind::Indirect, |_| Ok(()))?;
            block = self.checked_pointer(inode, pointer(&bytes, index as usize))?;
            if level + 1 == path.levels {
                let len = run_len(&bytes, index as usize);
                self.checked_pointer(inode, if block == 0 { 0 } else { block + u64::from(len) - 1 })?;
                return Ok(Mapping { logical, len: len.min(u32::MAX - logical).max(1), place: place(block) });
            }
        }
        Ok(Mapping { logical, len: 1, place: Place::Hole })
    }

    /// A pointer that is 0 or leads to a block of the file system.
    pub(crate) fn checked_pointer(&self, inode: &Inode, block: u64) -> Result<u64> {
        if block != 0 && (block <= self.superblock.first_data_block || block >= self.superblock.blocks_count) {
            let expected = format!("blocks lie inside the file system, found {block}");
            return Err(Error::corrupt("block map", format_args!("inode {}", inode.number), expected));
        }
        Ok(block)
    }

    pub(crate) fn for_each_indirect_block(
        &self,
        inode: &Inode,
        visit: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        // A map may lead to one block many times over; more blocks than the file system has are too many.
        let mut budget = self.superblock.blocks_count;
        for levels in 1..=3 {
            let block = self.checked_pointer(inode, pointer(&inode.raw.i_block, DIRECT as usize + levels - 1))?;
            if block != 0 {
                self.visit_indirect(inode, block, levels, &mut budget, visit)?;
            }
        }
        Ok(())
    }

    fn visit_indirect(
        &self,
        inode: &Inode,
        block: u64,
        levels: usize,
        budget: &mut u64,
        visit: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        *budget = budget.checked_sub(1).ok_or_else(|| {
            Error::corrupt(
                "block map",
                format_args!("inode {}", inode.number),
                "has no more blocks than the file system",
            )
        })?;
        visit(block)?;
        if levels > 1 {
            let bytes = self.cache.get(block, BlockKind::Indirect, |_| Ok(()))?;
            for index in 0..bytes.len() / 4 {
                let child = self.checked_pointer(inode, pointer(&bytes, index))?;
                if child != 0 {
                    self.visit_indirect(inode, child, levels - 1, budget, visit)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_each_level() {
        let path = |logical| map_path(logical, 1024).map(|p| (p.root, p.levels, p.indexes));
        assert_eq!(path(11), Some((11, 0, [0; 3])));
        assert_eq!(path(12), Some((12, 1, [0, 0, 0])));
        assert_eq!(path(12 + 255), Some((12, 1, [255, 0, 0])));
        assert_eq!(path(12 + 256), Some((13, 2, [0, 0, 0])));
        assert_eq!(path(12 + 256 + 257), Some((13, 2, [1, 1, 0])));
        assert_eq!(path(12 + 256 + 65536), Some((14, 3, [0, 0, 0])));
        assert_eq!(path(12 + 256 + 65536 + 16_777_216), None);
        assert_eq!(run_len(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0), 2);
        assert_eq!(run_len(&[5, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0], 0), 2);
    }
}
