//! `image snapshot`: internal snapshots.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::{format, open_closed, open_to_change};
use crate::args::Format;
use crate::args::image::{Output, Snapshot};
use crate::commands::now;
use crate::render::{image, json};

pub(super) fn run(args: &Snapshot) -> Result<ExitCode> {
    let path = &args.image;
    if let Some(name) = &args.create {
        let doing = || format!("cannot make snapshot {name:?} in {}", path.display());
        open_to_change(path, &args.source)?.create_snapshot(name, time()).with_context(doing)?;
    } else if let Some(name) = &args.apply {
        let doing = || format!("cannot apply snapshot {name:?} in {}", path.display());
        open_to_change(path, &args.source)?.apply_snapshot(name).with_context(doing)?;
    } else if let Some(name) = &args.delete {
        let doing = || format!("cannot delete snapshot {name:?} in {}", path.display());
        let mut image = open_to_change(path, &args.source)?;
        // By its name alone, as in QEMU: another's id may be the same.
        let found = image.snapshots().with_context(doing)?.into_iter().find(|snapshot| snapshot.name == *name);
        let Some(found) = found else { bail!("{}: no snapshot has that name", doing()) };
        image.delete_snapshot(&found.id).with_context(doing)?;
    } else {
        list(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Snapshot) -> Result<()> {
    let snapshots = match format(&args.image, args.source.format)? {
        // As for QEMU, it has none.
        Format::Raw => {
            super::open_raw(&args.image, &args.source)?;
            Vec::new()
        }
        Format::Qcow2 => {
            let image = open_closed(&args.image, &args.source)?;
            image.snapshots().with_context(|| format!("cannot list {}", args.image.display()))?
        }
    };
    match args.output {
        Output::Json => json::print(&snapshots)?,
        Output::Human => image::snapshots(&snapshots),
    }
    Ok(())
}

/// When a snapshot is said to be made.
fn time() -> SystemTime {
    let now = now();
    let seconds = u64::try_from(now.seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, now.nanoseconds)
}
