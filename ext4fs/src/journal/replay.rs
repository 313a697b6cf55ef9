//! Replay: the last contents of every block that the log wrote and did not revoke.
//!
//! Kernel `fs/jbd2/recovery.c` (`jbd2_journal_recover`).

use std::collections::BTreeMap;

use super::superblock::{Superblock, emptied};
use super::{JournalBlocks, Replay, fast_commit, scan};
use crate::error::{Error, Result};
use crate::layout::journal::JBD2_MAGIC;

/// Says what the blocks of a file system of `fs_blocks` blocks hold once its journal is applied. A clean journal
/// leads to no blocks and to a superblock that is as it was.
///
/// # Errors
/// [`Error::Corrupt`] where the superblock or a committed transaction is malformed or a checksum wrong,
/// [`Error::Unsupported`] for unknown features.
pub(crate) fn replay(journal: &dyn JournalBlocks, fs_blocks: u64) -> Result<Replay> {
    let first = journal.read(0)?;
    let superblock = Superblock::decode(&first, journal.block_size(), journal.block_count())?;
    if superblock.start == 0 {
        return Ok(Replay { blocks: Vec::new(), superblock: first, fast_commits: Vec::new(), transactions: 0 });
    }
    let found = scan::scan(journal, &superblock)?;
    // Kernels leave the first block of the area out.
    let area = superblock.end + 1..superblock.area_end;
    let fast_commits = fast_commit::scan(journal, area, found.next_sequence)?;
    // The last write to a block is the one that counts, unless it was revoked since.
    let mut last = BTreeMap::new();
    for write in &found.writes {
        if write.target >= fs_blocks {
            let place = format!("journal block {}", write.source);
            let rule = format!("a tag must name a block below {fs_blocks}, found {}", write.target);
            return Err(Error::corrupt("journal", place, rule));
        }
        if !found.revokes.revokes(write.target, write.sequence) {
            last.insert(write.target, write);
        }
    }
    let mut blocks = Vec::with_capacity(last.len());
    for (target, write) in last {
        let mut bytes = journal.read(write.source)?;
        if let (true, Some(start)) = (write.escaped, bytes.get_mut(..4)) {
            start.copy_from_slice(&JBD2_MAGIC.to_be_bytes());
        }
        blocks.push((target, bytes));
    }
    // A transaction that was not committed may have the next number; that after it is free.
    let superblock = emptied(&first, found.next_sequence.wrapping_add(1))?;
    Ok(Replay { blocks, superblock, fast_commits, transactions: found.transactions })
}
