//! Blocks that hold nothing: found out to be zeros, or discarded.

use std::ops::Range;

use block::{AllocationUnit, ExtentKind};

use super::survey::Plan;
use crate::file_system::FileSystem;
use crate::{Error, Result, bitmap, zeros};

/// How many bytes are read at once.
const CHUNK_BYTES: usize = 256 << 10;

impl FileSystem {
    /// Checks that no block with an owner is marked as free, and that as many are as each group counts.
    pub(super) fn check_free_blocks(&self, plan: &Plan) -> Result<()> {
        for group in 0..self.superblock.group_count {
            let block_bitmap = self.block_bitmap(group)?;
            let runs = bitmap::clear_runs(&block_bitmap, 0..self.superblock.group_clusters(group));
            let clear: u32 = runs.map(|run| run.end - run.start).sum();
            let counted = self.group(group)?.free_blocks;
            if clear != counted {
                let expected = format!("{clear} blocks are counted as free, found {counted}");
                return Err(Error::corrupt("group descriptor", format_args!("group {group}"), expected));
            }
            for run in self.free_runs(group)? {
                if let Some(block) = plan.claims.first_in(&run) {
                    let expected = "a block with an owner is marked as in use";
                    return Err(Error::corrupt("block bitmap", format_args!("block {block}"), expected));
                }
            }
        }
        Ok(())
    }

    /// Makes all free blocks and the others that hold nothing read as zeros, in runs as long as can be: the longer
    /// they are, the more of the device's own units they cover.
    pub(super) fn wipe_unused(&mut self, plan: &mut Plan) -> Result<()> {
        let mut others = std::mem::take(&mut plan.unused).into_iter().peekable();
        let unit = self.cache.device().allocation_unit();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut pending = 0..0;
        for group in 0..self.superblock.group_count {
            let mut runs = self.free_runs(group)?;
            let end = self.superblock.group_blocks(group).end;
            while let Some(other) = others.next_if(|other| other.start < end) {
                runs.push(other);
            }
            runs.sort_unstable_by_key(|run| run.start);
            for run in runs {
                if run.start <= pending.end {
                    pending.end = pending.end.max(run.end);
                } else {
                    plan.report.unused_blocks += self.wipe_run(pending, unit, &mut buffer)?;
                    pending = run;
                }
            }
        }
        plan.report.unused_blocks += self.wipe_run(pending, unit, &mut buffer)?;
        Ok(())
    }

    /// Wipes a run of blocks, and returns how many bytes the blocks among them have that were not zeros.
    fn wipe_run(&mut self, run: Range<u64>, unit: Option<AllocationUnit>, buffer: &mut [u8]) -> Result<u64> {
        let size = self.superblock.block_size as u64;
        let bytes = run.start * size..run.end * size;
        let mut found = 0;
        // Pieces that are stored, though all zeros.
        let mut blank: Vec<Range<u64>> = Vec::new();
        let mut at = bytes.start;
        while at < bytes.end {
            let extent = self.cache.device().extent_at(at, bytes.end - at)?;
            let end = at + extent.len.max(1);
            if extent.kind == ExtentKind::Data {
                found += self.count_data(at..end, buffer)?;
                match blank.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => blank.push(at..end),
                }
            }
            at = end;
        }
        if found > 0 {
            self.cache.discard(bytes)?;
            return Ok(found);
        }
        // Only whole units are worth it: parts of one stay stored and would be discarded each time anew.
        for piece in blank {
            if let Some(whole) = unit.and_then(|unit| unit.whole(piece.start, piece.end)) {
                self.cache.discard(whole)?;
            }
        }
        Ok(0)
    }

    /// How many bytes the blocks have that hold something other than zeros.
    fn count_data(&self, bytes: Range<u64>, buffer: &mut [u8]) -> Result<u64> {
        let size = self.superblock.block_size;
        let mut found = 0;
        let mut at = bytes.start;
        while at < bytes.end {
            // Chunks end where blocks do.
            let len = (buffer.len() as u64 - at % size as u64).min(bytes.end - at);
            let part = &mut buffer[..len as usize];
            self.cache.device().read_at(at, part)?;
            if !zeros::is_zero(part) {
                let first = (size - (at % size as u64) as usize).min(part.len());
                let (head, rest) = part.split_at(first);
                let dirty = |block: &[u8]| !zeros::is_zero(block);
                found += (rest.chunks(size).filter(|block| dirty(block)).count() + usize::from(dirty(head))) * size;
            }
            at += len;
        }
        Ok(found as u64)
    }
}
