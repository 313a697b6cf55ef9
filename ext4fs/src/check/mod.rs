//! A read-only check: what owns blocks, what is marked as in use, what has names, and what inodes and directories say of
//! themselves.

mod blocks;
mod inodes;
mod names;

use crate::file_system::FileSystem;
use crate::{Corrupt, Error, Result};

/// More problems than these are not listed.
const MAX_PROBLEMS: usize = 1000;

impl FileSystem {
    /// Looks for contradictions, and writes nothing. What is compared: checksums and bounds of all structures; blocks with
    /// two owners; blocks and inodes that are owned or named but marked free, or marked as in use but owned by nobody; the
    /// counts of groups; names, their kinds and the link counts of all inodes; `.` and `..`; names that a
    /// directory has twice; the order within indexes of directories; lengths, numbers of blocks, flags and targets of
    /// inodes; the keys of extent trees; the list of bad blocks; and what quota files say is used.
    ///
    /// Of what concerns blocks only the first problem is listed, and then single inodes are not looked at; of inodes and
    /// names all are, up to 1000. A file system
    /// that was opened for reading only is judged as it is once its journal was replayed, but orphans are found as they lie.
    ///
    /// Memory: about 24 bytes for each inode in use and 16 for each extent, and the names of one directory.
    ///
    /// # Errors
    /// [`Error::Io`]; what the image has against it is a problem that is listed.
    pub fn check(&self) -> Result<Vec<Corrupt>> {
        let mut problems = Vec::new();
        match self.check_not_in_use() {
            Err(Error::InUse(_)) => {}
            result => note(result, &mut problems)?,
        }
        note(self.check_journal(), &mut problems)?;
        let before = problems.len();
        note(self.check_blocks(), &mut problems)?;
        // Where blocks have two owners, maps may lead in circles, and following each inode's has no bound.
        if problems.len() == before {
            note(self.check_inodes(&mut problems), &mut problems)?;
        }
        note(self.check_names(&mut problems), &mut problems)?;
        Ok(problems)
    }
}

fn corrupt(structure: &'static str, place: impl Into<String>, expected: String) -> Corrupt {
    Corrupt { structure, place: place.into(), expected }
}

fn push(problems: &mut Vec<Corrupt>, structure: &'static str, place: String, expected: String) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(corrupt(structure, place, expected));
    }
}

/// Lists what an image has against itself, and passes other errors on.
fn note(result: Result<()>, problems: &mut Vec<Corrupt>) -> Result<()> {
    match result {
        Err(Error::Corrupt(problem)) => problems.push(problem),
        Err(Error::NotADirectory(inode)) => {
            problems.push(corrupt(
                "directory entry",
                format!("inode {inode}"),
                "is the directory that it is named as".to_owned(),
            ));
        }
        other => return other,
    }
    Ok(())
}
