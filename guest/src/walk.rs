//! Walking over all that lies below a directory.

use std::collections::HashSet;

use crate::error::Context;
use crate::mount_table::Location;
use crate::path::{self, MAX_DEPTH, MAX_PATH};
use crate::resolve::{Follow, Target};
use crate::{DirEntry, Error, FileKind, Guest, Metadata, Result};

/// What to do after a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Go on: into the directory, if it is one.
    Continue,
    /// Do not go into this directory.
    SkipDirectory,
}

/// A directory on the way down, with those of its entries that were not visited yet.
pub(crate) struct Level {
    pub(crate) location: Location,
    pub(crate) entries: std::vec::IntoIter<DirEntry>,
    /// How long the path to this directory is.
    pub(crate) path_len: usize,
}

/// The way down from the top of a walk. The tree in an image may be no tree: a directory that has two names, or lies
/// below itself, is an error, so that every directory is listed once and the walk ends.
pub(crate) struct Descent {
    pub(crate) levels: Vec<Level>,
    seen: HashSet<Location>,
}

impl Descent {
    pub(crate) fn new() -> Self {
        Self { levels: Vec::new(), seen: HashSet::new() }
    }

    /// Goes down into the directory at `path`.
    pub(crate) fn enter(&mut self, guest: &Guest, path: &[u8], location: Location) -> Result<()> {
        if !self.seen.insert(location) {
            let inode = location.inode.0;
            return Err(Error::Corrupt(format!("directory inode {inode} has more than one name")));
        }
        if self.levels.len() >= MAX_DEPTH || path.len() > MAX_PATH {
            return Err(Error::PathTooLong);
        }
        let entries = guest.table.read_dir(location)?.into_iter();
        self.levels.push(Level { location, entries, path_len: path.len() });
        Ok(())
    }

    /// The next entry to visit, whose path `path` then is; directories are left as they run out of entries.
    fn next(&mut self, path: &mut Vec<u8>) -> Option<(Location, DirEntry)> {
        while let Some(level) = self.levels.last_mut() {
            path.truncate(level.path_len);
            if let Some(entry) = level.entries.next() {
                path::push(path, &entry.name);
                return Some((level.location, entry));
            }
            self.levels.pop();
        }
        None
    }
}

/// Is shown a path, where it leads and what its directory says it is; says whether to go into it.
pub(crate) type Visitor<'a> = dyn FnMut(&[u8], Location, FileKind) -> Result<bool> + 'a;

impl Guest {
    /// Visits everything below the directory `top`, but not `top` itself: each directory before what is in it, names
    /// in the order of their bytes, into mounted file systems, never through links. Nothing where `top` is missing or
    /// no directory; links in its parents are followed, and the paths visited are below it as it was given.
    ///
    /// # Errors
    /// What the visitor returns; [`Error::Corrupt`] where the directories in the image are no tree; what the file
    /// system says.
    pub fn walk(&self, top: &[u8], visit: &mut dyn FnMut(&[u8], &Metadata) -> Result<Walk>) -> Result<()> {
        self.descend(top, &mut |path, location, _| {
            let metadata = self.table.metadata(location).at("look at", path)?;
            let walk = visit(path, &metadata)?;
            Ok(walk == Walk::Continue && metadata.kind == FileKind::Directory)
        })
    }

    /// As [`Guest::walk`], with what the directories tell and no look at each inode, which is much faster.
    ///
    /// # Errors
    /// As [`Guest::walk`].
    pub fn walk_names(&self, top: &[u8], visit: &mut dyn FnMut(&[u8], FileKind) -> Result<()>) -> Result<()> {
        self.descend(top, &mut |path, _, kind| {
            visit(path, kind)?;
            Ok(kind == FileKind::Directory)
        })
    }

    /// Walks; the visitor says whether to go into what it was shown.
    pub(crate) fn descend(&self, top: &[u8], visit: &mut Visitor<'_>) -> Result<()> {
        let Target::Directory(directory, _) = self.find(top, Follow::AllButLast).at("list", top)? else {
            return Ok(());
        };
        let mut path = top.to_vec();
        while path.len() > 1 && path.last() == Some(&b'/') {
            path.pop();
        }
        let mut descent = Descent::new();
        descent.enter(self, &path, directory.location()).at("list", &path)?;
        while let Some((parent, entry)) = descent.next(&mut path) {
            let location = self.table.entry(parent, &entry);
            if visit(&path, location, entry.kind)? {
                descent.enter(self, &path, location).at("list", &path)?;
            }
        }
        Ok(())
    }
}
