//! Writing at a position, and storage whose length can change.

use crate::{ReadAt, Result};

/// A device that can be written at any offset. Its length does not change.
pub trait WriteAt: ReadAt {
    /// Writes all of `buf` at `offset`. What was written is read back at once by any thread, and survives a crash
    /// only after [`WriteAt::flush`].
    ///
    /// # Errors
    /// [`crate::Error::OutOfBounds`], [`crate::Error::ReadOnly`], or what the device says.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()>;

    /// Makes `len` bytes at `offset` read as zeros, giving back the space where that is cheap.
    ///
    /// # Errors
    /// As [`WriteAt::write_at`].
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()>;

    /// Says that `len` bytes at `offset` are no longer needed. They read as zeros afterwards, and the device gives
    /// back all the space it can: a hole is punched, a cluster unmapped.
    ///
    /// # Errors
    /// As [`WriteAt::write_at`].
    fn discard(&self, offset: u64, len: u64) -> Result<()>;

    /// Returns when all that was written before is safe on stable storage.
    ///
    /// # Errors
    /// What the device says. What was written may then be lost in part.
    fn flush(&self) -> Result<()>;
}

/// A device whose length can change: what an image format needs of the file that holds it.
pub trait Storage: WriteAt {
    /// Makes the device `len` bytes long. New bytes read as zeros.
    ///
    /// # Errors
    /// What the device says.
    fn set_len(&self, len: u64) -> Result<()>;
}

macro_rules! forward_write {
    ($($kind:ty),*) => {$(
        impl<T: WriteAt + ?Sized> WriteAt for $kind {
            fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
                (**self).write_at(offset, buf)
            }
            fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
                (**self).write_zeroes(offset, len)
            }
            fn discard(&self, offset: u64, len: u64) -> Result<()> {
                (**self).discard(offset, len)
            }
            fn flush(&self) -> Result<()> {
                (**self).flush()
            }
        }
        impl<T: Storage + ?Sized> Storage for $kind {
            fn set_len(&self, len: u64) -> Result<()> {
                (**self).set_len(len)
            }
        }
    )*};
}
forward_write!(std::sync::Arc<T>, Box<T>, &T);
