//! A device in memory.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Extent, ExtentKind, ReadAt, Result, Storage, WriteAt};

/// A device whose bytes are in memory.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
}

impl Memory {
    /// A device of `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self::from(vec![0; len])
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.read().clone()
    }

    // A panic while the lock is held leaves bytes half written, which is what a crash does too: not a reason to fail.
    fn read(&self) -> RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<u8>> for Memory {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }
}

/// The range as indices, checked against the length of the vector that they will index.
fn indices(offset: u64, len: u64, bytes: &[u8]) -> Result<std::ops::Range<usize>> {
    Error::check_range(offset, len, bytes.len() as u64)?;
    // The end is no greater than a vector's length, so both fit a usize.
    Ok(offset as usize..(offset + len) as usize)
}

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        self.read().len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.read();
        let range = indices(offset, buf.len() as u64, &bytes)?;
        buf.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        Ok(Extent { len: max_len, kind: ExtentKind::Data })
    }
}

impl WriteAt for Memory {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut bytes = self.write();
        let range = indices(offset, buf.len() as u64, &bytes)?;
        bytes[range].copy_from_slice(buf);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        let mut bytes = self.write();
        let range = indices(offset, len, &bytes)?;
        bytes[range].fill(0);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.write_zeroes(offset, len)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl Storage for Memory {
    fn set_len(&self, len: u64) -> Result<()> {
        let mut bytes = self.write();
        let new =
            usize::try_from(len).map_err(|_| Error::OutOfBounds { offset: 0, len, device_len: bytes.len() as u64 })?;
        bytes.resize(new, 0);
        Ok(())
    }
}
