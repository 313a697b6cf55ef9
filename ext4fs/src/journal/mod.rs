//! The journal (jbd2): scanning and replay.
//!
//! <https://docs.kernel.org/filesystems/ext4/journal.html>, kernel `fs/jbd2/recovery.c`.
//!
//! All here only reads: [`replay`] says what the file system's blocks hold once the journal is applied, and what fast
//! commits change then.

mod fast_commit;
mod replay;
mod revoke;
mod scan;
mod superblock;
#[cfg(test)]
mod tests;

use crate::error::Result;

pub(crate) use fast_commit::FastCommit;
pub(crate) use replay::replay;
pub(crate) use superblock::{check_superblock, scrubbed_superblock, superblock_with_uuid};

/// A journal's blocks, by their number in the journal.
pub(crate) trait JournalBlocks {
    /// Bytes of a block.
    fn block_size(&self) -> usize;
    /// How many blocks there are.
    fn block_count(&self) -> u32;
    /// A block's bytes, as long as a block.
    fn read(&self, n: u32) -> Result<Vec<u8>>;
}

/// What replaying a journal comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Blocks of the file system and what they hold then, in ascending order.
    pub blocks: Vec<(u64, Vec<u8>)>,
    /// The journal's first block then: the log is empty, and the next transaction's number is one that no block in
    /// the journal has.
    pub superblock: Vec<u8>,
    /// What fast commits change on top of that.
    pub fast_commits: Vec<FastCommit>,
    /// How many transactions there were to replay.
    pub transactions: u32,
}
