//! `image amend`: what an image is, changed in place.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::ReadAt as _;
use qcow2::AmendOptions;

use super::key_slots::KeySlots;
use super::options::{is_on, split_all, version};
use super::{format, open_options, opening};
use crate::args::Format;
use crate::args::image::{Amend, size};
use crate::exit_code::Usage;
use crate::secret::Secrets;

pub(super) fn run(args: &Amend) -> Result<ExitCode> {
    let path = &args.image;
    if format(path, args.source.format)? == Format::Raw {
        return Err(Usage("raw images have nothing to amend".to_owned()).into());
    }
    let amending = || format!("cannot amend {}", path.display());
    let mut wanted = AmendOptions::new();
    let mut len = None;
    let (mut key_slots, secrets) = (KeySlots::default(), Secrets::read(&args.source.objects)?);
    let mut image =
        qcow2::Image::open(path, &open_options(&args.source).writable(true)).with_context(|| opening(path))?;
    let info = image.info().with_context(amending)?;
    let mut new_version = info.version;
    for (name, value) in split_all(&args.options) {
        let (name, value) = (&*name, &*value);
        let wrong = || Usage(format!("option {name} cannot be {value:?}"));
        wanted = match name {
            "compat" => {
                new_version = version(value).ok_or_else(wrong)?;
                wanted.version(new_version)
            }
            "lazy_refcounts" => wanted.lazy_refcounts(is_on(value).ok_or_else(wrong)?),
            "refcount_bits" => wanted.refcount_bits(value.parse().map_err(|_| wrong())?),
            "data_file" => wanted.data_file(value),
            "data_file_raw" => wanted.data_file_raw(is_on(value).ok_or_else(wrong)?),
            "size" => {
                len = Some(size(value).map_err(|_| wrong())?.next_multiple_of(512));
                wanted
            }
            "backing_file" | "backing_fmt" => {
                let is = if name == "backing_file" { &info.backing_filename } else { &info.backing_filename_format };
                if is.as_deref().unwrap_or_default() != value {
                    return Err(
                        Usage("the backing file cannot be amended: `image rebase` changes it".to_owned()).into()
                    );
                }
                wanted
            }
            "cluster_size" | "preallocation" | "extended_l2" | "compression_type" | "encryption" => {
                return Err(Usage(format!("option {name} is only for new images")).into());
            }
            _ if name.starts_with("encrypt.") => {
                key_slots.take(&name["encrypt.".len()..], value, &secrets)?;
                wanted
            }
            _ => return Err(Usage(format!("there is no option {name}")).into()),
        };
    }
    let changes_key_slots = key_slots.check()?;
    if len.is_some_and(|len| len < image.len()) {
        bail!("{}: `image resize --shrink` makes a disk shorter", amending());
    }
    if changes_key_slots {
        key_slots.apply(&mut image, args.force).with_context(amending)?;
    }
    // Version 2 is the last thing: what precedes it may need version 3.
    if new_version >= info.version {
        image.amend(&wanted).with_context(amending)?;
    }
    if let Some(len) = len {
        image.resize(len).with_context(amending)?;
    }
    if new_version < info.version {
        image.amend(&wanted).with_context(amending)?;
    }
    Ok(ExitCode::SUCCESS)
}
