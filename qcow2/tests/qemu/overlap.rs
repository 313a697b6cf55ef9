//! Metadata that overlaps, or that data would overwrite: found before the write, and the image marked as QEMU marks it.

use std::path::Path;
use std::process::Command;

use block::{WriteAt, read_vec};
use qcow2::{Image, OpenOptions};

use crate::oracle::{oracle_missing, path, run, temp_dir, text};

const CLUSTER: u64 = 64 << 10;
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(crate) const COPIED: u64 = 1 << 63;

pub(crate) fn word(bytes: &[u8], at: u64) -> u64 {
    u64::from_be_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
}

pub(crate) fn set(bytes: &mut [u8], at: u64, value: u64) {
    bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_be_bytes());
}

/// Where the metadata of the image is that [`make`] makes.
pub(crate) struct Places {
    pub(crate) l1: u64,
    pub(crate) l2: u64,
    pub(crate) second_l2: u64,
    pub(crate) refcount_table: u64,
    pub(crate) refcount_block: u64,
    pub(crate) snapshots: u64,
    pub(crate) snapshot_l1: u64,
    pub(crate) snapshot_l2: u64,
    pub(crate) bitmaps: u64,
    pub(crate) bitmap_table: u64,
}

impl Places {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (l1, refcount_table, snapshots) = (word(bytes, 40), word(bytes, 48), word(bytes, 64));
        let extension = (104..4096).find(|&at| bytes[at..at + 4] == [0x23, 0x85, 0x28, 0x75]).unwrap() as u64;
        let (bitmaps, snapshot_l1) = (word(bytes, extension + 24), word(bytes, snapshots));
        Self {
            l1,
            l2: word(bytes, l1) & OFFSET,
            second_l2: word(bytes, l1 + 8) & OFFSET,
            refcount_table,
            refcount_block: word(bytes, refcount_table),
            snapshots,
            snapshot_l1,
            snapshot_l2: word(bytes, snapshot_l1) & OFFSET,
            bitmaps,
            bitmap_table: word(bytes, bitmaps),
        }
    }
}

/// An image with one of everything: two L2 tables, a snapshot with an L2 table of its own, a bitmap.
fn make(image: &Path) -> Vec<u8> {
    run("qemu-img", &["create", "-q", "-f", "qcow2", path(image), "1G"]);
    let io = |commands: &[&str]| {
        let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        run("qemu-io", &[&["-f", "qcow2"], &args[..], &[path(image)]].concat());
    };
    io(&["write -P 1 0 256k", "write -P 2 600M 128k"]);
    run("qemu-img", &["snapshot", "-c", "one", path(image)]);
    io(&["write -P 3 0 256k", "write -P 4 600M 128k"]);
    run("qemu-img", &["bitmap", "--add", "--disable", "-f", "qcow2", path(image), "b"]);
    std::fs::read(image).unwrap()
}

fn is_marked(image: &Path) -> bool {
    text(&run("qemu-img", &["info", "-U", "-f", "qcow2", "--output=json", path(image)]).stdout)
        .contains("\"corrupt\": true")
}

/// Makes one change as QEMU does; says whether QEMU marked the image as corrupt.
fn marked_by_qemu(image: &Path, command: &str) -> bool {
    // It may also abort.
    Command::new("qemu-io").args(["-f", "qcow2", "-c", command, path(image)]).output().unwrap();
    is_marked(image)
}

/// Makes the same change as we do.
fn write_by_us(image: &Image, command: &str) -> block::Result<()> {
    let mut words = command.split(' ').filter(|word| !word.starts_with('-') && word.parse::<u8>().is_err());
    let size = |word: &str| match word.strip_suffix('k') {
        Some(number) => number.parse::<u64>().unwrap() << 10,
        None => word.strip_suffix('M').unwrap().parse::<u64>().unwrap() << 20,
    };
    let (verb, offset, len) = (words.next().unwrap(), size(words.next().unwrap()), size(words.next().unwrap()));
    match verb {
        "write" => image.write_at(offset, &vec![9; len as usize]),
        _ => image.discard(offset, len),
    }
}

/// Breaks a file, given where what is.
type Break = fn(&mut [u8], &Places);

