//! From a path to an inode, as the guest's kernel would find it with the guest's root as its root.

use std::sync::{Arc, MutexGuard, PoisonError};

use crate::cache::Cache;
use crate::mount_table::Location;
use crate::path::{self, MAX_DEPTH, MAX_NAME, MAX_PATH};
use crate::{DirEntry, Error, FileKind, Guest, Metadata, Result};

/// Symbolic links that one path may lead through, as in Linux.
const MAX_LINKS: u32 = 40;
/// How many of a path's longest prefixes are looked for among the remembered ones. A path of a sane depth has fewer.
const MAX_PREFIXES: usize = 16;

/// A directory, and the way to it from the root. There is no way but down from the root, so `..` cannot lead above it.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// Absolute, without links, `.` and `..`.
    pub(crate) path: Vec<u8>,
    root: Location,
    /// One for each name in `path`.
    below: Vec<Location>,
}

impl Directory {
    fn root(root: Location) -> Self {
        Self { path: b"/".to_vec(), root, below: Vec::new() }
    }

    pub(crate) fn location(&self) -> Location {
        self.below.last().copied().unwrap_or(self.root)
    }

    fn descend(&mut self, name: &[u8], location: Location) -> Result<()> {
        if self.below.len() >= MAX_DEPTH || self.path.len() + name.len() >= MAX_PATH {
            return Err(Error::PathTooLong);
        }
        path::push(&mut self.path, name);
        self.below.push(location);
        Ok(())
    }

    fn ascend(&mut self) {
        if self.below.pop().is_some() {
            path::pop(&mut self.path);
        }
    }

    /// Turns to where a link leads from here, before the link's own components are looked at.
    fn turn(&mut self, target: &[u8]) {
        if target.first() == Some(&b'/') {
            self.below.clear();
            self.path.truncate(1);
        }
    }
}

/// Something that exists.
#[derive(Debug)]
pub(crate) struct Node {
    /// Absolute, without links, `.` and `..`.
    pub(crate) path: Vec<u8>,
    pub(crate) location: Location,
    pub(crate) metadata: Metadata,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Target {
    /// To a directory.
    Directory(Directory, Metadata),
    /// To something else that exists.
    Node(Node),
    /// To a name that does not exist, in a directory that does.
    Missing {
        /// The directory.
        directory: Directory,
        /// The name.
        name: Vec<u8>,
    },
    /// Nowhere, and this is what the kernel would say: a parent is missing or no directory, or there are too many links.
    Nowhere(Error),
}

impl Target {
    /// What exists, or the error that a call gets that needs it.
    pub(crate) fn existing(self) -> Result<Node> {
        match self {
            Self::Directory(directory, metadata) => {
                Ok(Node { location: directory.location(), path: directory.path, metadata })
            }
            Self::Node(node) => Ok(node),
            Self::Missing { .. } => Err(Error::NotFound),
            Self::Nowhere(error) => Err(error),
        }
    }

    /// What exists, if anything does.
    pub(crate) fn node(self) -> Option<Node> {
        self.existing().ok()
    }
}

/// Whether the last component is followed when it is a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follow {
    Always,
    AllButLast,
}

/// What one step along a path found.
enum Step {
    Node(Location, Metadata),
    Missing,
}

