//! Replay: the last contents of every block that the log wrote and did not revoke.
//!
//! Kernel `fs/jbd2/recovery.c` (`jbd2_journal_recover`).

use std::collections::BTreeMap;

use super::superblock::{Superblock, emptied};
use super::{JournalBlocks, Replay, scan};
use crate::error::{Error, Result};
use crate::layout::journal::JBD2_MAGIC;

/// Says what the blocks of a file system of `fs_blocks` blocks hold once its journal is applied. A clean journal
/// leads to no blocks and to a superblock that is as it was.
///
/// # Errors
/// [`Error::Corrupt`] where the superblock or a committed transaction is malformed or a checksum wrong,
/// [`Error::Unsupported`] for unknown features and where there are fast commits to apply.
pub(crate) fn replay(journal: &dyn JournalBlocks, fs_blocks: u64) -> Result<Replay> {
    let first = journal.read(0)?;
    let superblock = Superblock::decode(&first, journal.block_size(), journal.block_count())?;
    if superblock.start == 0 {
        return Ok(Replay { blocks: Vec::new(), superblock: first, transactions: 0 });
    }
    let found = scan::scan(journal, &superblock)?;
    if superblock.fast_commit && has_fast_commits(&journal.read(superblock.end)?, found.next_sequence) {
        return Err(Error::Unsupported("fast commits in the journal".to_owned()));
    }
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
    Ok(Replay { blocks, superblock, transactions: found.transactions })
}

/// Whether the fast commit area begins with a commit on top of the log's last transaction: the tag
/// `EXT4_FC_TAG_HEAD` with its length, then features and the transaction's number, all little-endian.
fn has_fast_commits(bytes: &[u8], next_sequence: u32) -> bool {
    const HEAD: [u8; 2] = 9_u16.to_le_bytes();
    bytes.get(..2) == Some(HEAD.as_slice()) && bytes.get(8..12) == Some(next_sequence.to_le_bytes().as_slice())
}
