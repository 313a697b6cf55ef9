//! Copying a disk into an image that is there, and persistent bitmaps after it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use block::{ExtentKind, HostFile, ReadAt, WriteAt};
use qcow2::{Bitmap, DirtyBits, Image};

use super::{format, open_closed};
use crate::args::Format;
use crate::args::image::Source;
use crate::render::image::diagnostic;
use crate::render::progress::Progress;

/// Bytes copied at a time: whole clusters, however large they are.
const STEP: u64 = 2 << 20;
/// Zeros of a raw file that become a hole.
const BLOCK: u64 = 4096;

/// How a disk is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) compress: bool,
    /// Leave out what the target reads as already: what its backing file holds.
    pub(super) only_differences: bool,
    /// The target reads as zeros: none are written.
    pub(super) target_is_zero: bool,
}

/// What is done with a unit of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Same,
    Zero,
    Data,
}

impl Copy {
    /// Copies to an image, and flushes it.
    pub(super) fn to_image(self, disk: &dyn ReadAt, image: &Image, progress: &Progress) -> qcow2::Result<()> {
        let unit = image.allocation_unit().map_or(BLOCK, |unit| unit.len);
        self.copy(disk, image, unit, progress, &mut |at, bytes| {
            if self.compress { image.write_compressed(at, bytes) } else { Ok(image.write_at(at, bytes)?) }
        })
    }

    /// Copies to a raw file, and flushes it. Zeros become holes where `sparse` of them follow one another; none where that is 0.
    pub(super) fn to_raw(
        self,
        disk: &dyn ReadAt,
        file: &HostFile,
        sparse: Option<u64>,
        progress: &Progress,
    ) -> qcow2::Result<()> {
        let unit = sparse.filter(|&size| size > 0).unwrap_or(BLOCK);
        self.copy(disk, file, unit, progress, &mut |at, bytes| Ok(file.write_at(at, bytes)?))
    }

    fn copy(
        self,
        disk: &dyn ReadAt,
        target: &dyn WriteAt,
        unit: u64,
        progress: &Progress,
        write: &mut dyn FnMut(u64, &[u8]) -> qcow2::Result<()>,
    ) -> qcow2::Result<()> {
        let (mut new, mut old) = (vec![0; STEP.max(unit) as usize], Vec::new());
        let len = disk.len();
        let mut at = 0;
        while at < len {
            // Here a unit begins.
            let extent = disk.extent_at(at, len - at)?;
            let stop = at + extent.len;
            let whole = if stop == len { len } else { stop / unit * unit };
            if extent.kind != ExtentKind::Data && whole > at {
                self.zero(target, at, whole)?;
                at = whole;
                progress.set(at);
                continue;
            }
            let end = stop.next_multiple_of(unit).min(at + STEP.max(unit) / unit * unit).min(len);
            let bytes = &mut new[..(end - at) as usize];
            disk.read_at(at, bytes)?;
            if self.only_differences {
                old.resize(bytes.len(), 0);
                target.read_at(at, &mut old)?;
            }
            let mut run: Option<(Part, usize)> = None;
            for start in (0..=bytes.len()).step_by(unit as usize).chain([bytes.len()]) {
                let stop = (start + unit as usize).min(bytes.len());
                let part = (start < stop).then(|| {
                    let is_same = old.get(start..stop).is_some_and(|old| old == &bytes[start..stop]);
                    let is_zero = || bytes[start..stop].iter().all(|&byte| byte == 0);
                    if is_same {
                        Part::Same
                    } else if is_zero() {
                        Part::Zero
                    } else {
                        Part::Data
                    }
                });
                if let Some((kind, from)) = run.filter(|(kind, _)| part != Some(*kind)) {
                    match kind {
                        Part::Same => {}
                        Part::Zero => self.zero(target, at + from as u64, at + start as u64)?,
                        Part::Data => write(at + from as u64, &bytes[from..start])?,
                    }
                    run = None;
                }
                run = run.or_else(|| part.map(|part| (part, start)));
            }
            at = end;
            progress.set(at);
        }
        Ok(target.flush()?)
    }

    fn zero(self, target: &dyn WriteAt, mut at: u64, end: u64) -> qcow2::Result<()> {
        if self.target_is_zero {
            return Ok(());
        }
        while at < end {
            let extent = target.extent_at(at, end - at)?;
            // What is a hole of an image reads as zeros, whatever is behind it.
            if extent.kind != ExtentKind::Hole {
                target.write_zeroes(at, extent.len)?;
            }
            at += extent.len;
        }
        Ok(())
    }
}

/// A persistent bitmap that is to be copied.
pub(super) struct SourceBitmap {
    bitmap: Bitmap,
    bits: DirtyBits,
}

/// The bitmaps of the one image among `sources`.
pub(super) fn bitmaps(sources: &[(PathBuf, Source)], skip_broken: bool) -> Result<Vec<SourceBitmap>> {
    let [(path, source)] = sources else { bail!("bitmaps are copied of one image only") };
    if format(path, source.format)? == Format::Raw {
        bail!("{} is a raw image, which has no bitmaps", path.display());
    }
    let reading = || format!("cannot read the bitmaps of {}", path.display());
    let image = open_closed(path, source)?;
    let mut found = Vec::new();
    for bitmap in image.bitmaps().with_context(reading)? {
        if bitmap.in_use {
            let name = &bitmap.name;
            let text = format!("bitmap {name:?} of {} was not stored by who used it last", path.display());
            if !skip_broken {
                bail!("{text}; --skip-broken-bitmaps leaves it out");
            }
            diagnostic(&format!("warning: {text}, and is left out"));
            continue;
        }
        let bits = image.read_bitmap(&bitmap.name).with_context(reading)?;
        found.push(SourceBitmap { bitmap, bits });
    }
    Ok(found)
}

/// Adds the bitmaps to an image, and closes it.
pub(super) fn add_bitmaps(mut image: Image, bitmaps: &[SourceBitmap]) -> qcow2::Result<()> {
    for SourceBitmap { bitmap, bits } in bitmaps {
        image.add_bitmap(&bitmap.name, Some(bitmap.granularity))?;
        if !bitmap.enabled {
            image.disable_bitmap(&bitmap.name)?;
        }
        image.merge_dirty_bits(&bitmap.name, bits)?;
    }
    image.close()
}
