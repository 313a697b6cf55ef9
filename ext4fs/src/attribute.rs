//! Setting what an inode says of itself: mode, owner, times, extended attributes.

use crate::features::{Compat, RoCompat};
use crate::file_system::FileSystem;
use crate::file_write::check_changeable;
use crate::inode::{Inode, InodeFlags};
use crate::metadata::Timestamp;
use crate::metadata_cache::BlockKind;
use crate::xattr::{self, Xattr};
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
        self.change_inode(inode, |inode| inode.set_owner(uid, gid))
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

    /// Sets an extended attribute. Access control lists have the form that setxattr(2) takes.
    ///
    /// # Errors
    /// [`crate::Error::NoSpace`] where all attributes together do not fit the inode and one block.
    pub fn set_xattr(&mut self, inode: u32, name: &[u8], value: &[u8]) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            let mut attributes = fs.attributes(&inode)?;
            match attributes.iter_mut().find(|attribute| attribute.name == name) {
                Some(attribute) if attribute.value == value => return Ok(()),
                Some(attribute) => attribute.value = value.to_vec(),
                None => attributes.push(Xattr::new(name, value)),
            }
            fs.store_attributes(&mut inode, &attributes)
        })
    }

    /// Removes an extended attribute; one that is missing is fine.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn remove_xattr(&mut self, inode: u32, name: &[u8]) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            let mut attributes = fs.attributes(&inode)?;
            let before = attributes.len();
            attributes.retain(|attribute| attribute.name != name);
            if attributes.len() == before { Ok(()) } else { fs.store_attributes(&mut inode, &attributes) }
        })
    }

    /// Lets go of an inode's block of attributes, which goes with its last inode.
    pub(crate) fn release_xattr_block(&mut self, inode: &mut Inode) -> Result<()> {
        let block = inode.xattr_block();
        if block == 0 {
            return Ok(());
        }
        let seed = self.xattr_checksum_seed();
        let bytes = self.cache.get(block, BlockKind::Xattr, |_| Ok(()))?;
        xattr::decode_block(&bytes, inode.number, block, seed)?;
        match xattr::block_refcount(&bytes) {
            0 | 1 => self.free_blocks_run(block, 1)?,
            shared => {
                drop(bytes);
                let bytes = self.cache.modify(block, BlockKind::Xattr, |_| Ok(()))?;
                xattr::set_block_refcount(bytes, shared - 1, block, seed);
            }
        }
        inode.set_xattr_block(0);
        self.discount_blocks(inode, 1)
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

    fn store_attributes(&mut self, inode: &mut Inode, attributes: &[Xattr]) -> Result<()> {
        let space = self.inode_attribute_bytes(inode.number)?.len();
        let layout = xattr::encode(attributes, space, self.superblock.block_size)?;
        let seed = self.xattr_checksum_seed();
        let old = inode.xattr_block();
        let own = old != 0 && xattr::block_refcount(&self.cache.get(old, BlockKind::Xattr, |_| Ok(()))?) == 1;
        if layout.block.is_some() && !own {
            self.require_blocks(1)?;
        }
        match layout.block {
            None => self.release_xattr_block(inode)?,
            Some(mut bytes) => {
                let block = if own {
                    old
                } else {
                    self.release_xattr_block(inode)?;
                    let block = self.allocate_blocks(self.inode_goal(inode.number)?, 1)?.start;
                    self.count_blocks(inode, 1)?;
                    inode.set_xattr_block(block);
                    block
                };
                xattr::finish_block(&mut bytes, block, seed);
                self.cache.put(block, BlockKind::Xattr, bytes)?;
            }
        }
        if !self.superblock.features.compat.contains(Compat::EXT_ATTR) {
            let mut features = self.superblock.features;
            features.compat |= Compat::EXT_ATTR;
            self.superblock.set_features(features);
        }
        inode.set_changed(self.clock);
        self.write_inode_with_attributes(inode, &layout.in_inode)
    }
}
