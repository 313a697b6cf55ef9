//! `image rebase`: another backing file, or none.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use block::ReadAt as _;
use qcow2::{BackingName, Image};

use super::{format, named, open_options, open_to_change, opening};
use crate::args::Format;
use crate::args::image::Rebase;
use crate::exit_code::Usage;
use crate::render::progress::Progress;

pub(super) fn run(args: &Rebase) -> Result<ExitCode> {
    let path = &args.image;
    let wrong = |text: String| Err(Usage(text).into());
    let name = args.backing.as_deref().filter(|name| !name.is_empty());
    let name = match (name, &args.backing_format) {
        (Some(name), Some(format)) => Some(BackingName::new(name, format.clone())),
        (Some(name), None) => {
            return wrong(format!(
                "the format of {name:?} must be given with -F: guessing it would trust its contents"
            ));
        }
        (None, _) => None,
    };
    let rebasing = || format!("cannot rebase {}", path.display());
    if args.unsafe_mode {
        open_to_change(path, &args.source)?.set_backing_name(name).with_context(rebasing)?;
        return Ok(ExitCode::SUCCESS);
    }
    if format(path, args.source.format)? == Format::Raw {
        return wrong(format!("{} is a raw image, which has no backing file", path.display()));
    }
    let image = Image::open(path, &open_options(&args.source).writable(true)).with_context(|| opening(path))?;
    let backing = match name {
        Some(name) => {
            let device = named::open(path, &name, &args.source)?;
            Some((name, device))
        }
        None => None,
    };
    let progress = Progress::bytes("rebasing", image.len(), !args.progress || args.quiet);
    let mut done = |at| progress.set(at);
    let rebased =
        if args.compress { image.rebase_compressed(backing, &mut done) } else { image.rebase(backing, &mut done) };
    rebased.with_context(rebasing)?;
    progress.finish();
    Ok(ExitCode::SUCCESS)
}
