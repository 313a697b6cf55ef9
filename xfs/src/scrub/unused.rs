//! Blocks that nothing is kept in.

use std::ops::Range;

use block::{AllocationUnit, ExtentKind};

use super::survey::Plan;
use crate::Result;
use crate::file_system::FileSystem;
use crate::zeros;

/// Free space is read in pieces of this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

impl FileSystem {
    /// The runs of blocks that hold nothing, in order, as bytes of the device.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn free_extents(&mut self) -> Result<Vec<Range<u64>>> {
        let size = self.sb.block_size as u64;
        let mut extents: Vec<Range<u64>> = Vec::new();
        for number in 0..self.sb.ag_count {
            for run in self.free_runs(number)? {
                match extents.last_mut().filter(|last| last.end == run.start * size) {
                    Some(last) => last.end = run.end * size,
                    None => extents.push(run.start * size..run.end * size),
                }
            }
        }
        Ok(extents)
    }

    /// The runs of free blocks of a group, blocks of the device, in order.
    pub(crate) fn free_runs(&mut self, number: u32) -> Result<Vec<Range<u64>>> {
        let first = self.linear(number, 0);
        let group = self.group_mut(number)?;
        let mut runs: Vec<_> = group.free.iter().map(|(start, len)| (*start, *len)).collect();
        // What the kernel keeps for its trees is free, too, and so are copies that were never put in place.
        runs.extend(group.free_list.iter().map(|block| (*block, 1)));
        let staged = group.shared.iter().flatten().filter(|(start, _)| **start >> 31 != 0);
        runs.extend(staged.map(|(start, (len, _))| (start & !(1 << 31), *len)));
        runs.sort_unstable();
        Ok(runs
            .into_iter()
            .map(|(start, len)| first + u64::from(start)..first + u64::from(start) + u64::from(len))
            .collect())
    }

    /// Makes all free blocks and the others that hold nothing read as zeros, in runs as long as can be: the longer they
    /// are, the more of the device's own units they cover.
    pub(super) fn wipe_unused(&mut self, plan: &mut Plan) -> Result<()> {
        let unit = self.store.device().reader().allocation_unit();
        let mut runs = std::mem::take(&mut plan.unused);
        for number in 0..self.sb.ag_count {
            runs.extend(self.free_runs(number)?);
        }
        runs.sort_unstable_by_key(|run| run.start);
        let mut buffer = vec![0; CHUNK_BYTES.max(self.sb.block_size)];
        let mut pending = 0..0;
        for run in runs {
            if run.start <= pending.end {
                pending.end = pending.end.max(run.end);
            } else {
                plan.report.unused_blocks += self.wipe_run(pending, unit, &mut buffer)?;
                pending = run;
            }
        }
        plan.report.unused_blocks += self.wipe_run(pending, unit, &mut buffer)?;
        Ok(())
    }

    /// Wipes a run of blocks, and returns how many bytes the blocks among them have that were not zeros.
    fn wipe_run(&mut self, run: Range<u64>, unit: Option<AllocationUnit>, buffer: &mut [u8]) -> Result<u64> {
        let size = self.sb.block_size as u64;
        let bytes = run.start * size..run.end * size;
        let mut found = 0;
        // Pieces that are stored, though all zeros.
        let mut blank: Vec<Range<u64>> = Vec::new();
        let mut at = bytes.start;
        while at < bytes.end {
            let extent = self.store.device().reader().extent_at(at, bytes.end - at)?;
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
            self.store.discard(bytes)?;
            return Ok(found);
        }
        // Only whole units are worth it: parts of one stay stored and would be discarded each time anew.
        for piece in blank {
            if let Some(whole) = unit.and_then(|unit| unit.whole(piece.start, piece.end)) {
                self.store.discard(whole)?;
            }
        }
        Ok(0)
    }

    /// How many bytes the blocks have that hold something other than zeros.
    fn count_data(&self, bytes: Range<u64>, buffer: &mut [u8]) -> Result<u64> {
        let size = self.sb.block_size;
        let mut found = 0;
        let mut at = bytes.start;
        while at < bytes.end {
            // Chunks end where blocks do.
            let len = (buffer.len() as u64 - at % size as u64).min(bytes.end - at);
            let part = &mut buffer[..len as usize];
            self.store.read(at, part)?;
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
