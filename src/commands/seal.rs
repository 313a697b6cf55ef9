//! `goldenseal seal`: the main job.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use guest::{Guest, OpenOptions};
use seal::{Accounts, Argument, Options, Selection};

use super::{now, output};
use crate::args::customize::Customize;
use crate::args::{BackingFile, Format, Hibernation, Open, Seal, Select, Snapshots};
use crate::disk::{Disk, allocated_bytes};
use crate::exit_code::{ExitCode, Usage};
use crate::render::{self, ImageReport};

pub(crate) fn run(args: &Seal) -> Result<ExitCode> {
    let selection = selection(&args.select)?;
    let mut options = options(&args.select, Some(&args.customize))?;
    options.forget_suspended = args.hibernation == Hibernation::Discard;
    if args.output.is_some() && args.images.len() > 1 {
        return Err(Usage("-o takes one image".to_owned()).into());
    }
    if args.compress.is_some() && args.output_format == Some(Format::Raw) {
        return Err(Usage("a raw image cannot be compressed".to_owned()).into());
    }
    let mut reports = Vec::new();
    let mut code = ExitCode::Done;
    let mut failure = None;
    for image in &args.images {
        let started = Instant::now();
        match seal_one(image, args, &selection, &options) {
            Ok(report) => {
                if args.strict && !report.warnings.is_empty() {
                    code = code.max(ExitCode::Strict);
                }
                if !args.print.json {
                    render::text::report(&report, &args.print, started.elapsed());
                }
                reports.push(report);
            }
            Err(error) => {
                // The others are sealed all the same: each image stands for itself.
                let error = error.context(format!("{} is not sealed", image.display()));
                if let Some(earlier) = failure.replace(error) {
                    render::text::error(&earlier);
                }
            }
        }
    }
    if args.print.json && !reports.is_empty() {
        render::json::reports(&reports)?;
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

/// The selection that the options make.
pub(super) fn selection(select: &Select) -> Result<Selection> {
    let enable = select.enable.iter().map(|list| Argument::Enable(list));
    let operations = select.operations.iter().map(|list| Argument::Operations(list));
    Ok(Selection::from_arguments(&enable.chain(operations).collect::<Vec<_>>())?)
}

/// What the options say besides the operations.
pub(super) fn options(select: &Select, customize: Option<&Customize>) -> Result<Options> {
    Ok(Options {
        allow_unmounted: select.allow_unmounted,
        scrub: !select.no_scrub,
        accounts: Accounts { keep: select.keep_user_accounts.clone(), remove: select.remove_user_accounts.clone() },
        customizations: customize.map(Customize::customizations).transpose()?.unwrap_or_default(),
        password_crypto: customize.and_then(Customize::password_crypto),
        ..Options::default()
    })
}

/// Performs the operations on an open disk; nothing is kept yet.
pub(super) fn perform(
    image: &Path,
    disk: &Disk,
    open: &Open,
    selection: &Selection,
    options: &Options,
) -> Result<ImageReport> {
    let open = OpenOptions { root: open.root.clone(), read_only: false, now: now() };
    let mut guest = Guest::open(disk.device(), &open).with_context(|| format!("no guest in {}", image.display()))?;
    let report = seal::run(&mut guest, selection, options)?;
    let mut report = ImageReport::new(image, &guest, report);
    report.scrubbed.host_bytes_before = allocated_bytes(image)?;
    report.scrubbed.host_bytes_after = report.scrubbed.host_bytes_before;
    Ok(report)
}

fn seal_one(image: &Path, args: &Seal, selection: &Selection, options: &Options) -> Result<ImageReport> {
    let in_place = !args.dry_run && args.output.is_none();
    let disk = Disk::open(image, &args.open, in_place)?;
    let encryption = output::encryption(&disk, args)?;
    let mut kept = Vec::new();
    if let Some(transaction) = disk.transaction() {
        let info = transaction.image().info()?;
        let names: Vec<_> = info.snapshots.iter().map(|snapshot| render::escape(&snapshot.name)).collect();
        if !names.is_empty() && args.output.is_none() {
            let names = names.join(", ");
            match args.snapshots {
                Snapshots::Refuse => {
                    bail!(
                        "internal snapshots keep all that they hold ({names}): say --snapshots delete or --snapshots keep"
                    )
                }
                Snapshots::Keep => kept.push(format!("internal snapshots keep all that they hold: {names}")),
                Snapshots::Delete => transaction.delete_snapshots(),
            }
        }
        if let (Some(backing), None) = (&info.backing_filename, &args.output) {
            let backing = render::escape(backing);
            match args.backing {
                BackingFile::Refuse => bail!(
                    "its backing file {backing} keeps all that it holds: write one image without it with -o, or say --backing keep"
                ),
                BackingFile::Keep => kept.push(format!("the backing file {backing} keeps all that it holds")),
            }
        }
    }
    let mut report = perform(image, &disk, &args.open, selection, options)?;
    report.warnings.extend(kept);
    if args.dry_run || (args.strict && !report.warnings.is_empty()) {
        return Ok(report);
    }
    match &args.output {
        Some(output) => {
            output::write(&disk, output, encryption, args)?;
            report.output = Some(output.display().to_string());
            report.scrubbed.host_bytes_after = allocated_bytes(output)?;
        }
        None => {
            match &disk {
                Disk::Qcow2(transaction) => {
                    let committed = transaction.commit().context("cannot commit")?;
                    report.scrubbed.clusters_freed = committed.clusters_freed;
                    if committed.bitmaps_dropped > 0 {
                        report.notes.push(format!("{} persistent bitmaps were dropped", committed.bitmaps_dropped));
                    }
                }
                Disk::Raw(staged) => staged.commit().context("cannot commit")?,
                Disk::RawReadOnly(_) => bail!("the image was opened for reading only"),
            }
            report.scrubbed.host_bytes_after = allocated_bytes(image)?;
        }
    }
    report.committed = true;
    Ok(report)
}