/// How the image is broken; what is then done; what we say; whether QEMU, too, refuses and marks it.
const CASES: &[(Break, &str, &str, bool)] = &[
    (|b, p| set(b, p.l2, p.l1 | COPIED), "write -P 9 4k 4k", "the data cluster lies over the L1 table", true),
    (|b, p| set(b, p.l2, p.l2 | COPIED), "write -P 9 4k 4k", "the data cluster lies over the L2 table", true),
    (|b, p| set(b, p.l2, p.second_l2 | COPIED), "write -P 9 4k 4k", "the data cluster lies over the L2 table", true),
    (|b, p| set(b, p.l2, p.refcount_table | COPIED), "write -P 9 4k 4k", "over the refcount table", true),
    (|b, p| set(b, p.l2, p.refcount_block | COPIED), "write -P 9 4k 4k", "over the refcount block", true),
    (|b, p| set(b, p.l2, p.snapshots | COPIED), "write -P 9 4k 4k", "over the snapshot table", true),
    (|b, p| set(b, p.l2, p.snapshot_l1 | COPIED), "write -P 9 4k 4k", "over the snapshot's L1 table", true),
    // QEMU looks for these only when it is told to.
    (|b, p| set(b, p.l2, p.snapshot_l2 | COPIED), "write -P 9 4k 4k", "over the snapshot's L2 table", false),
    (|b, p| set(b, p.l2, p.bitmaps | COPIED), "write -P 9 4k 4k", "over the bitmap directory", true),
    (|b, p| set(b, p.l2, p.bitmap_table | COPIED), "write -P 9 4k 4k", "over the bitmap table", false),
    // What the refcounts call free is not.
    (|b, p| free(b, p, p.l1), "write -P 9 8M 64k", "the free cluster lies over the L1 table", true),
    (|b, p| free(b, p, p.l2), "write -P 9 8M 64k", "the free cluster lies over the L2 table", true),
    (|b, p| free(b, p, p.refcount_table), "write -P 9 8M 64k", "the free cluster lies over the refcount table", true),
    (|b, p| free(b, p, p.refcount_block), "write -P 9 8M 64k", "the free cluster lies over the refcount block", true),
    (|b, p| free(b, p, p.snapshots), "write -P 9 8M 64k", "the free cluster lies over the snapshot table", true),
    (|b, p| free(b, p, 0), "write -P 9 8M 64k", "the free cluster lies over the header", true),
    // What an entry leads to would be freed: QEMU lowers the refcount, and punches the table out of the file.
    (|b, p| set(b, p.l2, p.refcount_table), "write -P 9 0k 64k", "the data cluster lies over the refcount table", true),
    (|b, p| set(b, p.l2, p.second_l2 | COPIED), "discard 0k 64k", "the data cluster lies over the L2 table", false),
    (
        |b, p| set(b, p.l2, 1 << 62 | (p.refcount_block + 512)),
        "write -P 9 0k 64k",
        "the data cluster lies over the refcount block",
        true,
    ),
    // Structures over each other.
    (
        |b, p| set(b, p.l1, p.refcount_block | COPIED),
        "write -P 9 0k 4k",
        "the L2 table lies over the refcount block",
        true,
    ),
    (|b, p| set(b, p.l1, p.l1 | COPIED), "write -P 9 0k 4k", "the L2 table lies over the L1 table", true),
    (|b, p| set(b, p.l1, p.second_l2 | COPIED), "write -P 9 0k 4k", "the L2 table lies over the L2 table", false),
    (
        |b, p| set(b, p.l1, p.snapshot_l2 | COPIED),
        "write -P 9 4k 4k",
        "the snapshot's L2 table lies over the L2 table",
        false,
    ),
    (|b, p| set(b, 64, p.l2), "write -P 9 8M 64k", "corrupt snapshot table entry", true),
    // No overlap, but entries that make no sense.
    (|b, p| set(b, p.l2, (p.l2 + 512) | COPIED), "write -P 9 4k 4k", "a cluster's offset must be aligned", true),
    (|b, p| set(b, p.l1, (p.l2 + 512) | COPIED), "write -P 9 4k 4k", "an L2 table's offset must be aligned", true),
];

/// Gives the cluster at `offset` a refcount of 0, and makes it the first such.
fn free(bytes: &mut [u8], places: &Places, offset: u64) {
    let at = (places.refcount_block + offset / CLUSTER * 2) as usize;
    bytes[at..at + 2].fill(0);
}

