//! `image`: one file for each of qemu-img's commands.

mod amend;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod copy;
mod create;
mod info;
mod key_slots;
mod map;
mod measure;
mod named;
mod names;
mod options;
mod rebase;
mod resize;
mod snapshot;
mod source_disk;

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
    dispatch(args).inspect_err(|error| {
        let is_refused = |cause: &qcow2::Error| {
            matches!(cause, qcow2::Error::BackingRefused { .. } | qcow2::Error::DataFileRefused { .. })
        };
        if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_refused)) {
            crate::render::image::diagnostic(
                "note: files that an image names are opened in its own folder, and in those that --backing-dir allows",
            );
        }
    })
}

fn dispatch(args: &Image) -> Result<ExitCode> {
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
        Image::Rebase(args) => rebase::run(args),
        Image::Amend(args) => amend::run(args),
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
        .threads(source.threads)
        .backing(Backing::Within(folders.clone()))
        .data_file(DataFile::Within(folders));
    source.passphrases.give(options)
}

/// How an image is opened whose own metadata is all that is wanted.
fn closed(source: &Source) -> OpenOptions {
    open_options(source).backing(Backing::LeaveClosed).data_file(DataFile::LeaveClosed)
}

/// Opens an image that is described, but not read.
fn open_closed(path: &Path, source: &Source) -> Result<qcow2::Image> {
    qcow2::Image::open(path, &closed(source)).with_context(|| opening(path))
}

/// Opens an image whose metadata is to be changed, and whose backing file is not needed for that.
fn open_to_change(path: &Path, source: &Source) -> Result<qcow2::Image> {
    if format(path, source.format)? == Format::Raw {
        bail!("{} is a raw image, which has nothing but its disk", path.display());
    }
    let options = closed(source).writable(true);
    qcow2::Image::open(path, &options).with_context(|| opening(path))
}

/// As many threads as there are processors.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn opening(path: &Path) -> String {
    format!("cannot open {}", path.display())
}

/// Refuses a raw image of which a sealing was interrupted: what it holds is not yet what it is to hold.
fn refuse_interrupted(path: &Path) -> Result<()> {
    if let Ok(log) = block::LogFile::beside(path)
        && log.path().exists()
    {
        bail!(
            "{}: its sealing was interrupted ({} is there); seal it again first",
            opening(path),
            log.path().display()
        );
    }
    Ok(())
}

/// Opens a raw image that is to be changed.
fn open_raw_to_change(path: &Path) -> Result<HostFile> {
    refuse_interrupted(path)?;
    HostFile::open(path, Access::ReadWrite).with_context(|| opening(path))
}

fn open_raw(path: &Path, source: &Source) -> Result<HostFile> {
    refuse_interrupted(path)?;
    let access = if source.force_share { Access::ReadUnlocked } else { Access::Read };
    HostFile::open(path, access).with_context(|| opening(path))
}

/// Opens the disk that an image holds, or held when a snapshot was made.
fn open_disk_at(path: &Path, snapshot: Option<&str>, source: &Source) -> Result<Arc<dyn ReadAt>> {
    match snapshot {
        None => open_disk(path, source.format, source),
        Some(snapshot) => Ok(Arc::new(open_snapshot(path, snapshot, source)?)),
    }
}

/// Opens an image as it was when a snapshot was made.
fn open_snapshot(path: &Path, snapshot: &str, source: &Source) -> Result<qcow2::Image> {
    if format(path, source.format)? == Format::Raw {
        bail!("{} is a raw image, which has no snapshots", path.display());
    }
    let image = qcow2::Image::open(path, &open_options(source)).with_context(|| opening(path))?;
    let (by_id, by_name) = (snapshot.strip_prefix("snapshot.id="), snapshot.strip_prefix("snapshot.name="));
    let mut wanted = by_id.unwrap_or(snapshot).to_owned();
    if by_id.or(by_name).is_some() {
        let snapshots = image.snapshots().with_context(|| opening(path))?;
        let mut told = snapshots.into_iter();
        let found = told.find(|found| by_id.is_some_and(|id| found.id == id) || by_name == Some(&*found.name));
        wanted = found.with_context(|| format!("{} has no {snapshot}", path.display()))?.id;
    }
    image.into_snapshot(&wanted).with_context(|| opening(path))
}

/// Opens the disk that an image holds.
fn open_disk(path: &Path, wanted: Option<Format>, source: &Source) -> Result<Arc<dyn ReadAt>> {
    Ok(match format(path, wanted)? {
        Format::Raw => Arc::new(open_raw(path, source)?),
        Format::Qcow2 => Arc::new(qcow2::Image::open(path, &open_options(source)).with_context(|| opening(path))?),
    })
}
