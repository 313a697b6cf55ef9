//! Paths: what `std::fs` offers, inside the file system. Symbolic links resolve inside it, `..` stops at its root.

use std::collections::VecDeque;

use crate::file_system::{FileSystem, ROOT_INODE};
use crate::limits::{MAX_READ_LEN, MAX_SYMLINKS};
use crate::metadata::{DirEntry, FileKind, Metadata, NewNode, Ownership};
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

const ROOT_FILE: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };
const ROOT_DIRECTORY: Ownership = Ownership { mode: 0o755, uid: 0, gid: 0 };
const ROOT_SYMLINK: Ownership = Ownership { mode: 0o777, uid: 0, gid: 0 };

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

    /// Replaces the contents of a file, or makes it, owned by root and with mode 0644. An existing file keeps its
    /// inode, mode, owner and attributes; symbolic links are followed, and lead to a new file where their end is missing.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the directory is missing, and what [`FileSystem::write_at`] and [`FileSystem::create`] say.
    pub fn write(&mut self, path: &[u8], data: &[u8]) -> Result<()> {
        let resolved = self.resolve_path(path, LastLink::Follow)?;
        let inode = match resolved.inode {
            Some(inode) => inode,
            None => self.create(resolved.parent, &resolved.name, NewNode::File, ROOT_FILE)?,
        };
        // Blocks that stay are overwritten in place, so this takes no more room than the larger of both.
        self.write_at(inode, 0, data)?;
        if self.metadata(inode)?.size == data.len() as u64 { Ok(()) } else { self.set_len(inode, data.len() as u64) }
    }

    /// Makes a directory, owned by root and with mode 0755.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`] and the like.
    pub fn create_dir(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.new_name(path)?;
        self.create(parent, &name, NewNode::Directory, ROOT_DIRECTORY)?;
        Ok(())
    }

    /// Makes a directory and all above it that are missing.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] where something else is in the way, and the like.
    pub fn create_dir_all(&mut self, path: &[u8]) -> Result<()> {
        let mut prefix = Vec::with_capacity(path.len() + 1);
        for name in components(path) {
            prefix.push(b'/');
            prefix.extend_from_slice(&name);
            match self.create_dir(&prefix) {
                Ok(()) => {}
                Err(Error::AlreadyExists | Error::InvalidName) => {
                    self.directory_inode(self.existing(&prefix, LastLink::Follow)?)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a symbolic link at `path`, owned by root.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`] and the like.
    pub fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let (parent, name) = self.new_name(path)?;
        self.create(parent, &name, NewNode::Symlink(target), ROOT_SYMLINK)?;
        Ok(())
    }

    /// Gives the file at `original`, or the symbolic link itself if it is one, another name.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`], [`Error::IsADirectory`] and the like.
    pub fn hard_link(&mut self, original: &[u8], path: &[u8]) -> Result<()> {
        let inode = self.existing(original, LastLink::Keep)?;
        let (parent, name) = self.new_name(path)?;
        self.link(parent, &name, inode)
    }

    /// Renames as rename(2) does, replacing the target.
    ///
    /// # Errors
    /// As [`FileSystem::rename`].
    pub fn rename_path(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let old = self.resolve_path(from, LastLink::Keep)?;
        let new = self.resolve_path(to, LastLink::Keep)?;
        self.rename(old.parent, &old.name, new.parent, &new.name)
    }

    /// Removes a name that is no directory's; a symbolic link itself, not what it leads to.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsADirectory`] and the like.
    pub fn remove_file(&mut self, path: &[u8]) -> Result<()> {
        let resolved = self.resolve_path(path, LastLink::Keep)?;
        self.unlink(resolved.parent, &resolved.name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::DirectoryNotEmpty`] and the like.
    pub fn remove_dir_path(&mut self, path: &[u8]) -> Result<()> {
        let resolved = self.resolve_path(path, LastLink::Keep)?;
        self.remove_dir(resolved.parent, &resolved.name)
    }

    /// Removes a directory and all below it, following no symbolic link.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`] and the like. What was removed before the error stays removed.
    pub fn remove_dir_all(&mut self, path: &[u8]) -> Result<()> {
        let resolved = self.resolve_path(path, LastLink::Keep)?;
        let top = resolved.inode.ok_or(Error::NotFound)?;
        self.directory_inode(top)?;
        // Directories still to be removed, each with its parent and name; a directory comes back after what it holds.
        let mut pending = vec![(resolved.parent, resolved.name, top, false)];
        while let Some((parent, name, inode, emptied)) = pending.pop() {
            if emptied {
                self.remove_dir(parent, &name)?;
                continue;
            }
            if pending.len() > self.superblock.inodes_count as usize {
                return Err(Error::corrupt("directory", format_args!("inode {inode}"), "does not hold itself"));
            }
            pending.push((parent, name, inode, true));
            for entry in self.read_dir(inode)? {
                if entry.kind == FileKind::Directory {
                    pending.push((inode, entry.name, entry.inode, false));
                } else {
                    self.unlink(inode, &entry.name)?;
                }
            }
        }
        Ok(())
    }

    /// The directory and the name that a path would make. A slash at the end is let pass.
    fn new_name(&self, path: &[u8]) -> Result<(u32, Vec<u8>)> {
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let resolved = self.resolve_path(&path[..end], LastLink::Keep)?;
        match resolved.inode {
            Some(_) => Err(Error::AlreadyExists),
            None => Ok((resolved.parent, resolved.name)),
        }
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
