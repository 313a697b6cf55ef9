//! A read-only memory mapping of a file.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, ReadAt, Result, lock};

/// A file of the host, mapped into memory for reading.
///
/// Faster than [`crate::HostFile`] for many small reads of a file in the page cache. The file must not be cut short
/// by anyone while it is mapped: the process would be killed by SIGBUS. Programs that keep to QEMU's locks do not,
/// since a reader's lock denies resizing; others may. For files that others can touch, use [`crate::HostFile`].
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    /// Kept open for its locks.
    file: File,
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        lock::release(&self.file);
    }
}

impl MappedFile {
    /// Maps a regular file, with a reader's locks.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::NotAFile`], [`Error::Locked`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |source| Error::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        lock::acquire(&file, path, false)?;
        #[allow(unsafe_code, reason = "mapping a file cannot be made safe: see the type's documentation")]
        // SAFETY: the bytes are only ever copied out (`read_at`), never lent, so no reference to memory that another
        // process may change outlives a copy; the lock taken above tells cooperating programs not to resize the file.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { map, file })
    }
}

impl ReadAt for MappedFile {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        let start = offset as usize;
        buf.copy_from_slice(&self.map[start..start + buf.len()]);
        Ok(())
    }
}
