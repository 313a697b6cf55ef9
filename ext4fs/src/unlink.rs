//! Taking names away, and inodes with their last name.

use crate::directory_blocks::check_old_name;
use crate::file_system::FileSystem;
use crate::file_write::check_changeable;
use crate::inode::Inode;
use crate::{Error, Result};

impl FileSystem {
    /// Takes a name from an inode that is no directory; the inode goes with its last name, and its blocks with it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsADirectory`], [`Error::NotPermitted`].
    pub fn unlink(&mut self, directory: u32, name: &[u8]) -> Result<()> {
        self.change(|fs| {
            let inode = fs.removable(directory, name)?;
            if inode.is_directory() {
                return Err(Error::IsADirectory(inode.number));
            }
            fs.remove_name(directory, name)?;
            fs.drop_link(inode)
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`], [`Error::NotPermitted`].
    pub fn remove_dir(&mut self, directory: u32, name: &[u8]) -> Result<()> {
        self.change(|fs| {
            let inode = fs.removable(directory, name)?;
            if !inode.is_directory() {
                return Err(Error::NotADirectory(inode.number));
            }
            fs.check_empty(&inode)?;
            fs.remove_name(directory, name)?;
            fs.drop_subdirectory(directory)?;
            fs.drop_link(inode)
        })
    }

    /// Takes one name from an inode whose directory entry is gone. A directory goes at once: it has but one name.
    pub(crate) fn drop_link(&mut self, mut inode: Inode) -> Result<()> {
        if !inode.is_directory() && inode.links() > 1 {
            inode.set_links(inode.links() - 1);
            inode.set_changed(self.clock);
            return self.write_inode(&inode);
        }
        self.delete_inode(inode)
    }

    /// Frees an inode and all that is its own.
    pub(crate) fn delete_inode(&mut self, inode: Inode) -> Result<()> {
        if inode.links() == 0 {
            self.note_orphan_gone(inode.number)?;
        }
        self.free_inode_and_blocks(inode)
    }

    /// Frees an inode and all that is its own, without a look at quotas where it has no name.
    pub(crate) fn free_inode_and_blocks(&mut self, mut inode: Inode) -> Result<()> {
        self.truncate_blocks(&mut inode, 0)?;
        self.release_attributes(&mut inode)?;
        self.free_inode(inode.number, inode.is_directory())
    }

    fn removable(&self, directory: u32, name: &[u8]) -> Result<Inode> {
        let parent = self.directory_inode(directory)?;
        check_old_name(&parent, name)?;
        check_changeable(&parent)?;
        let entry = self.find_entry(&parent, name)?.ok_or(Error::NotFound)?;
        let inode = self.inode(entry.inode)?;
        check_changeable(&inode)?;
        if inode.number < self.superblock.first_inode {
            let expected = "an inode of the file system's own has no name";
            return Err(Error::corrupt("directory entry", format_args!("inode {}", inode.number), expected));
        }
        Ok(inode)
    }
}
