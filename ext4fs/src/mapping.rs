//! From a file's logical blocks to the blocks of the file system, whichever way the inode maps them.

use crate::Result;
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};

/// Where a run of logical blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: reads as zeros.
    Hole,
    /// In the run that starts with this block.
    Written(u64),
    /// Set aside in the run that starts with this block, whose bytes mean nothing: reads as zeros.
    Unwritten(u64),
}

/// A run of logical blocks that are all placed the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The first logical block.
    pub logical: u32,
    /// Blocks in the run, at least 1.
    pub len: u32,
    pub place: Place,
}

impl Mapping {
    /// The first block of the file system, where there is one.
    pub(crate) fn physical(&self) -> Option<u64> {
        match self.place {
            Place::Hole => None,
            Place::Written(block) | Place::Unwritten(block) => Some(block),
        }
    }

    /// What is left of the run from `logical` on, which lies inside it.
    pub(crate) fn starting_at(self, logical: u32) -> Self {
        let skip = logical - self.logical;
        let place = match self.place {
            Place::Hole => Place::Hole,
            Place::Written(block) => Place::Written(block + u64::from(skip)),
            Place::Unwritten(block) => Place::Unwritten(block + u64::from(skip)),
        };
        Self { logical, len: self.len - skip, place }
    }
}

impl FileSystem {
    /// The run that starts at logical block `logical`. The run of a hole may end before the hole does.
    pub(crate) fn map(&self, inode: &Inode, logical: u32) -> Result<Mapping> {
        if inode.flags().contains(InodeFlags::EXTENTS) {
            self.map_extent(inode, logical)
        } else {
            self.map_indirect(inode, logical)
        }
    }

    /// Calls `visit` with all runs of an inode that are somewhere, in order.
    pub(crate) fn for_each_mapping(&self, inode: &Inode, mut visit: impl FnMut(Mapping) -> Result<()>) -> Result<()> {
        if !inode.maps_blocks(&self.superblock) {
            return Ok(());
        }
        let mut logical = 0;
        while logical < u32::MAX {
            let mapping = self.map(inode, logical)?;
            if mapping.place != Place::Hole {
                visit(mapping)?;
            }
            logical = logical.saturating_add(mapping.len);
        }
        Ok(())
    }

    /// Calls `visit` with all blocks that hold the map itself: extent nodes or indirect blocks.
    pub(crate) fn for_each_map_block(&self, inode: &Inode, visit: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        if !inode.maps_blocks(&self.superblock) {
            return Ok(());
        }
        if inode.flags().contains(InodeFlags::EXTENTS) {
            self.for_each_extent_node(inode, visit)
        } else {
            self.for_each_indirect_block(inode, visit)
        }
    }
}
