//! `image convert`: what a disk holds, in a new image or in one that is there.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{ExtentKind, ReadAt, WriteAt};
use qcow2::{Backing, Image, OpenOptions, Preallocation};

use super::options::{self, NewImage};
use super::{open_disk_at, open_raw_to_change, opening};
use crate::args::Format;
use crate::args::image::Convert;
use crate::commands::output::{Sparse, Target, write_raw};
use crate::exit_code::Usage;
use crate::render::progress::Progress;

/// Bytes copied at a time.
const STEP: u64 = 2 << 20;

pub(super) fn run(args: &Convert) -> Result<ExitCode> {
    let backing = args.backing.as_deref().map(|name| (name, args.backing_format));
    let mut new = options::read(&args.options, args.target_format, args.compress, backing, &args.source.objects)?;
    check(args, &new)?;
    if let Some(threads) = args.threads {
        new.options = new.options.threads(threads);
    }
    let disk = open_disk_at(&args.image, args.snapshot.as_deref(), &args.source)?;
    let progress = Progress::bytes("converting", disk.len(), !args.progress || args.quiet);
    if args.no_create {
        overwrite(&*disk, args, &progress)?;
    } else {
        write(&*disk, args, &new, &progress)?;
    }
    progress.finish();
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Convert, new: &NewImage) -> Result<()> {
    let wrong = |text: &str| Err(Usage(text.to_owned()).into());
    if args.no_create && (args.compress || new.has_features || !args.options.is_empty()) {
        return wrong("an image that is there stays what it is: -n goes with no option of a new one");
    }
    if new.data_file.is_some() {
        return wrong("a new image with a data file is made by `image create`, and then written by `image convert -n`");
    }
    if new.backing.is_some() && args.compress {
        return wrong("an overlay cannot be compressed");
    }
    if new.size.is_some() {
        return wrong("the new image is as long as the old one");
    }
    Ok(())
}

/// Writes a new image, which takes the place of a file of that name once it is whole.
fn write(disk: &dyn ReadAt, args: &Convert, new: &NewImage, progress: &Progress) -> Result<()> {
    let writing = || format!("cannot write {}", args.target.display());
    let target = Target::new(&args.target)?;
    let mut done = |at| progress.set(at);
    if args.target_format == Format::Raw {
        let file = target.file();
        let sparse = match (args.sparse_size, new.preallocation) {
            (Some(0), _) | (None, Preallocation::Full) => Sparse::No,
            (size, _) => Sparse::Blocks(size.unwrap_or(4096)),
        };
        write_raw(&file, disk, sparse, new.preallocation, progress).with_context(writing)?;
        return target.persist();
    }
    if new.backing.is_some() {
        let len = disk.len();
        qcow2::create_empty(target.file(), len, &new.options, &new.features).with_context(writing)?;
        let (path, target) = target.close();
        // The backing file that the user names is looked for where the new image will be.
        let folders = args.source.backing_dir.iter().cloned().chain(backing_folder(&args.target, new)).collect();
        let options = OpenOptions::new().writable(true).backing(Backing::Within(folders));
        let overlay = Image::open(&path, &options).with_context(writing)?.begin().with_context(writing)?;
        copy(disk, &overlay, progress).with_context(writing)?;
        overlay.commit().with_context(writing)?;
        drop(overlay);
        return target.persist();
    }
    qcow2::create(&*target.file(), disk, &new.options, &mut done).with_context(writing)?;
    let mut features = new.features.clone();
    if args.sparse_size == Some(0) {
        features = features.preallocation(Preallocation::Full);
    }
    if new.has_features || args.sparse_size == Some(0) {
        qcow2::add_features(target.file(), &features).with_context(writing)?;
    }
    target.persist()
}

/// The folder of the backing file that the user names.
fn backing_folder(target: &Path, new: &NewImage) -> Option<std::path::PathBuf> {
    let name = new.backing.as_ref()?;
    let path = super::info::backing_path(target, &name.name).canonicalize().ok()?;
    path.parent().map(Path::to_owned)
}

/// Writes to an image that is there.
fn overwrite(disk: &dyn ReadAt, args: &Convert, progress: &Progress) -> Result<()> {
    let path = &args.target;
    let target: Arc<dyn WriteAt> = match args.target_format {
        Format::Raw => Arc::new(open_raw_to_change(path)?),
        Format::Qcow2 => {
            let options = super::open_options(&args.source).writable(true);
            Arc::new(Image::open(path, &options).with_context(|| opening(path))?)
        }
    };
    if target.len() < disk.len() {
        bail!("{} is shorter than the {} bytes that are to be written to it", path.display(), disk.len());
    }
    let writing = || format!("cannot write {}", path.display());
    copy(disk, &*target, progress).with_context(writing)?;
    target.flush().with_context(writing)
}

fn copy(disk: &dyn ReadAt, target: &dyn WriteAt, progress: &Progress) -> block::Result<()> {
    let mut buf = vec![0; STEP as usize];
    let mut at = 0;
    while at < disk.len() {
        let extent = disk.extent_at(at, disk.len() - at)?;
        let mut len = extent.len;
        if extent.kind == ExtentKind::Data {
            len = len.min(STEP);
            let part = &mut buf[..len as usize];
            disk.read_at(at, part)?;
            target.write_at(at, part)?;
        } else {
            target.write_zeroes(at, len)?;
        }
        at += len;
        progress.set(at);
    }
    Ok(())
}
