//! Changing a guest by path: contents, names, attributes.

use crate::error::Context;
use crate::mount_table::Location;
use crate::path;
use crate::resolve::{Directory, Follow, Node, Target};
use crate::{Error, FileKind, FileSystem, Guest, NewNode, Ownership, Result, Selinux, Timestamp, selinux};

/// The permission bits of a new file.
const FILE_MODE: u32 = 0o644;

impl Guest {
    /// Makes a regular file hold exactly `data`. A file that exists is written in place: inode, mode, owner
    /// and extended attributes stay, and one that holds `data` already is not touched. A missing one is made, 0644 and
    /// root's; its parent has to exist. Links are followed, also to a name that is to be made.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::IsADirectory`], [`Error::NotAFile`],
    /// [`Error::ReadOnly`] and what the file system says. A failed write may have changed the file in part.
    pub fn write(&mut self, path: &[u8], data: &[u8]) -> Result<()> {
        self.write_file(path, data).at("write", path)
    }

    fn write_file(&mut self, path: &[u8], data: &[u8]) -> Result<()> {
        let (location, size) = match self.find(path, Follow::Always)? {
            Target::Node(node) if node.metadata.kind == FileKind::File => {
                if self.holds(&node, data)? {
                    return Ok(());
                }
                (node.location, node.metadata.size)
            }
            Target::Node(_) => return Err(Error::NotAFile),
            Target::Directory(..) => return Err(Error::IsADirectory),
            Target::Missing { directory, name } => (self.create(&directory, &name, NewNode::File, FILE_MODE)?, 0),
            Target::Nowhere(error) => return Err(error),
        };
        let file_system = self.table.writable(location)?;
        if !data.is_empty() {
            file_system.write_at(location.inode, 0, data)?;
        }
        if size > data.len() as u64 {
            file_system.set_len(location.inode, data.len() as u64)?;
        }
        Ok(())
    }

    /// Whether a file holds exactly `data`.
    fn holds(&self, node: &Node, data: &[u8]) -> Result<bool> {
        if node.metadata.size != data.len() as u64 {
            return Ok(false);
        }
        let mut found = vec![0; data.len()];
        let got = self.table.file_system(node.location).read_at(node.location.inode, 0, &mut found)?;
        Ok(found.get(..got) == Some(data))
    }

    /// Sets a regular file's length; links are followed. What is cut off is gone from the disk, too.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotAFile`], [`Error::ReadOnly`] and what the file system says.
    pub fn set_len(&mut self, path: &[u8], len: u64) -> Result<()> {
        let node = self.file(path).at("set the length of", path)?;
        if node.metadata.size == len {
            return Ok(());
        }
        self.on(node.location, |fs| fs.set_len(node.location.inode, len)).at("set the length of", path)
    }

    /// Writes all of `data` at `offset` of a regular file that exists, growing it where needed; links are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotAFile`], [`Error::ReadOnly`] and what the file system says.
    pub fn write_at(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<()> {
        let at = self.file(path).at("write", path)?.location;
        self.on(at, |fs| fs.write_at(at.inode, offset, data)).at("write", path)
    }

    /// Makes a directory; its parent has to exist.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::ReadOnly`] and what the file system says.
    pub fn create_dir(&mut self, path: &[u8], mode: u32) -> Result<()> {
        self.make(path, NewNode::Directory, mode).at("make the directory", path)
    }

    /// Makes a directory and those above it that are missing, all with `mode`. One that exists, or a link to one, is
    /// fine.
    ///
    /// # Errors
    /// As [`Guest::create_dir`], with [`Error::AlreadyExists`] where something else than a directory is in the way.
    pub fn create_dir_all(&mut self, path: &[u8], mode: u32) -> Result<()> {
        path::check(path).at("make the directory", path)?;
        let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain(std::iter::once(path.len())) {
            let part = &path[..end];
            if self.find_directory(part).at("make the directory", part)?.is_none() {
                self.create_dir(part, mode)?;
            }
        }
        Ok(())
    }

    /// Makes a symbolic link with any target.
    ///
    /// # Errors
    /// As [`Guest::create_dir`].
    pub fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        if target.is_empty() || target.contains(&0) {
            return Err(Error::InvalidPath("a link needs a target without a NUL").at("make the link", path));
        }
        self.make(path, NewNode::Symlink(target), 0o777).at("make the link", path)
    }

    /// Gives what `existing` names, which is no directory, a second name. A link is not followed.
    ///
    /// # Errors
    /// [`Error::CrossesFileSystems`], [`Error::IsADirectory`], and as [`Guest::create_dir`].
    pub fn hard_link(&mut self, existing: &[u8], path: &[u8]) -> Result<()> {
        let node = self.exact(existing).at("link", existing)?;
        if node.metadata.kind == FileKind::Directory {
            return Err(Error::IsADirectory.at("link", existing));
        }
        self.add_name(&node, path).at("make the link", path)
    }

    fn add_name(&mut self, node: &Node, path: &[u8]) -> Result<()> {
        let (directory, name) = self.parent(path)?;
        if self.child(&directory, name)?.is_some() {
            return Err(Error::AlreadyExists);
        }
        let at = directory.location();
        if at.mount != node.location.mount {
            return Err(Error::CrossesFileSystems);
        }
        self.table.writable(at)?.link(at.inode, name, node.location.inode)?;
        self.cache().forget_entries(at);
        Ok(())
    }

