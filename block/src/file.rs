//! A file of the host.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use crate::{AllocationUnit, Error, Extent, ExtentKind, ReadAt, Result, Storage, WriteAt, lock};

/// How a [`HostFile`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only, with a reader's locks.
    Read,
    /// Reading and writing, with a writer's locks.
    ReadWrite,
    /// Reading only, and no lock is taken or looked at: what is read may change meanwhile.
    ReadUnlocked,
}

/// A regular file or block device of the host.
///
/// Opening takes the locks that QEMU takes, so an image that a virtual machine writes cannot be opened,
/// and a virtual machine cannot start on one that is open here for writing.
#[derive(Debug)]
pub struct HostFile {
    file: File,
    path: PathBuf,
    len: AtomicU64,
    writable: bool,
    regular: bool,
    /// Bytes of disk that it took when it was opened.
    allocated: u64,
}

impl Drop for HostFile {
    fn drop(&mut self) {
        lock::release(&self.file);
    }
}

impl HostFile {
    /// Opens an existing file.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::NotAFile`], [`Error::Locked`].
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let writable = access == Access::ReadWrite;
        Self::open_with(path.as_ref(), OpenOptions::new().read(true).write(writable), access)
    }

    /// Makes a new, empty file, which must not exist yet, and opens it for writing.
    ///
    /// # Errors
    /// As [`HostFile::open`].
    pub fn create_new(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path.as_ref(), OpenOptions::new().read(true).write(true).create_new(true), Access::ReadWrite)
    }

    /// Makes a new, empty file that only its owner may read.
    pub(crate) fn create_private(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        Self::open_with(path, options.read(true).write(true).create_new(true).mode(0o600), Access::ReadWrite)
    }

    fn open_with(path: &Path, options: &mut OpenOptions, access: Access) -> Result<Self> {
        let failed = |source| Error::Open { path: path.to_owned(), source };
        // Opening a named pipe must fail below, not wait for its other end.
        // A block device that is mounted, or part of another, must not be written: O_EXCL asks the kernel. With a regular
        // file that exists the flag says nothing.
        let exclusive = if access == Access::ReadWrite { libc::O_EXCL } else { 0 };
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | exclusive;
        let file = options.custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        match access {
            Access::Read => lock::acquire(&file, path, false)?,
            Access::ReadWrite => lock::acquire(&file, path, true)?,
            Access::ReadUnlocked => {}
        }
        // A block device's metadata says 0; seeking to the end tells the length of both, as it is now that there are locks.
        let len = seek(&file, SeekFrom::End(0)).map_err(|e| failed(e.into()))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            len: AtomicU64::new(len),
            writable: access == Access::ReadWrite,
            regular: kind.is_file(),
            allocated: metadata.blocks() * 512,
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells this file from others of its length, for as long as it exists: by its inode, or by the device's number.
    ///
    /// # Errors
    /// What the host says.
    pub fn identity(&self) -> Result<crate::Identity> {
        let metadata = self.file.metadata().map_err(|source| self.io("stat", 0, 0, source))?;
        let number = if self.regular { metadata.ino() } else { metadata.rdev() };
        let mut identity = [0; 16];
        identity[0] = if self.regular { b'f' } else { b'b' };
        identity[8..].copy_from_slice(&number.to_le_bytes());
        Ok(identity)
    }

    /// Whether it is a regular file, not a block device.
    pub fn is_regular(&self) -> bool {
        self.regular
    }

    /// Bytes of disk that the file takes, which is less than its length where it has holes.
    ///
    /// # Errors
    /// What the host says.
    pub fn allocated_bytes(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.metadata().map_err(|source| self.io("stat", 0, 0, source))?;
        Ok(metadata.blocks() * 512)
    }

    /// Bytes of disk that the file took when it was opened.
    pub fn allocated_when_opened(&self) -> u64 {
        self.allocated
    }

    fn io(&self, action: &'static str, offset: u64, len: u64, source: std::io::Error) -> Error {
        Error::Io { action, offset, len, source }
    }

    fn check_writable(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Error::ReadOnly) }
    }

    fn write_zero_bytes(&self, mut offset: u64, mut len: u64) -> Result<()> {
        const ZEROS: &[u8] = &[0; 64 * 1024];
        while len > 0 {
            let step = len.min(ZEROS.len() as u64);
            self.write_at(offset, &ZEROS[..step as usize])?;
            offset += step;
            len -= step;
        }
        Ok(())
    }

    fn fallocate_or_write_zeros(&self, flags: FallocateFlags, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        Error::check_range(offset, len, self.len())?;
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => self.write_zero_bytes(offset, len),
            Err(e) => Err(self.io("punch", offset, len, e.into())),
        }
    }
}

impl ReadAt for HostFile {
    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        self.file.read_exact_at(buf, offset).map_err(|e| self.io("read", offset, buf.len() as u64, e))
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        let end = offset + max_len;
        let data = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // No data from here to the end of the file.
            Err(Errno::NXIO) => return Ok(Extent { len: max_len, kind: ExtentKind::Hole }),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Extent { len: max_len, kind: ExtentKind::Data }),
            Err(e) => return Err(self.io("seek in", offset, max_len, e.into())),
        };
        if data > offset {
            return Ok(Extent { len: data.min(end) - offset, kind: ExtentKind::Hole });
        }
        let hole =
            seek(&self.file, SeekFrom::Hole(offset)).map_err(|e| self.io("seek in", offset, max_len, e.into()))?;
        Ok(Extent { len: hole.clamp(offset + 1, end) - offset, kind: ExtentKind::Data })
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        let len = self.file.metadata().ok()?.blksize();
        (len > 0).then_some(AllocationUnit { len, start: 0 })
    }
}

impl WriteAt for HostFile {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_writable()?;
        Error::check_range(offset, buf.len() as u64, self.len())?;
        self.file.write_all_at(buf, offset).map_err(|e| self.io("write", offset, buf.len() as u64, e))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.fallocate_or_write_zeros(FallocateFlags::ZERO_RANGE, offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.fallocate_or_write_zeros(FallocateFlags::PUNCH_HOLE, offset, len)
    }

    fn flush(&self) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        // All data and the length, but not the times: what fdatasync is for.
        self.file.sync_data().map_err(|e| self.io("flush", 0, self.len(), e))
    }
}

impl Storage for HostFile {
    fn set_len(&self, len: u64) -> Result<()> {
        self.check_writable()?;
        if !self.regular {
            return Err(Error::OutOfBounds { offset: 0, len, device_len: self.len() });
        }
        self.file.set_len(len).map_err(|e| self.io("resize to", 0, len, e))?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }
}
