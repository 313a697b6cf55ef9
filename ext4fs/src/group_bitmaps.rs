//! The bitmaps of a group: read and checked, or computed where the group was never written.
//!
//! <https://docs.kernel.org/filesystems/ext4/bitmaps.html>; `fs/ext4/balloc.c`, `ext4_init_block_bitmap`.

use std::ops::Range;
use std::sync::Arc;

use crate::bitmap;
use crate::block_group::{Group, GroupFlags, bitmap_checksum, overlapping};
use crate::file_system::FileSystem;
use crate::metadata_cache::{Block, BlockKind};
use crate::{Error, Result};

impl FileSystem {
    /// The block bitmap of a group; each bit is a cluster. What lies past the group's end is set.
    pub(crate) fn block_bitmap(&self, number: u32) -> Result<Block> {
        let group = self.group(number)?;
        if group.flags.contains(GroupFlags::BLOCK_UNINIT) {
            return Ok(Arc::new(self.computed_block_bitmap(number)));
        }
        self.cache
            .get(group.block_bitmap, BlockKind::BlockBitmap, |bytes| self.check_block_bitmap(number, group, bytes))
    }

    /// The inode bitmap of a group. What lies past the group's inodes is set.
    pub(crate) fn inode_bitmap(&self, number: u32) -> Result<Block> {
        let group = self.group(number)?;
        if group.flags.contains(GroupFlags::INODE_UNINIT) {
            return Ok(Arc::new(self.empty_inode_bitmap()));
        }
        self.cache
            .get(group.inode_bitmap, BlockKind::InodeBitmap, |bytes| self.check_inode_bitmap(number, group, bytes))
    }

    /// The runs of blocks in a group that nothing uses, in order.
    pub(crate) fn free_runs(&self, number: u32) -> Result<Vec<Range<u64>>> {
        let block_bitmap = self.block_bitmap(number)?;
        let blocks = self.superblock.group_blocks(number);
        let ratio = u64::from(self.superblock.cluster_ratio);
        let runs = bitmap::clear_runs(&block_bitmap, 0..self.superblock.group_clusters(number));
        let to_block = |cluster: u32| (blocks.start + u64::from(cluster) * ratio).min(blocks.end);
        Ok(runs.map(|run| to_block(run.start)..to_block(run.end)).collect())
    }

    /// Changes bits of a group's block bitmap. A group that was never written is from now on.
    pub(crate) fn change_block_bitmap(&mut self, number: u32, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let block = self.group(number)?.block_bitmap;
        if self.group(number)?.flags.contains(GroupFlags::BLOCK_UNINIT) {
            let computed = self.computed_block_bitmap(number);
            self.cache.put(block, BlockKind::BlockBitmap, computed)?;
            self.group_mut(number)?.flags.remove(GroupFlags::BLOCK_UNINIT);
        } else {
            self.block_bitmap(number)?;
        }
        change(self.cache.modify(block, BlockKind::BlockBitmap, |_| Ok(()))?);
        self.group_mut(number)?.bitmaps_changed = true;
        Ok(())
    }

    /// Changes bits of a group's inode bitmap. A group that was never written is from now on.
    pub(crate) fn change_inode_bitmap(&mut self, number: u32, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let block = self.group(number)?.inode_bitmap;
        if self.group(number)?.flags.contains(GroupFlags::INODE_UNINIT) {
            let empty = self.empty_inode_bitmap();
            self.cache.put(block, BlockKind::InodeBitmap, empty)?;
            let unused = self.superblock.inodes_per_group;
            let group = self.group_mut(number)?;
            group.flags.remove(GroupFlags::INODE_UNINIT);
            group.itable_unused = unused;
        } else {
            self.inode_bitmap(number)?;
        }
        change(self.cache.modify(block, BlockKind::InodeBitmap, |_| Ok(()))?);
        self.group_mut(number)?.bitmaps_changed = true;
        Ok(())
    }

    /// Computes the checksums of bitmaps that were changed since this was last done.
    pub(crate) fn finish_bitmaps(&mut self, number: u32) -> Result<()> {
        if !std::mem::take(&mut self.group_mut(number)?.bitmaps_changed) || !self.superblock.features.metadata_csum() {
            return Ok(());
        }
        let blocks = self.block_bitmap(number)?;
        let inodes = self.inode_bitmap(number)?;
        let clusters = self.superblock.blocks_per_group / self.superblock.cluster_ratio;
        let block_sum = bitmap_checksum(&self.superblock, &blocks, clusters);
        let inode_sum = bitmap_checksum(&self.superblock, &inodes, self.superblock.inodes_per_group);
        let group = self.group_mut(number)?;
        // A bitmap that was never written has no checksum.
        if !group.flags.contains(GroupFlags::BLOCK_UNINIT) {
            group.block_bitmap_checksum = block_sum;
        }
        if !group.flags.contains(GroupFlags::INODE_UNINIT) {
            group.inode_bitmap_checksum = inode_sum;
        }
        Ok(())
    }

    fn check_block_bitmap(&self, number: u32, group: &Group, bytes: &[u8]) -> Result<()> {
        if !self.superblock.features.metadata_csum() {
            return Ok(());
        }
        let bits = self.superblock.blocks_per_group / self.superblock.cluster_ratio;
        let computed = bitmap_checksum(&self.superblock, bytes, bits);
        self.compare("block bitmap", number, group.block_bitmap_checksum, computed)
    }

    fn check_inode_bitmap(&self, number: u32, group: &Group, bytes: &[u8]) -> Result<()> {
        if !self.superblock.features.metadata_csum() {
            return Ok(());
        }
        let computed = bitmap_checksum(&self.superblock, bytes, self.superblock.inodes_per_group);
        self.compare("inode bitmap", number, group.inode_bitmap_checksum, computed)
    }

    fn compare(&self, structure: &'static str, number: u32, found: u32, computed: u32) -> Result<()> {
        // A 32-byte descriptor holds the lower half only.
        let found = if self.superblock.descriptor_size < 64 { found & 0xFFFF } else { found };
        if found == computed {
            return Ok(());
        }
        let expected = format!("the checksum is {computed:#x}, found {found:#x}");
        Err(Error::corrupt(structure, format_args!("group {number}"), expected))
    }

    /// The bitmap of a group in which nothing but the format's own blocks is in use.
    fn computed_block_bitmap(&self, number: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.superblock.block_size];
        let blocks = self.superblock.group_blocks(number);
        let ratio = u64::from(self.superblock.cluster_ratio);
        for run in overlapping(self.system_blocks(), blocks.clone()) {
            let first = (run.start - blocks.start) / ratio;
            let end = (run.end - blocks.start).div_ceil(ratio);
            bitmap::set(&mut bytes, first as u32..end as u32);
        }
        bitmap::set(&mut bytes, self.superblock.group_clusters(number)..self.superblock.block_size as u32 * 8);
        bytes
    }

    fn empty_inode_bitmap(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.superblock.block_size];
        bitmap::set(&mut bytes, self.superblock.inodes_per_group..self.superblock.block_size as u32 * 8);
        bytes
    }
}
