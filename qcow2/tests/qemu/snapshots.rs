//! Internal snapshots that QEMU makes and we read, and those that we make, apply and delete, judged by qemu-img.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::oracle::{Random, assert_contents, check, disk, oracle_missing, path, run, temp_dir, text};
use block::{WriteAt, read_vec};
use qcow2::{Backing, Image, OpenOptions};

const LEN: usize = 3 << 19;

fn writable() -> OpenOptions {
    OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()))
}

fn readable() -> OpenOptions {
    OpenOptions::new().backing(Backing::Within(Vec::new()))
}

fn time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 123)
}

const KINDS: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("version 2", &["-o", "compat=0.10"]),
    ("512-byte clusters", &["-o", "cluster_size=512"]),
    ("2 MiB clusters", &["-o", "cluster_size=2M"]),
    ("extended L2", &["-o", "extended_l2=on"]),
    ("2-bit refcounts", &["-o", "refcount_bits=2"]),
    ("64-bit refcounts, 4 KiB clusters", &["-o", "refcount_bits=64,cluster_size=4k"]),
    ("zlib", &["-c"]),
    ("zlib, 4 KiB clusters", &["-c", "-o", "cluster_size=4k"]),
];

fn convert(raw: &Path, image: &Path, options: &[&str]) {
    run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], options, &[path(raw), path(image)]].concat());
}

fn scribble(image: &Path, model: &mut [u8], random: &mut Random) {
    let device = Image::open(image, &writable()).unwrap();
    for _ in 0..8 {
        let at = random.below(model.len() as u64) as usize;
        let len = (1 + random.below(100_000) as usize).min(model.len() - at);
        if random.below(3) == 0 {
            device.write_zeroes(at as u64, len as u64).unwrap();
            model[at..at + len].fill(0);
        } else {
            let bytes = random.bytes(len);
            device.write_at(at as u64, &bytes).unwrap();
            model[at..at + len].copy_from_slice(&bytes);
        }
    }
}

/// What QEMU and we read of a snapshot is `expected`.
fn assert_snapshot(image: &Path, name: &str, expected: &[u8]) {
    let ours = Image::open(image, &readable()).unwrap().into_snapshot(name).unwrap();
    assert!(read_vec(&ours, 0, block::ReadAt::len(&ours)).unwrap() == expected, "{name} as we read it");
    assert!(ours.write_at(0, &[1]).is_err());
    let contents = image.with_extension("snapshot");
    let named = format!("snapshot.name={name}");
    run("qemu-img", &["convert", "-l", &named, "-O", "raw", path(image), path(&contents)]);
    assert!(std::fs::read(&contents).unwrap() == expected, "{name} as QEMU reads it");
}

#[test]
fn snapshots_of_ours_and_of_qemu_live_together() {
    if oracle_missing("snapshots_of_ours_and_of_qemu_live_together") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let original = disk(LEN, 61);
    std::fs::write(&raw, &original).unwrap();
    for (kind, options) in KINDS {
        println!("{kind}");
        convert(&raw, &image, options);
        let mut random = Random(67);
        let mut model = original.clone();
        // Three states of the disk: ours, QEMU's, ours. (With 2-bit refcounts no cluster may have more than three users.)
        let mut held = Vec::new();
        for (name, by_us) in
            [("a", true), ("b", false), ("c", true)].into_iter().take(if kind.starts_with("2-bit") { 2 } else { 3 })
        {
            if by_us {
                let mut opened = Image::open(&image, &writable()).unwrap();
                let made = opened.create_snapshot(name, time()).unwrap();
                assert_eq!((made.name.as_str(), made.date_sec), (name, 1_800_000_000));
                assert!(read_vec(&opened, 0, LEN as u64).unwrap() == model);
            } else {
                run("qemu-img", &["snapshot", "-c", name, path(&image)]);
            }
            check(&image);
            held.push((name, model.clone()));
            scribble(&image, &mut model, &mut random);
            check(&image);
            assert_contents(&image, &model);
            for (name, contents) in &held {
                assert_snapshot(&image, name, contents);
            }
        }
        let names: Vec<String> =
            Image::open(&image, &readable()).unwrap().snapshots().unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, held.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());
        let listed = text(&run("qemu-img", &["info", "--output=json", path(&image)]).stdout);
        assert!(listed.contains("\"date-sec\": 1800000000") && listed.contains("\"date-nsec\": 123"), "{listed}");

        // Back to each of them in turn, with changes in between.
        for (name, contents) in &held {
            let mut opened = Image::open(&image, &writable()).unwrap();
            opened.apply_snapshot(name).unwrap();
            assert!(read_vec(&opened, 0, LEN as u64).unwrap() == *contents);
            drop(opened);
            check(&image);
            assert_contents(&image, contents);
            model.clone_from(contents);
            scribble(&image, &mut model, &mut random);
            check(&image);
            assert_contents(&image, &model);
            for (name, contents) in &held {
                assert_snapshot(&image, name, contents);
            }
        }
        // QEMU goes back to one of ours, where refcounts leave it room for one more user on the way.
        if kind.starts_with("2-bit") {
            Image::open(&image, &writable()).unwrap().apply_snapshot("a").unwrap();
        } else {
            run("qemu-img", &["snapshot", "-a", "a", path(&image)]);
        }
        check(&image);
        model.clone_from(&held[0].1);
        assert_contents(&image, &model);

        let mut opened = Image::open(&image, &writable()).unwrap();
        opened.delete_snapshot("b").unwrap();
        assert!(opened.delete_snapshot("b").is_err());
        drop(opened);
        held.remove(1);
        check(&image);
        assert_contents(&image, &model);
        for (name, contents) in &held {
            assert_snapshot(&image, name, contents);
        }
        scribble(&image, &mut model, &mut random);
        check(&image);
        let mut opened = Image::open(&image, &writable()).unwrap();
        opened.delete_all_snapshots().unwrap();
        assert!(opened.snapshots().unwrap().is_empty());
        drop(opened);
        check(&image);
        assert_contents(&image, &model);
        scribble(&image, &mut model, &mut random);
        check(&image);
        assert_contents(&image, &model);
    }
}

