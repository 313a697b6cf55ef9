//! Text for people. `anstream` leaves colours out where the output is no terminal or `NO_COLOR` is set.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program prints")]

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use seal::Action;

use super::{Difference, DifferenceKind, GuestFacts, ImageReport, Inspection, ListedFile};
use crate::args::Print;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// An error with all its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("{ERROR}error:{ERROR:#} {}", chain(error));
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Errors that only pass on what is below say the same.
        if !message.ends_with(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

/// A line on the standard error, as it is.
pub(crate) fn tool_error(text: &str) {
    eprintln!("{text}");
}

/// What sealing an image did.
pub(crate) fn report(report: &ImageReport, print: &Print, took: Duration) {
    warnings(report);
    if print.quiet {
        return;
    }
    heading(&report.image, &report.guest);
    operations_of(report, print);
    let scrubbed = &report.scrubbed;
    if scrubbed.bytes_zeroed > 0 {
        println!("  {:26} {} that nothing uses any more", "scrubbed", bytes(scrubbed.bytes_zeroed));
    }
    residue(report, print.verbose > 0);
    notes(report);
    let took = format!("{:.2} s", took.as_secs_f64());
    if !report.committed {
        println!("{BOLD}Nothing was written.{BOLD:#} {DIM}({took}){DIM:#}");
        return;
    }
    let (before, after) = (bytes(scrubbed.host_bytes_before), bytes(scrubbed.host_bytes_after));
    match &report.output {
        Some(output) => println!("{GOOD}Sealed{GOOD:#} to {output}: {after}, from {before} {DIM}({took}){DIM:#}"),
        None if report.is_sealed() => println!("{GOOD}Sealed{GOOD:#} already; nothing changed {DIM}({took}){DIM:#}"),
        None => println!("{GOOD}Sealed{GOOD:#} in place: {after}, from {before} {DIM}({took}){DIM:#}"),
    }
}

/// What the search for removed bytes found.
fn residue(report: &ImageReport, verbose: bool) {
    let Some(residue) = &report.residue_search else { return };
    let searched = format!("{} traces of what was removed, in {}", residue.searched_for, bytes(residue.bytes_searched));
    if residue.found.is_empty() {
        println!("  {:26} none found of {searched}", "residue");
    } else {
        println!("  {:26} {WARNING}{} found{WARNING:#} of {searched}", "residue", residue.found.len());
    }
    if !residue.shipped.is_empty() {
        let count = residue.shipped.len();
        println!("  {:26} {DIM}bytes of {count} more are in what came with the system, below /usr{DIM:#}", "");
    }
    let shipped = residue.shipped.iter().filter(|_| verbose);
    for found in residue.found.iter().chain(shipped) {
        let places: Vec<_> = found.in_files.iter().map(ToString::to_string).collect();
        let place = match (places.as_slice(), found.disk_offsets.first(), found.host_offsets.first()) {
            ([], Some(offset), _) => format!("byte {offset} of the disk, in no file"),
            ([], None, Some(offset)) => format!("byte {offset} of the image's file"),
            _ => places.join(", "),
        };
        println!("    {DIM}bytes of{DIM:#} {} {DIM}in{DIM:#} {place}", found.removed);
    }
}

/// What customizing an image did.
pub(crate) fn customized(report: &ImageReport, print: &Print, took: Duration) {
    warnings(report);
    if print.quiet {
        // What was made up is known from nowhere else.
        for note in report.notes.iter().filter(|note| note.starts_with("the password of ")) {
            println!("{note}");
        }
        return;
    }
    heading(&report.image, &report.guest);
    operations_of(report, print);
    notes(report);
    let took = format!("{:.2} s", took.as_secs_f64());
    if report.committed {
        println!("{GOOD}Customized{GOOD:#} in place {DIM}({took}){DIM:#}");
    } else {
        println!("{BOLD}Nothing was written.{BOLD:#} {DIM}({took}){DIM:#}");
    }
}

/// What an audit found.
pub(crate) fn audit(report: &ImageReport, print: &Print, took: Duration) {
    warnings(report);
    if print.quiet {
        return;
    }
    heading(&report.image, &report.guest);
    operations_of(report, print);
    if report.scrubbed.bytes_zeroed > 0 {
        println!("  {:26} {} of unused space hold old contents", "scrub", bytes(report.scrubbed.bytes_zeroed));
    }
    for residue in &report.residue {
        println!("  {:26} {residue}", "image");
    }
    notes(report);
    let took = format!("{:.2} s", took.as_secs_f64());
    if report.is_sealed() {
        println!("{GOOD}Sealed.{GOOD:#} {DIM}({took}){DIM:#}");
    } else {
        println!("{WARNING}Not sealed.{WARNING:#} {DIM}({took}){DIM:#}");
    }
}

fn warnings(report: &ImageReport) {
    for warning in &report.warnings {
        eprintln!("{WARNING}warning:{WARNING:#} {}: {warning}", report.image);
    }
}

fn notes(report: &ImageReport) {
    for note in &report.notes {
        println!("  {DIM}note: {note}{DIM:#}");
    }
}

fn heading(image: &str, guest: &GuestFacts) {
    let name = if guest.name.is_empty() { "an unknown system" } else { &guest.name };
    println!("{BOLD}{image}{BOLD:#}: {name} on {}", guest.root);
}

fn operations_of(report: &ImageReport, print: &Print) {
    for operation in report.operations.iter().filter(|operation| !operation.changes.is_empty()) {
        let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
        for change in &operation.changes {
            *counts.entry(change.action).or_default() += 1;
        }
        let counts: Vec<_> = counts.into_iter().map(|(action, count)| format!("{count} {}", verb(action))).collect();
        println!("  {:26} {}", operation.name, counts.join(", "));
        if print.verbose > 0 {
            for change in &operation.changes {
                println!("    {DIM}{:9}{DIM:#} {}", verb(change.action), change.path);
            }
        }
    }
}

pub(super) fn verb(action: Action) -> &'static str {
    match action {
        Action::Removed => "removed",
        Action::Emptied => "emptied",
        Action::Edited => "edited",
        Action::Created => "created",
        Action::Relabelled => "relabelled",
        Action::Replaced => "replaced",
        Action::Attributes => "attributes",
    }
}

