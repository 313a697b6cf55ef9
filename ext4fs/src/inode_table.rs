//! The inode tables: single inodes, and all of them in large runs.
//!
//! <https://docs.kernel.org/filesystems/ext4/inodes.html>

use crate::file_system::FileSystem;
use crate::inode::{self, Inode, extra_isize};
use crate::layout::inode::BASE_LEN;
use crate::limits::MAX_RUN_BYTES;
use crate::metadata_cache::{Block, BlockKind};
use crate::superblock::Superblock;
use crate::{Error, Result};

/// How many blocks of an inode table are read at once, in bytes.
const READ_AHEAD_BYTES: usize = 64 << 10;

impl FileSystem {
    /// The block of the inode table that holds an inode, and the slot's offset in it; and how many blocks of the
    /// table that may be in use follow it.
    fn inode_slot(&self, number: u32) -> Result<(u64, usize, u64)> {
        let (group, index) = self.superblock.locate_inode(number)?;
        let group = self.group(group)?;
        let per_block = (self.superblock.block_size / self.superblock.inode_size) as u32;
        let block = group.inode_table + u64::from(index / per_block);
        let used = group.inodes_ever_used(&self.superblock).div_ceil(per_block);
        let ahead = u64::from(used.saturating_sub(index / per_block));
        Ok((block, (index % per_block) as usize * self.superblock.inode_size, ahead))
    }

    /// The block that holds an inode's slot, and where the slot is in it.
    pub(crate) fn inode_block(&self, number: u32) -> Result<(Block, usize)> {
        let (block, offset, ahead) = self.inode_slot(number)?;
        let ahead = ahead.min((READ_AHEAD_BYTES / self.superblock.block_size) as u64);
        Ok((self.cache.get_ahead(block, BlockKind::InodeTable, ahead, |_| Ok(()))?, offset))
    }

    /// Reads an inode, in use or not.
    pub(crate) fn read_inode(&self, number: u32) -> Result<Inode> {
        let (block, offset) = self.inode_block(number)?;
        let slot = &block[offset..offset + self.superblock.inode_size];
        inode::check_checksum(slot, &self.superblock, number)?;
        Inode::decode(slot, number)
    }

    /// Reads an inode that must be in use.
    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        let inode = self.read_inode(number)?;
        if inode.links() == 0 {
            let expected = "an inode with a name has a link count above 0";
            return Err(Error::corrupt("inode", format_args!("inode {number}"), expected));
        }
        inode.kind()?;
        Ok(inode)
    }

    /// An inode that must be a directory.
    pub(crate) fn directory_inode(&self, number: u32) -> Result<Inode> {
        let inode = self.inode(number)?;
        if inode.is_directory() { Ok(inode) } else { Err(Error::NotADirectory(number)) }
    }

    /// An inode that must be a regular file.
    pub(crate) fn file_inode(&self, number: u32) -> Result<Inode> {
        let inode = self.inode(number)?;
        match inode.is_file() {
            true => Ok(inode),
            false if inode.is_directory() => Err(Error::IsADirectory(number)),
            false => Err(Error::NotAFile(number)),
        }
    }

    /// The bytes of an inode's slot that hold extended attributes: all after the fields that `i_extra_isize` counts.
    /// Inodes without such fields have no room for attributes either.
    pub(crate) fn inode_attribute_bytes(&self, number: u32) -> Result<Vec<u8>> {
        let (block, offset) = self.inode_block(number)?;
        let slot = &block[offset..offset + self.superblock.inode_size];
        Ok(match extra_isize(slot) {
            0 => Vec::new(),
            extra => slot[BASE_LEN + extra..].to_vec(),
        })
    }

    /// Writes an inode's fields into its slot; its attributes stay.
    pub(crate) fn write_inode(&mut self, inode: &Inode) -> Result<()> {
        self.modify_slot(inode.number, |slot, superblock| inode.encode(slot, superblock))
    }

    /// Writes an inode's fields and its attributes: the bytes at the slot's end.
    pub(crate) fn write_inode_with_attributes(&mut self, inode: &Inode, attributes: &[u8]) -> Result<()> {
        self.modify_slot(inode.number, |slot, superblock| {
            let start = slot.len() - attributes.len().min(slot.len() - BASE_LEN);
            let len = slot.len() - start;
            slot[start..].copy_from_slice(&attributes[..len]);
            inode.encode(slot, superblock);
        })
    }

    /// Calls `visit` with the number and the slot of each inode of a group that was ever used, in use or not. The
    /// table is read in large runs, past the cache but with its changes.
    pub(crate) fn for_each_slot(&self, group: u32, mut visit: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<()> {
        let descriptor = self.group(group)?;
        let size = self.superblock.inode_size;
        let per_block = (self.superblock.block_size / size) as u32;
        let used = descriptor.inodes_ever_used(&self.superblock);
        let run = (MAX_RUN_BYTES / self.superblock.block_size) as u32;
        let mut number = group * self.superblock.inodes_per_group + 1;
        let mut buffer = Vec::new();
        for first in (0..used.div_ceil(per_block)).step_by(run as usize) {
            let blocks = (used.div_ceil(per_block) - first).min(run);
            buffer.resize(blocks as usize * self.superblock.block_size, 0);
            self.cache.read_run(descriptor.inode_table + u64::from(first), 0, &mut buffer)?;
            let slots = (used - first * per_block).min(blocks * per_block) as usize;
            for slot in buffer.chunks_exact(size).take(slots) {
                visit(number, slot)?;
                number += 1;
            }
        }
        Ok(())
    }

    /// Replaces all bytes of an inode's slot, and sets the checksum. For who knows what the bytes mean.
    pub(crate) fn write_slot(&mut self, number: u32, bytes: &[u8]) -> Result<()> {
        self.modify_slot(number, |slot, superblock| {
            slot.copy_from_slice(bytes);
            inode::set_checksum(slot, superblock, number);
        })
    }

    /// Fills an inode's slot with zeros, as mke2fs leaves it: nothing of what the inode was remains.
    pub(crate) fn zero_inode(&mut self, number: u32) -> Result<()> {
        // What was there need not have been an inode, so this is nothing to count.
        let (block, offset, _) = self.inode_slot(number)?;
        let bytes = self.cache.modify(block, BlockKind::InodeTable, |_| Ok(()))?;
        bytes[offset..offset + self.superblock.inode_size].fill(0);
        Ok(())
    }

    fn modify_slot(&mut self, number: u32, change: impl FnOnce(&mut [u8], &Superblock)) -> Result<()> {
        let (block, offset, _) = self.inode_slot(number)?;
        let counts = self.counts_usage();
        let bytes = self.cache.modify(block, BlockKind::InodeTable, |_| Ok(()))?;
        let slot = &mut bytes[offset..offset + self.superblock.inode_size];
        if !counts {
            change(slot, &self.superblock);
            return Ok(());
        }
        let before = Inode::decode(slot, number)?;
        change(slot, &self.superblock);
        let after = Inode::decode(slot, number)?;
        self.note_slot_change(&before, &after);
        Ok(())
    }
}
