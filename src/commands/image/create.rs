//! `image create`: a new image that holds nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{HostFile, ReadAt as _, Storage, WriteAt as _};

use super::info::backing_path;
use super::options::{self, NewImage};
use super::{named, opening};
use crate::args::Format;
use crate::args::image::{Create, Source};
use crate::commands::output::Target;
use crate::exit_code::Usage;
use crate::render::image;
use crate::secret::Passphrases;

pub(super) fn run(args: &Create) -> Result<ExitCode> {
    let path = &args.image;
    let backing = args.backing.as_deref().map(|name| (name, args.backing_format));
    let new = options::read(&args.options, args.format, false, backing, &args.objects)?;
    // As in QEMU, a disk is whole sectors long.
    let len = len(args, &new)?.next_multiple_of(512);
    let writing = || format!("cannot write {}", path.display());
    let target = Target::new(path)?;
    match args.format {
        Format::Qcow2 => {
            let data = new.data_file.as_deref().map(|name| create_data_file(path, name)).transpose()?;
            let features = new.features.clone().data_file(data);
            qcow2::create_empty(target.file(), len, &new.options, &features).with_context(writing)?;
        }
        Format::Raw => {
            let file = target.file();
            file.set_len(len).with_context(writing)?;
            new.preallocation.fill(&file, 0, len).with_context(writing)?;
            file.flush().with_context(writing)?;
        }
    }
    target.persist()?;
    if !args.quiet {
        image::line(&format!("Made {}: {len} bytes", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The length asked for, or the backing file's.
fn len(args: &Create, new: &NewImage) -> Result<u64> {
    let wanted = args.size.or(new.size);
    let Some(backing) = new.backing.as_ref().filter(|_| !args.backing_unsafe) else {
        return wanted.ok_or_else(|| Usage("an image needs a size".to_owned()).into());
    };
    let source = Source {
        format: None,
        force_share: false,
        backing_dir: args.backing_dir.clone(),
        objects: Vec::new(),
        image_opts: false,
        passphrases: Passphrases::default(),
    };
    match (named::open(&args.image, backing, &source), wanted) {
        (Ok(disk), wanted) => Ok(wanted.unwrap_or(disk.len())),
        (Err(error), None) => Err(error),
        (Err(error), Some(wanted)) => {
            image::diagnostic(&format!("warning: the backing file was not looked at: {error:#}"));
            Ok(wanted)
        }
    }
}

/// Makes the external data file, which must not hold anything yet.
fn create_data_file(image: &Path, name: &str) -> Result<(String, Arc<dyn Storage>)> {
    let path = backing_path(image, name);
    let file =
        if path.exists() { HostFile::open(&path, block::Access::ReadWrite) } else { HostFile::create_new(&path) };
    let file = file.with_context(|| opening(&path))?;
    if !file.is_empty() {
        bail!("{} exists already, and is not empty", path.display());
    }
    Ok((name.to_owned(), Arc::new(file)))
}
