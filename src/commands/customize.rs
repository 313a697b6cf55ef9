//! `goldenseal customize`: the customize options without the operations.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use seal::{Options, Selection};

use super::seal::perform;
use crate::args::CustomizeImage;
use crate::disk::{Disk, allocated_bytes};
use crate::exit_code::{ExitCode, Usage};
use crate::render::{self, ImageReport};

pub(crate) fn run(args: &CustomizeImage) -> Result<ExitCode> {
    let options = Options {
        scrub: false,
        customizations: args.customize.customizations()?,
        password_crypto: args.customize.password_crypto(),
        ..Options::default()
    };
    if options.customizations.is_empty() {
        return Err(Usage("nothing is asked for: `goldenseal customize --help` lists what there is".to_owned()).into());
    }
    let mut reports = Vec::new();
    let mut code = ExitCode::Done;
    for image in &args.images {
        let started = Instant::now();
        let report =
            customize_one(image, args, &options).with_context(|| format!("{} is not changed", image.display()))?;
        if args.strict && !report.warnings.is_empty() {
            code = code.max(ExitCode::Strict);
        }
        if !args.print.json {
            render::text::customized(&report, &args.print, started.elapsed());
        }
        reports.push(report);
    }
    if args.print.json {
        render::json::reports(&reports)?;
    }
    Ok(code)
}

fn customize_one(image: &Path, args: &CustomizeImage, options: &Options) -> Result<ImageReport> {
    let disk = Disk::open(image, &args.open, !args.dry_run)?;
    let mut report = perform(image, &disk, &args.open, &only_customize()?, options, false)?;
    if args.dry_run || (args.strict && !report.warnings.is_empty()) {
        return Ok(report);
    }
    let committed = disk.commit()?;
    report.scrubbed.clusters_freed = committed.clusters_freed;
    report.scrubbed.host_bytes_after = allocated_bytes(image)?;
    if committed.bitmaps_dropped > 0 {
        report.notes.push(format!("{} persistent bitmaps were dropped", committed.bitmaps_dropped));
    }
    report.committed = true;
    Ok(report)
}

/// No operation but the one that does what is asked for.
pub(super) fn only_customize() -> Result<Selection> {
    Ok(Selection::from_arguments(&[seal::Argument::Enable("customize")])?)
}