impl Guest {
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        // The cache is whole between any two of its calls, so a panic elsewhere has not hurt it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what a path leads to. Trailing slashes say nothing.
    pub(crate) fn find(&self, path: &[u8], follow: Follow) -> Result<Target> {
        path::check(path)?;
        let (mut here, start) = self.nearest_directory(path, follow);
        let mut rest = path[start..].to_vec();
        let mut at = 0;
        // While `rest[at..]` is no longer than this, all of it is a tail of `path`, and what was walked is a prefix.
        let mut tail = rest.len();
        let mut links = 0;
        // What the directory that was stepped into last is, to be spared a second look.
        let mut known: Option<Metadata> = None;
        loop {
            at += rest[at..].iter().take_while(|&&byte| byte == b'/').count();
            let left = rest.len() - at;
            if left <= tail {
                self.cache().keep_directory(trim(&path[..path.len() - left]), &here);
            }
            if left == 0 {
                let metadata = match known {
                    Some(metadata) => metadata,
                    None => self.table.metadata(here.location())?,
                };
                return Ok(Target::Directory(here, metadata));
            }
            let end = rest[at..].iter().position(|&byte| byte == b'/').map_or(rest.len(), |slash| at + slash);
            let name = &rest[at..end];
            let is_last = rest[end..].iter().all(|&byte| byte == b'/');
            match name {
                b"." => {}
                b".." => {
                    here.ascend();
                    known = None;
                }
                name if name.len() > MAX_NAME => return Ok(Target::Nowhere(Error::PathTooLong)),
                name => match self.step(&here, name)? {
                    Step::Missing if is_last => return Ok(Target::Missing { name: name.to_vec(), directory: here }),
                    Step::Missing => return Ok(Target::Nowhere(Error::NotFound)),
                    Step::Node(location, metadata) if is_last && !goes_on(&metadata, follow) => {
                        return Ok(Target::Node(Node { path: path::join(&here.path, name), location, metadata }));
                    }
                    Step::Node(location, metadata) => match metadata.kind {
                        FileKind::Directory => {
                            if let Err(error) = here.descend(name, location) {
                                return Ok(Target::Nowhere(error));
                            }
                            known = Some(metadata);
                        }
                        FileKind::Symlink => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Ok(Target::Nowhere(Error::TooManyLinks));
                            }
                            let target = self.table.file_system(location).read_link(location.inode)?;
                            if target.is_empty() || target.contains(&0) {
                                return Ok(Target::Nowhere(Error::NotFound));
                            }
                            if target.len() + rest.len() - end > MAX_PATH {
                                return Ok(Target::Nowhere(Error::PathTooLong));
                            }
                            tail = tail.min(rest.len() - end);
                            here.turn(&target);
                            known = None;
                            rest = [&target, &rest[end..]].concat();
                            at = 0;
                            continue;
                        }
                        _ => return Ok(Target::Nowhere(Error::NotADirectory)),
                    },
                },
            }
            at = end;
        }
    }

    /// The directory at a path, all links followed, if there is one.
    pub(crate) fn find_directory(&self, path: &[u8]) -> Result<Option<Arc<Directory>>> {
        path::check(path)?;
        let remembered = self.cache().directory(trim(path));
        if remembered.is_some() {
            return Ok(remembered);
        }
        Ok(match self.find(path, Follow::Always)? {
            Target::Directory(directory, _) => Some(Arc::new(directory)),
            _ => None,
        })
    }

    /// The entries of a directory, sorted by name, from memory where it can be.
    pub(crate) fn entries(&self, directory: Location) -> Result<Arc<[DirEntry]>> {
        if let Some(entries) = self.cache().entries(directory) {
            return Ok(entries);
        }
        let entries: Arc<[DirEntry]> = self.table.read_dir(directory)?.into();
        self.cache().keep_entries(directory, &entries);
        Ok(entries)
    }

    /// The nearest directory on the way to `path` that is remembered, and how much of the path leads to it.
    fn nearest_directory(&self, path: &[u8], follow: Follow) -> (Directory, usize) {
        let cache = self.cache();
        let whole = trim(path).len();
        let slashes = path.iter().enumerate().skip(1).rev().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in std::iter::once(path.len()).chain(slashes).take(MAX_PREFIXES) {
            if let Some(directory) = cache.directory(&path[..end]) {
                // What the whole path led to may have been found through a link that is itself what is asked for now.
                if end < whole || follow == Follow::Always || directory.path == path[..end] {
                    return (Directory::clone(&directory), end);
                }
            }
        }
        (Directory::root(self.table.root()), 0)
    }

    fn step(&self, here: &Directory, name: &[u8]) -> Result<Step> {
        let at = here.location();
        let entries = self.cache().entries(at);
        let location = match entries {
            Some(entries) => match entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)) {
                Ok(index) => Some(self.table.entry(at, &entries[index])),
                Err(_) => None,
            },
            None => self.table.lookup(at, name)?,
        };
        match location {
            Some(location) => Ok(Step::Node(location, self.table.metadata(location)?)),
            None => Ok(Step::Missing),
        }
    }
}

/// A path without the slashes at its end; the root is empty.
fn trim(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    &path[..end]
}

/// Whether a last component leads on: a directory is stepped into, and a link followed where that is wanted.
fn goes_on(metadata: &Metadata, follow: Follow) -> bool {
    match metadata.kind {
        FileKind::Directory => true,
        FileKind::Symlink => follow == Follow::Always,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::MemoryFileSystem;
    use crate::{FileKind, Guest};

    #[test]
    fn a_link_stays_a_link_after_it_was_followed() {
        let mut root = MemoryFileSystem::new();
        root.add_file("/real/file", "").unwrap();
        root.add_symlink("/link", "real").unwrap();
        let guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
        assert!(guest.lstat(b"/link/file").unwrap().is_some());
        for path in [&b"/link"[..], b"/link/", b"//link"] {
            assert_eq!(guest.stat(path).unwrap().unwrap().kind, FileKind::Directory);
            assert_eq!(guest.lstat(path).unwrap().unwrap().kind, FileKind::Symlink);
        }
        assert_eq!(guest.read_link(b"/link").unwrap(), b"real");
    }
}
