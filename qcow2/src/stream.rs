//! A whole disk, read by several threads and handed over in order.

use std::sync::{Mutex, PoisonError};

use block::{ExtentKind, ReadAt};

use crate::{Result, pipeline};

/// Bytes that are read, and handed over, together at most.
const CHUNK: u64 = 1 << 20;

/// Reads all that `source` holds by `threads` threads, and hands it to `each`, on the calling thread and in order: the offset
/// of some bytes, and the bytes, at most 1 MiB of them. What is known to read as zeros is left out. At most three MiB for each
/// thread are held in memory.
///
/// This is how a compressed image is decompressed by more than one core.
///
/// ```no_run
/// let image = qcow2::Image::open("a.qcow2", &qcow2::OpenOptions::new())?;
/// let mut sum = 0u64;
/// qcow2::read_in_order(&image, 4, &mut |_offset, bytes| {
///     sum += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///     Ok(())
/// })?;
/// # Ok::<(), qcow2::Error>(())
/// ```
///
/// # Errors
/// The first error of `source` or of `each`; nothing behind it has been handed over then.
pub fn read_in_order(
    source: &dyn ReadAt,
    threads: usize,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let spare = Mutex::new(Vec::<Vec<u8>>::new());
    let spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
    let read = |(offset, len): (u64, u64)| {
        let mut bytes = spare().pop().unwrap_or_default();
        // At most `CHUNK`.
        bytes.resize(len as usize, 0);
        source.read_at(offset, &mut bytes)?;
        Ok((offset, bytes))
    };
    let mut at = 0;
    let next = || {
        while at < source.len() {
            let extent = source.extent_at(at, source.len() - at)?;
            if extent.kind == ExtentKind::Data {
                // Chunks begin where clusters do.
                let end = (at + extent.len).min((at / CHUNK + 1) * CHUNK);
                let chunk = (at, end - at);
                at = end;
                return Ok(Some(chunk));
            }
            at += extent.len;
        }
        Ok(None)
    };
    pipeline::in_order(vec![read; threads.max(1)], next, |(offset, bytes)| {
        each(offset, &bytes)?;
        spare().push(bytes);
        Ok(())
    })
}
