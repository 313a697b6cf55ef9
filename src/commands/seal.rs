//! `goldenseal seal`: the main job.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use block::{Access, HostFile};
use guest::{Guest, OpenOptions};
use seal::{Accounts, Argument, MachineId, Options, Preset, Profile, Selection};

use super::{now, output};
use crate::args::customize::Customize;
use crate::args::{BackingFile, Format, Hibernation, MachineIdChoice, Open, Seal, Select, Snapshots};
use crate::disk::{Disk, allocated_bytes};
use crate::exit_code::{ExitCode, Usage};
use crate::render::html::{self, Evidence};
use crate::render::{self, ImageReport};
use crate::residue;

pub(crate) fn run(args: &Seal) -> Result<ExitCode> {
    let selection = selection(&args.select)?;
    let mut options = options(&args.select, Some(&args.customize))?;
    options.forget_suspended = args.hibernation == Hibernation::Discard;
    if args.dry_run && !args.script.is_empty() {
        // What it does to the host cannot be taken back.
        render::text::warning("a dry run runs no script");
    } else {
        options.scripts.clone_from(&args.script);
        options.script_folder.clone_from(&args.scriptdir);
    }
    if args.output.is_some() && args.images.len() > 1 {
        return Err(Usage("-o takes one image".to_owned()).into());
    }
    if args.report.is_some() && args.images.len() > 1 {
        return Err(Usage("--report takes one image".to_owned()).into());
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
    let profile = profile(select)?;
    let from_profile = profile.operations.join(",");
    let preset = select.preset.or(profile.preset).map(Preset::operations);
    let mut given: Vec<_> = select.enable.iter().map(|list| Argument::Enable(list)).collect();
    if !from_profile.is_empty() {
        given.push(Argument::Operations(preset.unwrap_or("defaults")));
        given.push(Argument::Operations(&from_profile));
    } else {
        given.extend(preset.map(Argument::Operations));
    }
    given.extend(select.operations.iter().map(|list| Argument::Operations(list)));
    let selection = Selection::from_arguments(&given)?;
    Ok(if select.compat.is_some() { selection.of_virt_sysprep() } else { selection })
}

fn profile(select: &Select) -> Result<Profile> {
    let Some(path) = &select.profile else { return Ok(Profile::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Profile::parse(&text).map_err(|reason| Usage(format!("{}: {reason}", path.display())).into())
}

/// What the options say besides the operations.
pub(super) fn options(select: &Select, customize: Option<&Customize>) -> Result<Options> {
    let profile = profile(select)?;
    let mut customizations = Vec::new();
    // What is put in is nothing that an audit looks for.
    if let Some(customize) = customize {
        customizations = profile.customizations(false).map_err(|error| Usage(error.to_string()))?;
        customizations.append(&mut customize.customizations()?);
    }
    Ok(Options {
        machine_id: match select.machine_id {
            MachineIdChoice::Empty => MachineId::Empty,
            MachineIdChoice::Uninitialized => MachineId::Uninitialized,
            MachineIdChoice::Removed => MachineId::Removed,
        },
        custom_operations: profile.custom_operations,
        allow_unmounted: select.allow_unmounted,
        scrub: !select.no_scrub,
        accounts: Accounts { keep: select.keep_user_accounts.clone(), remove: select.remove_user_accounts.clone() },
        customizations,
        password_crypto: customize.and_then(Customize::password_crypto),
        ..Options::default()
    })
}

/// Performs the operations on an open disk, and searches it for what was removed; nothing is kept yet.
pub(super) fn perform(
    image: &Path,
    disk: &Disk,
    open: &Open,
    selection: &Selection,
    options: &Options,
    search: bool,
) -> Result<ImageReport> {
    let open = OpenOptions { root: open.root.clone(), read_only: false, now: now() };
    let mut guest = Guest::open(disk.device(), &open).with_context(|| format!("no guest in {}", image.display()))?;
    let mut report = seal::run(&mut guest, selection, options)?;
    let traces = std::mem::take(&mut report.traces);
    let mut report = ImageReport::new(image, &guest, report);
    if search && options.scrub && !traces.is_empty() {
        report.traces = residue::without_names_of_volumes(&traces, &guest);
        let residue = residue::search_disk(&disk.device(), &guest, &report.traces)?;
        for found in residue.found.iter().filter(|found| found.in_files.is_empty()) {
            report
                .warnings
                .push(format!("bytes of {}, which was removed, are still on the disk, in no file", found.removed));
        }
        report.residue_search = Some(residue);
    }
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
    let mut evidence = Evidence::default();
    if args.report.is_some() {
        evidence.hash_before = html::hash(image)?;
        evidence.map_before = html::picture(&disk.device())?;
    }
    let mut report = perform(image, &disk, &args.open, selection, options, !args.no_residue_search)?;
    report.warnings.extend(kept);
    if args.report.is_some() {
        evidence.map_after = html::picture(&disk.device())?;
    }
    if args.dry_run || (args.strict && !report.warnings.is_empty()) {
        return finish(report, args, evidence, None);
    }
    match &args.output {
        Some(output) => {
            output::write(&disk, output, encryption, args)?;
            report.output = Some(output.display().to_string());
            report.scrubbed.host_bytes_after = allocated_bytes(output)?;
        }
        None => {
            let committed = disk.commit()?;
            report.scrubbed.clusters_freed = committed.clusters_freed;
            if committed.bitmaps_dropped > 0 {
                report.notes.push(format!("{} persistent bitmaps were dropped", committed.bitmaps_dropped));
            }
            if let Some(residue) = &mut report.residue_search {
                let file = HostFile::open(image, Access::ReadUnlocked).context("cannot search the image's file")?;
                residue::search_host_file(&file, &disk.shown_ranges()?, &report.traces, residue)?;
            }
            report.scrubbed.host_bytes_after = allocated_bytes(image)?;
        }
    }
    report.committed = true;
    finish(report, args, evidence, Some(args.output.as_deref().unwrap_or(image)))
}

/// Writes the report for auditors, if one is wanted.
fn finish(report: ImageReport, args: &Seal, mut evidence: Evidence, written: Option<&Path>) -> Result<ImageReport> {
    if let Some(path) = &args.report {
        if let Some(written) = written {
            evidence.hash_after = html::hash(written)?;
        }
        html::write(path, &report, &evidence)?;
    }
    Ok(report)
}
