//! Looking at inodes, names and attributes.

use crate::Result;
use crate::directory;
use crate::directory_blocks::is_same_name;
use crate::file_system::FileSystem;
use crate::inline_data;
use crate::inode::{Inode, InodeFlags};
use crate::metadata::{DirEntry, FileKind, Metadata};
use crate::metadata_cache::BlockKind;
use crate::xattr::{self, Xattr};

impl FileSystem {
    /// What `stat` would tell of an inode.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where there is no inode of this number in use.
    pub fn metadata(&self, inode: u32) -> Result<Metadata> {
        self.inode(inode)?.metadata(&self.superblock)
    }

    /// The inode that `name` has in `directory`, if any. `.` and `..` are not looked up.
    ///
    /// # Errors
    /// [`crate::Error::NotADirectory`], and what the image or the device has against it.
    pub fn lookup(&self, directory: u32, name: &[u8]) -> Result<Option<u32>> {
        let inode = self.directory_inode(directory)?;
        Ok(self.find_entry(&inode, name)?.map(|entry| entry.inode))
    }

    /// All entries but `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    /// As [`FileSystem::lookup`].
    pub fn read_dir(&self, directory: u32) -> Result<Vec<DirEntry>> {
        let inode = self.directory_inode(directory)?;
        let entries = self.entries(&inode)?;
        let mut listed = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let kind = match FileKind::from_file_type(entry.file_type) {
                Some(kind) => kind,
                None => self.inode(entry.inode)?.kind()?,
            };
            listed.push(DirEntry { name: entry.name, inode: entry.inode, kind });
        }
        Ok(listed)
    }

    /// The names of all extended attributes, each with its prefix: `security.selinux`.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the attributes are malformed.
    pub fn xattr_names(&self, inode: u32) -> Result<Vec<Vec<u8>>> {
        let attributes = self.attributes(&self.inode(inode)?)?;
        Ok(attributes
            .into_iter()
            .map(|attribute| attribute.name)
            .filter(|name| name != inline_data::ATTRIBUTE)
            .collect())
    }

    /// An extended attribute's value. Access control lists have the form that getxattr(2) gives them.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the attributes are malformed.
    pub fn xattr(&self, inode: u32, name: &[u8]) -> Result<Option<Vec<u8>>> {
        if name == inline_data::ATTRIBUTE {
            return Ok(None);
        }
        let attributes = self.attributes(&self.inode(inode)?)?;
        match attributes.into_iter().find(|attribute| attribute.name == name) {
            Some(attribute) if attribute.value_inode != 0 => self.read_value_inode(attribute.value_inode).map(Some),
            found => Ok(found.map(|attribute| attribute.value)),
        }
    }

    /// All entries of a directory, `.` and `..` among them where they are kept.
    pub(crate) fn entries(&self, directory: &Inode) -> Result<Vec<directory::Entry>> {
        if directory.flags().contains(InodeFlags::INLINE_DATA) {
            return self.inline_entries(directory);
        }
        directory::list(&self.directory(directory)?, &self.directory_format)
    }

    /// The entry of a name, `.` and `..` excepted.
    pub(crate) fn find_entry(&self, directory: &Inode, name: &[u8]) -> Result<Option<directory::Entry>> {
        if name == b"." || name == b".." {
            return Ok(None);
        }
        if directory.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(self
                .inline_entries(directory)?
                .into_iter()
                .find(|entry| is_same_name(directory, &entry.name, name)));
        }
        directory::lookup(&self.directory(directory)?, &self.directory_format, name)
    }

    /// All extended attributes: those in the inode, then those in its block.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Xattr>> {
        let mut attributes = xattr::decode_in_inode(&self.inode_attribute_bytes(inode.number)?, inode.number)?;
        let block = inode.xattr_block();
        if block != 0 {
            let seed = self.xattr_checksum_seed();
            let bytes = self.cache.get(block, BlockKind::Xattr, |_| Ok(()))?;
            let shared = xattr::block_refcount(&bytes) > 1;
            let outside = xattr::decode_block(&bytes, inode.number, block, seed)?;
            attributes.extend(outside.into_iter().map(|attribute| Xattr { shared, ..attribute }));
        }
        Ok(attributes)
    }

    /// The seed of checksums in blocks of extended attributes, which are not one inode's own.
    pub(crate) fn xattr_checksum_seed(&self) -> Option<u32> {
        self.superblock.features.metadata_csum().then_some(self.superblock.checksum_seed)
    }
}
