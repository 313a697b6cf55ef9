//! Persistent bitmaps that QEMU makes and we read, and those that we make and QEMU uses.

use std::path::Path;

use crate::oracle::{assert_contents, check, disk, oracle_missing, path, run, temp_dir, text};
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
    let dir = temp_dir();
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
    let dir = temp_dir();
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

#[test]
fn what_we_write_in_place_is_dirty_in_the_bitmaps_that_are_enabled() {
    if oracle_missing("what_we_write_in_place_is_dirty_in_the_bitmaps_that_are_enabled") {
        return;
    }
    let dir = temp_dir();
    let (raw, image, copy) =
        (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"), dir.path().join("copy.qcow2"));
    std::fs::write(&raw, disk(LEN, 113)).unwrap();
    for options in ["cluster_size=64k", "cluster_size=4k", "cluster_size=512,refcount_bits=1", "extended_l2=on"] {
        println!("{options}");
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "-o", options, path(&raw), path(&image)];
        run("qemu-img", &convert);
        // With clusters of 512 bytes, the header that QEMU writes leaves room for no bitmap; ours does.
        for (name, granularity) in [("fine", 512), ("coarse", 65_536), ("off", 512)] {
            open(&image).add_bitmap(name, Some(granularity)).unwrap();
        }
        open(&image).disable_bitmap("off").unwrap();
        let by_qemu = !options.contains("=512");
        std::fs::copy(&image, &copy).unwrap();
        let mut random = crate::oracle::Random(131);
        for _ in 0..3 {
            let opened = open(&image);
            for _ in 0..6 {
                let at = random.below(LEN as u64 / 512 - 200) * 512;
                let len = (1 + random.below(200)) * 512;
                if random.below(3) == 0 {
                    block::WriteAt::write_zeroes(&opened, at, len).unwrap();
                    if by_qemu {
                        qemu_io(&copy, &format!("write -z {at} {len}"));
                    }
                } else {
                    block::WriteAt::write_at(&opened, at, &vec![0x77; len as usize]).unwrap();
                    if by_qemu {
                        qemu_io(&copy, &format!("write -P 0x77 {at} {len}"));
                    }
                }
            }
            drop(opened);
            check(&image);
            if by_qemu {
                assert_agreement(&image);
                for name in ["fine", "coarse", "off"] {
                    assert_eq!(ranges(&image, name), ranges(&copy, name), "{name}");
                }
                assert!(!ranges(&image, "fine").is_empty() && ranges(&image, "off").is_empty());
            }
        }
    }
}

#[test]
fn a_crash_of_writing_in_place_leaves_no_change_that_a_bitmap_calls_clean() {
    use std::sync::Arc;

    use block::{Memory, Outcome, Trace, WriteAt, read_vec, replay};

    if oracle_missing("a_crash_of_writing_in_place_leaves_no_change_that_a_bitmap_calls_clean") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let before = disk(LEN, 137);
    std::fs::write(&raw, &before).unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", path(&raw), path(&image)]);
    open(&image).add_bitmap("backup", Some(512)).unwrap();
    let initial = std::fs::read(&image).unwrap();
    let options = OpenOptions::new().writable(true);
    let trace = Arc::new(Trace::new(Memory::from(initial.clone())));
    let opened = Image::open_storage(trace.clone(), &options).unwrap();
    let mut random = crate::oracle::Random(139);
    for _ in 0..12 {
        let at = random.below(LEN as u64 - 20_000);
        let len = 1 + random.below(20_000) as usize;
        let bytes = random.bytes(len);
        opened.write_at(at, &bytes).unwrap();
        let at = random.below(LEN as u64 - 20_000);
        opened.write_zeroes(at, random.below(20_000)).unwrap();
    }
    drop(opened);
    let events = trace.events();
    let mut changed_states = 0;
    for end in 0..=events.len() {
        for variant in 0..4 {
            let state = replay(&initial, &events[..end], |_, _| match (variant, random.below(2)) {
                (0, _) => Outcome::Kept,
                (_, 0) => Outcome::Lost,
                _ => Outcome::Kept,
            })
            .unwrap();
            let image = Image::open_storage(Arc::new(Memory::from(state)), &options).unwrap();
            let after = read_vec(&image, 0, LEN as u64).unwrap();
            let mut dirty = vec![false; LEN / 512];
            for range in image.read_bitmap("backup").unwrap().ranges() {
                dirty[range.start as usize / 512..range.end as usize / 512].fill(true);
            }
            let changed = before.chunks(512).zip(after.chunks(512)).map(|(old, new)| old != new);
            let mut any = false;
            for (sector, (changed, dirty)) in changed.zip(dirty).enumerate() {
                assert!(!changed || dirty, "sector {sector} after {end} of {} events", events.len());
                any |= changed;
            }
            changed_states += usize::from(any);
        }
    }
    println!("{} events, {changed_states} states with changes", events.len());
    assert!(changed_states > 100);
}
