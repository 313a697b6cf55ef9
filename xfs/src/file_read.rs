//! Contents of files, and targets of symbolic links.

use crate::bytes::{be32, be64, checksum, le32, uuid};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::MAX_SYMLINK_LEN;
use crate::metadata::FileKind;
use crate::{Error, Result};

impl FileSystem {
    /// Reads at most `buf.len()` bytes of a regular file at `offset`; fewer only at its end.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::IsADirectory`], and what the image or the device has against it.
    pub fn read_at(&self, inode: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.file_inode(inode)?;
        let len = inode.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..len];
        if !buf.is_empty() {
            let extents = self.cached_extents(&inode)?;
            self.read_extents(&extents.list, offset, buf)?;
        }
        Ok(len)
    }

    /// An inode that is a regular file.
    pub(crate) fn file_inode(&self, number: u64) -> Result<Inode> {
        let inode = self.inode(number)?;
        match inode.kind()? {
            FileKind::File => Ok(inode),
            FileKind::Directory => Err(Error::IsADirectory(number)),
            _ => Err(Error::NotAFile(number)),
        }
    }

    pub(crate) fn read_extents(&self, list: &[crate::extents::Extent], offset: u64, buf: &mut [u8]) -> Result<()> {
        let size = self.sb.block_size as u64;
        let end = offset + buf.len() as u64;
        buf.fill(0);
        let first = list.partition_point(|extent| extent.end() * size <= offset);
        for extent in list[first..].iter().take_while(|extent| extent.offset * size < end) {
            if extent.unwritten {
                continue;
            }
            let (start, stop) = ((extent.offset * size).max(offset), (extent.end() * size).min(end));
            let place = extent.block * size + (start - extent.offset * size);
            self.store.read(place, &mut buf[(start - offset) as usize..(stop - offset) as usize])?;
        }
        Ok(())
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`Error::NotASymlink`], and what the image or the device has against it.
    pub fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        let inode = self.inode(inode)?;
        if inode.kind()? != FileKind::Symlink {
            return Err(Error::NotASymlink(inode.number));
        }
        let len = inode.size();
        if len == 0 || len > MAX_SYMLINK_LEN {
            return Err(inode.corrupt(format!("a link's target has 1 to {MAX_SYMLINK_LEN} bytes, found {len}")));
        }
        let len = len as usize;
        if inode.format(Fork::Data) == Format::Local {
            let target = inode.fork(Fork::Data).get(..len).map(<[u8]>::to_vec);
            return target.ok_or_else(|| inode.corrupt(format!("a target of {len} bytes lies in the inode")));
        }
        let extents = self.extents(&inode, Fork::Data)?;
        let mut target = Vec::with_capacity(len);
        // Each extent has one header, however many blocks it has.
        for extent in &extents.list {
            let missing = extent.offset != 0 && target.is_empty();
            if extent.unwritten || missing || extent.len > MAX_SYMLINK_LEN {
                return Err(inode.corrupt("its target was written, from its start on"));
            }
            let bytes = self.store.run(extent.block, extent.len)?;
            let from = if self.sb.is_v5 { 56 } else { 0 };
            let rest = (len - target.len()).min(bytes.len() - from);
            if self.sb.is_v5 {
                let sound = bytes.starts_with(b"XSLM")
                    && (be32(&bytes, 4) as usize, be32(&bytes, 8) as usize) == (target.len(), rest)
                    && checksum(&bytes, 12) == le32(&bytes, 12)
                    && (uuid(&bytes, 16), be64(&bytes, 32), be64(&bytes, 40))
                        == (self.sb.meta_uuid, inode.number, self.sb.daddr(extent.block));
                if !sound {
                    let place = format_args!("block {} of inode {}", extent.block, inode.number);
                    return Err(Error::corrupt(
                        "symbolic link",
                        place,
                        "magic number, checksum, place and owner are its own",
                    ));
                }
            }
            target.extend_from_slice(&bytes[from..from + rest]);
        }
        if target.len() < len {
            return Err(inode.corrupt("all of its target is there"));
        }
        Ok(target)
    }
}
