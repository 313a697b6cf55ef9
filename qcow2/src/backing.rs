//! The backing file: who may be opened because an image names it, and how it is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::{Error as BlockError, Extent, ExtentKind, HostFile, ReadAt};

use crate::image::{Image, OpenOptions};
use crate::{Error, Result, json_name, limits, named_file};

/// Which backing files may be opened. An image's header is its maker's word: a hostile one names any file of the
/// host, and would have its contents served as the guest's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Backing {
    /// None: an image that names one is refused.
    #[default]
    Deny,
    /// None, but an image that names one is opened: to be described or checked. Reading what it does not hold itself
    /// is an error.
    LeaveClosed,
    /// Those that lie, all symbolic links followed, in the folder of the image that names them or in (or below) one of
    /// these folders.
    Within(Vec<PathBuf>),
}

/// What an image says of its backing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackingName {
    /// The name: a path, from the image's own folder where it is relative, or `json:` with QEMU's options.
    pub name: String,
    /// The format: `qcow2`, `raw`. An image whose backing file's format is not said is refused, since guessing would let a raw
    /// image's guest choose it.
    pub format: Option<String>,
}

impl BackingName {
    /// A name with its format.
    pub fn new(name: impl Into<String>, format: impl Into<String>) -> Self {
        Self { name: name.into(), format: Some(format.into()) }
    }

    /// The file that a name in QEMU's `json:` form tells, and its format where that is told, too; nothing for a path. A relative
    /// path starts from the working directory, as in QEMU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for JSON that is not understood.
    pub fn json_file(&self) -> Result<Option<(PathBuf, Option<String>)>> {
        let found =
            json_name::parse(&self.name).map_err(|reason| Error::Invalid(format!("{}: {reason}", self.name)))?;
        Ok(found.map(|json| (PathBuf::from(json.filename), json.format)))
    }
}

/// A backing file that was opened.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) device: Option<Arc<dyn ReadAt>>,
    /// Where it is an image itself.
    pub(crate) image: Option<Arc<Image>>,
    /// Where it is, all symbolic links followed.
    pub(crate) path: Option<PathBuf>,
}

/// A backing file that was left closed.
pub(crate) struct Closed {
    name: String,
    len: u64,
}

impl ReadAt for Closed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), BlockError> {
        let reason = "backing files are left closed".to_owned();
        Err(Error::BackingRefused { name: self.name.clone(), reason }.into())
    }
}

/// Opens what `named` names for an image of `len` bytes. `image_path` is the image that names it; `chain` are the files opened so far.
pub(crate) fn open(
    named: &BackingName,
    image_path: Option<&Path>,
    options: &OpenOptions,
    chain: &[PathBuf],
    len: u64,
) -> Result<Opened> {
    let refused = |reason: String| Error::BackingRefused { name: named.name.clone(), reason };
    let folders = match &options.backing {
        Backing::Within(folders) => folders,
        Backing::Deny => return Err(refused("backing files are not allowed".to_owned())),
        Backing::LeaveClosed => {
            let device = Closed { name: named.name.clone(), len };
            return Ok(Opened { device: Some(Arc::new(device)), ..Opened::default() });
        }
    };
    if chain.len() >= limits::BACKING_DEPTH {
        return Err(refused(format!("more than {} images stand behind one another", limits::BACKING_DEPTH)));
    }
    let json = json_name::parse(&named.name).map_err(refused)?;
    let real = match &json {
        Some(json) => named_file::resolve_json(&json.filename, image_path, folders),
        None => named_file::resolve(&named.name, image_path, folders),
    };
    let real = real.map_err(refused)?;
    // What the image's extension says goes before what the name says, as in QEMU.
    let format = named.format.clone().or_else(|| json.and_then(|json| json.format));
    if chain.contains(&real) {
        return Err(refused("the chain of backing files leads back to itself".to_owned()));
    }
    let within = |source: Error| Error::Backing { path: real.clone(), source: Box::new(source) };
    let below = options.for_backing();
    let device = HostFile::open(&real, below.access()).map_err(|e| within(e.into()))?;
    match format.as_deref() {
        Some("raw") => Ok(Opened { device: Some(Arc::new(device)), image: None, path: Some(real) }),
        Some("qcow2") => {
            let mut chain = chain.to_vec();
            chain.push(real.clone());
            let host_bytes = Some(device.allocated_when_opened());
            let mut image = Image::open_chain(Arc::new(device), Some(&real), &below, chain).map_err(within)?;
            image.host_bytes = host_bytes;
            let image = Arc::new(image);
            let device = Arc::clone(&image) as Arc<dyn ReadAt>;
            Ok(Opened { device: Some(device), image: Some(image), path: Some(real) })
        }
        Some(other) => Err(refused(format!("its format {other:?} is neither qcow2 nor raw"))),
        // Guessing would let a raw image's guest write a qcow2 header and name files of the host.
        None => Err(refused("the image does not say its format (`qemu-img rebase -u -F` adds it)".to_owned())),
    }
}

/// Reads from `backing`, which may be shorter than the image above it: what lies beyond reads as zeros.
pub(crate) fn read_padded(backing: &dyn ReadAt, offset: u64, buf: &mut [u8]) -> Result<(), BlockError> {
    let available = backing.len().saturating_sub(offset).min(buf.len() as u64) as usize;
    let (inside, beyond) = buf.split_at_mut(available);
    beyond.fill(0);
    if inside.is_empty() { Ok(()) } else { backing.read_at(offset, inside) }
}

/// How the bytes at `offset` are held by `backing`, which may be shorter than the image above it.
pub(crate) fn extent_padded(backing: &dyn ReadAt, offset: u64, max_len: u64) -> Result<Extent, BlockError> {
    let available = backing.len().saturating_sub(offset).min(max_len);
    if available == 0 {
        return Ok(Extent { len: max_len, kind: ExtentKind::Hole });
    }
    backing.extent_at(offset, available)
}
