//! Inodes where they lie.

use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::{Error, Result};

/// Blocks of inodes that are read at once.
const READ_AHEAD_BYTES: usize = 64 << 10;

impl FileSystem {
    /// Reads an inode that is in use.
    pub(crate) fn inode(&self, number: u64) -> Result<Inode> {
        let inode = self.inode_slot(number)?;
        if inode.mode() == 0 {
            return Err(inode.corrupt("an inode that has a name is in use"));
        }
        Ok(inode)
    }

    /// Reads an inode, in use or not.
    pub(crate) fn inode_slot(&self, number: u64) -> Result<Inode> {
        let Some((block, at)) = self.sb.inode_place(number) else {
            return Err(Error::corrupt("inode number", format_args!("inode {number}"), "lies in the file system"));
        };
        // Inodes come in chunks of 64: those behind are wanted soon.
        let ahead = (READ_AHEAD_BYTES / self.sb.block_size) as u64;
        let left_in_group = u64::from(self.sb.ag_blocks) - block % u64::from(self.sb.ag_blocks);
        let bytes = self.store.block_ahead(block, ahead.clamp(1, left_in_group))?;
        let raw = bytes.get(at..at + self.sb.inode_size).unwrap_or_default().to_vec();
        Inode::decode(raw, number, &self.sb)
    }

    /// Puts an inode's bytes back, with a right checksum.
    pub(crate) fn put_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let Some((block, at)) = self.sb.inode_place(inode.number) else {
            return Err(inode.corrupt("lies in the file system"));
        };
        inode.seal();
        let mut bytes = self.store.block(block)?.to_vec();
        if let Some(slot) = bytes.get_mut(at..at + inode.raw.len()) {
            slot.copy_from_slice(&inode.raw);
        }
        self.store.put(block, bytes)
    }
}
