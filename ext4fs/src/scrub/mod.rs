//! Making all that the file system does not use read as zeros: free blocks, the journal, deleted names and inodes, slack.
//!
//! First everything is surveyed, and nothing is written unless all of it holds together: no block or inode that is in
//! use may be marked as free, and no block may have two owners. Then only what is not zeros is written.

mod claims;
mod clusters;
mod slack;
mod survey;
mod unused;

pub(crate) use survey::BAD_BLOCKS_INODE;

use crate::Result;
use crate::file_system::FileSystem;

/// What is to be scrubbed beyond the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Whether the last block of every file is wiped behind the file's end. Kernels keep zeros there, and so do we.
    pub file_slack: bool,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { file_slack: true }
    }
}

/// What a scrub found and wiped. All are counts of bytes that did not read as zeros, in whole blocks where blocks are
/// given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// All of the below.
    pub bytes_zeroed: u64,
    /// Blocks that hold nothing: free ones, the journal's log, those set aside for files but never written, and the
    /// parts of inode tables and bitmaps that were never used.
    pub unused_blocks: u64,
    /// Deleted names and what lies behind names in directories.
    pub directories: u64,
    /// Slots of inodes that are not in use.
    pub inodes: u64,
    /// What lies behind the last entry of an extent tree's node, the last attribute, or a symbolic link's target.
    pub slack: u64,
    /// Bytes behind the ends of files.
    pub file_slack: u64,
}

impl FileSystem {
    /// Makes everything that the file system does not use read as zeros, with the options that are usual.
    ///
    /// Changes still in memory are flushed first, so that nothing on the device refers to a block that is wiped. What is
    /// wiped in metadata stays in memory until the next [`FileSystem::flush`]. Free space is discarded, so that the
    /// device can give it back; where all is zeros already nothing is written, and a second scrub changes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the file system contradicts itself, before anything is changed;
    /// [`crate::Error::ReadOnly`] and [`crate::Error::Io`].
    pub fn scrub(&mut self) -> Result<ScrubReport> {
        self.scrub_with(&ScrubOptions::default())
    }

    /// Checks what owns blocks as a scrub does before it changes anything, and returns how many clusters have an owner.
    /// Bad blocks count as owned.
    pub(crate) fn check_owners(&self, bad: &[std::ops::Range<u64>]) -> Result<u64> {
        let mut plan = self.survey(&ScrubOptions::default())?;
        self.plan_slack(&mut plan)?;
        bad.iter().try_for_each(|run| plan.claims.add(run.clone()))?;
        plan.claims.merge()?;
        self.check_free_blocks(&plan)?;
        Ok(plan.claims.clusters(self.superblock.first_data_block, u64::from(self.superblock.cluster_ratio)))
    }

    /// As [`FileSystem::scrub`], with options.
    ///
    /// # Errors
    /// As [`FileSystem::scrub`].
    pub fn scrub_with(&mut self, options: &ScrubOptions) -> Result<ScrubReport> {
        self.flush()?;
        self.change(|fs| {
            let mut plan = fs.survey(options)?;
            fs.plan_slack(&mut plan)?;
            fs.check_free_blocks(&plan)?;
            fs.wipe_metadata(&plan)?;
            fs.wipe_unused(&mut plan)?;
            let mut report = plan.report;
            report.bytes_zeroed =
                report.unused_blocks + report.directories + report.inodes + report.slack + report.file_slack;
            Ok(report)
        })
    }
}
