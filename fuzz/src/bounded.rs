//! A file in memory that cannot grow without bound, as a host's disk cannot.

use block::{Error, Extent, Memory, ReadAt, Result, Storage, WriteAt};

/// Longer than this the file does not get.
const LIMIT: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Bounded(Memory);

impl Bounded {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Memory::from(bytes))
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl ReadAt for Bounded {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        self.0.extent_at(offset, max_len)
    }
}

impl WriteAt for Bounded {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.0.write_at(offset, buf)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.0.write_zeroes(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.0.discard(offset, len)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
}

impl Storage for Bounded {
    fn set_len(&self, len: u64) -> Result<()> {
        if len > LIMIT {
            return Err(Error::OutOfBounds { offset: 0, len, device_len: LIMIT });
        }
        self.0.set_len(len)
    }
}
