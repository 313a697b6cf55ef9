//! The options of a new image: `-o name=value`.

use anyhow::Result;
use qcow2::{BackingName, Compression, CreateOptions, ImageFeatures, Preallocation, Secret};

use crate::args::Format;
use crate::args::image::size;
use crate::exit_code::Usage;
use crate::secret::{EncryptOptions, Secrets, split_options};

/// What a new image is to be like.
pub(super) struct NewImage {
    pub(super) options: CreateOptions,
    /// But for the files that it names.
    pub(super) features: ImageFeatures,
    pub(super) backing: Option<BackingName>,
    pub(super) data_file: Option<String>,
    pub(super) preallocation: Preallocation,
    pub(super) size: Option<u64>,
    /// The passphrase, where it is encrypted.
    pub(super) passphrase: Option<Secret>,
    /// Whether it is anything but what `qcow2::create` makes.
    pub(super) has_features: bool,
}

/// Reads the options of a new image in `format`. A backing file given by `backing` goes before one among the options.
pub(super) fn read(
    options: &[String],
    format: Format,
    compress: bool,
    backing: Option<(&str, Option<Format>)>,
    objects: &[String],
) -> Result<NewImage> {
    let mut encrypt = EncryptOptions::default();
    let mut read = CreateOptions::new();
    let mut features = ImageFeatures::new();
    let mut compression = Compression::Zlib;
    let (mut backing_file, mut backing_format) = (None, None);
    let mut new = NewImage {
        options: CreateOptions::new(),
        features: ImageFeatures::new(),
        backing: None,
        data_file: None,
        preallocation: Preallocation::Off,
        size: None,
        passphrase: None,
        has_features: false,
    };
    for (name, value) in split_all(options) {
        let (name, value) = (&*name, &*value);
        let wrong = || Usage(format!("option {name} cannot be {value:?}"));
        if format == Format::Raw && !["preallocation", "size", "nocow", "extent_size_hint"].contains(&name) {
            return Err(Usage(format!("raw images have no option {name}")).into());
        }
        if let Some(name) = name.strip_prefix("encrypt.") {
            encrypt.take(name, value)?;
            continue;
        }
        match name {
            "cluster_size" => read = read.cluster_size(size(value).map_err(|_| wrong())?),
            "refcount_bits" => read = read.refcount_bits(value.parse().map_err(|_| wrong())?),
            "extended_l2" => read = read.extended_l2(is_on(value).ok_or_else(wrong)?),
            "compression_type" => {
                compression = match value {
                    "zlib" => Compression::Zlib,
                    "zstd" => Compression::Zstd,
                    _ => return Err(wrong().into()),
                };
                features = features.compression_type(Some(compression));
                new.has_features |= compression == Compression::Zstd && !compress;
            }
            "compat" => {
                let version_2 = version(value).ok_or_else(wrong)? == 2;
                features = features.version_2(version_2);
                new.has_features |= version_2;
            }
            "lazy_refcounts" => {
                let lazy = is_on(value).ok_or_else(wrong)?;
                features = features.lazy_refcounts(lazy);
                new.has_features |= lazy;
            }
            "preallocation" => {
                new.preallocation = match (value, format) {
                    ("off", _) => Preallocation::Off,
                    ("metadata", Format::Qcow2) => Preallocation::Metadata,
                    ("falloc", _) => Preallocation::Falloc,
                    ("full", _) => Preallocation::Full,
                    _ => return Err(wrong().into()),
                };
                features = features.preallocation(new.preallocation);
                new.has_features |= new.preallocation != Preallocation::Off;
            }
            "data_file" => new.data_file = Some(value.to_owned()),
            "data_file_raw" => features = features.data_file_raw(is_on(value).ok_or_else(wrong)?),
            "backing_file" => backing_file = Some(value.to_owned()),
            "backing_fmt" => backing_format = Some(value.to_owned()),
            // Of no use on most file systems of the host, and without effect here.
            "nocow" => drop(is_on(value).ok_or_else(wrong)?),
            "extent_size_hint" => drop(size(value).map_err(|_| wrong())?),
            "encryption" if is_on(value) == Some(false) => {}
            "encryption" => return Err(Usage("images cannot be encrypted with \"aes\"".to_owned()).into()),
            "size" => new.size = Some(size(value).map_err(|_| wrong())?),
            _ => return Err(Usage(format!("there is no option {name}")).into()),
        }
    }
    if compress && format == Format::Raw {
        return Err(Usage("raw images cannot be compressed".to_owned()).into());
    }
    if let Some((name, format)) = backing {
        backing_file = Some(name.to_owned());
        backing_format =
            format.map(|format| if format == Format::Raw { "raw" } else { "qcow2" }.to_owned()).or(backing_format);
    }
    new.backing = match (backing_file.filter(|name| !name.is_empty()), backing_format) {
        (Some(_), _) if format == Format::Raw => {
            return Err(Usage("raw images have no backing file".to_owned()).into());
        }
        (Some(name), Some(format)) => Some(BackingName::new(name, format)),
        (Some(name), None) => {
            let reason = "guessing it would trust its contents";
            return Err(Usage(format!("the format of {name:?} must be given with -F: {reason}")).into());
        }
        (None, _) => None,
    };
    new.has_features |= new.backing.is_some() || new.data_file.is_some();
    let secrets = Secrets::read(objects)?;
    new.passphrase = encrypt.passphrase(&secrets)?;
    new.features = features.backing(new.backing.clone()).passphrase(new.passphrase.clone());
    new.options = read.encryption(encrypt.finish(&secrets)?).compression(compress.then_some(compression));
    if format == Format::Qcow2 && new.data_file.is_none() {
        new.features.check(&new.options).map_err(|e| Usage(e.to_string()))?;
    }
    Ok(new)
}

/// The names and values of options, which may be given in several places; one without a value is switched on.
pub(super) fn split_all(options: &[String]) -> impl Iterator<Item = (String, String)> {
    let split = options.iter().flat_map(|options| split_options(options));
    split.map(|(name, value)| (name, value.unwrap_or_else(|| "on".to_owned())))
}

/// Whether nothing is to be done but to tell which options there are.
pub(super) fn asks_for_help(options: &[String]) -> bool {
    split_all(options).any(|(name, _)| ["help", "?"].contains(&&*name))
}

/// `on` or `off`.
pub(super) fn is_on(value: &str) -> Option<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// The version that a compatibility level means.
pub(super) fn version(value: &str) -> Option<u32> {
    match value {
        "0.10" | "v2" => Some(2),
        "1.1" | "v3" => Some(3),
        _ => None,
    }
}
