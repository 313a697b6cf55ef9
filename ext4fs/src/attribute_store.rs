//! Extended attributes of an inode, changed: in the inode, in a block that inodes may share, in inodes of their own.

use crate::features::Compat;
use crate::file_system::FileSystem;
use crate::file_write::check_changeable;
use crate::inline_data;
use crate::inode::{Inode, InodeFlags};
use crate::limits::MAX_EA_INODE_LEN;
use crate::metadata::FileKind;
use crate::metadata_cache::BlockKind;
use crate::xattr::{self, Xattr};
use crate::{Error, Result};

/// What of a block with nothing but one attribute is not its value: where values larger than the rest go elsewhere.
const BLOCK_OVERHEAD: usize = 56;

impl FileSystem {
    /// Sets an extended attribute. Access control lists have the form that setxattr(2) takes.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where all attributes together do not fit the inode and one block, nor, with the feature
    /// `ea_inode`, this one an inode of its own; [`Error::Invalid`] for a name that no attribute can have.
    pub fn set_xattr(&mut self, inode: u32, name: &[u8], value: &[u8]) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            if name == inline_data::ATTRIBUTE {
                return Err(Error::Invalid("this attribute holds the contents of small files"));
            }
            let old = fs.attributes(&inode)?;
            let mut new = old.clone();
            let changed = match new.iter().position(|attribute| attribute.name == name) {
                Some(at) if new[at].value_inode == 0 && new[at].value == value => return Ok(()),
                Some(at) => {
                    new[at] = Xattr::new(name, value);
                    at
                }
                None => {
                    new.push(Xattr::new(name, value));
                    new.len() - 1
                }
            };
            fs.move_value_if_large(&inode, &mut new, changed)?;
            fs.store_attributes(&mut inode, old, new)
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
            let old = fs.attributes(&inode)?;
            let kept = |attribute: &&Xattr| attribute.name != name || name == inline_data::ATTRIBUTE;
            let new: Vec<Xattr> = old.iter().filter(kept).cloned().collect();
            if new.len() == old.len() { Ok(()) } else { fs.store_attributes(&mut inode, old, new) }
        })
    }

    /// The access control lists that something new in a directory takes over, and the permissions that it then has.
    pub(crate) fn inherited_acls(&self, parent: &Inode, kind: FileKind, mode: u32) -> Result<(Vec<Xattr>, u32)> {
        const DEFAULT: &[u8] = b"system.posix_acl_default";
        if kind == FileKind::Symlink {
            return Ok((Vec::new(), mode));
        }
        let found = self.attributes(parent)?.into_iter().find(|attribute| attribute.name == DEFAULT);
        let Some(default) = found.filter(|default| default.value_inode == 0) else { return Ok((Vec::new(), mode)) };
        let (access, mode) = xattr::inherit_acl(&default.value, mode)?;
        let mut acls = Vec::new();
        if kind == FileKind::Directory {
            acls.push(Xattr::new(DEFAULT, default.value));
        }
        if let Some(access) = access {
            acls.push(Xattr::new(b"system.posix_acl_access", access));
        }
        Ok((acls, mode))
    }

    /// Makes `new` an inode's attributes, which were `old`.
    pub(crate) fn store_attributes(&mut self, inode: &mut Inode, old: Vec<Xattr>, new: Vec<Xattr>) -> Result<()> {
        let space = self.inode_attribute_bytes(inode.number)?.len();
        let layout = xattr::encode(&new, space, self.superblock.block_size)?;
        let seed = self.xattr_checksum_seed();
        let block = inode.xattr_block();
        let own = block != 0 && xattr::block_refcount(&self.cache.get(block, BlockKind::Xattr, |_| Ok(()))?) == 1;
        if layout.block.is_some() && !own {
            self.require_blocks(1)?;
        }
        match layout.block {
            None => self.release_xattr_block(inode)?,
            Some(mut bytes) => {
                let block = if own {
                    block
                } else {
                    self.release_xattr_block(inode)?;
                    let block = self.allocate_blocks(self.inode_goal(inode.number)?, 1)?.start;
                    self.count_clusters(inode, 1)?;
                    inode.set_xattr_block(block);
                    block
                };
                xattr::finish_block(&mut bytes, block, seed);
                self.cache.put(block, BlockKind::Xattr, bytes)?;
            }
        }
        self.follow_values(inode, old, new)?;
        if !self.superblock.features.compat.contains(Compat::EXT_ATTR) {
            let mut features = self.superblock.features;
            features.compat |= Compat::EXT_ATTR;
            self.superblock.set_features(features);
        }
        inode.set_changed(self.clock);
        self.write_inode_with_attributes(inode, &layout.in_inode)
    }

    /// Lets go of all attributes of an inode that is about to be freed.
    pub(crate) fn release_attributes(&mut self, inode: &mut Inode) -> Result<()> {
        // What holds a value has no attributes with values elsewhere, whatever the image says.
        if self.has_value_inodes() && !inode.flags().contains(InodeFlags::EA_INODE) {
            let gone = self.attributes(inode)?.into_iter().filter(|attribute| attribute.value_inode != 0);
            let gone: Vec<Xattr> = gone.collect();
            self.count_values(inode, &[], &gone)?;
            for attribute in gone.iter().filter(|attribute| !attribute.shared) {
                self.drop_value_reference(attribute.value_inode)?;
            }
        }
        self.release_xattr_block(inode)
    }

    /// Lets go of an inode's block of attributes, which goes with its last inode.
    fn release_xattr_block(&mut self, inode: &mut Inode) -> Result<()> {
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
        self.discount_clusters(inode, 1)
    }

    /// Gives the value of one of the attributes an inode of its own, where it is too large to be anywhere else.
    fn move_value_if_large(&mut self, inode: &Inode, attributes: &mut [Xattr], which: usize) -> Result<()> {
        if !self.has_value_inodes() {
            return Ok(());
        }
        let space = self.inode_attribute_bytes(inode.number)?.len();
        let block_size = self.superblock.block_size;
        let len = attributes[which].value.len();
        let large = len.next_multiple_of(4) > block_size - BLOCK_OVERHEAD;
        if !large && !matches!(xattr::encode(attributes, space, block_size), Err(Error::NoSpace(_))) {
            return Ok(());
        }
        if len as u64 > MAX_EA_INODE_LEN {
            return Err(Error::NoSpace("extended attributes"));
        }
        // There must be room for the entry, before anything is changed.
        let mut without = attributes.to_vec();
        without[which] = Xattr { value_inode: u32::MAX, value: Vec::new(), ..without[which].clone() };
        xattr::encode(&without, space, block_size)?;
        self.move_value_out(inode, &mut attributes[which])
    }

    /// Counts the references to inodes that hold values: the attributes `old` became `new`.
    fn follow_values(&mut self, inode: &mut Inode, mut old: Vec<Xattr>, mut new: Vec<Xattr>) -> Result<()> {
        old.retain(|attribute| attribute.value_inode != 0);
        new.retain(|attribute| attribute.value_inode != 0);
        // One inode may hold the value of several attributes.
        let is_in = |all: &[Xattr], one: &Xattr| {
            all.iter().any(|other| other.value_inode == one.value_inode && other.name == one.name)
        };
        // The block that was shared keeps its references, and this inode's attributes are copies now.
        for copied in new.iter().filter(|attribute| attribute.shared) {
            self.add_value_reference(copied.value_inode)?;
        }
        let gone: Vec<Xattr> = old.iter().filter(|attribute| !is_in(&new, attribute)).cloned().collect();
        let added: Vec<Xattr> = new.iter().filter(|attribute| !is_in(&old, attribute)).cloned().collect();
        self.count_values(inode, &added, &gone)?;
        for attribute in gone.iter().filter(|attribute| !attribute.shared) {
            self.drop_value_reference(attribute.value_inode)?;
        }
        Ok(())
    }
}
