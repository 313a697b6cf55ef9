//! What inodes have of clusters (`bigalloc`): whole ones, though they may map but some of the blocks.

use std::ops::Range;

use super::survey::{BAD_BLOCKS_INODE, Plan};
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::mapping::Mapping;
use crate::superblock::Superblock;
use crate::{Error, Result};

impl FileSystem {
    /// Notes what is left of clusters that the format's own blocks take but parts of. Nobody can have it.
    pub(super) fn survey_shared_clusters(&self, plan: &mut Plan) -> Result<()> {
        let ratio = u64::from(self.superblock.cluster_ratio);
        // Bad blocks may be anywhere, and are not to be written.
        if ratio == 1 || self.read_inode(BAD_BLOCKS_INODE)?.sectors(&self.superblock) > 0 {
            return Ok(());
        }
        let first = self.superblock.first_data_block;
        for run in self.system_blocks() {
            let start = run.start - (run.start - first.min(run.start)) % ratio;
            let end = first + (run.end - first.min(run.end)).next_multiple_of(ratio);
            for block in (start..run.start).chain(run.end..end.min(self.superblock.blocks_count)) {
                if plan.claims.first_in(&(block..block + 1)).is_none() {
                    plan.unused.push(block..block + 1);
                }
            }
        }
        Ok(())
    }
}

/// Follows the mappings of one inode in ascending order, and notes what each cluster has that is not mapped.
pub(super) struct Clusters<'a> {
    superblock: &'a Superblock,
    inode: u32,
    /// The logical cluster that was last seen, where it begins on the disk, and how many of its blocks are done with.
    current: Option<(u32, u64, u32)>,
}

impl<'a> Clusters<'a> {
    pub(super) fn new(superblock: &'a Superblock, inode: &Inode) -> Self {
        Self { superblock, inode: inode.number, current: None }
    }

    /// For blocks of no one inode's.
    pub(super) fn lone(superblock: &'a Superblock) -> Self {
        Self { superblock, inode: 0, current: None }
    }

    /// Takes in the next mapping.
    pub(super) fn add(&mut self, mapping: Mapping, plan: &mut Plan) -> Result<()> {
        let ratio = self.superblock.cluster_ratio;
        let Some(physical) = mapping.physical() else { return Ok(()) };
        if ratio == 1 {
            return plan.claims.add(physical..physical + u64::from(mapping.len));
        }
        let wrong = || {
            let expected = format!("block {} lies in its cluster as on the disk", mapping.logical);
            Error::corrupt("extent", format_args!("inode {}", self.inode), expected)
        };
        let offset = mapping.logical % ratio;
        let first = self.superblock.first_data_block;
        let base = physical.checked_sub(u64::from(offset)).filter(|base| *base >= first).ok_or_else(wrong)?;
        if !(base - first).is_multiple_of(u64::from(ratio)) {
            return Err(wrong());
        }
        let (cluster, end) = (mapping.logical / ratio, mapping.logical + mapping.len);
        let mut claimed = base;
        match self.current {
            Some((last, start, done)) if last == cluster => {
                if start != base {
                    return Err(wrong());
                }
                self.unused(base + u64::from(done)..physical, plan);
                claimed += u64::from(ratio);
            }
            _ => {
                self.finish(plan);
                self.unused(base..physical, plan);
            }
        }
        let last = (end - 1) / ratio;
        let last_base = base + u64::from(last - cluster) * u64::from(ratio);
        let claims_end = (last_base + u64::from(ratio)).min(self.superblock.blocks_count);
        if claimed < claims_end {
            plan.claims.add(claimed..claims_end)?;
        }
        self.current = Some((last, last_base, end - last * ratio));
        Ok(())
    }

    /// Notes what is left of the last cluster.
    pub(super) fn finish(&mut self, plan: &mut Plan) {
        if let Some((_, start, done)) = self.current.take() {
            self.unused(start + u64::from(done)..start + u64::from(self.superblock.cluster_ratio), plan);
        }
    }

    /// Takes in a block that has a cluster to itself.
    pub(super) fn add_lone(&self, block: u64, plan: &mut Plan) -> Result<()> {
        let first = self.superblock.first_data_block;
        let ratio = u64::from(self.superblock.cluster_ratio);
        let start = block - (block - first.min(block)) % ratio;
        plan.claims.add(start..(start + ratio).min(self.superblock.blocks_count))?;
        self.unused(start..block, plan);
        self.unused(block + 1..start + ratio, plan);
        Ok(())
    }

    fn unused(&self, blocks: Range<u64>, plan: &mut Plan) {
        let end = blocks.end.min(self.superblock.blocks_count);
        if blocks.start < end {
            plan.unused.push(blocks.start..end);
        }
    }
}
