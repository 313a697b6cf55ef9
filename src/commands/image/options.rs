//! The options of a new image: `-o name=value`.

use anyhow::Result;
use qcow2::{Compression, CreateOptions};

use crate::args::Format;
use crate::args::image::size;
use crate::exit_code::Usage;
use crate::secret::{EncryptOptions, Secrets};

/// Reads the options of a new image in `format`.
pub(super) fn read(options: &[String], format: Format, compress: bool, objects: &[String]) -> Result<CreateOptions> {
    let mut encrypt = EncryptOptions::default();
    let mut read = CreateOptions::new();
    let mut compression = Compression::Zlib;
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, "on"));
        let wrong = || Usage(format!("option {name} cannot be {value:?}"));
        if format == Format::Raw {
            return Err(Usage(format!("raw images have no option {name}")).into());
        }
        if let Some(name) = name.strip_prefix("encrypt.") {
            encrypt.take(name, value)?;
            continue;
        }
        read = match (name, value) {
            ("cluster_size", value) => read.cluster_size(size(value).map_err(|_| wrong())?),
            ("refcount_bits", value) => read.refcount_bits(value.parse().map_err(|_| wrong())?),
            ("extended_l2", "on") => read.extended_l2(true),
            ("extended_l2", "off") => read.extended_l2(false),
            ("compression_type", "zlib" | "zstd") => {
                compression = if value == "zstd" { Compression::Zstd } else { Compression::Zlib };
                read
            }
            // What images are anyway.
            ("compat", "1.1" | "v3") | ("preallocation" | "lazy_refcounts", "off") => read,
            ("extended_l2" | "compression_type" | "compat" | "preallocation" | "lazy_refcounts", _) => {
                return Err(wrong().into());
            }
            _ => return Err(Usage(format!("there is no option {name}")).into()),
        };
    }
    if compress && format == Format::Raw {
        return Err(Usage("raw images cannot be compressed".to_owned()).into());
    }
    let encryption = encrypt.finish(&Secrets::read(objects)?)?;
    Ok(read.encryption(encryption).compression(compress.then_some(compression)))
}
