//! Contents of files and targets of symbolic links.

use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::limits::MAX_SYMLINK_LEN;
use crate::mapping::Place;
use crate::{Error, Result};

impl FileSystem {
    /// Reads at most `buf.len()` bytes of a regular file at `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::IsADirectory`], [`Error::Unsupported`] where the contents are encrypted, and what
    /// the image or the device has against it.
    pub fn read_at(&self, inode: u32, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.file_inode(inode)?;
        self.read_inode_at(&inode, offset, buf)
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`Error::NotASymlink`]; [`Error::Corrupt`] where the target is longer than any path.
    pub fn read_link(&self, inode: u32) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        if !inode.is_symlink() {
            return Err(Error::NotASymlink(inode.number));
        }
        let size = inode.size(&self.superblock);
        if size > MAX_SYMLINK_LEN as u64 {
            let expected = format!("a target has at most {MAX_SYMLINK_LEN} bytes, found {size}");
            return Err(Error::corrupt("symbolic link", format_args!("inode {}", inode.number), expected));
        }
        if inode.is_fast_symlink(&self.superblock) && !inode.flags().contains(InodeFlags::ENCRYPT) {
            return Ok(inode.raw.i_block[..size as usize].to_vec());
        }
        let mut target = vec![0; size as usize];
        self.read_inode_at(&inode, 0, &mut target)?;
        Ok(target)
    }

    /// Reads what an inode's blocks (or its inline data) hold.
    pub(crate) fn read_inode_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if inode.flags().contains(InodeFlags::ENCRYPT) {
            return Err(Error::Unsupported(format!("inode {} is encrypted", inode.number)));
        }
        let size = inode.size(&self.superblock);
        let len = (buf.len() as u64).min(size.saturating_sub(offset)) as usize;
        let buf = &mut buf[..len];
        if inode.flags().contains(InodeFlags::INLINE_DATA) {
            self.read_inline(inode, offset, buf)?;
            return Ok(len);
        }
        let bits = self.superblock.block_bits;
        let mut done = 0;
        while done < len {
            let position = offset + done as u64;
            let Ok(logical) = u32::try_from(position >> bits) else {
                let expected = format!("a file is no longer than its blocks can be numbered, found {size} bytes");
                return Err(Error::corrupt("inode", format_args!("inode {}", inode.number), expected));
            };
            let (mut run_len, place) = match self.map(inode, logical) {
                Ok(mapping) => (u64::from(mapping.len), mapping.place),
                Err(error) => return Err(error),
            };
            let within = position - (u64::from(logical) << bits);
            let wanted = (len - done) as u64 + within;
            // Extents that follow each other on the disk, too, are read in one call.
            if let Place::Written(start) = place {
                while run_len << bits < wanted && u64::from(logical) + run_len < u64::from(u32::MAX) {
                    let next = self.map(inode, logical + run_len as u32)?;
                    if next.place != Place::Written(start + run_len) {
                        break;
                    }
                    run_len += u64::from(next.len);
                }
            }
            let take = ((run_len << bits) - within).min((len - done) as u64) as usize;
            let part = &mut buf[done..done + take];
            match place {
                Place::Written(start) => self.cache.read_run(start, within, part)?,
                Place::Hole | Place::Unwritten(_) => part.fill(0),
            }
            done += take;
        }
        Ok(len)
    }
}
