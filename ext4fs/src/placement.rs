//! Where on the device an inode's contents are.

use std::ops::Range;

use crate::Result;
use crate::file_system::FileSystem;
use crate::inode::InodeFlags;
use crate::mapping::Place;

impl FileSystem {
    /// Calls `visit` with each range of the device, in bytes, that holds contents of an inode, in the order of the
    /// contents. Contents that are kept in the inode itself, a short link's target among them, have none.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn data_ranges(&self, inode: u32, visit: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let inode = self.inode(inode)?;
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        let size = self.superblock.block_size as u64;
        self.for_each_mapping(&inode, |mapping| {
            if let Place::Written(block) = mapping.place {
                visit(block * size..(block + u64::from(mapping.len)) * size);
            }
            Ok(())
        })
    }
}
