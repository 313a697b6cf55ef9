//! An open file.

use crate::file_system::FileSystem;
use crate::metadata::{FileKind, Metadata};
use crate::{Error, Result};

/// A regular file of a file system that is open for writing: reads and writes at positions, like
/// `std::os::unix::fs::FileExt`. For reading alone, from many threads, [`FileSystem::read_at`] takes `&self`.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let device = std::sync::Arc::new(block::Memory::new(0));
/// let mut fs = ext4fs::FileSystem::open(device, &ext4fs::OpenOptions::default())?;
/// let mut file = fs.create_file(b"/var/log/install.log")?;
/// file.write_at(0, b"done\n")?;
/// file.set_len(1 << 20)?;
/// file.sync()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct File<'a> {
    fs: &'a mut FileSystem,
    inode: u32,
}

impl FileSystem {
    /// Opens a regular file; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsADirectory`], [`Error::NotAFile`].
    pub fn open_file(&mut self, path: &[u8]) -> Result<File<'_>> {
        let inode = self.resolve(path)?;
        match self.metadata(inode)?.kind {
            FileKind::File => Ok(File { fs: self, inode }),
            FileKind::Directory => Err(Error::IsADirectory(inode)),
            _ => Err(Error::NotAFile(inode)),
        }
    }

    /// Opens a regular file, which is emptied if it is there and made, owned by root and with mode 0644, if not.
    ///
    /// # Errors
    /// As [`FileSystem::write`].
    pub fn create_file(&mut self, path: &[u8]) -> Result<File<'_>> {
        self.write(path, b"")?;
        self.open_file(path)
    }

    /// Sets the permission bits of what a path leads to.
    ///
    /// # Errors
    /// As [`FileSystem::resolve`] and [`FileSystem::set_mode`].
    pub fn set_permissions(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let inode = self.resolve(path)?;
        self.set_mode(inode, mode)
    }

    /// Calls `visit` with each run of blocks that hold nothing, in order. Memory is that of one bitmap.
    ///
    /// # Errors
    /// What `visit` says, and what the image or the device has against it.
    pub fn free_extents(&self, mut visit: impl FnMut(std::ops::Range<u64>) -> Result<()>) -> Result<()> {
        let ratio = u64::from(self.superblock.cluster_ratio);
        let mut pending: Option<std::ops::Range<u64>> = None;
        for group in 0..self.superblock.group_count {
            let blocks = self.superblock.group_blocks(group);
            let block_bitmap = self.block_bitmap(group)?;
            for run in crate::bitmap::clear_runs(&block_bitmap, 0..self.superblock.group_clusters(group)) {
                let start = blocks.start + u64::from(run.start) * ratio;
                let end = (blocks.start + u64::from(run.end) * ratio).min(blocks.end);
                match &mut pending {
                    Some(before) if before.end == start => before.end = end,
                    _ => pending.replace(start..end).map_or(Ok(()), &mut visit)?,
                }
            }
        }
        pending.map_or(Ok(()), visit)
    }
}

impl File<'_> {
    /// The number of the file's inode.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// What `stat` tells of the file.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        self.fs.metadata(self.inode)
    }

    /// As [`FileSystem::read_at`].
    ///
    /// # Errors
    /// As there.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.fs.read_at(self.inode, offset, buf)
    }

    /// As [`FileSystem::write_at`].
    ///
    /// # Errors
    /// As there.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.fs.write_at(self.inode, offset, data)
    }

    /// As [`FileSystem::set_len`].
    ///
    /// # Errors
    /// As there.
    pub fn set_len(&mut self, len: u64) -> Result<()> {
        self.fs.set_len(self.inode, len)
    }

    /// As [`FileSystem::punch_hole`].
    ///
    /// # Errors
    /// As there.
    pub fn punch_hole(&mut self, offset: u64, len: u64) -> Result<()> {
        self.fs.punch_hole(self.inode, offset, len)
    }

    /// As [`FileSystem::flush`]: the whole file system is made safe.
    ///
    /// # Errors
    /// As there.
    pub fn sync(&mut self) -> Result<()> {
        self.fs.flush()
    }
}
