//! Writes kept in memory above a device that is never written.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{AllocationUnit, Error, Extent, ExtentKind, ReadAt, Result, WriteAt};

const CHUNK: u64 = 4096;

/// What the overlay holds for one chunk.
#[derive(Debug, Clone)]
enum Chunk {
    Zero,
    Bytes(Box<[u8]>),
}

/// A device that reads through to another until something is written, and keeps what is written in memory.
/// Nothing reaches the device below: dropping the overlay undoes everything.
#[derive(Debug)]
pub struct Overlay<D> {
    below: D,
    chunks: RwLock<BTreeMap<u64, Chunk>>,
}

impl<D: ReadAt> Overlay<D> {
    /// An overlay without any change over `below`.
    pub fn new(below: D) -> Self {
        Self { below, chunks: RwLock::new(BTreeMap::new()) }
    }

    fn chunks(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Chunk>> {
        self.chunks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunks_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Chunk>> {
        self.chunks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn chunk_len(&self, chunk: u64) -> usize {
        CHUNK.min(self.len() - chunk * CHUNK) as usize
    }

    /// Applies `change` to the bytes of each chunk that the range touches: (chunk's bytes, where the range starts in
    /// them, where it ends, how far into the range that is).
    fn change(&self, offset: u64, len: u64, mut change: impl FnMut(&mut [u8], usize)) -> Result<()> {
        let mut chunks = self.chunks_mut();
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (chunk, within) = (at / CHUNK, (at % CHUNK) as usize);
            let size = self.chunk_len(chunk);
            let step = (size - within).min(usize::try_from(len - done).unwrap_or(usize::MAX));
            let mut bytes = match chunks.remove(&chunk) {
                Some(Chunk::Bytes(bytes)) => bytes,
                Some(Chunk::Zero) => vec![0; size].into_boxed_slice(),
                None => {
                    let mut bytes = vec![0; size].into_boxed_slice();
                    if step < size {
                        self.below.read_at(chunk * CHUNK, &mut bytes)?;
                    }
                    bytes
                }
            };
            change(&mut bytes[within..within + step], done as usize);
            chunks.insert(chunk, Chunk::Bytes(bytes));
            done += step as u64;
        }
        Ok(())
    }
}

impl<D: ReadAt> ReadAt for Overlay<D> {
    fn len(&self) -> u64 {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        self.below.read_at(offset, buf)?;
        let end = offset + buf.len() as u64;
        for (&chunk, held) in self.chunks().range(offset / CHUNK..end.div_ceil(CHUNK)) {
            let (start, stop) = ((chunk * CHUNK).max(offset), (chunk * CHUNK + CHUNK).min(end));
            let target = &mut buf[(start - offset) as usize..(stop - offset) as usize];
            match held {
                Chunk::Zero => target.fill(0),
                Chunk::Bytes(bytes) => {
                    let within = (start - chunk * CHUNK) as usize;
                    target.copy_from_slice(&bytes[within..within + target.len()]);
                }
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        let chunks = self.chunks();
        let first = offset / CHUNK;
        if let Some(held) = chunks.get(&first) {
            let kind = if matches!(held, Chunk::Zero) { ExtentKind::Hole } else { ExtentKind::Data };
            return Ok(Extent { len: max_len.min(first * CHUNK + CHUNK - offset), kind });
        }
        let limit = chunks.range(first..).next().map_or(max_len, |(&next, _)| max_len.min(next * CHUNK - offset));
        self.below.extent_at(offset, limit)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        Some(AllocationUnit { len: CHUNK, start: 0 })
    }
}

impl<D: ReadAt> WriteAt for Overlay<D> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        self.change(offset, buf.len() as u64, |bytes, done| bytes.copy_from_slice(&buf[done..done + bytes.len()]))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        Error::check_range(offset, len, self.len())?;
        let end = offset + len;
        let (first, last) = (offset.div_ceil(CHUNK), end / CHUNK);
        if first >= last {
            return self.change(offset, len, |bytes, _| bytes.fill(0));
        }
        self.change(offset, first * CHUNK - offset, |bytes, _| bytes.fill(0))?;
        self.change(last * CHUNK, end - last * CHUNK, |bytes, _| bytes.fill(0))?;
        let mut chunks = self.chunks_mut();
        for chunk in first..last {
            chunks.insert(chunk, Chunk::Zero);
        }
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.write_zeroes(offset, len)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, read_vec};

    #[test]
    fn reads_what_was_written_and_leaves_the_device_below_alone() {
        let below = std::sync::Arc::new(Memory::from((0..20_000u32).map(|i| i as u8).collect::<Vec<_>>()));
        let overlay = Overlay::new(below.clone());
        let before = below.to_vec();
        let mut model = before.clone();
        for (offset, len) in [(0usize, 10usize), (4090, 20), (8192, 4096), (5, 15_000), (19_990, 10)] {
            let bytes = vec![offset as u8; len];
            overlay.write_at(offset as u64, &bytes).unwrap();
            model[offset..offset + len].copy_from_slice(&bytes);
            overlay.write_zeroes(offset as u64 + 3, len as u64 - 3).unwrap();
            model[offset + 3..offset + len].fill(0);
            assert_eq!(read_vec(&overlay, 0, overlay.len()).unwrap(), model);
        }
        assert_eq!(below.to_vec(), before);
    }
}
