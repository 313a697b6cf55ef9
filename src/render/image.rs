//! What the commands under `image` print for people.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where the program prints")]

use std::io::Write as _;
use std::path::PathBuf;

use anstream::{eprintln, println};
use anyhow::{Context as _, Result};
use qcow2::{CheckReport, MapEntry, Measure, Snapshot};

use super::escape;
use super::text::bytes;
use crate::commands::image::Description;

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
        println!("Repaired: {} leaked clusters, {} corruptions.", report.leaks_fixed, report.corruptions_fixed);
    }
    if report.is_clean() {
        println!("No errors were found on the image.");
    }
    if report.corruptions > 0 {
        println!("{} errors were found: data may be damaged, or be damaged by further writing.", report.corruptions);
    }
    if report.leaks > 0 {
        println!("{} clusters are leaked: they take space, and do no harm to data.", report.leaks);
    }
    if report.check_errors > 0 {
        println!("{} parts could not be checked.", report.check_errors);
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

/// What an image is.
pub(crate) fn info(described: &Description) {
    println!("image: {}", described.filename);
    println!("file format: {}", if described.qcow2.is_some() { "qcow2" } else { "raw" });
    println!("virtual size: {} ({} bytes)", bytes(described.virtual_size), described.virtual_size);
    println!("disk size: {}", bytes(described.actual_size));
    let Some(info) = &described.qcow2 else { return };
    if info.encrypt.is_some() {
        println!("encrypted: yes");
    }
    println!("cluster size: {}", info.cluster_size);
    if let Some(name) = &info.backing_filename {
        println!("backing file: {}", escape(name));
    }
    if let Some(format) = &info.backing_filename_format {
        println!("backing file format: {}", escape(format));
    }
    println!("compat: {}", if info.version < 3 { "0.10" } else { "1.1" });
    println!("compression type: {}", format!("{:?}", info.compression_type).to_lowercase());
    println!("refcount bits: {}", info.refcount_bits);
    println!("lazy refcounts: {}", info.lazy_refcounts);
    println!("extended l2: {}", info.extended_l2);
    if let Some(encrypt) = &info.encrypt {
        let (cipher, mode, iv) = (&encrypt.cipher_alg, &encrypt.cipher_mode, &encrypt.ivgen_alg);
        println!("encryption: LUKS, {cipher} in {mode} mode with {iv} IVs, {}, {}", encrypt.hash_alg, encrypt.uuid);
        for (index, slot) in encrypt.slots.iter().enumerate() {
            if let Some(iterations) = slot.iters {
                println!("key slot {index}: {iterations} iterations");
            }
        }
    }
    println!("dirty: {}", info.dirty_flag);
    println!("corrupt: {}", info.corrupt);
    snapshots(&info.snapshots);
    for bitmap in &info.bitmaps {
        println!("bitmap: {}, granularity {} {}", escape(&bitmap.name), bitmap.granularity, bitmap.flags.join(" "));
    }
}

/// The internal snapshots, in a table.
pub(crate) fn snapshots(snapshots: &[Snapshot]) {
    if snapshots.is_empty() {
        return;
    }
    println!("Snapshot list:");
    println!("{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for snapshot in snapshots {
        let (id, name, state) = (escape(&snapshot.id), escape(&snapshot.name), bytes(snapshot.vm_state_size));
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
