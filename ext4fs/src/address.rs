//! Where things are: groups, their first blocks, superblock copies, descriptor blocks, inode slots.
//!
//! <https://docs.kernel.org/filesystems/ext4/blockgroup.html>; `fs/ext4/balloc.c` and `fs/ext4/super.c` (`descriptor_loc`).
//!
//! Physical blocks are `u64`, logical blocks of a file `u32`, so that the two are never mixed.

use std::ops::Range;

use crate::features::{Compat, Incompat, RoCompat};
use crate::superblock::Superblock;
use crate::{Error, Result};

impl Superblock {
    /// The group that holds a block, which must be at or after the first data block.
    pub(crate) fn group_of_block(&self, block: u64) -> Result<u32> {
        match block.checked_sub(self.first_data_block) {
            Some(relative) if block < self.blocks_count => Ok((relative / u64::from(self.blocks_per_group)) as u32),
            _ => Err(Error::corrupt(
                "block number",
                format_args!("block {block}"),
                format!("lies between {} and {}", self.first_data_block, self.blocks_count),
            )),
        }
    }

    /// The first block of a group.
    pub(crate) fn group_first_block(&self, group: u32) -> u64 {
        self.first_data_block + u64::from(group) * u64::from(self.blocks_per_group)
    }

    /// All blocks of a group: fewer in the last one.
    pub(crate) fn group_blocks(&self, group: u32) -> Range<u64> {
        let start = self.group_first_block(group);
        start..(start + u64::from(self.blocks_per_group)).min(self.blocks_count).max(start)
    }

    /// Bits of a group's block bitmap that stand for something: its clusters.
    pub(crate) fn group_clusters(&self, group: u32) -> u32 {
        let blocks = self.group_blocks(group);
        (blocks.end - blocks.start).div_ceil(u64::from(self.cluster_ratio)) as u32
    }

    /// Group and index in the group's inode table of an inode.
    pub(crate) fn locate_inode(&self, inode: u32) -> Result<(u32, u32)> {
        if inode == 0 || inode > self.inodes_count {
            let expected = format!("is from 1 to {}", self.inodes_count);
            return Err(Error::corrupt("inode number", format_args!("inode {inode}"), expected));
        }
        Ok(((inode - 1) / self.inodes_per_group, (inode - 1) % self.inodes_per_group))
    }

    /// Descriptors in one block.
    pub(crate) fn descriptors_per_block(&self) -> u32 {
        (self.block_size / self.descriptor_size) as u32
    }

    /// Blocks that all descriptors fill.
    pub(crate) fn descriptor_blocks(&self) -> u32 {
        self.group_count.div_ceil(self.descriptors_per_block())
    }

    /// Whether group descriptors are spread over the groups.
    pub(crate) fn meta_bg(&self) -> bool {
        self.features.incompat.contains(Incompat::META_BG)
    }

    fn first_meta_bg(&self) -> u32 {
        self.raw.s_first_meta_bg.get()
    }

    /// Where the `index`th block of group descriptors is.
    pub(crate) fn descriptor_block(&self, index: u32) -> u64 {
        if !self.meta_bg() || index < self.first_meta_bg() {
            // The superblock is in block 0 where a block holds more than the boot sector and the superblock.
            let superblock = if self.block_size == 1024 { 1 } else { 0 };
            return superblock + 1 + u64::from(index);
        }
        let group = u64::from(index) * u64::from(self.descriptors_per_block());
        let first = self.first_data_block + group * u64::from(self.blocks_per_group);
        first + u64::from(self.has_superblock(group as u32))
    }

    /// Where the copies of the `index`th block of group descriptors are.
    pub(crate) fn descriptor_block_copies(&self, index: u32) -> Vec<u64> {
        let with_superblock = |group: &u32| self.has_superblock(*group);
        if !self.meta_bg() || index < self.first_meta_bg() {
            let groups = (1..self.group_count).filter(with_superblock);
            return groups.map(|group| self.group_first_block(group) + 1 + u64::from(index)).collect();
        }
        let per_block = self.descriptors_per_block();
        let first = index * per_block;
        let groups = [first + 1, first + per_block - 1].into_iter().filter(|group| *group < self.group_count);
        groups.map(|group| self.group_first_block(group) + u64::from(self.has_superblock(group))).collect()
    }

    /// Whether a group begins with a superblock.
    pub(crate) fn has_superblock(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.features.compat.contains(Compat::SPARSE_SUPER2) {
            return self.raw.s_backup_bgs.iter().any(|backup| backup.get() == group);
        }
        let power_of = |base: u32| {
            let mut n = group;
            while n.is_multiple_of(base) {
                n /= base;
            }
            n == 1
        };
        group == 1
            || !self.features.ro_compat.contains(RoCompat::SPARSE_SUPER)
            || power_of(3)
            || power_of(5)
            || power_of(7)
    }

    /// The blocks at the start of a group that superblock, descriptors and reserved descriptor blocks take.
    pub(crate) fn group_header_blocks(&self, group: u32) -> Range<u64> {
        let first = self.group_first_block(group);
        let superblock = u64::from(self.has_superblock(group));
        let per_block = self.descriptors_per_block();
        let len = if !self.meta_bg() || group / per_block < self.first_meta_bg() {
            let descriptors = if self.meta_bg() { self.first_meta_bg() } else { self.descriptor_blocks() };
            let reserved = u64::from(self.raw.s_reserved_gdt_blocks.get());
            if superblock == 1 { 1 + u64::from(descriptors) + reserved } else { 0 }
        } else {
            let place = group % per_block;
            superblock + u64::from(place == 0 || place == 1 || place == per_block - 1)
        };
        // With 1 KiB blocks and bigalloc, group 0 starts at the boot block.
        let boot = u64::from(group == 0 && self.first_data_block == 0 && self.block_size == 1024);
        first..(first + len + boot).min(self.group_blocks(group).end)
    }
}
