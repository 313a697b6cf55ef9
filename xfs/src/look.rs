//! Looking at inodes and directories.

use crate::file_system::FileSystem;
use crate::log::LogState;
use crate::metadata::{DirEntry, FileKind, Metadata};
use crate::{Error, Result};

impl FileSystem {
    /// What `stat` would tell of an inode.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn metadata(&self, inode: u64) -> Result<Metadata> {
        let inode = self.inode(inode)?;
        Ok(Metadata {
            inode: inode.number,
            kind: inode.kind()?,
            mode: u32::from(inode.mode() & 0o7777),
            uid: inode.uid(),
            gid: inode.gid(),
            size: inode.size(),
            sectors: inode.blocks().saturating_mul(self.sb.block_size as u64 / 512),
            links: inode.links(),
            accessed: inode.accessed(),
            modified: inode.modified(),
            changed: inode.changed(),
        })
    }

    /// The entries of a directory but `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], and what the image or the device has against it.
    pub fn read_dir(&self, directory: u64) -> Result<Vec<DirEntry>> {
        let listing = self.listing(directory)?;
        let entry = |entry: &crate::directory::Entry| {
            // Without the type in the directory the inode tells.
            let kind = match FileKind::from_file_type(entry.file_type) {
                Some(kind) => kind,
                None => self.inode(entry.inode)?.kind()?,
            };
            Ok(DirEntry { name: entry.name.clone(), inode: entry.inode, kind })
        };
        listing.entries().map(entry).collect()
    }

    /// The inode that a name has in a directory, if any.
    ///
    /// # Errors
    /// As [`FileSystem::read_dir`].
    pub fn lookup(&self, directory: u64, name: &[u8]) -> Result<Option<u64>> {
        Ok(self.listing(directory)?.find(name).map(|entry| entry.inode))
    }

    /// The full names of an inode's extended attributes.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn xattr_names(&self, inode: u64) -> Result<Vec<Vec<u8>>> {
        let attributes = self.attributes(&self.inode(inode)?)?;
        Ok(attributes.iter().map(crate::xattr::Attribute::full_name).collect())
    }

    /// An extended attribute by its full name (`security.selinux`).
    ///
    /// # Errors
    /// As [`FileSystem::xattr_names`].
    pub fn xattr(&self, inode: u64, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((flags, name)) = crate::xattr::split_name(name) else { return Ok(None) };
        let attributes = self.attributes(&self.inode(inode)?)?;
        let found = attributes.into_iter().find(|attribute| attribute.flags == flags && attribute.name == name);
        Ok(found.map(|attribute| attribute.value))
    }

    /// The root directory's inode number.
    pub fn root(&self) -> u64 {
        self.sb.root_inode
    }

    /// The UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.sb.uuid
    }

    /// The label, without trailing NULs; empty where there is none.
    pub fn label(&self) -> &[u8] {
        self.sb.label()
    }

    /// Why the file system cannot be written, if it cannot.
    pub fn read_only_reason(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// What was found in the log when it was opened.
    pub fn log_state(&self) -> &LogState {
        &self.log
    }

    /// Refuses what cannot be a directory's number, before anything is looked up.
    pub(crate) fn check_directory(&self, directory: u64) -> Result<()> {
        match self.inode(directory)?.kind()? {
            FileKind::Directory => Ok(()),
            _ => Err(Error::NotADirectory(directory)),
        }
    }
}
