//! Giving out and taking back blocks and inodes.
//!
//! New things go near the old: blocks after the goal that the caller names, inodes into the group of their
//! directory. Groups that were never written are used last, so that few blocks of the disk change.

use std::ops::Range;

use crate::bitmap;
use crate::block_group::{GroupFlags, overlapping};
use crate::file_system::FileSystem;
use crate::quota::RESERVED_BLOCKS;
use crate::{Error, Result};

impl FileSystem {
    /// Fails, before anything is changed, where fewer than `count` clusters are free.
    pub(crate) fn require_blocks(&self, count: u64) -> Result<()> {
        let count = if self.counts_usage() { count + RESERVED_BLOCKS } else { count };
        if self.free_blocks() < count { Err(Error::NoSpace("blocks")) } else { Ok(()) }
    }

    /// Takes from 1 to `want` free blocks that follow each other, as [`Self::allocate_clusters`] does. Those left of the
    /// last cluster are nobody's.
    pub(crate) fn allocate_blocks(&mut self, goal: u64, want: u32) -> Result<Range<u64>> {
        let blocks = self.allocate_clusters(goal, want.div_ceil(self.superblock.cluster_ratio))?;
        Ok(blocks.start..blocks.end.min(blocks.start + u64::from(want.max(1))))
    }

    /// Takes from 1 to `want` free clusters that follow each other: at `goal` if that is free, else near it, else
    /// wherever there are enough of them, else the longest run there is.
    pub(crate) fn allocate_clusters(&mut self, goal: u64, want: u32) -> Result<Range<u64>> {
        let ratio = self.superblock.cluster_ratio;
        let want = want.clamp(1, self.superblock.blocks_per_group / ratio);
        let goal = if self.superblock.group_of_block(goal).is_ok() { goal } else { self.superblock.first_data_block };
        let goal_group = self.superblock.group_of_block(goal)?;
        let goal_bit = (goal - self.superblock.group_first_block(goal_group)) as u32 / ratio;
        let goal_free = self.group(goal_group)?.free_blocks > 0;
        if goal_free && !self.group(goal_group)?.flags.contains(GroupFlags::BLOCK_UNINIT) {
            let clusters = self.superblock.group_clusters(goal_group);
            let block_bitmap = self.block_bitmap(goal_group)?;
            let end = (goal_bit + want).min(clusters);
            if goal_bit < end && !bitmap::is_set(&block_bitmap, goal_bit) {
                let run = goal_bit..bitmap::find_set(&block_bitmap, goal_bit..end);
                return self.take_blocks(goal_group, run);
            }
            let first_free = self.group(goal_group)?.first_free;
            if let Some(run) = first_run(&block_bitmap, goal_bit.max(first_free).min(clusters)..clusters, want) {
                if want == 1 && goal_bit <= first_free {
                    self.group_mut(goal_group)?.first_free = run.start;
                }
                return self.take_blocks(goal_group, run);
            }
        }
        for never_written in [false, true] {
            if let Some((group, run)) = self.find_run(goal_group, want, never_written)? {
                return self.take_blocks(group, run);
            }
        }
        match self.find_longest_run(goal_group)? {
            Some((group, run)) => self.take_blocks(group, run),
            None => Err(Error::NoSpace("blocks")),
        }
    }

    /// Gives blocks back, with all of their clusters. They must be in use, and not the format's own.
    pub(crate) fn free_blocks_run(&mut self, start: u64, len: u64) -> Result<()> {
        let wrong = |expected: &str| {
            Error::corrupt(
                "block bitmap",
                format_args!("{len} blocks from {start}"),
                format!("freed blocks {expected}"),
            )
        };
        let end = start.checked_add(len).filter(|end| *end <= self.superblock.blocks_count);
        let end = end.ok_or_else(|| wrong("lie inside the file system"))?;
        if overlapping(self.system_blocks(), start..end).next().is_some() {
            return Err(wrong("are not the file system's own"));
        }
        if let Some(deferred) = &mut self.deferred_frees {
            deferred.push(start..end);
            self.cache.forget(start, len);
            return Ok(());
        }
        let mut from = start;
        while from < end {
            let group = self.superblock.group_of_block(from)?;
            let blocks = self.superblock.group_blocks(group);
            let to = end.min(blocks.end);
            let ratio = self.superblock.cluster_ratio;
            let bits = (from - blocks.start) as u32 / ratio..((to - blocks.start) as u32).div_ceil(ratio);
            let block_bitmap = self.block_bitmap(group)?;
            if bitmap::find_clear(&block_bitmap, bits.clone()).is_some() {
                return Err(wrong("are in use"));
            }
            drop(block_bitmap);
            self.change_block_bitmap(group, |bytes| bitmap::clear(bytes, bits.clone()))?;
            let clusters = self.superblock.group_clusters(group);
            let descriptor = self.group_mut(group)?;
            descriptor.free_blocks = (descriptor.free_blocks + (bits.end - bits.start)).min(clusters);
            descriptor.first_free = descriptor.first_free.min(bits.start);
            from = to;
        }
        self.cache.forget(start, len);
        Ok(())
    }

