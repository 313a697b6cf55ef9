//! `image commit`: an overlay, written into what is behind it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::{Access, HostFile, ReadAt, Storage, WriteAt};
use qcow2::Image;

use super::{format, open_options, opening, refuse_interrupted};
use crate::args::Format;
use crate::args::image::{Commit, Source};
use crate::render::image;
use crate::render::progress::Progress;

pub(super) fn run(args: &Commit) -> Result<ExitCode> {
    let path = &args.image;
    if format(path, args.source.format)? == Format::Raw {
        bail!("{} is a raw image, which has no backing file", path.display());
    }
    // Only an overlay that is to be emptied is written itself.
    let empties = !args.keep && args.base.is_none();
    let overlay = Image::open(path, &open_options(&args.source).writable(empties)).with_context(|| opening(path))?;
    let base = find_base(&overlay, path, args.base.as_deref())?;
    if base.is_raw {
        refuse_interrupted(&base.path)?;
    }
    let progress = Progress::bytes("committing", overlay.len(), !args.progress || args.quiet).paced(args.rate);
    let len = overlay.len();
    let open_base = || open_base(&base, len, &args.source);
    let mut done = |at| progress.set(at);
    let committed = match args.base {
        None if base.depth == 1 && empties => overlay.commit_to(open_base, &mut done),
        _ => overlay.commit_into(base.depth, open_base, &mut done),
    };
    committed.with_context(|| format!("cannot commit {}", path.display()))?;
    progress.finish();
    if !args.quiet {
        image::line("Image committed.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The image that is committed to.
struct Base {
    path: PathBuf,
    is_raw: bool,
    /// How many steps behind the overlay it is.
    depth: usize,
}

/// Finds the backing file, or the one of that name further behind.
fn find_base(overlay: &Image, path: &Path, wanted: Option<&str>) -> Result<Base> {
    if overlay.backing_name().is_none() {
        bail!("{} does not have a backing file", path.display());
    }
    let real = wanted.and_then(|wanted| Path::new(wanted).canonicalize().ok());
    let mut depth = 0;
    let mut layer = Some(overlay);
    while let Some(image) = layer {
        let (Some(name), Some(found)) = (image.backing_name(), image.backing_path()) else { break };
        depth += 1;
        layer = image.backing_image();
        if wanted.is_none_or(|wanted| name.name == wanted || real.as_deref() == Some(found)) {
            return Ok(Base { path: found.to_owned(), is_raw: layer.is_none(), depth });
        }
    }
    bail!("{:?} is not in the backing chain of {}", wanted.unwrap_or_default(), path.display())
}

/// Opens the base for writing, and makes its disk at least `len` bytes long.
fn open_base(base: &Base, len: u64, source: &Source) -> qcow2::Result<Box<dyn WriteAt>> {
    if base.is_raw {
        let file = HostFile::open(&base.path, Access::ReadWrite)?;
        if file.len() < len {
            file.set_len(len)?;
        }
        return Ok(Box::new(file));
    }
    let source = Source { passphrases: source.passphrases.below(base.depth), ..source.clone() };
    let mut image = Image::open(&base.path, &open_options(&source).writable(true))?;
    if image.len() < len {
        image.resize(len)?;
    }
    Ok(Box::new(image))
}
