//! Looking at a guest by path.

use crate::error::Context;
use crate::resolve::{Follow, Node};
use crate::{DirEntry, Error, FileKind, Guest, Metadata, Result};

/// The longest file that [`Guest::read`] reads: 16 MiB.
pub const MAX_TEXT: u64 = 16 << 20;

impl Guest {
    /// What is at a path; a link as its last component is not followed. `None` where there is nothing: the name or a
    /// parent is missing, a parent is no directory, or links lead in a circle.
    ///
    /// # Errors
    /// [`Error::InvalidPath`], and what the file system says.
    pub fn lstat(&self, path: &[u8]) -> Result<Option<Metadata>> {
        let target = self.find(path, Follow::AllButLast).at("look at", path)?;
        Ok(target.node().map(|node| node.metadata))
    }

    /// What is at a path, all links followed. `None` as with [`Guest::lstat`], or where a link leads nowhere.
    ///
    /// # Errors
    /// As [`Guest::lstat`].
    pub fn stat(&self, path: &[u8]) -> Result<Option<Metadata>> {
        let target = self.find(path, Follow::Always).at("look at", path)?;
        Ok(target.node().map(|node| node.metadata))
    }

    /// The path without links, `.` and `..`. `None` as with [`Guest::stat`].
    ///
    /// # Errors
    /// As [`Guest::lstat`].
    pub fn resolve(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let target = self.find(path, Follow::Always).at("resolve", path)?;
        Ok(target.node().map(|node| node.path))
    }

    /// All bytes of a regular file of at most [`MAX_TEXT`] bytes; links are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotAFile`], [`Error::TooLarge`] and what the file system says.
    pub fn read(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.read_file(path).at("read", path)
    }

    fn read_file(&self, path: &[u8]) -> Result<Vec<u8>> {
        let node = self.file(path)?;
        let size = node.metadata.size;
        if size > MAX_TEXT {
            return Err(Error::TooLarge { size, limit: MAX_TEXT });
        }
        let mut bytes = vec![0; size as usize];
        let got = self.table.file_system(node.location).read_at(node.location.inode, 0, &mut bytes)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Reads at most `buf.len()` bytes of a regular file from `offset` on; fewer only at its end. Links are followed.
    ///
    /// # Errors
    /// As [`Guest::read`], but for the length.
    pub fn read_at(&self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let node = self.file(path).at("read", path)?;
        self.table.file_system(node.location).read_at(node.location.inode, offset, buf).at("read", path)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotALink`] and what the file system says.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let node = self.exact(path).at("read the link", path)?;
        if node.metadata.kind != FileKind::Symlink {
            return Err(Error::NotALink.at("read the link", path));
        }
        self.table.file_system(node.location).read_link(node.location.inode).at("read the link", path)
    }

    /// The entries of a directory but `.` and `..`, sorted by name; links to it are followed. A mount point has the
    /// inode number of what is mounted there.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`] and what the file system says.
    pub fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>> {
        let node = self.followed(path).at("list", path)?;
        if node.metadata.kind != FileKind::Directory {
            return Err(Error::NotADirectory.at("list", path));
        }
        let mut entries = self.entries(node.location).at("list", path)?.to_vec();
        for entry in &mut entries {
            entry.inode = self.table.entry(node.location, entry).inode;
        }
        Ok(entries)
    }

    /// An extended attribute by its full name (`security.selinux`); a link as the path's last component is not followed.
    ///
    /// # Errors
    /// [`Error::NotFound`] and what the file system says.
    pub fn xattr(&self, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>> {
        let node = self.exact(path).at("read an attribute of", path)?;
        self.table.file_system(node.location).xattr(node.location.inode, name).at("read an attribute of", path)
    }

    /// The full names of all extended attributes, sorted; a link as the path's last component is not followed.
    ///
    /// # Errors
    /// As [`Guest::xattr`].
    pub fn xattr_names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let node = self.exact(path).at("list the attributes of", path)?;
        let names = self.table.file_system(node.location).xattr_names(node.location.inode);
        let mut names = names.at("list the attributes of", path)?;
        names.sort_unstable();
        Ok(names)
    }

    /// What exists at a path, all links followed.
    pub(crate) fn followed(&self, path: &[u8]) -> Result<Node> {
        self.find(path, Follow::Always)?.existing()
    }

    /// What exists at a path, a link as its last component not followed.
    pub(crate) fn exact(&self, path: &[u8]) -> Result<Node> {
        self.find(path, Follow::AllButLast)?.existing()
    }

    /// The regular file at a path, all links followed.
    pub(crate) fn file(&self, path: &[u8]) -> Result<Node> {
        let node = self.followed(path)?;
        match node.metadata.kind {
            FileKind::File => Ok(node),
            FileKind::Directory => Err(Error::IsADirectory),
            _ => Err(Error::NotAFile),
        }
    }
}