#[test]
fn ids_go_before_names_and_entries_of_others_stay_as_they_are() {
    if oracle_missing("ids_go_before_names_and_entries_of_others_stay_as_they_are") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    std::fs::write(&raw, disk(LEN, 71)).unwrap();
    convert(&raw, &image, &[]);
    run("qemu-img", &["snapshot", "-c", "2", path(&image)]);
    let table = |bytes: &[u8]| u64::from_be_bytes(bytes[64..72].try_into().unwrap()) as usize;
    let before = std::fs::read(&image).unwrap();
    let at = table(&before);
    // Extra data that nobody knows yet.
    let len = 40 + u32::from_be_bytes(before[at + 36..at + 40].try_into().unwrap()) as usize + 2;
    let mut opened = Image::open(&image, &writable()).unwrap();
    assert_eq!(opened.create_snapshot("other", time()).unwrap().id, "2");
    assert_eq!(opened.create_snapshot("third", time()).unwrap().id, "3");
    let after = std::fs::read(&image).unwrap();
    assert!(after[table(&after)..][..len] == before[at..][..len]);
    opened.delete_snapshot("2").unwrap();
    let left: Vec<_> = opened.snapshots().unwrap().into_iter().map(|s| (s.id, s.name)).collect();
    assert_eq!(left, [("1".to_owned(), "2".to_owned()), ("3".to_owned(), "third".to_owned())]);
    opened.delete_snapshot("2").unwrap();
    assert_eq!(opened.snapshots().unwrap().len(), 1);
    assert!(opened.create_snapshot(&"n".repeat(256), time()).is_err());
    assert!(opened.apply_snapshot("nothing").is_err());
    drop(opened);
    check(&image);
}

#[test]
fn refcounts_too_narrow_for_a_snapshot_are_refused_before_anything_is_written() {
    let storage = block::Memory::new(0);
    let options = qcow2::CreateOptions::new().refcount_bits(1);
    qcow2::create(&storage, &block::Memory::from(disk(LEN, 73)), &options, &mut |_| {}).unwrap();
    let storage = std::sync::Arc::new(storage);
    let before = storage.to_vec();
    let mut image = Image::open_storage(storage.clone(), &writable()).unwrap();
    let error = image.create_snapshot("a", time()).unwrap_err();
    assert_eq!(error.to_string(), "unsupported: another snapshot with refcounts of 1 bits");
    assert!(storage.to_vec() == before);
    image.write_at(0, &[1; 100]).unwrap(); // it is not poisoned
}

#[test]
fn bitmaps_outlive_a_snapshot_and_its_deletion() {
    if oracle_missing("bitmaps_outlive_a_snapshot_and_its_deletion") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let bytes = disk(LEN, 79);
    std::fs::write(&raw, &bytes).unwrap();
    convert(&raw, &image, &[]);
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", path(&image), "backup"]);
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 1M 100k", path(&image)]);
    let bitmaps = |image: &Path| {
        let info = text(&run("qemu-img", &["info", "--output=json", path(image)]).stdout);
        info[info.find("\"bitmaps\"").unwrap()..].to_owned()
    };
    let before = bitmaps(&image);
    let mut opened = Image::open(&image, &writable()).unwrap();
    opened.create_snapshot("a", time()).unwrap();
    assert!(opened.apply_snapshot("a").is_err());
    drop(opened);
    check(&image);
    assert_eq!(bitmaps(&image), before);
    Image::open(&image, &writable()).unwrap().delete_snapshot("a").unwrap();
    check(&image);
    assert_eq!(bitmaps(&image), before);
}
