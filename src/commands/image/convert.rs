//! `image convert`: what a disk holds, in a new image or in one that is there.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::{HostFile, ReadAt};
use qcow2::{Backing, Image, OpenOptions, Preallocation};

use super::copy::{self, Copy};
use super::create::create_data_file;
use super::options::{self, NewImage};
use super::{named, names, open_options, open_raw_to_change, opening, processors, source_disk};
use crate::args::Format;
use crate::args::image::{Convert, Source};
use crate::commands::output::{Sparse, Target, write_raw};
use crate::exit_code::Usage;
use crate::render::image;
use crate::render::progress::Progress;

pub(super) fn run(args: &Convert) -> Result<ExitCode> {
    if options::asks_for_help(&args.options) {
        image::options(args.target_format);
        return Ok(ExitCode::SUCCESS);
    }
    let backing = args.backing.as_deref().map(|name| (name, args.backing_format));
    let mut new = options::read(&args.options, args.target_format, args.compress, backing, &args.source.objects)?;
    check(args, &new)?;
    if let Some(threads) = args.threads {
        new.options = new.options.threads(threads as usize);
    }
    // What is written to a new raw file, or compressed, is read by several threads at once.
    let reads_in_turn = args.no_create
        || new.backing.is_some()
        || new.data_file.is_some()
        || (args.target_format == Format::Qcow2 && !args.compress);
    let threads = if reads_in_turn { processors() } else { 1 };
    let how = Source { format: args.source.format.or(args.source_format), threads, ..args.source.clone() };
    let sources = args.sources().iter().map(|source| names::named(source, &how));
    let sources = sources.collect::<Result<Vec<_>>>()?;
    let bitmaps = if args.bitmaps { copy::bitmaps(&sources, args.skip_broken_bitmaps)? } else { Vec::new() };
    let disk = source_disk::open(&sources, args.snapshot.as_deref(), args.salvage)?;
    let progress = Progress::bytes("converting", disk.len(), !args.progress || args.quiet).paced(args.rate);
    let converting = Converting { args, disk: &*disk, bitmaps: &bitmaps, progress: &progress };
    if args.no_create {
        converting.overwrite()?;
    } else {
        converting.write(&new)?;
    }
    progress.finish();
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Convert, new: &NewImage) -> Result<()> {
    let wrong = |text: &str| Err(Usage(text.to_owned()).into());
    if args.no_create && (new.has_features || !args.options.is_empty()) {
        return wrong("an image that is there stays what it is: -n goes with no option of a new one");
    }
    if new.size.is_some() {
        return wrong("the new image is as long as the old one");
    }
    if args.bitmaps && args.target_format == Format::Raw && !args.target_image_opts {
        return wrong("a raw image has no bitmaps");
    }
    if new.data_file.is_some() && args.compress {
        return wrong("no cluster may be compressed in an external data file");
    }
    if args.sources().len() > 1 {
        for (given, what) in [
            (args.snapshot.is_some(), "a snapshot (-l)"),
            (new.backing.is_some(), "a backing file (-B)"),
            (args.bitmaps, "bitmaps (--bitmaps)"),
        ] {
            if given {
                return Err(Usage(format!("{what} cannot be had of several images put together")).into());
            }
        }
    }
    Ok(())
}

struct Converting<'a> {
    args: &'a Convert,
    disk: &'a dyn ReadAt,
    /// What is copied beside the disk.
    bitmaps: &'a [copy::SourceBitmap],
    progress: &'a Progress,
}