    /// Marks blocks as in use or as free, whatever they were, and returns those that were not so before. For who knows
    /// whose they are.
    pub(crate) fn mark_blocks(&mut self, blocks: Range<u64>, used: bool) -> Result<Vec<Range<u64>>> {
        if overlapping(self.system_blocks(), blocks.clone()).next().is_some() {
            let expected = "blocks of files are not the file system's own";
            return Err(Error::corrupt("block bitmap", format_args!("blocks {blocks:?}"), expected));
        }
        let ratio = self.superblock.cluster_ratio;
        let mut changed = Vec::new();
        let mut from = blocks.start;
        while from < blocks.end {
            let group = self.superblock.group_of_block(from)?;
            let all = self.superblock.group_blocks(group);
            let to = blocks.end.min(all.end);
            let bits = (from - all.start) as u32 / ratio..((to - all.start) as u32).div_ceil(ratio);
            let block_bitmap = self.block_bitmap(group)?;
            let wrong: Vec<u32> = bits.filter(|bit| bitmap::is_set(&block_bitmap, *bit) != used).collect();
            drop(block_bitmap);
            if !wrong.is_empty() {
                let clusters = self.superblock.group_clusters(group);
                self.change_block_bitmap(group, |bytes| {
                    for bit in &wrong {
                        if used { bitmap::set(bytes, *bit..bit + 1) } else { bitmap::clear(bytes, *bit..bit + 1) }
                    }
                })?;
                let descriptor = self.group_mut(group)?;
                let count = wrong.len() as u32;
                let free = descriptor.free_blocks;
                descriptor.free_blocks = if used { free.saturating_sub(count) } else { (free + count).min(clusters) };
                descriptor.first_free = 0;
                let block = |bit: u32| (all.start + u64::from(bit) * u64::from(ratio)).min(all.end);
                changed.extend(wrong.into_iter().map(|bit| block(bit)..block(bit + 1)));
            }
            from = to;
        }
        Ok(changed)
    }

    /// Takes a free inode, in the group of `near` where there is one. Its slot is not touched.
    pub(crate) fn allocate_inode(&mut self, near: u32, directory: bool) -> Result<u32> {
        let (home, _) = self.superblock.locate_inode(near)?;
        let count = self.superblock.group_count;
        for never_used in [false, true] {
            for group in (home..count).chain(0..home) {
                let descriptor = self.group(group)?;
                if descriptor.free_inodes == 0 || descriptor.flags.contains(GroupFlags::INODE_UNINIT) != never_used {
                    continue;
                }
                // Inodes below the first are the format's own, whatever the bitmap says.
                let first_number = group * self.superblock.inodes_per_group + 1;
                let reserved = self.superblock.first_inode.saturating_sub(first_number);
                let inode_bitmap = self.inode_bitmap(group)?;
                let free = bitmap::find_clear(&inode_bitmap, reserved..self.superblock.inodes_per_group);
                drop(inode_bitmap);
                if let Some(index) = free {
                    self.take_inode(group, index, directory)?;
                    return Ok(first_number + index);
                }
            }
        }
        Err(Error::NoSpace("inodes"))
    }

