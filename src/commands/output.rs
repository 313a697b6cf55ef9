//! Writing a disk to a new file, which has its name only once it is whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use block::{HostFile, ReadAt, Storage, WriteAt};
use qcow2::{Compression, CreateOptions, LuksOptions, Preallocation};

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
fn write_new(
    output: &Path,
    disk: &dyn ReadAt,
    format: Format,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<()> {
    let writing = || format!("cannot write {}", output.display());
    let target = Target::new(output)?;
    let file = target.file();
    match format {
        Format::Qcow2 => {
            qcow2::create(&*file, disk, options, &mut |done| progress.set(done)).with_context(writing)?;
        }
        Format::Raw => {
            write_raw(&file, disk, Sparse::Blocks(4096), Preallocation::Off, progress).with_context(writing)?;
        }
    }
    progress.finish();
    target.persist()
}

/// A new file, which gets its name once it is whole.
pub(super) struct Target {
    temporary: tempfile::NamedTempFile<Arc<HostFile>>,
    output: PathBuf,
}

/// A new file that is closed already.
pub(super) struct ClosedTarget {
    temporary: tempfile::TempPath,
    output: PathBuf,
}

impl Target {
    /// Makes an empty file that is to become `output`.
    pub(super) fn new(output: &Path) -> Result<Self> {
        if std::fs::metadata(output).is_ok_and(|found| !found.is_file()) {
            bail!("{} is not a regular file", output.display());
        }
        // Only the name is wanted: the file itself is made, with its locks, by `HostFile`.
        let temporary = tempfile::Builder::new()
            .prefix(".goldenseal-")
            .make_in(folder(output), |path| HostFile::create_new(path).map(Arc::new).map_err(std::io::Error::other))
            .with_context(|| format!("cannot write {}", output.display()))?;
        Ok(Self { temporary, output: output.to_owned() })
    }

    pub(super) fn file(&self) -> Arc<HostFile> {
        Arc::clone(self.temporary.as_file())
    }

    /// Closes the file, so that it can be opened by its path.
    pub(super) fn close(self) -> (PathBuf, ClosedTarget) {
        let temporary = self.temporary.into_temp_path();
        (temporary.to_path_buf(), ClosedTarget { temporary, output: self.output })
    }

    /// Gives the file, which must be safe on the disk, its name.
    pub(super) fn persist(self) -> Result<()> {
        let (_, closed) = self.close();
        closed.persist()
    }
}

impl ClosedTarget {
    /// Gives the file, which must be safe on the disk, its name.
    pub(super) fn persist(self) -> Result<()> {
        let writing = || format!("cannot write {}", self.output.display());
        self.temporary.persist(&self.output).with_context(writing)?;
        // The new name is safe only once the folder is.
        std::fs::File::open(folder(&self.output)).and_then(|folder| folder.sync_all()).with_context(writing)
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Which zeros become holes in a raw file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sparse {
    /// None: the whole file is written.
    No,
    /// Blocks of so many bytes that are zeros.
    Blocks(u64),
}

/// Writes the bytes of the disk, leaving holes where it holds nothing. Compressed images are read by as many threads as there are
/// processors.
pub(super) fn write_raw(
    file: &HostFile,
    device: &dyn ReadAt,
    sparse: Sparse,
    preallocation: Preallocation,
    progress: &Progress,
) -> qcow2::Result<()> {
    file.set_len(device.len())?;
    preallocation.fill(file, 0, device.len())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut written = 0;
    qcow2::read_in_order(device, threads, &mut |at, bytes| {
        match sparse {
            Sparse::No => {
                fill(file, written, at)?;
                file.write_at(at, bytes)?;
            }
            Sparse::Blocks(block) => write_sparse(file, at, bytes, block.clamp(512, 1 << 20) as usize)?,
        }
        written = at + bytes.len() as u64;
        progress.set(written);
        Ok(())
    })?;
    if sparse == Sparse::No {
        fill(file, written, device.len())?;
    }
    progress.set(device.len());
    Ok(file.flush()?)
}

/// Writes all but the blocks that are zeros, neighbours together.
fn write_sparse(file: &HostFile, at: u64, bytes: &[u8], block: usize) -> block::Result<()> {
    let mut start = 0;
    while start < bytes.len() {
        let is_zero = |part: &[u8]| part.iter().all(|&byte| byte == 0);
        let mut parts = bytes[start..].chunks(block);
        let zeros: usize = parts.by_ref().take_while(|part| is_zero(part)).map(<[u8]>::len).sum();
        start += zeros;
        let data: usize = bytes[start..].chunks(block).take_while(|part| !is_zero(part)).map(<[u8]>::len).sum();
        if data > 0 {
            file.write_at(at + start as u64, &bytes[start..start + data])?;
        }
        start += data;
    }
    Ok(())
}

/// Writes zeros.
fn fill(file: &HostFile, start: u64, end: u64) -> block::Result<()> {
    let zeros = vec![0; (end - start).min(1 << 20) as usize];
    let mut at = start;
    while at < end {
        let len = (end - at).min(1 << 20);
        file.write_at(at, &zeros[..len as usize])?;
        at += len;
    }
    Ok(())
}
