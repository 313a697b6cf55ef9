//! Committing an overlay: what it holds goes into a disk behind it, and it becomes empty.

use std::sync::Arc;

use block::{ReadAt, WriteAt};

use crate::commit::Relayout;
use crate::image::Image;
use crate::read::{MappedExtent, MappedKind};
use crate::references::{Accounting, References};
use crate::{Error, Result};

/// Bytes copied at a time.
const STEP: u64 = 2 << 20;

impl Image {
    /// Writes all that this image holds, and its backing file does not, to that backing file; returns how many bytes that
    /// was. An image that is open for writing is then emptied: it reads as its backing file does. Its persistent bitmaps stay
    /// as they are.
    ///
    /// `open_base` is to open the backing file for writing, and to make it as long as this disk: this image lets go of it first,
    /// and nothing is written because an image names it. Until everything is safe there, this image stays as it was, so that the
    /// disk is at every moment what it was before, and a commit that was cut off may be done again.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the backing file's disk is shorter than this one; [`Error::Unsupported`] with an external data
    /// file; [`Error::Corrupt`]; [`Error::Io`] from either; and what `open_base` says.
    pub fn commit_to<B: WriteAt>(
        self,
        open_base: impl FnOnce() -> Result<B>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        let empties = self.writable;
        let mut layers = self.commit_layers(1, open_base, progress)?;
        if let Some(image) = layers.0.first_mut().filter(|_| empties) {
            image.make_empty()?;
        }
        Ok(layers.1)
    }

    /// Writes all that this image and those behind it hold, down to the one `depth` steps behind it, to that one; returns how
    /// many bytes that was. With a depth of 1 it is the backing file. This image stays as it is, and so does what its disk holds;
    /// images between the two do not: what they do not hold themselves is then what this image's disk holds.
    ///
    /// # Errors
    /// As [`Image::commit_to`]; also [`Error::Invalid`] for a depth of 0 or more than there are images behind this one.
    pub fn commit_into<B: WriteAt>(
        self,
        depth: usize,
        open_base: impl FnOnce() -> Result<B>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        Ok(self.commit_layers(depth, open_base, progress)?.1)
    }

    fn commit_layers<B: WriteAt>(
        self,
        depth: usize,
        open_base: impl FnOnce() -> Result<B>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Vec<Self>, u64)> {
        self.refuse_external_data("committing")?;
        let layers = self.into_layers(depth)?;
        let Some(top) = layers.first() else { return Err(not_that_deep(depth)) };
        let len = top.len();
        let base = open_base()?;
        if base.len() < len {
            let found = base.len();
            return Err(Error::Invalid(format!("{len} bytes cannot be committed to a disk of {found}")));
        }
        let mut buf = vec![0; STEP.min(len) as usize];
        let (mut at, mut written) = (0, 0);
        while at < len {
            let (layer, extent) = held(&layers, at, len - at)?;
            let mut step = extent.len;
            match extent.kind {
                MappedKind::Unallocated => {}
                MappedKind::Zero { .. } => {
                    base.write_zeroes(at, step)?;
                    written += step;
                }
                MappedKind::Data { .. } | MappedKind::Encrypted { .. } | MappedKind::Compressed => {
                    step = step.min(STEP);
                    let part = &mut buf[..step as usize];
                    layer.read_at(at, part)?;
                    base.write_at(at, part)?;
                    written += step;
                }
            }
            at += step;
            progress(at);
        }
        base.flush()?;
        Ok((layers, written))
    }

    /// This image and those behind it, `depth` in all, each on its own.
    fn into_layers(self, depth: usize) -> Result<Vec<Self>> {
        let mut layers = Vec::new();
        let mut next = Some(self);
        while layers.len() < depth {
            let Some(mut image) = next.take() else { return Err(not_that_deep(depth)) };
            // Both lead to the same image, which is nobody else's.
            drop(image.backing.take());
            next = image.backing_image.take().and_then(Arc::into_inner);
            layers.push(image);
        }
        Ok(layers)
    }

    /// Takes everything out of the disk; snapshots keep what they hold. A crash leaves the disk as it was or empty.
    fn make_empty(&mut self) -> Result<()> {
        self.check_writable()?;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let mut counts = accounting.references.clone();
        let l1 = self.l1(&self.state())?.to_vec();
        counts.release_all(&References::of_l1(self, &l1)?);
        let disk_len = self.geometry.disk_len;
        self.relayout(&accounting, Relayout { counts, l1: Some(vec![0; l1.len()]), snapshots: None, disk_len })
    }
}

/// The first of these images that holds the bytes at `at` of the disk, and how.
fn held(layers: &[Image], at: u64, mut len: u64) -> Result<(&Image, MappedExtent)> {
    let mut found = None;
    for layer in layers {
        if at >= layer.len() {
            // Beyond the end of a backing file there are zeros, whatever is behind it.
            return Ok((layer, MappedExtent { len, kind: MappedKind::Zero { host_offset: None } }));
        }
        let extent = layer.map(at, len.min(layer.len() - at))?;
        len = extent.len;
        found = Some((layer, extent));
        if extent.kind != MappedKind::Unallocated {
            break;
        }
    }
    found.ok_or_else(|| not_that_deep(0))
}

fn not_that_deep(depth: usize) -> Error {
    Error::Invalid(format!("there is no image {depth} steps behind this one"))
}
