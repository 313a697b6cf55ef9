//! Values of extended attributes that are too large for a block and have an inode of their own (`ea_inode`).
//!
//! <https://docs.kernel.org/filesystems/ext4/attributes.html>; `fs/ext4/xattr.c` (`ext4_xattr_inode_create`,
//! `ext4_xattr_inode_update_ref`). Such an inode counts the attributes that it is the value of in fields that other
//! inodes use for a time and a version; its hash is where others tell their last access.

use crate::checksum::crc32c;
use crate::extent_edit::init_root;
use crate::features::Incompat;
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::limits::MAX_EA_INODE_LEN;
use crate::metadata::{FileKind, Ownership};
use crate::xattr::{self, Xattr};
use crate::{Error, Result};

impl FileSystem {
    /// Whether a value may have an inode of its own.
    pub(crate) fn has_value_inodes(&self) -> bool {
        self.superblock.features.incompat.contains(Incompat::EA_INODE)
    }

    /// The value that an inode holds.
    pub(crate) fn read_value_inode(&self, number: u32) -> Result<Vec<u8>> {
        let inode = self.value_inode(number)?;
        let size = inode.size(&self.superblock);
        if size > MAX_EA_INODE_LEN {
            let expected = format!("holds a value of at most {MAX_EA_INODE_LEN} bytes, found {size}");
            return Err(wrong(number, expected));
        }
        let mut value = vec![0; size as usize];
        self.read_inode_at(&inode, 0, &mut value)?;
        Ok(value)
    }

    /// Moves the value of an attribute that `owner` is to have into a new inode.
    pub(crate) fn move_value_out(&mut self, owner: &Inode, attribute: &mut Xattr) -> Result<()> {
        let value = xattr::disk_value(attribute)?;
        let block_size = self.superblock.block_size as u64;
        let blocks = (value.len() as u64).div_ceil(block_size);
        // A block for the entry may be needed as well.
        self.require_blocks(blocks + self.map_growth(blocks) + 2)?;
        let number = self.allocate_inode(owner.number, false)?;
        let ownership = Ownership { mode: 0o600, uid: owner.uid(), gid: owner.gid() };
        let mut inode = self.fresh_inode(number, FileKind::File, ownership);
        inode.set_flags(InodeFlags::EA_INODE);
        if self.superblock.features.incompat.contains(Incompat::EXTENTS) {
            inode.set_flags(inode.flags() | InodeFlags::EXTENTS);
            init_root(&mut inode);
        }
        self.zero_inode(number)?;
        if !value.is_empty() {
            self.write_inode_at(&mut inode, 0, &value)?;
        }
        let hash = crc32c(self.superblock.checksum_seed, &value);
        (inode.raw.i_atime, inode.raw.i_atime_extra) = (hash.into(), 0.into());
        set_references(&mut inode, 1);
        self.write_inode(&inode)?;
        attribute.value_inode = number;
        attribute.value_size = value.len() as u32;
        attribute.hash = xattr::hash_of_value_inode(attribute, hash)?;
        attribute.value = Vec::new();
        Ok(())
    }

    /// Counts one attribute more that an inode holds the value of.
    pub(crate) fn add_value_reference(&mut self, number: u32) -> Result<()> {
        let mut inode = self.value_inode(number)?;
        let references = references(&inode).saturating_add(1);
        set_references(&mut inode, references);
        self.write_inode(&inode)
    }

    /// Counts one attribute less; the inode goes with the last.
    pub(crate) fn drop_value_reference(&mut self, number: u32) -> Result<()> {
        let mut inode = self.value_inode(number)?;
        match references(&inode) {
            0 | 1 => self.delete_inode(inode),
            shared => {
                set_references(&mut inode, shared - 1);
                self.write_inode(&inode)
            }
        }
    }

    /// Counts in an inode what the values of its attributes take elsewhere: blocks, and inodes for quotas. They count
    /// in full for each inode that has the attribute.
    pub(crate) fn count_values(&mut self, inode: &mut Inode, added: &[Xattr], gone: &[Xattr]) -> Result<()> {
        let cluster = self.superblock.block_size as u64 * u64::from(self.superblock.cluster_ratio);
        let sectors = |values: &[Xattr]| {
            let clusters = values.iter().map(|value| u64::from(value.value_size).div_ceil(cluster)).sum::<u64>();
            clusters.saturating_mul(cluster / 512)
        };
        let now = inode.sectors(&self.superblock).saturating_sub(sectors(gone)).saturating_add(sectors(added));
        inode.set_sectors(now, &self.superblock)?;
        self.note_usage(inode, 0, added.len() as i64 - gone.len() as i64);
        Ok(())
    }

    fn value_inode(&self, number: u32) -> Result<Inode> {
        let inode = self.inode(number)?;
        if !inode.flags().contains(InodeFlags::EA_INODE) || !inode.is_file() {
            return Err(wrong(number, "is a file that holds a value".to_owned()));
        }
        Ok(inode)
    }
}

fn wrong(number: u32, expected: String) -> Error {
    Error::corrupt("inode of an attribute's value", format_args!("inode {number}"), expected)
}

/// How many attributes an inode holds the value of.
fn references(inode: &Inode) -> u64 {
    u64::from(inode.raw.i_ctime.get()) << 32 | u64::from(inode.raw.i_version.get())
}

fn set_references(inode: &mut Inode, references: u64) {
    (inode.raw.i_ctime, inode.raw.i_ctime_extra) = (((references >> 32) as u32).into(), 0.into());
    (inode.raw.i_version, inode.raw.i_version_hi) = ((references as u32).into(), 0.into());
}
