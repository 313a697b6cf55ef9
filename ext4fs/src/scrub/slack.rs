//! Blocks that are in use, but not to their last byte.

use super::survey::{Plan, Suspect, What};
use crate::directory::scrub_block;
use crate::extent_tree::{Node, checksum_offset};
use crate::file_system::FileSystem;
use crate::layout::extent::ENTRY_LEN;
use crate::limits::MAX_RUN_BYTES;
use crate::metadata_cache::{Block, BlockKind};
use crate::{Result, checksum, superblock, xattr, zeros};

/// Blocks between two that are wanted are read, too, where they are at most so many bytes.
const MAX_GAP_BYTES: usize = 16 << 10;

impl FileSystem {
    /// Looks at all blocks that may have slack, in the order of the disk, and notes how they are to be.
    pub(super) fn plan_slack(&self, plan: &mut Plan) -> Result<()> {
        let mut suspects = std::mem::take(&mut plan.suspects);
        suspects.sort_unstable_by_key(|suspect| suspect.start);
        let size = self.superblock.block_size;
        let (max_gap, max_run) = ((MAX_GAP_BYTES / size) as u64, (MAX_RUN_BYTES / size) as u64);
        let mut buffer = Vec::new();
        let mut bitmap = None;
        let mut rest = suspects.as_slice();
        while let Some(first) = rest.first() {
            let mut end = first.start + u64::from(first.len);
            let mut count = 1;
            for next in &rest[1..] {
                let next_end = next.start + u64::from(next.len);
                if next.start > end + max_gap || next_end - first.start > max_run {
                    break;
                }
                (end, count) = (next_end, count + 1);
            }
            let (together, after) = rest.split_at(count);
            rest = after;
            if end - first.start > max_run {
                // One run alone that is longer.
                for at in (0..u64::from(first.len)).step_by(max_run as usize) {
                    let part = first.part(at as u32, max_run.min(u64::from(first.len) - at) as u32);
                    self.plan_together(&[part], &mut buffer, &mut bitmap, plan)?;
                }
            } else {
                self.plan_together(together, &mut buffer, &mut bitmap, plan)?;
            }
        }
        Ok(())
    }

    /// Reads the blocks of some suspects at once.
    fn plan_together(
        &self,
        suspects: &[Suspect],
        buffer: &mut Vec<u8>,
        bitmap: &mut Option<(u32, Block)>,
        plan: &mut Plan,
    ) -> Result<()> {
        let size = self.superblock.block_size;
        let (Some(first), Some(last)) = (suspects.first(), suspects.last()) else { return Ok(()) };
        buffer.resize((last.start - first.start + u64::from(last.len)) as usize * size, 0);
        self.cache.read_run(first.start, 0, buffer)?;
        for suspect in suspects {
            for index in 0..suspect.len {
                let block = suspect.start + u64::from(index);
                let at = (block - first.start) as usize * size;
                self.plan_block(suspect.part(index, 1), &mut buffer[at..at + size], bitmap, plan)?;
            }
        }
        Ok(())
    }

    /// Notes how one block is to be, and makes it so in memory.
    fn plan_block(
        &self,
        suspect: Suspect,
        bytes: &mut [u8],
        bitmap: &mut Option<(u32, Block)>,
        plan: &mut Plan,
    ) -> Result<()> {
        let block = suspect.start;
        let report = &mut plan.report;
        let (changed, kind) = match suspect.what {
            What::Directory { owner, logical } => {
                let mut check = |number| self.check_entry(owner, number, bitmap);
                let changed = scrub_block(&self.directory_format, owner, logical, bytes, &mut check)?;
                report.directories += changed;
                let (inode, indexed) = (owner.inode, owner.indexed);
                (changed, BlockKind::Directory { inode, logical, indexed })
            }
            What::ExtentNode { inode, checksum_seed } => {
                let changed = self.scrub_extent_node(bytes, checksum_seed);
                report.slack += changed;
                (changed, BlockKind::ExtentNode { inode })
            }
            What::Xattr => {
                let changed = xattr::scrub_block(bytes, block, self.xattr_checksum_seed())?;
                report.slack += changed;
                (changed, BlockKind::Xattr)
            }
            What::Target { end } | What::File { end } => {
                let changed = zeros::clear(&mut bytes[end as usize..]);
                match suspect.what {
                    What::File { .. } => report.file_slack += changed,
                    _ => report.slack += changed,
                }
                if changed > 0 {
                    plan.tails.push((block, end as usize));
                }
                return Ok(());
            }
            What::SuperblockCopy => {
                let changed = zeros::clear(&mut bytes[superblock::LEN..]);
                report.slack += changed;
                if changed > 0 {
                    plan.tails.push((block, superblock::LEN));
                }
                return Ok(());
            }
        };
        if changed > 0 {
            plan.blocks.push((block, kind, bytes.to_vec()));
        }
        Ok(())
    }

    /// Wipes what lies behind the entries of a node that was checked when the tree was walked.
    fn scrub_extent_node(&self, bytes: &mut [u8], seed: u32) -> u64 {
        let Some((entries, max)) = Node::decode(bytes).map(|node| (node.entries, node.max)) else { return 0 };
        let end = checksum_offset(max);
        let mut changed = zeros::clear(&mut bytes[(entries + 1) * ENTRY_LEN..end]);
        let has_checksum = self.superblock.features.metadata_csum();
        let behind = if has_checksum { end + 4 } else { end };
        if let Some(rest) = bytes.get_mut(behind..) {
            changed += zeros::clear(rest);
        }
        if changed > 0 && has_checksum {
            let sum = checksum::crc32c(seed, &bytes[..end]);
            bytes[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        }
        changed
    }

    /// Carries out what was noted of metadata and of the ends of contents.
    pub(super) fn wipe_metadata(&mut self, plan: &Plan) -> Result<()> {
        for (number, slot) in &plan.slots {
            if zeros::is_zero(slot) {
                self.zero_inode(*number)?;
            } else {
                self.write_slot(*number, slot)?;
            }
        }
        for (block, kind, bytes) in &plan.blocks {
            self.cache.put(*block, *kind, bytes.clone())?;
        }
        for (block, from) in &plan.tails {
            let blank = vec![0; self.superblock.block_size - from];
            self.cache.write_run(*block, *from as u64, &blank)?;
        }
        Ok(())
    }
}

impl Suspect {
    /// `len` blocks of the run from its block `index` on.
    fn part(self, index: u32, len: u32) -> Self {
        let what = match self.what {
            What::Directory { owner, logical } => What::Directory { owner, logical: logical + index },
            other => other,
        };
        Self { start: self.start + u64::from(index), len, what }
    }
}
