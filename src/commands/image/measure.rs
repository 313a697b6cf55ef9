//! `image measure`: how large a file a new image needs.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use block::ReadAt;
use qcow2::{CreateOptions, Measure, Preallocation};

use super::{format, open_disk, open_disk_at, open_options, open_snapshot, opening, options};
use crate::args::Format;
use crate::args::image::{Measure as Args, Output};
use crate::render::{image, json};

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let measured = measure(args)?;
    match args.output {
        Output::Json => json::print(&measured)?,
        Output::Human => image::measure(&measured),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> Result<Measure> {
    let new = options::read(&args.options, args.target_format, false, None, &args.source.objects)?;
    let mut measured = measure_sparse(args, &new.options)?;
    // Above a backing file anything may differ from it.
    if new.backing.is_some() && args.image.is_some()
        || matches!(new.preallocation, Preallocation::Falloc | Preallocation::Full)
    {
        measured.required = measured.fully_allocated;
    }
    Ok(measured)
}

fn measure_sparse(args: &Args, options: &CreateOptions) -> Result<Measure> {
    let raw = |len: u64| {
        let len = len.next_multiple_of(512);
        Measure { required: len, fully_allocated: len, bitmaps: None }
    };
    let Some(path) = &args.image else {
        let size = args.size.unwrap_or_default();
        return match args.target_format {
            Format::Raw => Ok(raw(size)),
            Format::Qcow2 => Ok(Measure::of_empty(size.next_multiple_of(512), options)?),
        };
    };
    let measuring = || format!("cannot measure {}", path.display());
    if args.target_format == Format::Raw {
        return Ok(raw(open_disk_at(path, args.snapshot.as_deref(), &args.source)?.len()));
    }
    if format(path, args.source.format)? == Format::Raw {
        let disk = open_disk(path, Some(Format::Raw), &args.source)?;
        return Measure::of(&*disk, options).with_context(measuring);
    }
    let source = match &args.snapshot {
        Some(snapshot) => open_snapshot(path, snapshot, &args.source)?,
        None => qcow2::Image::open(path, &open_options(&args.source)).with_context(|| opening(path))?,
    };
    let info = source.info().with_context(measuring)?;
    let measured = Measure::of_image(&source, options).with_context(measuring)?;
    // Version 2 has no bitmaps.
    if info.version < 3 {
        return Ok(measured);
    }
    Ok(measured.with_bitmaps(&info.bitmaps, source.len(), options))
}
