//! A storage that fails at a chosen call.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{AllocationUnit, Error, Extent, ReadAt, Result, Storage, WriteAt};

/// A storage that passes everything on to another until a chosen number of calls has been made, and fails
/// every call from then on, as a disk that was pulled out does.
#[derive(Debug)]
pub struct Fault<S> {
    storage: S,
    calls: AtomicU64,
    fail_from: AtomicU64,
}

impl<S: Storage> Fault<S> {
    /// Fails the call number `fail_from` (the first is 0) and all after it.
    pub fn new(storage: S, fail_from: u64) -> Self {
        Self { storage, calls: AtomicU64::new(0), fail_from: AtomicU64::new(fail_from) }
    }

    /// How many calls were made so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Works again from now on.
    pub fn heal(&self) {
        self.fail_from.store(u64::MAX, Ordering::Relaxed);
    }

    fn pass(&self, action: &'static str, offset: u64, len: u64) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if call >= self.fail_from.load(Ordering::Relaxed) {
            return Err(Error::Io { action, offset, len, source: std::io::Error::other("injected fault") });
        }
        Ok(())
    }
}

impl<S: Storage> ReadAt for Fault<S> {
    fn len(&self) -> u64 {
        self.storage.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.pass("read", offset, buf.len() as u64)?;
        self.storage.read_at(offset, buf)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        self.pass("seek in", offset, max_len)?;
        self.storage.extent_at(offset, max_len)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        self.storage.allocation_unit()
    }
}

impl<S: Storage> WriteAt for Fault<S> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.pass("write", offset, buf.len() as u64)?;
        self.storage.write_at(offset, buf)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.pass("zero", offset, len)?;
        self.storage.write_zeroes(offset, len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.pass("punch", offset, len)?;
        self.storage.discard(offset, len)
    }

    fn flush(&self) -> Result<()> {
        self.pass("flush", 0, self.storage.len())?;
        self.storage.flush()
    }
}

impl<S: Storage> Storage for Fault<S> {
    fn set_len(&self, len: u64) -> Result<()> {
        self.pass("resize to", 0, len)?;
        self.storage.set_len(len)
    }
}