impl Converting<'_> {
    /// Writes a new image, which takes the place of a file of that name once it is whole.
    fn write(&self, new: &NewImage) -> Result<()> {
        let (args, disk) = (self.args, self.disk);
        let path = args.target();
        let writing = || format!("cannot write {}", path.display());
        let target = Target::new(path)?;
        if args.target_format == Format::Raw {
            let file = target.file();
            let sparse = match (args.sparse_size, new.preallocation) {
                (Some(0), _) | (None, Preallocation::Full) => Sparse::No,
                (size, _) => Sparse::Blocks(size.unwrap_or(4096)),
            };
            write_raw(&file, disk, sparse, new.preallocation, self.progress).with_context(writing)?;
            return target.persist();
        }
        if new.backing.is_some() || new.data_file.is_some() {
            return self.write_in_place(new, target);
        }
        let mut done = |at| self.progress.set(at);
        qcow2::create(&*target.file(), disk, &new.options, &mut done).with_context(writing)?;
        let mut features = new.features.clone();
        if args.sparse_size == Some(0) {
            features = features.preallocation(Preallocation::Full);
        }
        if new.has_features || args.sparse_size == Some(0) {
            qcow2::add_features(target.file(), &features).with_context(writing)?;
        }
        if !self.bitmaps.is_empty() {
            let image = Image::open_storage(target.file(), &OpenOptions::new().writable(true)).with_context(writing)?;
            copy::add_bitmaps(image, self.bitmaps).with_context(writing)?;
        }
        target.persist()
    }

    /// Makes an image that holds nothing but what its backing file does, and writes what it lacks to it.
    fn write_in_place(&self, new: &NewImage, target: Target) -> Result<()> {
        let (args, disk, path) = (self.args, self.disk, self.args.target());
        let writing = || format!("cannot write {}", path.display());
        let len = disk.len();
        if let Some(backing) = &new.backing {
            // Looked at before anything is made.
            named::open(path, backing, &args.source)?;
        }
        let data = new.data_file.as_deref().map(|name| create_data_file(path, name)).transpose()?;
        let features = new.features.clone().data_file(data.clone());
        qcow2::create_empty(target.file(), len, &new.options, &features).with_context(writing)?;
        let (temporary, target) = target.close();
        // The backing file that the user names is looked for where the new image will be.
        let folders = args.source.backing_dir.iter().cloned().chain(backing_folder(path, new)).collect();
        let mut options = OpenOptions::new().writable(true).backing(Backing::Within(folders)).threads(self.threads());
        if let Some(passphrase) = &new.passphrase {
            options = options.passphrase(passphrase.clone());
        }
        if let Some((_, data)) = data {
            options = options.data_storage(data);
        }
        let image = Image::open(&temporary, &options).with_context(writing)?;
        self.copy(true).to_image(disk, &image, self.progress).with_context(writing)?;
        copy::add_bitmaps(image, self.bitmaps).with_context(writing)?;
        target.persist()
    }

    /// Writes to an image that is there.
    fn overwrite(&self) -> Result<()> {
        let (args, disk) = (self.args, self.disk);
        let (path, format, source) = self.existing_target()?;
        let path = &*path;
        let writing = || format!("cannot write {}", path.display());
        let too_short = |len: u64| {
            if len < disk.len() {
                bail!("{} is shorter than the {} bytes that are to be written to it", path.display(), disk.len());
            }
            Ok(())
        };
        if format == Format::Raw {
            if args.compress || args.bitmaps {
                let what = if args.compress { "cannot be compressed" } else { "has no bitmaps" };
                return Err(Usage(format!("{} is a raw image, which {what}", path.display())).into());
            }
            let file: HostFile = open_raw_to_change(path)?;
            too_short(file.len())?;
            return self.copy(false).to_raw(disk, &file, args.sparse_size, self.progress).with_context(writing);
        }
        let options = open_options(&source).writable(true).threads(self.threads());
        let image = Image::open(path, &options).with_context(|| opening(path))?;
        too_short(image.len())?;
        self.copy(false).to_image(disk, &image, self.progress).with_context(writing)?;
        copy::add_bitmaps(image, self.bitmaps).with_context(writing)
    }

    fn existing_target(&self) -> Result<(std::path::PathBuf, Format, Source)> {
        let args = self.args;
        if args.target_image_opts {
            let source = Source { image_opts: true, ..args.source.clone() };
            let (path, source) = names::named(args.target(), &source)?;
            let format = super::format(&path, source.format)?;
            return Ok((path, format, source));
        }
        Ok((args.target().to_owned(), args.target_format, args.source.clone()))
    }

    fn copy(&self, new: bool) -> Copy {
        Copy { compress: self.args.compress, only_differences: new, target_is_zero: self.args.target_is_zero }
    }

    fn threads(&self) -> usize {
        if self.args.compress { self.args.threads.map_or_else(processors, |threads| threads as usize) } else { 1 }
    }
}

/// The folder of the backing file that the user names.
fn backing_folder(target: &Path, new: &NewImage) -> Option<std::path::PathBuf> {
    let name = new.backing.as_ref()?;
    let json = name.json_file().ok()?.map(|(path, _)| path);
    let path = json.unwrap_or_else(|| super::info::backing_path(target, &name.name));
    path.canonicalize().ok()?.parent().map(Path::to_owned)
}
