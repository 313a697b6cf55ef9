//! The disk that is converted: one image's or several in a row, with what cannot be read left out where that is asked for.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use block::{Error, Extent, ExtentKind, ReadAt};

use super::open_disk_at;
use crate::args::image::Source;
use crate::render::image::diagnostic;

/// Opens the disks of the images, one behind the other.
pub(super) fn open(sources: &[(PathBuf, Source)], snapshot: Option<&str>, salvage: bool) -> Result<Arc<dyn ReadAt>> {
    let mut disks = Vec::new();
    for (path, source) in sources {
        disks.push(open_disk_at(path, snapshot, source)?);
    }
    let disk = match disks.pop() {
        Some(only) if disks.is_empty() => only,
        last => Arc::new(Row(disks.into_iter().chain(last).collect())),
    };
    Ok(if salvage { Arc::new(Salvaged(disk)) } else { disk })
}

/// Disks, one behind the other.
struct Row(Vec<Arc<dyn ReadAt>>);

impl Row {
    /// The disk at an offset, and how far in that is.
    fn at(&self, mut offset: u64) -> Option<(&Arc<dyn ReadAt>, u64)> {
        for disk in &self.0 {
            if offset < disk.len() {
                return Some((disk, offset));
            }
            offset -= disk.len();
        }
        None
    }
}

impl ReadAt for Row {
    fn len(&self) -> u64 {
        self.0.iter().map(|disk| disk.len()).fold(0, u64::saturating_add)
    }

    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> block::Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        while let Some((disk, within)) = self.at(offset).filter(|_| !buf.is_empty()) {
            let step = (disk.len() - within).min(buf.len() as u64);
            let (part, rest) = buf.split_at_mut(step as usize);
            disk.read_at(within, part)?;
            (buf, offset) = (rest, offset + step);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        match self.at(offset) {
            Some((disk, within)) => disk.extent_at(within, max_len.min(disk.len() - within)),
            None => Ok(Extent { len: max_len, kind: ExtentKind::Hole }),
        }
    }
}

/// A disk whose damaged sectors read as zeros.
struct Salvaged(Arc<dyn ReadAt>);

const SECTOR: usize = 512;
/// Bytes that are taken for data where nobody can say how they are held.
const UNKNOWN: u64 = 65_536;

impl ReadAt for Salvaged {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        if self.0.read_at(offset, buf).is_ok() {
            return Ok(());
        }
        // Sector by sector, so that no more is lost than has to be.
        let mut lost: Option<(u64, u64, Error)> = None;
        for (at, sector) in (offset..).step_by(SECTOR).zip(buf.chunks_mut(SECTOR)) {
            match (self.0.read_at(at, sector), &mut lost) {
                (Ok(()), _) => report(lost.take()),
                (Err(error), lost) => {
                    sector.fill(0);
                    let end = at + sector.len() as u64;
                    match lost {
                        Some((_, until, _)) => *until = end,
                        None => *lost = Some((at, end, error)),
                    }
                }
            }
        }
        report(lost);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        let found = self.0.extent_at(offset, max_len);
        Ok(found.unwrap_or(Extent { len: max_len.min(UNKNOWN), kind: ExtentKind::Data }))
    }
}

fn report(lost: Option<(u64, u64, Error)>) {
    if let Some((start, end, error)) = lost {
        let error = anyhow::Error::new(error);
        diagnostic(&format!("warning: bytes {start} to {end} cannot be read, and are zeros now: {error:#}"));
    }
}
