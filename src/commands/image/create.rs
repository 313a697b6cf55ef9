//! `image create`: a new image that holds nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{HostFile, ReadAt as _, Storage, WriteAt as _};

use super::info::backing_path;
use super::options::{self, NewImage};
use super::{named, opening};
use crate::args::Format;
use crate::args::image::{Create, Source, size};
use crate::commands::output::Target;
use crate::exit_code::Usage;
use crate::render::{escape, image};
use crate::secret::Passphrases;

pub(super) fn run(args: &Create) -> Result<ExitCode> {
    let path = &args.image;
    if options::asks_for_help(&args.options) {
        image::options(args.format);
        return Ok(ExitCode::SUCCESS);
    }
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
        image::line(&told(args, len));
    }
    Ok(ExitCode::SUCCESS)
}

/// The options of the new image, in the order in which QEMU tells them.
const ORDER: [&str; 22] = [
    "encryption",
    "encrypt.format",
    "encrypt.key-secret",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.hash-alg",
    "encrypt.iter-time",
    "cluster_size",
    "extended_l2",
    "preallocation",
    "compression_type",
    "size",
    "compat",
    "backing_file",
    "backing_fmt",
    "data_file",
    "data_file_raw",
    "lazy_refcounts",
    "refcount_bits",
    "nocow",
];

/// The line that tells what is made, as scripts know it from qemu-img.
fn told(args: &Create, len: u64) -> String {
    let name = |format: Format| if format == Format::Raw { "raw" } else { "qcow2" };
    let mut told = BTreeMap::new();
    if args.format == Format::Qcow2 {
        for (name, value) in [
            ("cluster_size", "65536"),
            ("extended_l2", "off"),
            ("compression_type", "zlib"),
            ("lazy_refcounts", "off"),
            ("refcount_bits", "16"),
        ] {
            told.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in options::split_all(&args.options) {
        let number = size(&value).ok().filter(|_| name == "cluster_size").map(|size| size.to_string());
        told.insert(name, number.unwrap_or(value));
    }
    told.insert("size".to_owned(), len.to_string());
    if let Some(backing) = &args.backing {
        told.insert("backing_file".to_owned(), backing.clone());
        told.extend(args.backing_format.map(|format| ("backing_fmt".to_owned(), name(format).to_owned())));
    }
    let options = ORDER.iter().filter_map(|name| told.get(*name).map(|value| format!(" {name}={}", escape(value))));
    format!(
        "Formatting '{}', fmt={}{}",
        escape(&args.image.display().to_string()),
        name(args.format),
        options.collect::<String>()
    )
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
        threads: 0,
    };
    let disk = named::open(&args.image, backing, &source).context("the backing file is opened, but with -u")?;
    Ok(wanted.unwrap_or(disk.len()))
}

/// Makes the external data file, which must not hold anything yet.
pub(super) fn create_data_file(image: &Path, name: &str) -> Result<(String, Arc<dyn Storage>)> {
    let path = backing_path(image, name);
    let file =
        if path.exists() { HostFile::open(&path, block::Access::ReadWrite) } else { HostFile::create_new(&path) };
    let file = file.with_context(|| opening(&path))?;
    if !file.is_empty() {
        bail!("{} exists already, and is not empty", path.display());
    }
    Ok((name.to_owned(), Arc::new(file)))
}
