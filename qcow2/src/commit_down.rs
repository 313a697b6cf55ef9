//! Committing an overlay: what it holds goes into its backing file, and it becomes empty.

use block::{ReadAt, WriteAt};

use crate::commit::Relayout;
use crate::image::Image;
use crate::read::MappedKind;
use crate::references::{Accounting, References};
use crate::{Error, Result};

/// Bytes copied at a time.
const STEP: u64 = 2 << 20;

impl Image {
    /// Writes all that this image holds, and its backing file does not, to that backing file; returns how many bytes that
    /// was. An image that is open for writing is then emptied: it reads as its backing file does.
    ///
    /// `open_base` is to open the backing file for writing: this image lets go of it first, and nothing is written because an
    /// image names it. Until everything is safe there, this image stays as it was, so that the disk is at every moment what
    /// it was before, and a commit that was cut off may be done again.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the backing file's disk is shorter than this one; [`Error::Unsupported`] with an external data
    /// file or persistent bitmaps; [`Error::Corrupt`]; [`Error::Io`] from either; and what `open_base` says.
    pub fn commit_to<B: WriteAt>(
        mut self,
        open_base: impl FnOnce() -> Result<B>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        self.refuse_external_data("committing")?;
        if self.has_bitmaps() {
            return Err(Error::Unsupported("committing an image that has persistent bitmaps".to_owned()));
        }
        (self.backing, self.backing_image) = (None, None);
        let base = open_base()?;
        if base.len() < self.len() {
            let (needed, found) = (self.len(), base.len());
            return Err(Error::Invalid(format!("{needed} bytes cannot be committed to a disk of {found}")));
        }
        let mut buf = vec![0; STEP.min(self.len()) as usize];
        let (mut at, mut written) = (0, 0);
        while at < self.len() {
            let extent = self.map(at, self.len() - at)?;
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
                    self.read_at(at, part)?;
                    base.write_at(at, part)?;
                    written += step;
                }
            }
            at += step;
            progress(at);
        }
        base.flush()?;
        if self.writable {
            self.make_empty()?;
        }
        Ok(written)
    }

    /// Takes everything out of the disk; snapshots keep what they hold. A crash leaves the disk as it was or empty.
    fn make_empty(&mut self) -> Result<()> {
        self.check_writable()?;
        let accounting = Accounting::take(self, &self.state())?;
        let mut counts = accounting.references.clone();
        let l1 = self.l1(&self.state())?.to_vec();
        counts.release_all(&References::of_l1(self, &l1)?);
        let disk_len = self.geometry.disk_len;
        self.relayout(&accounting, Relayout { counts, l1: Some(vec![0; l1.len()]), snapshots: None, disk_len })
    }
}
