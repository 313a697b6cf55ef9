//! What was learnt about directories and is asked for again: operations look at the same few hundreds of times.

use std::collections::HashMap;
use std::sync::Arc;

use crate::DirEntry;
use crate::mount_table::Location;
use crate::resolve::Directory;

/// Paths that are remembered at most.
const MAX_PATHS: usize = 4096;
/// Entries that are remembered at most, over all directories.
const MAX_ENTRIES: usize = 1 << 16;

/// Resolved paths of directories, and the entries of directories, sorted by name.
///
/// Only what exists is remembered. A new name therefore makes no path stale: it makes stale the entries of its one
/// directory. A directory or link that goes or moves makes all paths stale.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    paths: HashMap<Vec<u8>, Arc<Directory>>,
    entries: HashMap<Location, Arc<[DirEntry]>>,
    entry_count: usize,
}

impl Cache {
    pub(crate) fn directory(&self, path: &[u8]) -> Option<Arc<Directory>> {
        self.paths.get(path).cloned()
    }

    pub(crate) fn keep_directory(&mut self, path: &[u8], directory: &Directory) {
        if self.paths.contains_key(path) {
            return;
        }
        if self.paths.len() >= MAX_PATHS {
            self.paths.clear();
        }
        self.paths.insert(path.to_vec(), Arc::new(directory.clone()));
    }

    pub(crate) fn entries(&self, directory: Location) -> Option<Arc<[DirEntry]>> {
        self.entries.get(&directory).cloned()
    }

    pub(crate) fn keep_entries(&mut self, directory: Location, entries: &Arc<[DirEntry]>) {
        if entries.len() > MAX_ENTRIES {
            return;
        }
        if self.entry_count + entries.len() > MAX_ENTRIES || self.entries.len() >= MAX_PATHS {
            self.entries.clear();
            self.entry_count = 0;
        }
        if self.entries.insert(directory, Arc::clone(entries)).is_none() {
            self.entry_count += entries.len();
        }
    }

    /// A name was made in the directory, or a name of something that leads nowhere was taken from it.
    pub(crate) fn forget_entries(&mut self, directory: Location) {
        if let Some(entries) = self.entries.remove(&directory) {
            self.entry_count -= entries.len();
        }
    }

    /// A directory or a link went.
    pub(crate) fn forget_paths(&mut self) {
        self.paths.clear();
    }

    pub(crate) fn forget_all(&mut self) {
        *self = Self::default();
    }
}
