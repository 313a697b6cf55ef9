//! Clusters (`bigalloc`): blocks are given out and taken back several at a time, while files still map single blocks.
//!
//! <https://docs.kernel.org/filesystems/ext4/bigalloc.html>. All blocks of a file that lie in one cluster of its logical
//! blocks lie in one cluster of the disk, at the same place in it; what is not mapped of a cluster is nobody else's. A
//! block that holds metadata takes a whole cluster. Without `bigalloc` a cluster is a block.

use std::ops::Range;

use crate::extent_tree::LOGICAL_END;
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::mapping::Place;
use crate::{Error, Result};

/// Which blocks of a file are being freed, from its end to its start.
#[derive(Debug, Clone)]
pub(crate) struct Freeing {
    /// The logical blocks.
    pub blocks: Range<u32>,
    /// The first and the last logical cluster, where something else in them stays mapped.
    kept: [Option<u32>; 2],
    /// The logical cluster that was freed last.
    last: Option<u32>,
}

impl FileSystem {
    fn ratio(&self) -> u32 {
        self.superblock.cluster_ratio
    }

    /// Chooses blocks for logical blocks from `logical` on, which are a hole of at least `want` blocks, and counts them
    /// in the inode. Returns the first block, and how many follow each other there.
    pub(crate) fn place_data(&mut self, inode: &mut Inode, logical: u32, want: u32) -> Result<(u64, u32)> {
        let goal = self.data_goal(inode, logical)?;
        let ratio = self.ratio();
        if ratio == 1 {
            let blocks = self.allocate_blocks(goal, want)?;
            let len = (blocks.end - blocks.start) as u32;
            self.count_clusters(inode, u64::from(len))?;
            return Ok((blocks.start, len));
        }
        let offset = logical % ratio;
        if let Some(start) = self.cluster_of(inode, logical / ratio)? {
            let block = start + u64::from(offset);
            self.check_inside(inode, block)?;
            return Ok((block, want.min(ratio - offset)));
        }
        // The last cluster may have blocks already, behind the hole.
        let last = (logical + want - 1) / ratio;
        let mut want = want;
        if last > logical / ratio && !(logical + want).is_multiple_of(ratio) && self.cluster_of(inode, last)?.is_some()
        {
            want = last * ratio - logical;
        }
        let blocks = self.allocate_clusters(goal.saturating_sub(u64::from(offset)), (offset + want).div_ceil(ratio))?;
        self.count_clusters(inode, (blocks.end - blocks.start).div_ceil(u64::from(ratio)))?;
        let len = (blocks.end - blocks.start) as u32;
        if len <= offset {
            return Err(Error::NoSpace("blocks"));
        }
        Ok((blocks.start + u64::from(offset), want.min(len - offset)))
    }

    /// The most clusters that as many blocks of a hole may take.
    pub(crate) fn clusters_for_hole(&self, blocks: u64) -> u64 {
        if self.ratio() == 1 { blocks } else { blocks.div_ceil(u64::from(self.ratio())) + 1 }
    }

    /// Prepares to free the logical blocks in `blocks`.
    pub(crate) fn freeing(&self, inode: &Inode, blocks: Range<u32>) -> Result<Freeing> {
        let mut freeing = Freeing { blocks: blocks.clone(), kept: [None; 2], last: None };
        let ratio = self.ratio();
        if ratio == 1 {
            return Ok(freeing);
        }
        let (first, last) = (blocks.start / ratio, blocks.end / ratio);
        if self.is_any_mapped(inode, first * ratio..blocks.start)? {
            freeing.kept[0] = Some(first);
        }
        let end = (last + 1).saturating_mul(ratio);
        if !blocks.end.is_multiple_of(ratio)
            && blocks.end < LOGICAL_END
            && self.is_any_mapped(inode, blocks.end..end)?
        {
            freeing.kept[1] = Some(last);
        }
        Ok(freeing)
    }

    /// Frees what `freeing` covers of an extent. Extents must come in descending order.
    pub(crate) fn free_extent(
        &mut self,
        inode: &mut Inode,
        logical: u32,
        physical: u64,
        len: u32,
        freeing: &mut Freeing,
    ) -> Result<()> {
        let start = logical.max(freeing.blocks.start);
        let end = (logical + len).min(freeing.blocks.end);
        if start >= end {
            return Ok(());
        }
        let ratio = self.ratio();
        let block = physical + u64::from(start - logical);
        if ratio == 1 {
            self.free_blocks_run(block, u64::from(end - start))?;
            return self.discount_clusters(inode, u64::from(end - start));
        }
        let (mut first, mut last) = (start / ratio, (end - 1) / ratio);
        let stays =
            |cluster: u32, freeing: &Freeing| freeing.kept.contains(&Some(cluster)) || freeing.last == Some(cluster);
        let base = block
            .checked_sub(u64::from(start % ratio))
            .filter(|base| (base - self.superblock.first_data_block.min(*base)).is_multiple_of(u64::from(ratio)));
        let Some(base) = base else {
            let expected = format!("block {logical} lies in its cluster as on the disk, found {physical}");
            return Err(Error::corrupt("extent", format_args!("inode {}", inode.number), expected));
        };
        let base_cluster = first;
        if stays(last, freeing) {
            let Some(before) = last.checked_sub(1).filter(|before| *before >= first) else { return Ok(()) };
            last = before;
        }
        if stays(first, freeing) {
            first += 1;
        }
        if first > last {
            return Ok(());
        }
        freeing.last = Some(first);
        let from = base + u64::from(first - base_cluster) * u64::from(ratio);
        let to = (from + u64::from(last - first + 1) * u64::from(ratio)).min(self.superblock.blocks_count);
        self.free_blocks_run(from, to - from)?;
        self.discount_clusters(inode, u64::from(last - first + 1))
    }

    /// Where the cluster of the disk begins that a logical cluster of a file has, if it has one.
    fn cluster_of(&self, inode: &Inode, cluster: u32) -> Result<Option<u64>> {
        let ratio = self.ratio();
        let mut logical = cluster * ratio;
        let end = (u64::from(logical) + u64::from(ratio)).min(u64::from(LOGICAL_END)) as u32;
        while logical < end {
            let mapping = self.map(inode, logical)?;
            if let Some(block) = mapping.physical() {
                return Ok(block.checked_sub(u64::from(logical % ratio)));
            }
            logical = logical.saturating_add(mapping.len);
        }
        Ok(None)
    }

    fn is_any_mapped(&self, inode: &Inode, blocks: Range<u32>) -> Result<bool> {
        let mut logical = blocks.start;
        while logical < blocks.end {
            let mapping = self.map(inode, logical)?;
            if mapping.place != Place::Hole {
                return Ok(true);
            }
            logical = logical.saturating_add(mapping.len);
        }
        Ok(false)
    }

    fn check_inside(&self, inode: &Inode, block: u64) -> Result<()> {
        if block <= self.superblock.first_data_block || block >= self.superblock.blocks_count {
            let expected = format!("a cluster lies inside the file system, found block {block}");
            return Err(Error::corrupt("extent", format_args!("inode {}", inode.number), expected));
        }
        Ok(())
    }

    /// Where blocks for a hole are best put: after the block before it.
    fn data_goal(&self, inode: &Inode, logical: u32) -> Result<u64> {
        if let Some(before) = logical.checked_sub(1)
            && let Some(block) = self.map(inode, before)?.physical()
        {
            return Ok(block + 1);
        }
        self.inode_goal(inode.number)
    }
}
