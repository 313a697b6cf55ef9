//! From a file's logical blocks to the blocks of the file system, whichever way the inode maps them.

use std::ops::Range;

use crate::Result;
use crate::extent_tree::Extent;
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::layout::extent::MAX_WRITTEN_LEN;

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

    /// Lets `len` logical blocks from `logical` on, which must be a hole, be the blocks from `block` on, with data in them.
    /// [`FileSystem::place_data`] has chosen and counted them.
    pub(crate) fn add_mapping(&mut self, inode: &mut Inode, logical: u32, block: u64, len: u32) -> Result<()> {
        if inode.flags().contains(InodeFlags::EXTENTS) {
            let mut done = 0;
            while done < len {
                let part = (len - done).min(u32::from(MAX_WRITTEN_LEN));
                let physical = block + u64::from(done);
                self.insert_extent(inode, Extent { logical: logical + done, len: part, physical, unwritten: false })?;
                done += part;
            }
            Ok(())
        } else {
            self.map_indirect_blocks(inode, logical, block, len)
        }
    }

    /// Frees all blocks from logical block `from` on.
    pub(crate) fn truncate_blocks(&mut self, inode: &mut Inode, from: u32) -> Result<()> {
        self.remove_blocks(inode, from..u32::MAX)
    }

    /// Frees the blocks in a range of logical blocks.
    pub(crate) fn remove_blocks(&mut self, inode: &mut Inode, range: Range<u32>) -> Result<()> {
        if range.is_empty() || !inode.maps_blocks(&self.superblock) {
            return Ok(());
        }
        if inode.flags().contains(InodeFlags::EXTENTS) {
            self.remove_extents(inode, range)
        } else {
            self.remove_from_block_map(inode, range)
        }
    }

    /// How many blocks at most an inode's map grows by when `data` blocks are added to it in the worst places.
    pub(crate) fn map_growth(&self, data: u64) -> u64 {
        // A node that was split is half full; an indirect block holds more than a node. Six levels may grow at once.
        let half_node = (self.superblock.block_size / 12 / 2) as u64;
        data.div_ceil(half_node) * 2 + 6
    }

    /// Where to look for blocks for an inode that has none yet.
    pub(crate) fn inode_goal(&self, inode: u32) -> Result<u64> {
        let (group, _) = self.superblock.locate_inode(inode)?;
        Ok(self.superblock.group_first_block(group))
    }

    /// Counts clusters that an inode has taken.
    pub(crate) fn count_clusters(&self, inode: &mut Inode, clusters: u64) -> Result<()> {
        let sectors =
            inode.sectors(&self.superblock).saturating_add(clusters.saturating_mul(self.sectors_per_cluster()));
        inode.set_sectors(sectors, &self.superblock)
    }

    /// Counts clusters that an inode has given back.
    pub(crate) fn discount_clusters(&self, inode: &mut Inode, clusters: u64) -> Result<()> {
        let sectors =
            inode.sectors(&self.superblock).saturating_sub(clusters.saturating_mul(self.sectors_per_cluster()));
        inode.set_sectors(sectors, &self.superblock)
    }

    fn sectors_per_cluster(&self) -> u64 {
        (self.superblock.block_size / 512) as u64 * u64::from(self.superblock.cluster_ratio)
    }
}
