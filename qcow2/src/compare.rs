//! Whether two disks hold the same.

use block::{ExtentKind, ReadAt};

use crate::Result;

/// Bytes that are compared at once.
const STEP: u64 = 1 << 20;

/// Compares what two disks hold: the offset of the first byte that differs, if any does. Where one is longer, what it
/// holds beyond the other must be zeros. Holes are not read. `progress` is told how many bytes are done.
///
/// # Errors
/// [`crate::Error::Io`] from either disk.
pub fn compare(a: &dyn ReadAt, b: &dyn ReadAt, progress: &mut dyn FnMut(u64)) -> Result<Option<u64>> {
    let (mut buf_a, mut buf_b) = (vec![0; STEP as usize], vec![0; STEP as usize]);
    let end = a.len().max(b.len());
    let mut at = 0;
    while at < end {
        let limit = end - at;
        let (len_a, hole_a) = extent(a, at, limit)?;
        let (len_b, hole_b) = extent(b, at, limit)?;
        let mut len = len_a.min(len_b);
        if !(hole_a && hole_b) {
            len = len.min(STEP);
            // Below STEP, so it fits.
            let (part_a, part_b) = (&mut buf_a[..len as usize], &mut buf_b[..len as usize]);
            fill(a, at, hole_a, part_a)?;
            fill(b, at, hole_b, part_b)?;
            if part_a != part_b {
                let first = part_a.iter().zip(part_b.iter()).position(|(x, y)| x != y).unwrap_or(0);
                return Ok(Some(at + first as u64));
            }
        }
        at += len;
        progress(at);
    }
    Ok(None)
}

/// For how many bytes a disk is, or is not, known to hold zeros; beyond its end it is.
fn extent(disk: &dyn ReadAt, at: u64, limit: u64) -> Result<(u64, bool)> {
    let left = disk.len().saturating_sub(at).min(limit);
    if left == 0 {
        return Ok((limit, true));
    }
    let extent = disk.extent_at(at, left)?;
    Ok((extent.len, extent.kind != ExtentKind::Data))
}

fn fill(disk: &dyn ReadAt, at: u64, is_hole: bool, part: &mut [u8]) -> Result<()> {
    if is_hole {
        part.fill(0);
        return Ok(());
    }
    Ok(disk.read_at(at, part)?)
}
