//! Removing from a guest by path.

use crate::error::Context;
use crate::mount_table::Location;
use crate::path;
use crate::resolve::{Directory, Follow, Target};
use crate::walk::Descent;
use crate::{Error, FileKind, Guest, Metadata, Result};

impl Guest {
    /// Removes a name that is no directory's. A link as the path's last component is removed itself.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsADirectory`], [`Error::ReadOnly`] and what the file system says.
    pub fn remove_file(&mut self, path: &[u8]) -> Result<()> {
        self.remove(path, false).at("remove", path)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::NotEmpty`], [`Error::MountPoint`], [`Error::ReadOnly`]
    /// and what the file system says.
    pub fn remove_dir(&mut self, path: &[u8]) -> Result<()> {
        self.remove(path, true).at("remove", path)
    }

    fn remove(&mut self, path: &[u8], directory: bool) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let (location, metadata) = self.child(&parent, name)?.ok_or(Error::NotFound)?;
        match (directory, metadata.kind == FileKind::Directory) {
            (true, false) => return Err(Error::NotADirectory),
            (false, true) => return Err(Error::IsADirectory),
            _ => {}
        }
        self.unlink(parent.location(), name, location, metadata.kind)
    }

    /// Removes a path and everything below it, as `rm -rf` does: what is in a directory first, links themselves and
    /// not what they lead to. A missing path is fine. A directory that a file system is mounted on is emptied and kept,
    /// and so are those above it. Each removal is reported, as it is done, with what was known before it.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for the root; [`Error::Corrupt`] where the directories in the image are no tree;
    /// [`Error::ReadOnly`] and what the file system says. What was removed before stays removed.
    pub fn remove_all(&mut self, path: &[u8], removed: &mut dyn FnMut(&[u8], &Metadata)) -> Result<()> {
        self.remove_tree(path, removed).at("remove", path)
    }

    fn remove_tree(&mut self, path: &[u8], removed: &mut dyn FnMut(&[u8], &Metadata)) -> Result<()> {
        let (parent, name) = path::split_name(path)?;
        let Some(parent) = self.find_directory(parent)? else { return Ok(()) };
        let Some((location, metadata)) = self.child(&parent, name)? else { return Ok(()) };
        let mut path = path::join(&parent.path, name);
        if metadata.kind != FileKind::Directory {
            self.unlink(parent.location(), name, location, metadata.kind)?;
            removed(&path, &metadata);
            return Ok(());
        }

        let mut descent = Descent::new();
        // For each level of the descent: what the directory is, where its name is, and whether it has to stay.
        let mut left = vec![(metadata, parent.location(), name.to_vec(), false)];
        descent.enter(self, &path, location)?;
        while let Some(level) = descent.levels.last_mut() {
            path.truncate(level.path_len);
            let inside = level.location;
            if let Some(entry) = level.entries.next() {
                path::push(&mut path, &entry.name);
                let location = self.table.entry(inside, &entry);
                let metadata = self.table.metadata(location).at("look at", &path)?;
                if metadata.kind == FileKind::Directory {
                    descent.enter(self, &path, location).at("list", &path)?;
                    left.push((metadata, inside, entry.name, false));
                } else {
                    self.unlink(inside, &entry.name, location, metadata.kind).at("remove", &path)?;
                    removed(&path, &metadata);
                }
                continue;
            }
            descent.levels.pop();
            let Some((metadata, holder, name, stays)) = left.pop() else { break };
            // A mounted file system's root is not what its name is of.
            let is_mounted = holder.mount != inside.mount;
            if stays || is_mounted {
                if let Some((_, _, _, stays)) = left.last_mut() {
                    *stays = true;
                }
            } else {
                self.unlink(holder, &name, inside, FileKind::Directory).at("remove", &path)?;
                removed(&path, &metadata);
            }
        }
        Ok(())
    }

    /// Takes a name from what is at `location`.
    fn unlink(&mut self, holder: Location, name: &[u8], location: Location, kind: FileKind) -> Result<()> {
        if holder.mount != location.mount {
            return Err(Error::MountPoint);
        }
        let file_system = self.table.writable(holder)?;
        if kind == FileKind::Directory {
            file_system.remove_dir(holder.inode, name)?;
        } else {
            file_system.unlink(holder.inode, name)?;
        }
        let mut cache = self.cache();
        cache.forget_entries(holder);
        match kind {
            FileKind::Directory => {
                cache.forget_entries(location);
                cache.forget_paths();
            }
            FileKind::Symlink => cache.forget_paths(),
            _ => {}
        }
        Ok(())
    }

    /// The directory that holds, or is to hold, the last name of a path, and that name.
    pub(crate) fn parent<'a>(&self, path: &'a [u8]) -> Result<(Directory, &'a [u8])> {
        let (parent, name) = path::split_name(path)?;
        match self.find(parent, Follow::Always)? {
            Target::Directory(directory, _) => Ok((directory, name)),
            Target::Node(_) => Err(Error::NotADirectory),
            Target::Missing { .. } => Err(Error::NotFound),
            Target::Nowhere(error) => Err(error),
        }
    }

    /// What a name in a directory is, if it exists.
    pub(crate) fn child(&self, directory: &Directory, name: &[u8]) -> Result<Option<(Location, Metadata)>> {
        match self.table.lookup(directory.location(), name)? {
            Some(location) => Ok(Some((location, self.table.metadata(location)?))),
            None => Ok(None),
        }
    }
}
