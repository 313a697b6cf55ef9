//! `image`: one file for each of qemu-img's commands.

mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod info;
mod map;
mod measure;
mod names;
mod options;
mod resize;
mod snapshot;

pub(crate) use info::Description;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{Access, HostFile, ReadAt};
use qcow2::{Backing, DataFile, OpenOptions};

use crate::args::Format;
use crate::args::image::{Image, Source};
use crate::disk;

pub(crate) fn run(args: &mut Image) -> Result<ExitCode> {
    names::resolve(args)?;
    match args {
        Image::Info(args) => info::run(args),
        Image::Check(args) => check::run(args),
        Image::Map(args) => map::run(args),
        Image::Compare(args) => compare::run(args),
        Image::Create(args) => create::run(args),
        Image::Convert(args) => convert::run(args),
        Image::Measure(args) => measure::run(args),
        Image::Snapshot(args) => snapshot::run(args),
        Image::Resize(args) => resize::run(args),
        Image::Bitmap(args) => bitmap::run(args),
        Image::Commit(args) => commit::run(args),
    }
}

fn format(path: &Path, format: Option<Format>) -> Result<Format> {
    match format {
        Some(format) => Ok(format),
        None => disk::probe(path),
    }
}

/// How an image is opened for reading what its disk holds.
fn open_options(source: &Source) -> OpenOptions {
    let folders = source.backing_dir.clone();
    let options = OpenOptions::new()
        .unlocked(source.force_share)
        .backing(Backing::Within(folders.clone()))
        .data_file(DataFile::Within(folders));
    source.passphrases.give(options)
}

/// Opens an image that is described, but not read.
fn open_closed(path: &Path, source: &Source) -> Result<qcow2::Image> {
    qcow2::Image::open(path, &open_options(source).backing(Backing::LeaveClosed)).with_context(|| opening(path))
}

/// Opens an image whose metadata is to be changed, and whose backing file is not needed for that.
fn open_to_change(path: &Path, source: &Source) -> Result<qcow2::Image> {
    if format(path, source.format)? == Format::Raw {
        bail!("{} is a raw image, which has nothing but its disk", path.display());
    }
    let options = open_options(source).writable(true).backing(Backing::LeaveClosed);
    qcow2::Image::open(path, &options).with_context(|| opening(path))
}

fn opening(path: &Path) -> String {
    format!("cannot open {}", path.display())
}

fn open_raw(path: &Path, source: &Source) -> Result<HostFile> {
    if let Ok(log) = block::LogFile::beside(path)
        && log.path().exists()
    {
        bail!(
            "{}: its sealing was interrupted ({} is there); seal it again first",
            opening(path),
            log.path().display()
        );
    }
    let access = if source.force_share { Access::ReadUnlocked } else { Access::Read };
    HostFile::open(path, access).with_context(|| opening(path))
}

/// Opens the disk that an image holds.
fn open_disk(path: &Path, wanted: Option<Format>, source: &Source) -> Result<Arc<dyn ReadAt>> {
    Ok(match format(path, wanted)? {
        Format::Raw => Arc::new(open_raw(path, source)?),
        Format::Qcow2 => Arc::new(qcow2::Image::open(path, &open_options(source)).with_context(|| opening(path))?),
    })
}
