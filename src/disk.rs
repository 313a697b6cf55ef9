//! An image on the host, as a disk that a guest is looked for on.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{Access, HostFile, LogFile, Overlay, ReadAt, Staged, WriteAt};
use qcow2::{Backing, Committed, Image, MappedKind, Transaction};

use crate::args::{Format, Open};
use crate::secret::Passphrases;

/// A disk that can be changed, and whose changes are kept only if that is said in the end.
pub(crate) enum Disk {
    Qcow2(Arc<Transaction>),
    /// Changes are kept apart until they are committed, with a redo log.
    Raw(Arc<Staged<HostFile>>),
    /// Changes are kept in memory, and cannot be written back.
    RawReadOnly(Arc<Overlay<Arc<dyn ReadAt>>>),
}

impl Disk {
    /// Opens an image, for writing in place or for reading.
    pub(crate) fn open(path: &Path, options: &Open, in_place: bool) -> Result<Self> {
        let opening = || format!("cannot open {}", path.display());
        if format(path, options)? == Format::Raw {
            if in_place {
                let staged = Staged::open(path, options.redo_log.as_deref()).with_context(opening)?;
                return Ok(Self::Raw(Arc::new(staged)));
            }
            return Ok(Self::RawReadOnly(Arc::new(Overlay::new(open_raw(path, options)?))));
        }
        let image = open_image(path, options, in_place)?;
        Ok(Self::Qcow2(Arc::new(image.begin().with_context(opening)?)))
    }

    pub(crate) fn device(&self) -> Arc<dyn WriteAt> {
        match self {
            Self::Qcow2(transaction) => Arc::clone(transaction) as Arc<dyn WriteAt>,
            Self::Raw(staged) => Arc::clone(staged) as Arc<dyn WriteAt>,
            Self::RawReadOnly(overlay) => Arc::clone(overlay) as Arc<dyn WriteAt>,
        }
    }

    /// Keeps the changes: the image is the old one or the new one, whatever happens.
    pub(crate) fn commit(&self) -> Result<Committed> {
        match self {
            Self::Qcow2(transaction) => transaction.commit().context("cannot commit"),
            Self::Raw(staged) => staged.commit().map(|()| Committed::default()).context("cannot commit"),
            Self::RawReadOnly(_) => anyhow::bail!("the image was opened for reading only"),
        }
    }

    /// The ranges of the image's file that its disk shows as they are, in order, once changes
    /// are committed. What of an image with an external data file is in that is not in its own file.
    pub(crate) fn shown_ranges(&self) -> Result<Vec<Range<u64>>> {
        let Self::Qcow2(transaction) = self else { return Ok(std::iter::once(0..u64::MAX).collect()) };
        let image = transaction.image();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while at < image.len() {
            let extent = image.map(at, image.len() - at)?;
            if let MappedKind::Data { host_offset } = extent.kind {
                let range = host_offset..host_offset + extent.len;
                match ranges.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => ranges.push(range),
                }
            }
            at += extent.len.max(1);
        }
        ranges.sort_unstable_by_key(|range| range.start);
        Ok(ranges)
    }

    pub(crate) fn transaction(&self) -> Option<&Transaction> {
        match self {
            Self::Qcow2(transaction) => Some(transaction),
            Self::Raw(_) | Self::RawReadOnly(_) => None,
        }
    }
}

/// Opens an image as a disk that is only read.
pub(crate) fn open_read_only(path: &Path, options: &Open) -> Result<Arc<dyn ReadAt>> {
    Ok(match format(path, options)? {
        Format::Raw => open_raw(path, options)?,
        Format::Qcow2 => Arc::new(open_image(path, options, false)?),
    })
}

/// Opens a raw image for reading. Where a commit was interrupted, what is read is what it will have made.
fn open_raw(path: &Path, options: &Open) -> Result<Arc<dyn ReadAt>> {
    let opening = || format!("cannot open {}", path.display());
    let file = HostFile::open(path, Access::Read).with_context(opening)?;
    let log = match &options.redo_log {
        Some(log) => LogFile::new(log),
        None if file.is_regular() => LogFile::beside(path).with_context(opening)?,
        None => return Ok(Arc::new(file)),
    };
    let file = Arc::new(file);
    let identity = file.identity().with_context(opening)?;
    let log_name = log.path().display().to_string();
    let interrupted = Staged::interrupted(Arc::clone(&file), identity, Box::new(log))
        .with_context(|| format!("{} is in the way", log_name))
        .with_context(opening)?;
    Ok(match interrupted {
        Some(staged) => Arc::new(staged),
        None => file,
    })
}

/// The image's own folder is always one where a backing file may be.
fn open_image(path: &Path, options: &Open, writable: bool) -> Result<Image> {
    let passphrases = Passphrases::from_files(&options.passphrase_file)?;
    let backing = Backing::Within(options.backing_dir.clone());
    let open = passphrases.give(qcow2::OpenOptions::new().backing(backing)).writable(writable);
    let image = Image::open(path, &open).with_context(|| format!("cannot open {}", path.display()))?;
    if image.is_encrypted() && options.passphrase_file.is_empty() {
        bail!("cannot open {}: it is encrypted, and --passphrase-file does not tell with what", path.display());
    }
    Ok(image)
}

fn format(path: &Path, options: &Open) -> Result<Format> {
    match options.input_format {
        Some(format) => Ok(format),
        None => probe(path),
    }
}

/// The format that a file's first bytes tell.
pub(crate) fn probe(path: &Path) -> Result<Format> {
    let opening = || format!("cannot open {}", path.display());
    let file = HostFile::open(path, Access::ReadUnlocked).with_context(opening)?;
    let mut magic = [0; 4];
    if file.len() >= 4 {
        file.read_at(0, &mut magic).with_context(opening)?;
    }
    let other = match &magic {
        b"QFI\xfb" => return Ok(Format::Qcow2),
        b"KDMV" | b"COWD" => "VMDK",
        b"cone" => "VPC/VHD",
        b"vhdx" => "VHDX",
        b"QED\0" => "QED",
        _ => return Ok(Format::Raw),
    };
    bail!("cannot open {}: it is a {other} image; convert it with `qemu-img convert -O qcow2` first", path.display())
}

/// Bytes of disk that a file takes.
pub(crate) fn allocated_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.blocks() * 512)
}
