//! Setting what an inode says of itself: mode, owner, project, times.

use crate::features::{Incompat, RoCompat};
use crate::file_system::FileSystem;
use crate::file_write::check_changeable;
use crate::inode::{Inode, InodeFlags};
use crate::metadata::{FileFlags, Timestamp};
use crate::{Error, Result};

impl FileSystem {
    /// Sets the permission bits. Access control lists are not touched.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_mode(&mut self, inode: u32, mode: u32) -> Result<()> {
        self.change_inode(inode, |inode| inode.set_permissions(mode))
    }

    /// Sets owner and group.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_owner(&mut self, inode: u32, uid: u32, gid: u32) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            // Inodes that hold values of its attributes count for its owner.
            let values = if fs.has_value_inodes() && fs.counts_usage() { fs.attributes(&inode)? } else { Vec::new() };
            let values = values.iter().filter(|attribute| attribute.value_inode != 0).count() as i64;
            fs.note_usage(&inode, 0, -values);
            inode.set_owner(uid, gid);
            fs.note_usage(&inode, 0, values);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// The project that an inode counts for; 0 where there are no projects.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn project(&self, inode: u32) -> Result<u32> {
        Ok(self.inode(inode)?.project())
    }

    /// Sets the project that an inode counts for, and for a directory whether what is made in it takes it over.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without the feature `project`, or where the inode has no field for it.
    pub fn set_project(&mut self, inode: u32, project: u32, inherit: bool) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            if !fs.superblock.features.ro_compat.contains(RoCompat::PROJECT) || !inode.set_project(project) {
                return Err(Error::Unsupported(format!("a project for inode {}", inode.number)));
            }
            let mut flags = inode.flags();
            flags.set(InodeFlags::PROJINHERIT, inherit && inode.is_directory());
            inode.set_flags(flags);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// What chattr(1) has set of an inode.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn flags(&self, inode: u32) -> Result<FileFlags> {
        Ok(FileFlags::from_bits_truncate(self.inode(inode)?.flags().bits()))
    }

    /// Sets what chattr(1) sets of an inode, immutability with the rest: this is the one change that it does not forbid.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a flag of directories where there is none; what the image or the device has against it.
    pub fn set_flags(&mut self, inode: u32, flags: FileFlags) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            let of_directories = FileFlags::SYNCHRONOUS_DIRECTORY | FileFlags::TOP_DIRECTORY;
            if flags.intersects(of_directories) && !inode.is_directory() {
                return Err(Error::Invalid("the flag is one of directories"));
            }
            let kept = inode.flags().bits() & !FileFlags::all().bits();
            inode.set_flags(InodeFlags::from_bits_retain(kept | flags.bits()));
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// Says whether an empty directory takes names that differ in case for the same; what is made in it takes that over.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without the feature `casefold`, [`Error::DirectoryNotEmpty`], [`Error::NotADirectory`].
    pub fn set_casefold(&mut self, directory: u32, casefold: bool) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.directory_inode(directory)?;
            check_changeable(&inode)?;
            if !fs.superblock.features.incompat.contains(Incompat::CASEFOLD) {
                return Err(Error::Unsupported("folded names without the feature casefold".to_owned()));
            }
            fs.check_empty(&inode)?;
            let mut flags = inode.flags();
            flags.set(InodeFlags::CASEFOLD, casefold);
            inode.set_flags(flags);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// Sets the times of last access and change of contents.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_times(&mut self, inode: u32, accessed: Timestamp, modified: Timestamp) -> Result<()> {
        self.change_inode(inode, |inode| {
            inode.set_accessed(accessed);
            inode.set_modified(modified);
        })
    }

    fn change_inode(&mut self, number: u32, change: impl FnOnce(&mut Inode)) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(number)?;
            check_changeable(&inode)?;
            change(&mut inode);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }
}
