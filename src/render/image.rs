//! What the commands under `image` print for people.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program prints")]

use std::io::Write as _;
use std::path::PathBuf;

use anstream::{eprintln, println};
use anyhow::{Context as _, Result};
use qcow2::{CheckReport, MapEntry, Measure, Snapshot};

use super::escape;
use super::image_info::size;
use crate::args::Format;

/// One line of a result.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// One line about what is wrong.
pub(crate) fn diagnostic(text: &str) {
    eprintln!("{text}");
}

/// What a check found, and what a repair did.
pub(crate) fn check(report: &CheckReport) {
    if report.corruptions_fixed + report.leaks_fixed > 0 {
        println!("Found and repaired:\n");
        println!("    {} leaked clusters\n    {} corruptions\n", report.leaks_fixed, report.corruptions_fixed);
    }
    if report.is_clean() {
        println!("No errors were found on the image.");
    }
    if report.corruptions > 0 {
        println!("\n{} errors were found on the image.", report.corruptions);
        println!("What the disk holds may be damaged, and writing to it may damage more.");
    }
    if report.leaks > 0 {
        println!("\n{} leaked clusters were found on the image.", report.leaks);
        println!("They take space, and do no harm to what the disk holds.");
    }
    if report.check_errors > 0 {
        println!("\n{} internal errors have occurred during the check.", report.check_errors);
    }
    let (total, allocated) = (report.total_clusters, report.allocated_clusters);
    if total > 0 && allocated > 0 {
        let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole as f64;
        println!(
            "{allocated}/{total} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters",
            percent(allocated, total),
            percent(report.fragmented_clusters, allocated),
            percent(report.compressed_clusters, allocated)
        );
    }
    println!("Image end offset: {}", report.image_end_offset);
}

/// The internal snapshots, in a table.
pub(crate) fn snapshots(snapshots: &[Snapshot]) {
    if snapshots.is_empty() {
        return;
    }
    println!("Snapshot list:");
    println!("{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for snapshot in snapshots {
        let (id, name, state) = (escape(&snapshot.id), escape(&snapshot.name), size(snapshot.vm_state_size));
        let date = jiff::Timestamp::from_second(i64::from(snapshot.date_sec)).unwrap_or_default();
        let date = date.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
        let (hours, seconds) = (snapshot.vm_clock_sec / 3600, snapshot.vm_clock_sec % 3600);
        let clock =
            format!("{hours:04}:{:02}:{:02}.{:03}", seconds / 60, seconds % 60, snapshot.vm_clock_nsec / 1_000_000);
        let icount = snapshot.icount.map_or_else(|| "--".to_owned(), |count| count.to_string());
        println!("{id:<7} {name:<16} {state:>8} {date:>19} {clock:>15} {icount:>10}");
    }
}

/// The runs that hold data.
pub(crate) fn map(entries: &[MapEntry], files: &[PathBuf]) {
    println!("{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to");
    for entry in entries.iter().filter(|entry| entry.data && !entry.zero) {
        let file = files.get(entry.depth as usize).map(|file| escape(&file.display().to_string())).unwrap_or_default();
        let offset = entry.offset.unwrap_or_default();
        let hex = |number: u64| if number == 0 { "0".to_owned() } else { format!("{number:#x}") };
        println!("{:<16}{:<16}{:<16}{file}", hex(entry.start), hex(entry.length), hex(offset));
    }
}

/// All runs, one a line.
pub(crate) fn map_json(entries: &[MapEntry]) -> Result<()> {
    let writing = "cannot write to the standard output";
    let mut out = std::io::stdout().lock();
    let mut before = "[";
    for entry in entries {
        write!(out, "{before}{}", serde_json::to_string(entry).context(writing)?).context(writing)?;
        before = ",\n";
    }
    writeln!(out, "{}]", if entries.is_empty() { "[" } else { "" }).context(writing)
}

/// How large a file is needed.
pub(crate) fn measure(measured: &Measure) {
    println!("required size: {}", measured.required);
    println!("fully allocated size: {}", measured.fully_allocated);
    if let Some(bitmaps) = measured.bitmaps {
        println!("bitmaps size: {bitmaps}");
    }
}

/// The options that a new image of a format has.
pub(crate) fn options(format: Format) {
    let all: &[(&str, &str)] = &[
        ("backing_file=<str>", "name of the backing file"),
        ("backing_fmt=<str>", "its format"),
        ("cluster_size=<size>", "bytes of a cluster, 512 to 2M"),
        ("compat=<str>", "version of the format: v2 (0.10) or v3 (1.1)"),
        ("compression_type=<str>", "how clusters are compressed: zlib or zstd"),
        ("data_file=<str>", "name of an external data file"),
        ("data_file_raw=<on/off>", "keep the data file so that it can be read as a raw image"),
        ("encrypt.cipher-alg=<str>", "cipher"),
        ("encrypt.cipher-mode=<str>", "its mode"),
        ("encrypt.format=<str>", "encrypt the image: luks"),
        ("encrypt.hash-alg=<str>", "hash that makes keys of passphrases"),
        ("encrypt.iter-time=<num>", "milliseconds that trying a passphrase takes"),
        ("encrypt.ivgen-alg=<str>", "how the IVs of sectors are made"),
        ("encrypt.ivgen-hash-alg=<str>", "the hash that this needs"),
        ("encrypt.key-secret=<str>", "id of the secret that is the passphrase"),
        ("extended_l2=<on/off>", "divide each cluster into 32 subclusters"),
        ("lazy_refcounts=<on/off>", "let refcount updates be put off"),
        ("preallocation=<str>", "what is set aside: off, metadata, falloc or full"),
        ("refcount_bits=<num>", "width of a refcount: 1, 2, 4, 8, 16, 32 or 64"),
        ("size=<size>", "length of the disk"),
    ];
    println!("Supported options:");
    for (option, help) in all {
        let is_raw = ["preallocation", "size"].iter().any(|name| option.starts_with(name));
        if format == Format::Qcow2 || is_raw {
            println!("  {option:<30} {help}");
        }
    }
}
