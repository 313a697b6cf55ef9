//! Holes made in files.

use crate::Result;
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::mapping::Place;

impl FileSystem {
    /// Makes `len` bytes at `offset` of a regular file read as zeros and gives their whole blocks back. The length of the
    /// file stays; what lies behind its end is not looked at.
    ///
    /// # Errors
    /// As [`FileSystem::write_at`].
    pub fn punch_hole(&mut self, inode: u32, offset: u64, len: u64) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.writable_file(inode)?;
            let size = inode.size(&fs.superblock);
            let end = offset.saturating_add(len).min(size);
            if offset >= end {
                return Ok(());
            }
            let bits = fs.superblock.block_bits;
            let block_size = fs.superblock.block_size as u64;
            // The block that the file ends in is freed as a whole, too.
            let last = if end == size { end.div_ceil(block_size) } else { end >> bits };
            let first = offset.div_ceil(block_size);
            if !inode.maps_blocks(&fs.superblock) {
                // What is kept in the inode is short, and has no blocks to give back.
                fs.write_inline(&mut inode, offset, &vec![0; (end - offset) as usize])?;
            } else if first <= last {
                // An extent that is cut in two takes an entry more.
                fs.require_blocks(fs.map_growth(1))?;
                fs.zero_part(&inode, offset, (first << bits).min(end))?;
                fs.zero_part(&inode, (last << bits).max(offset), end)?;
                if first < last {
                    fs.remove_blocks(&mut inode, first as u32..last as u32)?;
                }
            } else {
                fs.zero_part(&inode, offset, end)?;
            }
            inode.set_modified(fs.clock);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// Makes bytes within one block zeros on the disk.
    fn zero_part(&mut self, inode: &Inode, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let bits = self.superblock.block_bits;
        match self.map(inode, (from >> bits) as u32)?.place {
            Place::Written(block) => {
                let within = from & (self.superblock.block_size as u64 - 1);
                self.cache.write_run(block, within, &vec![0; (to - from) as usize])
            }
            Place::Hole | Place::Unwritten(_) => Ok(()),
        }
    }
}
