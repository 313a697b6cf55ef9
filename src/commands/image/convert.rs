//! `image convert`: what a disk holds, in a new image.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use block::ReadAt;
use qcow2::CreateOptions;

use super::{open_disk, options};
use crate::args::Format;
use crate::args::image::Convert;
use crate::commands::output;
use crate::render::progress::Progress;

pub(super) fn run(args: &Convert) -> Result<ExitCode> {
    let mut read = options::read(&args.options, args.target_format, args.compress, &args.source.objects)?;
    if let Some(threads) = args.threads {
        read = read.threads(threads);
    }
    let disk = open_disk(&args.image, args.source.format, &args.source)?;
    let progress = Progress::bytes("converting", disk.len(), !args.progress || args.quiet);
    write(&*disk, &args.target, args.target_format, &read, &progress)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a new image, which takes the place of a file of that name once it is whole.
pub(super) fn write(
    disk: &dyn ReadAt,
    target: &Path,
    format: Format,
    options: &CreateOptions,
    progress: &Progress,
) -> Result<()> {
    if std::fs::metadata(target).is_ok_and(|found| !found.is_file()) {
        bail!("{} is not a regular file", target.display());
    }
    output::write_new(target, disk, format, options, progress)
}
