//! A range of another device: a partition, say.

use crate::{AllocationUnit, Error, Extent, ReadAt, Result, WriteAt};

/// A range of another device, as a device of its own.
#[derive(Debug, Clone)]
pub struct Window<D> {
    device: D,
    start: u64,
    len: u64,
}

impl<D: ReadAt> Window<D> {
    /// The `len` bytes of `device` from `start` on.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where the range is not wholly inside the device.
    pub fn new(device: D, start: u64, len: u64) -> Result<Self> {
        Error::check_range(start, len, device.len())?;
        Ok(Self { device, start, len })
    }

    /// Where the window starts on the device below, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset on the device below, after checking that the range lies inside the window.
    fn translate(&self, offset: u64, len: u64) -> Result<u64> {
        Error::check_range(offset, len, self.len)?;
        Ok(self.start + offset)
    }
}

impl<D: ReadAt> ReadAt for Window<D> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(self.translate(offset, buf.len() as u64)?, buf)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        self.device.extent_at(self.translate(offset, max_len.max(1))?, max_len)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        let below = self.device.allocation_unit()?;
        // Where the first unit that begins at or after the window's start does so, seen from there.
        let into = (self.start % below.len + below.len - below.start % below.len) % below.len;
        Some(AllocationUnit { len: below.len, start: (below.len - into) % below.len })
    }
}

impl<D: WriteAt> WriteAt for Window<D> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.device.write_at(self.translate(offset, buf.len() as u64)?, buf)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.device.write_zeroes(self.translate(offset, len)?, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.device.discard(self.translate(offset, len)?, len)
    }

    fn flush(&self) -> Result<()> {
        self.device.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Overlay};

    #[test]
    fn units_begin_where_those_below_do() {
        let below = Overlay::new(Memory::new(1 << 20));
        for (start, first) in [(0, 0), (4096, 0), (1, 4095), (5000, 3192)] {
            let window = Window::new(&below, start, 65536).unwrap();
            assert_eq!(window.allocation_unit(), Some(AllocationUnit { len: 4096, start: first }));
        }
    }
}
