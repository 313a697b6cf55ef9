//! Names in a directory, whichever way it keeps them: in blocks or in its inode.

use crate::directory::{self, Entry};
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::metadata::FileKind;
use crate::{Error, Result};

/// Blocks that a new name may take in the worst case: a leaf, and a split at each level of the htree and of the map.
const NAME_BLOCKS: u64 = 16;

impl FileSystem {
    /// Fails, before anything is changed, where a directory cannot take another name.
    pub(crate) fn check_room_for_name(&self, parent: &Inode, name: &[u8]) -> Result<()> {
        self.require_blocks(NAME_BLOCKS)?;
        if parent.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        directory::check_room(&self.directory(parent)?, &self.directory_format, name)
    }

    /// Adds a name to a directory, and returns the directory's inode as it now is.
    pub(crate) fn insert_name(&mut self, mut parent: Inode, name: &[u8], inode: u32, kind: FileKind) -> Result<Inode> {
        let file_type = if self.directory_format.has_file_type { kind.file_type() } else { 0 };
        let entry = Entry { inode, file_type, name: name.to_vec() };
        let inline = parent.flags().contains(InodeFlags::INLINE_DATA) && self.insert_inline(&mut parent, &entry)?;
        if !inline {
            let format = self.directory_format.clone();
            let mut blocks = self.directory_mut(parent)?;
            directory::insert(&mut blocks, &format, &entry)?;
            parent = blocks.inode;
        }
        self.touch_directory(parent)
    }

    /// Takes a name out of a directory.
    pub(crate) fn remove_name(&mut self, directory: u32, name: &[u8]) -> Result<()> {
        let mut parent = self.directory_inode(directory)?;
        if parent.flags().contains(InodeFlags::INLINE_DATA) {
            self.remove_inline(&mut parent, name)?;
        } else {
            let format = self.directory_format.clone();
            let mut blocks = self.directory_mut(parent)?;
            directory::remove(&mut blocks, &format, name)?.ok_or(Error::NotFound)?;
            parent = blocks.inode;
        }
        self.touch_directory(parent)?;
        Ok(())
    }

    /// Lets a name that is there name another inode.
    pub(crate) fn replace_name(&mut self, mut parent: Inode, name: &[u8], inode: u32, kind: FileKind) -> Result<()> {
        if parent.flags().contains(InodeFlags::INLINE_DATA) {
            self.replace_inline(&mut parent, name, inode, kind.file_type())?;
        } else {
            let format = self.directory_format.clone();
            let mut blocks = self.directory_mut(parent)?;
            directory::replace_inode(&mut blocks, &format, name, inode, kind.file_type())?;
            parent = blocks.inode;
        }
        self.touch_directory(parent)?;
        Ok(())
    }

    /// Gives a directory another parent, and returns its inode as it now is.
    pub(crate) fn set_parent(&mut self, mut inode: Inode, parent: u32) -> Result<Inode> {
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            self.set_inline_parent(&mut inode, parent)?;
            return Ok(inode);
        }
        let format = self.directory_format.clone();
        let mut blocks = self.directory_mut(inode)?;
        directory::replace_inode(&mut blocks, &format, b"..", parent, FileKind::Directory.file_type())?;
        Ok(blocks.inode)
    }

    /// The directory that a directory's `..` names.
    pub(crate) fn parent_of(&self, number: u32) -> Result<u32> {
        let inode = self.directory_inode(number)?;
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(self.inline_parent(&inode));
        }
        let entry = directory::lookup(&self.directory(&inode)?, &self.directory_format, b"..")?;
        entry
            .map(|entry| entry.inode)
            .ok_or_else(|| Error::corrupt("directory", format_args!("inode {number}"), "has `..`"))
    }

    /// Fails where a directory has entries besides `.` and `..`.
    pub(crate) fn check_empty(&self, inode: &Inode) -> Result<()> {
        let entries = self.entries(inode)?;
        let empty = entries.iter().all(|entry| entry.name == b"." || entry.name == b"..");
        if empty { Ok(()) } else { Err(Error::DirectoryNotEmpty) }
    }

    /// Stamps a directory whose names were changed.
    pub(crate) fn touch_directory(&mut self, mut parent: Inode) -> Result<Inode> {
        parent.set_modified(self.clock);
        parent.set_changed(self.clock);
        self.write_inode(&parent)?;
        Ok(parent)
    }
}
