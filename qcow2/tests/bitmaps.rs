//! Persistent bitmaps that QEMU makes and we read, and those that we make and QEMU uses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;

use common::{assert_contents, check, disk, oracle_missing, path, run, text};
use qcow2::{Backing, Image, OpenOptions};

const LEN: usize = 3 << 20;

fn open(image: &Path) -> Image {
    let options = OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()));
    Image::open(image, &options).unwrap()
}

fn ranges(image: &Path, name: &str) -> Vec<(u64, u64)> {
    open(image).read_bitmap(name).unwrap().ranges().map(|range| (range.start, range.end)).collect()
}

fn qemu_io(image: &Path, command: &str) {
    run("qemu-io", &["-f", "qcow2", "-c", command, path(image)]);
}

fn bitmap(image: &Path, args: &[&str], name: &str) {
    run("qemu-img", &[&["bitmap", "-f", "qcow2"], args, &[path(image), name]].concat());
}

/// Name, granularity and whether each is enabled, as QEMU tells.
fn told_by_qemu(image: &Path) -> Vec<(String, u64, bool)> {
    let info = text(&run("qemu-img", &["info", "-f", "qcow2", "--output=json", path(image)]).stdout);
    let Some(start) = info.find("\"bitmaps\"") else { return Vec::new() };
    let mut rest = &info[start..];
    let mut found = Vec::new();
    while let Some(at) = rest.find("\"flags\"") {
        rest = &rest[at..];
        let field = |key: &str| {
            let value = &rest[rest.find(key).unwrap() + key.len() + 2..];
            value[..value.find(['\n', ',']).unwrap()].trim_matches('"').to_owned()
        };
        let enabled = rest[..rest.find(']').unwrap()].contains("auto");
        found.push((field("\"name\""), field("\"granularity\"").parse().unwrap(), enabled));
        rest = &rest[8..];
    }
    found.sort();
    found
}

fn assert_agreement(image: &Path) {
    check(image);
    let mut ours: Vec<_> =
        open(image).bitmaps().unwrap().into_iter().map(|b| (b.name, b.granularity, b.enabled)).collect();
    ours.sort();
    assert_eq!(ours, told_by_qemu(image));
}

#[test]
fn bitmaps_of_ours_and_of_qemu_say_the_same() {
    if oracle_missing("bitmaps_of_ours_and_of_qemu_say_the_same") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let bytes = disk(LEN, 107);
    std::fs::write(&raw, &bytes).unwrap();
    for (options, backed) in [("cluster_size=64k", false), ("cluster_size=4k", false), ("cluster_size=1k", true)] {
        println!("{options}");
        if backed {
            let create = ["create", "-f", "qcow2", "-o", options, "-b", "disk.raw", "-F", "raw", path(&image)];
            run("qemu-img", &create);
        } else {
            run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", options, path(&raw), path(&image)]);
        }
        open(&image).add_bitmap("ours", None).unwrap();
        assert_agreement(&image);
        assert!(ranges(&image, "ours").is_empty());
        assert_contents(&image, &bytes);
        bitmap(&image, &["--add", "-g", "512"], "theirs");
        open(&image).add_bitmap("fine", Some(512)).unwrap();
        assert_agreement(&image);
        // QEMU sets bits in all of them, ours included.
        qemu_io(&image, "write -P 1 100k 1k");
        qemu_io(&image, "write -P 2 1M 200k");
        assert_agreement(&image);
        for name in ["theirs", "fine"] {
            assert_eq!(ranges(&image, name), [(102_400, 103_424), (1 << 20, (1 << 20) + 204_800)]);
        }
        let granularity = open(&image).read_bitmap("ours").unwrap().granularity();
        let start = 102_400 / granularity * granularity;
        assert_eq!(ranges(&image, "ours")[0], (start, start + 103_424u64.next_multiple_of(granularity) - start));

        open(&image).disable_bitmap("fine").unwrap();
        assert_agreement(&image);
        qemu_io(&image, "write -P 3 2M 512");
        assert_eq!(ranges(&image, "fine").len(), 2);
        assert_eq!(ranges(&image, "theirs").len(), 3);
        open(&image).clear_bitmap("theirs").unwrap();
        open(&image).enable_bitmap("fine").unwrap();
        assert_agreement(&image);
        assert!(ranges(&image, "theirs").is_empty());
        qemu_io(&image, "write -P 4 3000k 512");
        assert_eq!(ranges(&image, "theirs"), [(3_072_000, 3_072_512)]);

        // Merged by us, and by QEMU: the same.
        for name in ["by us", "by QEMU"] {
            open(&image).add_bitmap(name, Some(4096)).unwrap();
        }
        for name in ["fine", "ours"] {
            open(&image).merge_bitmap("by us", name).unwrap();
            bitmap(&image, &["--merge", name], "by QEMU");
        }
        assert_agreement(&image);
        assert!(!ranges(&image, "by us").is_empty());
        assert_eq!(ranges(&image, "by us"), ranges(&image, "by QEMU"));

        assert!(open(&image).add_bitmap("ours", None).is_err());
        assert!(open(&image).remove_bitmap("nothing").is_err());
        for name in ["theirs", "by us", "ours", "by QEMU", "fine"] {
            open(&image).remove_bitmap(name).unwrap();
            assert_agreement(&image);
        }
        assert!(told_by_qemu(&image).is_empty());
        bitmap(&image, &["--add"], "again");
        open(&image).remove_bitmap("again").unwrap();
        open(&image).add_bitmap("last", None).unwrap();
        assert_agreement(&image);
    }
}

#[test]
fn a_bitmap_that_was_not_stored_can_only_be_removed() {
    if oracle_missing("a_bitmap_that_was_not_stored_can_only_be_removed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    std::fs::write(&raw, disk(LEN, 109)).unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", path(&raw), path(&image)]);
    bitmap(&image, &["--add"], "lost");
    let crash = ["-f", "qcow2", "-c", "write -P 9 1M 300k", "-c", "flush", "-c", "abort", path(&image)];
    assert!(!std::process::Command::new("qemu-io").args(crash).output().unwrap().status.success());
    let mut opened = open(&image);
    assert!(opened.bitmaps().unwrap()[0].in_use);
    assert!(opened.read_bitmap("lost").is_err());
    assert!(opened.clear_bitmap("lost").is_err());
    opened.remove_bitmap("lost").unwrap();
    drop(opened);
    assert_agreement(&image);

    let version_2 = dir.path().join("old.qcow2");
    run("qemu-img", &["create", "-f", "qcow2", "-o", "compat=0.10", path(&version_2), "1M"]);
    assert!(open(&version_2).add_bitmap("none", None).is_err());
}
