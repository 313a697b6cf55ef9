//! Where on the device an inode's contents are.

use std::ops::Range;

use crate::Result;
use crate::file_system::FileSystem;
use crate::inode::Fork;

impl FileSystem {
    /// Calls `visit` with each range of the device, in bytes, that holds contents of an inode, in the order of the
    /// contents. Contents that are kept in the inode itself, a short link's target among them, have none.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn data_ranges(&self, inode: u64, visit: &mut dyn FnMut(Range<u64>)) -> Result<()> {
        let inode = self.inode(inode)?;
        let size = self.sb.block_size as u64;
        for extent in self.extents(&inode, Fork::Data)?.list.iter().filter(|extent| !extent.unwritten) {
            visit(extent.block * size..(extent.block + extent.len) * size);
        }
        Ok(())
    }
}
