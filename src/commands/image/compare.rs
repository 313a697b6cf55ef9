//! `image compare`: whether two disks hold the same.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::open_disk;
use crate::args::image::{Compare, Source};
use crate::render::progress::Progress;
use crate::render::{image, text};

pub(super) fn run(args: &Compare) -> Result<ExitCode> {
    match compare(args) {
        Ok(None) => {
            if !args.quiet {
                image::line("Images are identical.");
            }
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(offset)) => {
            if !args.quiet {
                image::line(&format!("Content mismatch at offset {offset}!"));
            }
            Ok(ExitCode::FAILURE)
        }
        // 1 means that they differ.
        Err(error) => {
            text::error(&error);
            Ok(ExitCode::from(2))
        }
    }
}

fn compare(args: &Compare) -> Result<Option<u64>> {
    let first = open_disk(&args.first, args.source.format, &args.source)?;
    let of_second = Source { passphrases: args.second_passphrases.clone(), ..args.source.clone() };
    let second = open_disk(&args.second, args.second_format, &of_second)?;
    if first.len() != second.len() && !args.quiet {
        image::line("Warning: Image size mismatch!");
    }
    let progress = Progress::bytes("comparing", first.len().max(second.len()), !args.progress || args.quiet);
    let difference = qcow2::compare(&*first, &*second, &mut |done| progress.set(done)).context("cannot compare")?;
    progress.finish();
    Ok(difference)
}
