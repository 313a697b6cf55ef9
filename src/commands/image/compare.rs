//! `image compare`: whether two disks hold the same.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use qcow2::MapEntry;

use super::map::entries;
use super::{open_disk, processors};
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
        Ok(Some(difference)) => {
            if !args.quiet {
                image::line(&difference);
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

/// In which way the disks differ, if they do.
fn compare(args: &Compare) -> Result<Option<String>> {
    let of_first = Source { threads: processors(), ..args.source.clone() };
    let first = open_disk(&args.first, args.source.format, &of_first)?;
    let of_second = Source { passphrases: args.second_passphrases.clone(), ..of_first };
    let second = open_disk(&args.second, args.second_format, &of_second)?;
    if first.len() != second.len() && args.strict {
        return Ok(Some("Strict mode: Image size mismatch!".to_owned()));
    }
    let progress = Progress::bytes("comparing", first.len().max(second.len()), !args.progress || args.quiet);
    let difference = qcow2::compare(&*first, &*second, &mut |done| progress.set(done)).context("cannot compare")?;
    progress.finish();
    if let Some(offset) = difference {
        return Ok(Some(format!("Content mismatch at offset {offset}!")));
    }
    if first.len() != second.len() && !args.quiet {
        image::line("Warning: Image size mismatch!");
    }
    if args.strict {
        let ours = entries(&args.first, args.source.format, &args.source)?;
        let theirs = entries(&args.second, args.second_format, &of_second)?;
        return Ok(first_held_otherwise(&ours, &theirs)
            .map(|offset| format!("Strict mode: Offset {offset} block status mismatch!")));
    }
    Ok(None)
}

/// The first offset at which two disks of the same length hold bytes in different ways.
fn first_held_otherwise(a: &[MapEntry], b: &[MapEntry]) -> Option<u64> {
    let how = |entry: &MapEntry| (entry.present, entry.data, entry.zero, entry.compressed);
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(first), Some(second)) = (a.peek(), b.peek()) {
        if how(first) != how(second) {
            return Some(first.start.max(second.start));
        }
        let (end_a, end_b) = (first.start + first.length, second.start + second.length);
        if end_a <= end_b {
            a.next();
        }
        if end_b <= end_a {
            b.next();
        }
    }
    None
}