    /// Renames as rename(2) does: within one file system, and replacing what `to` names.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CrossesFileSystems`], [`Error::MountPoint`], [`Error::NotADirectory`],
    /// [`Error::IsADirectory`], [`Error::NotEmpty`], [`Error::ReadOnly`] and what the file system says.
    pub fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.rename_node(from, to).at("rename", from)
    }

    fn rename_node(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        let (location, metadata) = self.child(&from_directory, from_name)?.ok_or(Error::NotFound)?;
        let (holder, receiver) = (from_directory.location(), to_directory.location());
        if holder.mount != receiver.mount {
            return Err(Error::CrossesFileSystems);
        }
        let is_directory = metadata.kind == FileKind::Directory;
        if is_directory {
            let path = path::join(&from_directory.path, from_name);
            if self.table.has_mount_within(&path) {
                return Err(Error::MountPoint);
            }
            if path::is_within(&to_directory.path, &path) {
                return Err(Error::InvalidPath("a directory cannot be moved below itself"));
            }
        }
        if let Some((replaced, over)) = self.child(&to_directory, to_name)? {
            match (is_directory, over.kind == FileKind::Directory) {
                _ if replaced == location => return Ok(()),
                _ if replaced.mount != receiver.mount => return Err(Error::MountPoint),
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                _ => {}
            }
        }
        self.table.writable(holder)?.rename(holder.inode, from_name, receiver.inode, to_name)?;
        self.cache().forget_all();
        Ok(())
    }

    /// Sets the permission bits, 0 to 0o7777; links are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ReadOnly`] and what the file system says.
    pub fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let at = self.followed(path).at("set the mode of", path)?.location;
        self.on(at, |fs| fs.set_mode(at.inode, mode & 0o7777)).at("set the mode of", path)
    }

    /// Sets owner and group; links are followed.
    ///
    /// # Errors
    /// As [`Guest::set_mode`].
    pub fn set_owner(&mut self, path: &[u8], uid: u32, gid: u32) -> Result<()> {
        let at = self.followed(path).at("set the owner of", path)?.location;
        self.on(at, |fs| fs.set_owner(at.inode, uid, gid)).at("set the owner of", path)
    }

    /// Sets owner and group; a link as the path's last component is not followed.
    ///
    /// # Errors
    /// As [`Guest::set_mode`].
    pub fn set_link_owner(&mut self, path: &[u8], uid: u32, gid: u32) -> Result<()> {
        let at = self.exact(path).at("set the owner of", path)?.location;
        self.on(at, |fs| fs.set_owner(at.inode, uid, gid)).at("set the owner of", path)
    }

    /// Sets the times of last access and of the last change of contents; links are followed.
    ///
    /// # Errors
    /// As [`Guest::set_mode`].
    pub fn set_times(&mut self, path: &[u8], accessed: Timestamp, modified: Timestamp) -> Result<()> {
        let at = self.followed(path).at("set the times of", path)?.location;
        self.on(at, |fs| fs.set_times(at.inode, accessed, modified)).at("set the times of", path)
    }

    /// Sets an extended attribute by its full name; a link as the path's last component is not followed.
    ///
    /// # Errors
    /// As [`Guest::set_mode`].
    pub fn set_xattr(&mut self, path: &[u8], name: &[u8], value: &[u8]) -> Result<()> {
        let at = self.exact(path).at("set an attribute of", path)?.location;
        self.on(at, |fs| fs.set_xattr(at.inode, name, value)).at("set an attribute of", path)
    }

    /// Removes an extended attribute; one that is missing is fine. A link as the path's last component is not followed.
    ///
    /// # Errors
    /// As [`Guest::set_mode`].
    pub fn remove_xattr(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let at = self.exact(path).at("remove an attribute of", path)?.location;
        self.on(at, |fs| fs.remove_xattr(at.inode, name)).at("remove an attribute of", path)
    }

    /// Changes something in the file system of `location`, if it can be written.
    fn on(&mut self, location: Location, change: impl FnOnce(&mut dyn FileSystem) -> Result<()>) -> Result<()> {
        change(self.table.writable(location)?)
    }

    fn make(&mut self, path: &[u8], node: NewNode<'_>, mode: u32) -> Result<()> {
        let (directory, name) = self.parent(path)?;
        if self.child(&directory, name)?.is_some() {
            return Err(Error::AlreadyExists);
        }
        self.create(&directory, name, node, mode)?;
        Ok(())
    }

    /// Makes a new inode of root's under a new name, labelled where its directory is.
    fn create(&mut self, directory: &Directory, name: &[u8], node: NewNode<'_>, mode: u32) -> Result<Location> {
        let at = directory.location();
        let ownership = Ownership { mode: mode & 0o7777, uid: 0, gid: 0 };
        let inode = self.table.writable(at)?.create(at.inode, name, node.clone(), ownership)?;
        self.cache().forget_entries(at);
        let new = Location { mount: at.mount, inode };
        self.label(at, new, &path::join(&directory.path, name), node)?;
        Ok(new)
    }

    /// Labels a new inode as the guest's policy says, and for want of one as the kernel does: with its directory's
    /// type. Where the directory has no label the guest is not labelled, and nothing is done.
    fn label(&mut self, directory: Location, new: Location, path: &[u8], node: NewNode<'_>) -> Result<()> {
        let Some(of_directory) = self.table.file_system(directory).xattr(directory.inode, selinux::LABEL)? else {
            return Ok(());
        };
        let kind = match node {
            NewNode::File => FileKind::File,
            NewNode::Directory => FileKind::Directory,
            NewNode::Symlink(_) => FileKind::Symlink,
        };
        let label = self.selinux_label(path, kind).map(|mut label| {
            label.push(0);
            label
        });
        self.guessed_labels |= label.is_none() && matches!(self.selinux(), Selinux::Unreadable(_));
        if let Some(label) = label.or_else(|| selinux::for_new(&of_directory)) {
            self.table.writable(new)?.set_xattr(new.inode, selinux::LABEL, &label)?;
        }
        Ok(())
    }
}
