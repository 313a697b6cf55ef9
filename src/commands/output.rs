//! Writing a disk to a new file, which has its name only once it is whole.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use block::{ExtentKind, HostFile, ReadAt, Storage, WriteAt};
use qcow2::{Compression, CreateOptions, LuksOptions};

use crate::args::{Compress, Format, Seal};
use crate::disk::Disk;
use crate::exit_code::Usage;
use crate::render::progress::Progress;
use crate::secret;

/// How the new image of what is on `disk` is to be encrypted: with the same passphrase where the old one is.
pub(super) fn encryption(disk: &Disk, args: &Seal) -> Result<Option<LuksOptions>> {
    let encrypted = disk.transaction().is_some_and(|transaction| transaction.image().is_encrypted());
    let Some(passphrase) = args.open.passphrase_file.first().filter(|_| encrypted && !args.decrypt) else {
        return Ok(None);
    };
    if args.output_format == Some(Format::Raw) || args.compress.is_some() {
        let form = if args.compress.is_some() { "compressed" } else { "raw" };
        return Err(Usage(format!("a {form} image cannot be encrypted as this one is: --decrypt allows it")).into());
    }
    Ok(Some(LuksOptions::new(secret::from_file(passphrase)?)))
}

/// Writes what is on `disk` to `output`. A crash leaves no file of that name, or the old one, or the whole new one.
pub(super) fn write(disk: &Disk, output: &Path, encryption: Option<LuksOptions>, args: &Seal) -> Result<()> {
    if output.exists() && !args.force {
        bail!("{} exists already; --force replaces it", output.display());
    }
    let device = disk.device();
    let compression = args.compress.map(|kind| match kind {
        Compress::Zlib => Compression::Zlib,
        Compress::Zstd => Compression::Zstd,
    });
    let options = CreateOptions::new().compression(compression).encryption(encryption);
    let progress = Progress::bytes("writing", device.len(), args.print.quiet || args.print.json);
    write_new(output, &*device, args.output_format.unwrap_or(Format::Qcow2), &options, &progress)
}

/// Writes a new image of what is on `disk`, which takes the place of a file of that name once it is whole and safe.
pub(super) fn write_new(
    output: &Path,
    disk: &dyn ReadAt,
    format: Format,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<()> {
    let writing = || format!("cannot write {}", output.display());
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Only the name is wanted: the file itself is made, with its locks, by `HostFile`.
    let temporary = tempfile::Builder::new()
        .prefix(".goldenseal-")
        .make_in(&folder, |path| HostFile::create_new(path).map_err(std::io::Error::other))
        .with_context(writing)?;
    match format {
        Format::Qcow2 => {
            qcow2::create(temporary.as_file(), disk, options, &mut |done| progress.set(done)).with_context(writing)?;
        }
        Format::Raw => write_raw(temporary.as_file(), disk, progress).with_context(writing)?,
    }
    progress.finish();
    temporary.persist(output).with_context(writing)?;
    // The new name is safe only once the folder is.
    std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).with_context(writing)
}

/// Writes the bytes of the disk, leaving holes where it holds nothing.
fn write_raw(file: &HostFile, device: &dyn ReadAt, progress: &Progress) -> Result<(), block::Error> {
    const STEP: u64 = 1 << 20;
    const BLOCK: usize = 4096;
    file.set_len(device.len())?;
    let mut at = 0;
    let mut buf = vec![0; STEP as usize];
    while at < device.len() {
        let extent = device.extent_at(at, STEP.min(device.len() - at))?;
        if extent.kind == ExtentKind::Data {
            let bytes = &mut buf[..extent.len as usize];
            device.read_at(at, bytes)?;
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                if block.iter().any(|&byte| byte != 0) {
                    file.write_at(at + (index * BLOCK) as u64, block)?;
                }
            }
        }
        at += extent.len;
        progress.set(at);
    }
    file.flush()
}
