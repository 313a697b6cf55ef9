//! What a new image is beside the disk that it holds: its version, the files that it names, what is set aside in it.

use std::sync::Arc;

use block::{Error as BlockError, Extent, ExtentKind, ReadAt, Storage};

use crate::backing::BackingName;
use crate::features::{Autoclear, Compatible, Incompatible};
use crate::header_area::{HeaderArea, check_backing_name};
use crate::header_extension;
use crate::image::{Image, OpenOptions};
use crate::{AmendOptions, Backing, Compression, CreateOptions, Error, Preallocation, Result, create};

/// What a new image is to be beside the disk that it holds. By default what [`create()`] makes.
#[derive(Clone, Default)]
pub struct ImageFeatures {
    version_2: bool,
    lazy_refcounts: bool,
    compression_type: Option<Compression>,
    backing: Option<BackingName>,
    data_file: Option<(String, Arc<dyn Storage>)>,
    data_file_raw: bool,
    preallocation: Preallocation,
    #[cfg(feature = "luks")]
    passphrase: Option<crate::Secret>,
}

impl std::fmt::Debug for ImageFeatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageFeatures")
            .field("version_2", &self.version_2)
            .field("lazy_refcounts", &self.lazy_refcounts)
            .field("backing", &self.backing)
            .field("data_file", &self.data_file.as_ref().map(|(name, _)| name))
            .field("preallocation", &self.preallocation)
            .finish_non_exhaustive()
    }
}

impl ImageFeatures {
    /// Version 3, and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the image is to have version 2 (`compat=0.10`), for programs from before 2012.
    #[must_use]
    pub fn version_2(mut self, version_2: bool) -> Self {
        self.version_2 = version_2;
        self
    }

    /// Whether whoever writes the image may put off refcount updates.
    #[must_use]
    pub fn lazy_refcounts(mut self, lazy: bool) -> Self {
        self.lazy_refcounts = lazy;
        self
    }

    /// How clusters are to be compressed that others may write; where some are compressed already, as those are.
    #[must_use]
    pub fn compression_type(mut self, compression: Option<Compression>) -> Self {
        self.compression_type = compression;
        self
    }

    /// What the image is to say of its backing file, which is not opened.
    #[must_use]
    pub fn backing(mut self, backing: Option<BackingName>) -> Self {
        self.backing = backing;
        self
    }

    /// The name and the storage of an external data file, which is made as long as the disk.
    #[must_use]
    pub fn data_file(mut self, data_file: Option<(String, Arc<dyn Storage>)>) -> Self {
        self.data_file = data_file;
        self
    }

    /// Whether the external data file is to be kept so that it can be read as a raw image.
    #[must_use]
    pub fn data_file_raw(mut self, raw: bool) -> Self {
        self.data_file_raw = raw;
        self
    }

    /// What is to be set aside for what is not written yet.
    #[must_use]
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.preallocation = preallocation;
        self
    }

    /// The passphrase of an image that is encrypted already: what is set aside in it is filled with encrypted zeros.
    #[cfg(feature = "luks")]
    #[must_use]
    pub fn passphrase(mut self, passphrase: Option<crate::Secret>) -> Self {
        self.passphrase = passphrase;
        self
    }

    /// Whether these go together with the options of a new image.
    ///
    /// # Errors
    /// [`Error::Invalid`] where they do not.
    pub fn check(&self, options: &CreateOptions) -> Result<()> {
        let invalid = |what: &str| Err(Error::Invalid(what.to_owned()));
        let (refcount_bits, extended_l2, compression) = options.needs_of_version();
        let zstd = [self.compression_type, compression].contains(&Some(Compression::Zstd));
        if self.version_2 {
            for (needed, what) in [
                (refcount_bits != 16, "refcounts of other than 16 bits need"),
                (extended_l2, "extended L2 entries need"),
                (zstd, "compression by zstd needs"),
                (self.lazy_refcounts, "lazy refcounts need"),
                (self.data_file.is_some(), "an external data file needs"),
            ] {
                if needed {
                    return Err(Error::Invalid(format!("{what} version 3 (compat=1.1)")));
                }
            }
        }
        if self.data_file_raw && self.data_file.is_none() {
            return invalid("data_file_raw needs an external data file");
        }
        if self.data_file_raw && self.backing.is_some() {
            return invalid("an external data file that is raw cannot go with a backing file");
        }
        if self.data_file.is_some() && compression.is_some() {
            return invalid("no cluster may be compressed in an external data file");
        }
        if self.data_file.as_ref().is_some_and(|(name, _)| name.is_empty()) {
            return invalid("an external data file must have a name");
        }
        if self.backing.is_some() && self.preallocation != Preallocation::Off && !extended_l2 {
            return invalid("preallocation above a backing file needs extended L2 entries");
        }
        self.backing.as_ref().map_or(Ok(()), |backing| check_backing_name(&backing.name))
    }
}

