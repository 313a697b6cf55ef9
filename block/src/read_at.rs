//! Reading at a position.

use crate::{Error, Result};

/// A device of fixed length that can be read at any offset.
pub trait ReadAt: Send + Sync {
    /// The device's length in bytes.
    fn len(&self) -> u64;

    /// Whether the device holds no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from the bytes at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the range is not wholly inside the device; otherwise what the device says.
    /// After an error `buf` holds unspecified bytes.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Says how the bytes from `offset` on are held: the kind of the first byte, and for how many bytes
    /// (at least 1, at most `max_len`) the answer is the same. The default knows nothing and says [`ExtentKind::Data`].
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where `offset` or `max_len` leads out of the device or `max_len` is 0.
    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        Ok(Extent { len: max_len, kind: ExtentKind::Data })
    }

    /// The unit in which the device holds space, where that is known: discarding a whole unit gives its space back and
    /// makes it a hole, discarding a part of one only makes it read as zeros. The default knows nothing.
    fn allocation_unit(&self) -> Option<AllocationUnit> {
        None
    }
}

/// The unit in which a device holds space: a cluster of an image, a block of the host's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllocationUnit {
    /// Bytes of a unit, at least 1.
    pub len: u64,
    /// The offset of the first unit that begins on this device; below `len`.
    pub start: u64,
}

impl AllocationUnit {
    /// The part of the bytes from `offset` to `end` that is whole units, if there is one.
    pub fn whole(&self, offset: u64, end: u64) -> Option<std::ops::Range<u64>> {
        let first = self.start + offset.saturating_sub(self.start).div_ceil(self.len) * self.len;
        let last = self.start + end.checked_sub(self.start)? / self.len * self.len;
        (first < last).then_some(first..last)
    }
}

/// How a run of bytes is held by a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes in this run.
    pub len: u64,
    /// How they are held.
    pub kind: ExtentKind,
}

/// How bytes are held by a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Nothing is stored: the bytes read as zeros and cost no space.
    Hole,
    /// The bytes are known to read as zeros, though space may be set aside for them.
    Zero,
    /// The bytes have to be read to be known.
    Data,
}

/// Reads `len` bytes at `offset` into a new vector. The range is checked against the device before memory is
/// taken, so a length that comes from an image cannot cost more memory than the device has bytes.
///
/// # Errors
/// As [`ReadAt::read_at`].
pub fn read_vec(device: &(impl ReadAt + ?Sized), offset: u64, len: u64) -> Result<Vec<u8>> {
    Error::check_range(offset, len, device.len())?;
    let size = usize::try_from(len).map_err(|_| Error::OutOfBounds { offset, len, device_len: device.len() })?;
    let mut bytes = vec![0; size];
    device.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

macro_rules! forward_read {
    ($($kind:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $kind {
            fn len(&self) -> u64 {
                (**self).len()
            }
            fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
                (**self).read_at(offset, buf)
            }
            fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
                (**self).extent_at(offset, max_len)
            }
            fn allocation_unit(&self) -> Option<AllocationUnit> {
                (**self).allocation_unit()
            }
        }
    )*};
}
forward_read!(std::sync::Arc<T>, Box<T>, &T);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_units_lie_inside() {
        let unit = AllocationUnit { len: 64, start: 10 };
        assert_eq!(unit.whole(10, 74), Some(10..74));
        assert_eq!(unit.whole(0, 80), Some(10..74));
        assert_eq!(unit.whole(11, 202), Some(74..202));
        assert_eq!(unit.whole(11, 137), None);
        assert_eq!(unit.whole(0, 5), None);
        assert_eq!(unit.whole(80, 80), None);
    }
}
