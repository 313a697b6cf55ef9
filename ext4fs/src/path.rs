//! Paths: what `std::fs` offers, inside the file system. Symbolic links resolve inside it, `..` stops at its root.

use std::collections::VecDeque;

use crate::file_system::{FileSystem, ROOT_INODE};
use crate::limits::{MAX_READ_LEN, MAX_SYMLINKS};
use crate::metadata::{DirEntry, FileKind, Metadata};
use crate::{Error, Result};

/// What a path leads to, seen from the directory that holds its last name.
pub(crate) struct Resolved {
    /// The directory of the last name; the root for the root itself.
    pub parent: u32,
    /// The last name; empty for the root.
    pub name: Vec<u8>,
    /// What the name names, if it exists.
    pub inode: Option<u32>,
}

/// What to do with a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

impl FileSystem {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the like; [`Error::FileTooLarge`] for more than 1 GiB, which [`FileSystem::read_at`] can read.
    pub fn read(&self, path: &[u8]) -> Result<Vec<u8>> {
        let inode = self.file_inode(self.existing(path, LastLink::Follow)?)?;
        let size = inode.size(&self.superblock);
        if size > MAX_READ_LEN {
            return Err(Error::FileTooLarge(size));
        }
        let mut bytes = vec![0; size as usize];
        self.read_inode_at(&inode, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// What `stat` would tell of a path.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the like.
    pub fn metadata_path(&self, path: &[u8]) -> Result<Metadata> {
        self.metadata(self.existing(path, LastLink::Follow)?)
    }

    /// What `lstat` would tell of a path.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the like.
    pub fn symlink_metadata_path(&self, path: &[u8]) -> Result<Metadata> {
        self.metadata(self.existing(path, LastLink::Keep)?)
    }

    /// The entries of a directory, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`] and the like.
    pub fn read_dir_path(&self, path: &[u8]) -> Result<Vec<DirEntry>> {
        self.read_dir(self.existing(path, LastLink::Follow)?)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotASymlink`] and the like.
    pub fn read_link_path(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.read_link(self.existing(path, LastLink::Keep)?)
    }

    /// Whether a path leads to something.
    ///
    /// # Errors
    /// What the image or the device has against finding out.
    pub fn exists(&self, path: &[u8]) -> Result<bool> {
        match self.existing(path, LastLink::Follow) {
            Ok(_) => Ok(true),
            Err(Error::NotFound | Error::NotADirectory(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The inode that a path leads to, all symbolic links followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::TooManySymlinks`].
    pub fn resolve(&self, path: &[u8]) -> Result<u32> {
        self.existing(path, LastLink::Follow)
    }

    pub(crate) fn existing(&self, path: &[u8], last: LastLink) -> Result<u32> {
        self.resolve_path(path, last)?.inode.ok_or(Error::NotFound)
    }

    /// Walks a path from the root. All but the last name must exist.
    pub(crate) fn resolve_path(&self, path: &[u8], last: LastLink) -> Result<Resolved> {
        let mut names: VecDeque<Vec<u8>> = components(path).collect();
        let mut must_be_directory = path.ends_with(b"/");
        // The directories from the root to here, with the names taken.
        let mut trail: Vec<(u32, Vec<u8>)> = vec![(ROOT_INODE, Vec::new())];
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            let directory = trail.last().map_or(ROOT_INODE, |(inode, _)| *inode);
            if name == b"." {
                self.directory_inode(directory)?;
                continue;
            }
            if name == b".." {
                self.directory_inode(directory)?;
                if trail.len() > 1 {
                    trail.pop();
                }
                continue;
            }
            let entry = self.find_entry(&self.directory_inode(directory)?, &name)?;
            let Some(entry) = entry else {
                return if names.is_empty() {
                    Ok(Resolved { parent: directory, name, inode: None })
                } else {
                    Err(Error::NotFound)
                };
            };
            // The entry's own type saves reading the inode; without the feature `filetype` it is 0.
            let kind = match FileKind::from_file_type(entry.file_type) {
                Some(kind) => kind,
                None => self.inode(entry.inode)?.kind()?,
            };
            let follow = !names.is_empty() || must_be_directory || last == LastLink::Follow;
            if kind == FileKind::Symlink && follow {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Error::TooManySymlinks);
                }
                let target = self.read_link(entry.inode)?;
                if target.starts_with(b"/") {
                    trail.truncate(1);
                }
                must_be_directory |= names.is_empty() && target.ends_with(b"/");
                for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                    names.push_front(component);
                }
                continue;
            }
            trail.push((entry.inode, name));
        }
        let (inode, name) = trail.pop().unwrap_or((ROOT_INODE, Vec::new()));
        if must_be_directory {
            self.directory_inode(inode)?;
        }
        let parent = trail.last().map_or(ROOT_INODE, |(inode, _)| *inode);
        Ok(Resolved { parent, name, inode: Some(inode) })
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}
