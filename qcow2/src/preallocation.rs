//! Setting clusters aside for what is not written yet.

use std::ops::Range;

use block::{Storage, WriteAt};

use crate::image::Image;
use crate::pending::Round;
use crate::{Error, Result};

/// How clusters that hold nothing yet are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preallocation {
    /// Not at all.
    #[default]
    Off,
    /// With a place of their own in the file, which stays a hole until they are written.
    Metadata,
    /// With a place for which the host has set space aside.
    Falloc,
    /// With a place that is filled with zeros.
    Full,
}

impl Preallocation {
    /// Makes `len` bytes at `offset` of a file read as zeros, and takes as much space for them as is wanted. The file gets longer
    /// where it has to.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn fill(self, storage: &dyn Storage, offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        let held = storage.len().clamp(offset, end) - offset;
        if self == Self::Metadata && held > 0 {
            storage.discard(offset, held)?;
        }
        if storage.len() < end {
            storage.set_len(end)?;
        }
        match self {
            Self::Off | Self::Metadata => {}
            Self::Falloc => storage.write_zeroes(offset, len)?,
            Self::Full => {
                let zeros = vec![0; len.min(1 << 20) as usize];
                let mut at = offset;
                while at < end {
                    let step = (end - at).min(zeros.len() as u64);
                    storage.write_at(at, &zeros[..step as usize])?;
                    at += step;
                }
            }
        }
        Ok(())
    }
}

/// Clusters set aside at once: they share their flushes.
const ROUND: u64 = 1024;

impl Image {
    /// As [`Image::resize`], with clusters set aside for what is added. A crash leaves the old length, or the new one with a part
    /// of them, and leaked clusters at worst.
    ///
    /// # Errors
    /// As [`Image::resize`]; also [`Error::Invalid`] where nothing is added.
    pub fn resize_with(&mut self, len: u64, preallocation: Preallocation) -> Result<()> {
        let old = self.geometry.disk_len;
        if preallocation != Preallocation::Off && len < old {
            return Err(Error::Invalid("a disk that gets shorter has nothing to preallocate".to_owned()));
        }
        self.set_disk_len(len)?;
        let raw = self.is_data_file_raw(&self.state());
        // Where the data file is to be what the disk is, each cluster leads there, as in QEMU.
        let preallocation = if raw && preallocation == Preallocation::Off && len > old {
            Preallocation::Metadata
        } else {
            preallocation
        };
        if preallocation != Preallocation::Off {
            self.check_unlocked()?;
        }
        if preallocation == Preallocation::Off { Ok(()) } else { self.preallocate(old..len, preallocation) }
    }

    /// Sets clusters aside for a part of the disk.
    pub(crate) fn preallocate(&self, part: Range<u64>, preallocation: Preallocation) -> Result<()> {
        let size = self.geometry.cluster_size();
        let (mut first, end) = (part.start / size, part.end.div_ceil(size));
        while first < end {
            let clusters = (end - first).min(ROUND);
            let _turn = self.allocating();
            self.prepare(clusters)?;
            self.poison_on_error(|| {
                // Zeros are not zeros once they are decrypted.
                let fill = |offset: u64| match (&self.crypt, &self.data) {
                    (Some(_), _) => self.write_data(offset, &vec![0; size as usize]),
                    // A data file ends where the disk does.
                    (None, Some(data)) => preallocation.fill(data, offset, size.min(self.geometry.disk_len - offset)),
                    (None, None) => preallocation.fill(&*self.storage, offset, size),
                };
                Round::new(self, &mut self.state_mut()).set_aside(first..first + clusters, &fill)
            })?;
            first += clusters;
        }
        self.poison_on_error(|| Ok(self.storage.flush()?))
    }
}