#[test]
fn metadata_is_never_overwritten_and_the_image_is_marked_corrupt() {
    if oracle_missing("metadata_is_never_overwritten_and_the_image_is_marked_corrupt") {
        return;
    }
    let dir = temp_dir();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    let good = make(&image);
    let places = Places::of(&good);
    for (number, (damage, command, expected, qemu_marks)) in CASES.iter().enumerate() {
        let mut bytes = good.clone();
        damage(&mut bytes, &places);
        std::fs::write(&image, &bytes).unwrap();
        std::fs::write(&copy, &bytes).unwrap();
        let name = format!("case {number}, {command}: {expected}");
        assert_eq!(marked_by_qemu(&copy, command), *qemu_marks, "{name}");

        let opened = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
        let error = write_by_us(&opened, command).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        // Nothing was written but the mark, and nothing will be.
        let info = opened.info();
        assert!(info.is_err() || info.unwrap().corrupt, "{name}");
        let refused = opened.write_at(900 << 20, &[1; 512]).unwrap_err();
        assert!(matches!(refused, block::Error::ReadOnly), "{name}: {refused}");
        assert!(opened.close().is_err(), "{name}");
        let mut found = std::fs::read(&image).unwrap();
        assert!(found[79] & 2 != 0, "{name}");
        found[79] &= !2;
        found.truncate(bytes.len());
        assert!(found == bytes, "{name}: written at {:?}", found.iter().zip(&bytes).position(|(a, b)| a != b));
        // QEMU honours our mark, and we honour that of QEMU.
        let out = Command::new("qemu-io").args(["-f", "qcow2", "-c", "write 0 512", path(&image)]).output().unwrap();
        assert!(text(&out.stderr).contains("Image is corrupt; cannot be opened read/write"), "{name}");
        assert!(is_marked(&image), "{name}");
        if *qemu_marks {
            let refused = Image::open(&copy, &OpenOptions::new().writable(true)).unwrap_err();
            assert_eq!(refused.to_string(), "the image is read-only: it is marked corrupt");
            let info = Image::open(&copy, &OpenOptions::new()).unwrap().info();
            assert!(info.is_err() || info.unwrap().corrupt, "{name}");
        }
    }
}

#[test]
fn a_damaged_entry_that_is_read_through_a_writable_image_marks_it_and_a_transaction_does_not() {
    if oracle_missing("a_damaged_entry_that_is_read_through_a_writable_image_marks_it_and_a_transaction_does_not") {
        return;
    }
    let dir = temp_dir();
    let image = dir.path().join("image");
    let mut bytes = make(&image);
    let places = Places::of(&bytes);
    set(&mut bytes, places.l2, (places.l2 + 512) | COPIED);
    std::fs::write(&image, &bytes).unwrap();
    // Read only, or to be changed at once or not at all: nothing is written.
    let opened = Image::open(&image, &OpenOptions::new()).unwrap();
    assert!(read_vec(&opened, 0, 512).is_err());
    assert!(opened.close().is_ok());
    let opened = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
    assert!(opened.begin().is_err());
    assert!(std::fs::read(&image).unwrap() == bytes);
    let opened = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
    assert!(read_vec(&opened, 0, 512).is_err());
    assert!(opened.info().unwrap().corrupt);
    drop(opened);
    assert!(is_marked(&image));

    // Repaired, it is opened again: what the entry led to is gone, as it is with QEMU, or the mark stays.
    let opened = Image::open(&image, &OpenOptions::new().repair(true)).unwrap();
    let report = opened.repair(qcow2::Repair::All, &mut |_| {}).unwrap();
    assert_eq!(report.is_clean(), !opened.info().unwrap().corrupt);
}

#[test]
fn after_a_write_that_failed_nothing_more_is_written_and_close_tells() {
    let file = std::sync::Arc::new(block::Memory::new(0));
    qcow2::create(&file, &block::Memory::from(vec![5; 1 << 20]), &qcow2::CreateOptions::new(), &mut |_| {}).unwrap();
    let count = |fail_from: u64| {
        let file = block::Memory::from(file.to_vec());
        let fault = std::sync::Arc::new(block::Fault::new(file, fail_from));
        let Ok(image) = Image::open_storage(fault.clone(), &OpenOptions::new().writable(true)) else {
            return (fault.calls(), true);
        };
        let written = image.write_at(100, &[6; 200_000]).and_then(|()| image.discard(300_000, 200_000));
        let failed = written.is_err();
        fault.heal();
        if failed {
            let again = image.write_at(0, &[7; 512]);
            // What failed may have been a read, before anything was written.
            let closed = image.close();
            assert_eq!(again.is_err(), closed.is_err(), "{fail_from}");
            if let Err(error) = closed {
                assert!(matches!(error, qcow2::Error::Poisoned), "{error}");
            }
        } else {
            image.close().unwrap();
        }
        (fault.calls(), failed)
    };
    let (calls, failed) = count(u64::MAX);
    assert!(!failed && calls > 10);
    let failures = (0..calls).filter(|&fail_from| count(fail_from).1).count();
    assert!(failures > 10, "{failures}");
}
