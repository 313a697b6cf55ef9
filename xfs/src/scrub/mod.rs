//! Making all that the file system does not use read as zeros: free blocks, the log's old contents, deleted names,
//! attributes and inodes, slack.
//!
//! First everything is surveyed, and nothing is written unless all of it holds together: no block that is in use may be
//! free, or have two owners unless it is counted as shared. Then only what is not zeros is written.

mod log;
mod survey;
mod unused;

use crate::Result;
use crate::file_system::FileSystem;

/// What a scrub found and wiped. All are counts of bytes that did not read as zeros, in whole blocks where blocks are
/// given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// All of the below.
    pub bytes_zeroed: u64,
    /// Blocks that hold nothing: free ones, those set aside for files but never written, and those beyond files' ends.
    pub unused_blocks: u64,
    /// Deleted names: directories are written anew.
    pub directories: u64,
    /// Slots of inodes that are not in use, and what inodes do not use of their own.
    pub inodes: u64,
    /// What lies beside attributes and behind symbolic links' targets.
    pub slack: u64,
    /// Bytes behind the ends of files.
    pub file_slack: u64,
    /// What the log holds beside its end.
    pub log: u64,
}

impl FileSystem {
    /// Makes everything that the file system does not use read as zeros.
    ///
    /// Changes still in memory are flushed first, so that nothing on the device refers to a block that is wiped. What is
    /// wiped in metadata stays in memory until the next [`FileSystem::flush`]. Free space is discarded, so that the
    /// device can give it back; where all is zeros already nothing is written, and a second scrub changes nothing.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the file system contradicts itself, before anything is changed;
    /// [`crate::Error::ReadOnly`] and [`crate::Error::Io`].
    pub fn scrub(&mut self) -> Result<ScrubReport> {
        self.flush()?;
        self.change(|fs| {
            let mut plan = fs.survey()?;
            fs.wipe_metadata(&mut plan)?;
            // Directories that are written anew may take and give blocks: only now is it known what is free.
            fs.settle()?;
            fs.store.write_back()?;
            fs.wipe_unused(&mut plan)?;
            fs.wipe_log(&mut plan.report)?;
            let mut report = plan.report;
            report.bytes_zeroed = report.unused_blocks
                + report.directories
                + report.inodes
                + report.slack
                + report.file_slack
                + report.log;
            Ok(report)
        })
    }
}
