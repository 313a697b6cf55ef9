//! One file for each command.

mod audit;
mod cat;
mod copy_out;
mod customize;
mod diff;
pub(crate) mod image;
mod inspect;
mod ls;
mod operations;
mod output;
mod packaging;
mod seal;

use std::path::Path;
use std::process::ExitCode as ProcessExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use guest::{Guest, OpenOptions, Timestamp};

use crate::args::{Args, Command, Open};
use crate::disk;

pub(crate) fn run(args: &mut Args) -> Result<ProcessExitCode> {
    let code = match &mut args.command {
        Command::Seal(args) => seal::run(args),
        Command::Customize(args) => customize::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Operations(args) => operations::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Cat(args) => cat::run(args),
        Command::CopyOut(args) => copy_out::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Completions(args) => packaging::completions(args),
        Command::ManualPages(args) => packaging::manual_pages(args),
        // With qemu-img's own exit codes.
        Command::Image(args) => return image::run(args),
    };
    code.map(Into::into)
}

/// Opens the guest on an image that is only read.
fn open_guest(image: &Path, options: &Open) -> Result<Guest> {
    let device = disk::open_read_only(image, options)?;
    let options = OpenOptions { root: options.root.clone(), read_only: true, now: now() };
    Guest::open_read_only(Arc::clone(&device), &options).with_context(|| format!("no guest in {}", image.display()))
}

/// The moment that changes are stamped with: `SOURCE_DATE_EPOCH` where it is set, so that runs can be repeated.
pub(crate) fn now() -> Timestamp {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    if let Some(seconds) = fixed {
        return Timestamp { seconds, nanoseconds: 0 };
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}