    /// Gives an inode back, and leaves zeros in its slot.
    pub(crate) fn free_inode(&mut self, number: u32, directory: bool) -> Result<()> {
        let (group, index) = self.superblock.locate_inode(number)?;
        if number < self.superblock.first_inode || !bitmap::is_set(&self.inode_bitmap(group)?, index) {
            let expected = "a freed inode is in use and not the file system's own";
            return Err(Error::corrupt("inode bitmap", format_args!("inode {number}"), expected));
        }
        self.write_slot(number, &vec![0; self.superblock.inode_size])?;
        self.zero_inode(number)?;
        self.change_inode_bitmap(group, |bytes| bitmap::clear(bytes, index..index + 1))?;
        let all = self.superblock.inodes_per_group;
        let descriptor = self.group_mut(group)?;
        descriptor.free_inodes = (descriptor.free_inodes + 1).min(all);
        if directory {
            descriptor.used_dirs = descriptor.used_dirs.saturating_sub(1);
        }
        Ok(())
    }

    /// Marks a free inode as one in use.
    pub(crate) fn take_inode(&mut self, group: u32, index: u32, directory: bool) -> Result<()> {
        // As the kernel does: a group with inodes in use has a block bitmap of its own.
        if self.group(group)?.flags.contains(GroupFlags::BLOCK_UNINIT) {
            self.change_block_bitmap(group, |_| ())?;
        }
        let used_before = self.group(group)?.inodes_ever_used(&self.superblock);
        self.change_inode_bitmap(group, |bytes| bitmap::set(bytes, index..index + 1))?;
        let inodes_per_group = self.superblock.inodes_per_group;
        let tells_unused = self.superblock.features.group_checksum();
        let descriptor = self.group_mut(group)?;
        descriptor.free_inodes = descriptor.free_inodes.saturating_sub(1);
        if directory {
            descriptor.used_dirs += 1;
        }
        if tells_unused {
            descriptor.itable_unused = descriptor.itable_unused.min(inodes_per_group - index - 1);
        }
        // Slots that now count as used may hold anything if the table was never zeroed.
        for skipped in used_before..index {
            self.zero_inode(group * inodes_per_group + 1 + skipped)?;
        }
        Ok(())
    }

    fn take_blocks(&mut self, group: u32, bits: Range<u32>) -> Result<Range<u64>> {
        let (all, ratio) = (self.superblock.group_blocks(group), u64::from(self.superblock.cluster_ratio));
        let block = |bit: u32| (all.start + u64::from(bit) * ratio).min(all.end);
        let blocks = block(bits.start)..block(bits.end);
        let len = bits.end - bits.start;
        if overlapping(self.system_blocks(), blocks.clone()).next().is_some() {
            let expected = format!("the file system's own blocks are in use, found {blocks:?} free");
            return Err(Error::corrupt("block bitmap", format_args!("group {group}"), expected));
        }
        self.change_block_bitmap(group, |bytes| bitmap::set(bytes, bits.clone()))?;
        let descriptor = self.group_mut(group)?;
        if bits.contains(&descriptor.first_free) {
            descriptor.first_free = bits.end;
        }
        descriptor.free_blocks = descriptor.free_blocks.saturating_sub(len);
        Ok(blocks)
    }

    /// The first run of `want` blocks in groups from `start` on, among those written before or those never written.
    fn find_run(&self, start: u32, want: u32, never_written: bool) -> Result<Option<(u32, Range<u32>)>> {
        for group in (start..self.superblock.group_count).chain(0..start) {
            let descriptor = self.group(group)?;
            if descriptor.free_blocks >= want && descriptor.flags.contains(GroupFlags::BLOCK_UNINIT) == never_written {
                let clusters = self.superblock.group_clusters(group);
                if let Some(run) = first_run(&self.block_bitmap(group)?, descriptor.first_free..clusters, want) {
                    return Ok(Some((group, run)));
                }
            }
        }
        Ok(None)
    }

    /// The longest run in the first group that has any free block.
    fn find_longest_run(&self, start: u32) -> Result<Option<(u32, Range<u32>)>> {
        for group in (start..self.superblock.group_count).chain(0..start) {
            if self.group(group)?.free_blocks > 0 {
                let clusters = self.superblock.group_clusters(group);
                let block_bitmap = self.block_bitmap(group)?;
                let longest = bitmap::clear_runs(&block_bitmap, 0..clusters).max_by_key(|run| run.end - run.start);
                if let Some(run) = longest {
                    return Ok(Some((group, run)));
                }
            }
        }
        Ok(None)
    }
}

/// The first run of `want` clear bits.
fn first_run(bytes: &[u8], range: Range<u32>, want: u32) -> Option<Range<u32>> {
    bitmap::clear_runs(bytes, range).find(|run| run.end - run.start >= want).map(|run| run.start..run.start + want)
}
