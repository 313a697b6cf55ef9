//! `goldenseal audit`: what sealing would still have to do.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use seal::{Options, Selection};

use super::seal::{options, perform, selection};
use crate::args::Audit;
use crate::disk::Disk;
use crate::exit_code::ExitCode;
use crate::render::{self, ImageReport};

pub(crate) fn run(args: &Audit) -> Result<ExitCode> {
    let selection = selection(&args.select)?;
    let mut reports = Vec::new();
    let mut code = ExitCode::Done;
    for image in &args.images {
        let started = Instant::now();
        let report = audit_one(image, args, &selection)?;
        if !report.is_sealed() {
            code = ExitCode::Found;
        }
        if !args.print.json {
            render::text::audit(&report, &args.print, started.elapsed());
        }
        reports.push(report);
    }
    if args.print.json {
        render::json::reports(&reports)?;
    }
    Ok(code)
}

fn audit_one(image: &Path, args: &Audit, selection: &Selection) -> Result<ImageReport> {
    let disk = Disk::open(image, &args.open, false)?;
    let options = Options { forget_suspended: true, ..options(&args.select, None)? };
    let mut report = perform(image, &disk, &args.open, selection, &options, false)?;
    let suspended = report.suspended.iter().map(|place| format!("{place} holds the memory of a suspended guest"));
    report.residue.extend(suspended.collect::<Vec<_>>());
    if let Some(transaction) = disk.transaction() {
        let info = transaction.image().info()?;
        for snapshot in &info.snapshots {
            let name = render::escape(&snapshot.name);
            report.residue.push(format!("internal snapshot {name} keeps all that it holds"));
        }
        if let Some(backing) = &info.backing_filename {
            report.residue.push(format!("the backing file {} keeps all that it holds", render::escape(backing)));
        }
        let stale = transaction.stale_host_bytes()?;
        if stale > 0 && !args.select.no_scrub {
            report.residue.push(format!("{stale} bytes of the file hold what the image no longer uses"));
        }
    }
    Ok(report)
}