/// A disk that holds nothing.
struct Empty(u64);

impl ReadAt for Empty {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        BlockError::check_range(offset, buf.len() as u64, self.0)?;
        buf.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        BlockError::check_range(offset, max_len.max(1), self.0)?;
        Ok(Extent { len: max_len, kind: ExtentKind::Hole })
    }
}

/// Makes an image of a disk of `len` bytes that holds nothing but what its backing file does, in `storage`, which must be
/// empty. A crash leaves a file that is no image, or one that lacks some of the features.
///
/// # Errors
/// [`Error::Invalid`] for a length that is not a multiple of 512, and for options and features that do not go together;
/// [`Error::Io`].
pub fn create_empty(
    storage: Arc<dyn Storage>,
    len: u64,
    options: &CreateOptions,
    features: &ImageFeatures,
) -> Result<()> {
    if !len.is_multiple_of(512) {
        return Err(Error::Invalid(format!("a disk must be a multiple of 512 bytes long, not {len}")));
    }
    features.check(options)?;
    create(&*storage, &Empty(len), options, &mut |_| {})?;
    #[cfg(feature = "luks")]
    let features = &features.clone().passphrase(options.passphrase().or_else(|| features.passphrase.clone()));
    add_features(storage, features)
}

/// Gives features to an image that [`create()`] made, and that holds nothing where there is to be a data file.
///
/// # Errors
/// [`Error::Invalid`] for what does not go with the image; [`Error::Io`].
pub fn add_features(storage: Arc<dyn Storage>, features: &ImageFeatures) -> Result<()> {
    let options = OpenOptions::new().writable(true).backing(Backing::LeaveClosed);
    let mut image = Image::open_storage(Arc::clone(&storage), &options)?;
    let mut area = HeaderArea::read(&image)?;
    area.compatible.set(Compatible::LAZY_REFCOUNTS, features.lazy_refcounts);
    area.set_backing(features.backing.clone())?;
    let changes_compression = features.compression_type.is_some_and(|kind| kind != image.compression);
    {
        let roots = &mut image.state_mut().header.roots;
        if let Some((name, _)) = &features.data_file {
            area.set_extension(header_extension::DATA_FILE, Some(name.clone().into_bytes()));
            roots.incompatible |= Incompatible::EXTERNAL_DATA_FILE;
            roots.autoclear.set(Autoclear::RAW_EXTERNAL_DATA, features.data_file_raw);
        }
        if changes_compression && features.compression_type == Some(Compression::Zstd) {
            roots.incompatible |= Incompatible::COMPRESSION_TYPE;
            area.set_compression_type(1);
        }
    }
    image.rewrite_header(&area)?;
    if features.version_2 {
        image.amend(&AmendOptions::new().version(2))?;
    }
    let len = image.len();
    drop(image);
    let mut preallocation = features.preallocation;
    let mut options = options;
    if let Some((_, data)) = &features.data_file {
        data.set_len(len)?;
        options = options.data_storage(Arc::clone(data));
        if features.data_file_raw && preallocation == Preallocation::Off {
            // What the data file holds must be what the disk holds, and so each cluster must lead there.
            preallocation = Preallocation::Metadata;
        }
    }
    if preallocation != Preallocation::Off {
        #[cfg(feature = "luks")]
        if let Some(passphrase) = &features.passphrase {
            options = options.passphrase(passphrase.clone());
        }
        Image::open_storage(storage, &options)?.preallocate(0..len, preallocation)?;
    }
    Ok(())
}