/// What is on a disk.
pub(crate) fn inspection(inspection: &Inspection) {
    let table = match inspection.table.as_str() {
        "none" => "no partition table".to_owned(),
        table => format!("{} partition table", table.to_uppercase()),
    };
    println!("{BOLD}{}{BOLD:#}: {}, {table}", inspection.image, bytes(inspection.size));
    for volume in &inspection.volumes {
        let label = volume.label.as_ref().map(|label| format!(" label {label}")).unwrap_or_default();
        let uuid = volume.uuid.as_ref().map(|uuid| format!(" {DIM}{uuid}{DIM:#}")).unwrap_or_default();
        println!("  {:8} {:>10}  {}{label}{uuid}", volume.name, bytes(volume.size), volume.content);
    }
    for group in &inspection.volume_groups {
        let members: Vec<_> = group
            .physical_volumes
            .iter()
            .map(|member| member.volume.as_deref().unwrap_or("a missing volume"))
            .collect();
        println!("  LVM2 group {} on {} {DIM}{}{DIM:#}", group.name, members.join(", "), group.uuid);
        for logical in &group.logical_volumes {
            if let Some(problem) = &logical.problem {
                println!("  {:8} {:>10}  cannot be used: {problem}", logical.name, bytes(logical.size));
            }
        }
    }
    for warning in &inspection.warnings {
        eprintln!("{WARNING}warning:{WARNING:#} {warning}");
    }
    let Some(guest) = &inspection.guest else { return };
    let name = if guest.name.is_empty() { "an unknown system" } else { &guest.name };
    println!("{BOLD}{name}{BOLD:#}");
    for mount in &guest.mounts {
        println!("  {:8} {} on {}", mount.device, mount.type_name, mount.path);
    }
    for unmounted in &inspection.unmounted {
        println!("  {DIM}{} is not mounted on {}: {}{DIM:#}", unmounted.spec, unmounted.path, unmounted.reason);
    }
}

/// All operations: `*` marks those that are performed by default.
pub(crate) fn operations(verbose: bool) {
    for operation in seal::operations() {
        let mark = if operation.enabled { '*' } else { ' ' };
        println!("{} {mark} {}", operation.name, operation.heading);
        if verbose {
            println!("    {DIM}{}{DIM:#}", operation.about);
            for step in operation.steps {
                println!("    {}: {}", step.treatment.verb(), step.patterns.join(" "));
            }
        }
    }
}

/// Files of a guest.
pub(crate) fn files(files: &[ListedFile], long: bool, whole_path: bool) {
    for file in files {
        let path = file.path.to_string();
        let name = if whole_path { &path } else { path.rsplit('/').next().unwrap_or(&path) };
        if long {
            let target = file.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
            let kind = match file.kind {
                "file" => '-',
                "symlink" => 'l',
                kind => kind.chars().next().unwrap_or('?'),
            };
            println!(
                "{kind}{} {:3} {:5} {:5} {:10} {} {name}{target}",
                permissions(&file.mode),
                file.links,
                file.uid,
                file.gid,
                file.size,
                date(file.modified),
            );
        } else {
            println!("{name}");
        }
    }
}

/// What differs between two guests, a line for each path.
pub(crate) fn differences(differences: &[Difference]) {
    for difference in differences {
        let path = &difference.file.path;
        match difference.kind {
            DifferenceKind::Removed => println!("{ERROR}-{ERROR:#} {path}"),
            DifferenceKind::Added => println!("{GOOD}+{GOOD:#} {path}"),
            DifferenceKind::Changed => {
                println!("{WARNING}~{WARNING:#} {path}  {DIM}{}{DIM:#}", difference.changes.join(", "));
            }
        }
    }
}

/// Something that a user should know, and that is no error.
pub(crate) fn warning(text: &str) {
    eprintln!("{WARNING}warning:{WARNING:#} {text}");
}

/// `0644` as `rw-r--r--`.
fn permissions(octal: &str) -> String {
    let mode = u32::from_str_radix(octal, 8).unwrap_or(0);
    let mut text: Vec<char> =
        (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { ['r', 'w', 'x'][bit % 3] } else { '-' }).collect();
    for (bit, place, set, unset) in [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')] {
        if mode & bit != 0 {
            text[place] = if text[place] == 'x' { set } else { unset };
        }
    }
    text.into_iter().collect()
}

/// A moment in UTC, as `2026-11-23 08:43`: days to date by the proleptic Gregorian calendar.
fn date(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from March, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 3600, of_day / 60 % 60)
}

/// One line, as it is.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// A number of bytes, for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_826_500), "2000-02-29 12:15");
        assert_eq!(date(4_102_444_800), "2100-01-01 00:00");
        assert_eq!(date(-1), "1969-12-31 23:59");
    }

    #[test]
    fn modes_are_spelt_as_ls_spells_them() {
        assert_eq!(permissions("0755"), "rwxr-xr-x");
        assert_eq!(permissions("6644"), "rwSr-Sr--");
        assert_eq!(permissions("1777"), "rwxrwxrwt");
    }
}
