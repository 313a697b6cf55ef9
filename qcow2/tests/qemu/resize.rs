//! Disks made longer and shorter, judged by qemu-img.

use crate::oracle::{Random, assert_contents, check, disk, oracle_missing, path, run, temp_dir};
use block::{ReadAt, WriteAt, read_vec};
use qcow2::{Backing, Image, OpenOptions};

const LEN: usize = 3 << 20;

fn writable() -> OpenOptions {
    OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()))
}

#[test]
fn any_length_may_follow_any_other() {
    if oracle_missing("any_length_may_follow_any_other") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let original = disk(LEN, 83);
    std::fs::write(&raw, &original).unwrap();
    let kinds: &[&[&str]] = &[
        &[],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "refcount_bits=1,cluster_size=4k"],
        &["-c"],
        &["-c", "-o", "cluster_size=4k"],
    ];
    for (number, options) in kinds.iter().enumerate() {
        println!("{options:?}");
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], *options, &[path(&raw), path(&image)]].concat());
        let mut model = original.clone();
        let mut random = Random(89 + number as u64);
        for step in 0..9 {
            let len = match step {
                0 => 4 << 20,
                1 => 12 << 20, // more than one L2 table, where clusters are small
                2 => 2 << 20,
                3 => 0,
                4 => LEN,
                _ => random.below(4 << 20) as usize / 512 * 512,
            };
            let mut opened = Image::open(&image, &writable()).unwrap();
            opened.resize(len as u64).unwrap();
            model.resize(len, 0);
            assert_eq!(opened.len(), len as u64);
            assert!(read_vec(&opened, 0, len as u64).unwrap() == model, "step {step}");
            drop(opened);
            check(&image);
            assert_contents(&image, &model);
            if len > 0 {
                let opened = Image::open(&image, &writable()).unwrap();
                let at = random.below(len as u64) as usize;
                let bytes = random.bytes((len - at).min(300_000));
                opened.write_at(at as u64, &bytes).unwrap();
                model[at..at + bytes.len()].copy_from_slice(&bytes);
                drop(opened);
                check(&image);
                assert_contents(&image, &model);
            }
        }
        let mut opened = Image::open(&image, &writable()).unwrap();
        assert!(opened.resize(513).is_err());
        assert!(opened.resize(1 << 62).is_err());
        opened.write_at(0, &[1; 100]).unwrap();
    }
}

#[test]
fn nothing_of_a_longer_backing_file_shows_in_what_is_added() {
    if oracle_missing("nothing_of_a_longer_backing_file_shows_in_what_is_added") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let bytes = vec![0x5a; LEN];
    std::fs::write(&raw, &bytes).unwrap();
    for compat in ["compat=1.1", "compat=0.10", "compat=1.1,cluster_size=2M"] {
        let create = ["create", "-f", "qcow2", "-o", compat, "-b", "disk.raw", "-F", "raw", path(&image), "1000448"];
        run("qemu-img", &create);
        let mut model = bytes[..1_000_448].to_vec();
        for len in [1_500_160, 100_352, 4 << 20] {
            let mut opened = Image::open(&image, &writable()).unwrap();
            opened.resize(len as u64).unwrap();
            model.resize(len, 0);
            assert!(read_vec(&opened, 0, len as u64).unwrap() == model);
            drop(opened);
            check(&image);
            assert_contents(&image, &model);
        }
    }
}

#[test]
fn snapshots_keep_their_length_and_what_was_cut_off_is_gone_without_them() {
    if oracle_missing("snapshots_keep_their_length_and_what_was_cut_off_is_gone_without_them") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let mut bytes = disk(LEN, 97);
    let secret = b"CUT-OFF-WITH-THE-END-OF-THE-DISK";
    for at in [1_100_000, 1_040_000, 2_900_000] {
        bytes[at..at + secret.len()].copy_from_slice(secret);
    }
    std::fs::write(&raw, &bytes).unwrap();
    for cluster_size in ["cluster_size=64k", "cluster_size=512"] {
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", cluster_size, path(&raw), path(&image)]);
        let mut opened = Image::open(&image, &writable()).unwrap();
        opened.create_snapshot("whole", std::time::SystemTime::UNIX_EPOCH).unwrap();
        opened.resize(1_039_872).unwrap();
        drop(opened);
        check(&image);
        assert_contents(&image, &bytes[..1_039_872]);
        let snapshot = Image::open(&image, &OpenOptions::new()).unwrap().into_snapshot("whole").unwrap();
        assert!(read_vec(&snapshot, 0, snapshot.len()).unwrap() == bytes);
        drop(snapshot);
        let contents = image.with_extension("snapshot");
        run("qemu-img", &["convert", "-l", "snapshot.name=whole", "-O", "raw", path(&image), path(&contents)]);
        assert!(std::fs::read(&contents).unwrap()[..1_039_872] == bytes[..1_039_872]);

        let mut opened = Image::open(&image, &writable()).unwrap();
        opened.apply_snapshot("whole").unwrap();
        assert_eq!(opened.len(), LEN as u64);
        drop(opened);
        check(&image);
        assert_contents(&image, &bytes);

        let mut opened = Image::open(&image, &writable()).unwrap();
        opened.resize(1_039_872).unwrap();
        opened.delete_all_snapshots().unwrap();
        drop(opened);
        check(&image);
        let file = std::fs::read(&image).unwrap();
        assert!(!file.windows(secret.len()).any(|window| window == secret));
    }
}

#[test]
fn a_data_file_is_as_long_as_its_disk() {
    if oracle_missing("a_data_file_is_as_long_as_its_disk") {
        return;
    }
    let dir = temp_dir();
    let (raw, image, data) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"), dir.path().join("data"));
    let original = disk(LEN, 97);
    std::fs::write(&raw, &original).unwrap();
    let create = format!("data_file={}", path(&data));
    let open = || Image::open(&image, &writable().data_file(qcow2::DataFile::Within(Vec::new()))).unwrap();
    for (number, options) in
        ["", ",data_file_raw=on", ",extended_l2=on", ",cluster_size=4k", ",backed"].into_iter().enumerate()
    {
        println!("{options}");
        let _ = std::fs::remove_file(&data);
        let create = format!("{create}{}", options.trim_end_matches(",backed"));
        let mut model = original.clone();
        if options == ",backed" {
            let create =
                ["create", "-q", "-f", "qcow2", "-o", &create, "-b", path(&raw), "-F", "raw", path(&image), "2M"];
            run("qemu-img", &create);
            model.truncate(2 << 20);
        } else {
            run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", &create, path(&raw), path(&image)]);
        }
        let mut random = Random(101 + number as u64);
        for step in 0..8 {
            let len = match step {
                0 => 4 << 20,
                1 => (1 << 20) + 512,
                2 => 2 << 20,
                _ => random.below(5 << 20) as usize / 512 * 512 + 512,
            };
            let mut opened = open();
            opened.resize(len as u64).unwrap();
            model.resize(len, 0);
            assert!(read_vec(&opened, 0, len as u64).unwrap() == model, "step {step}");
            drop(opened);
            check(&image);
            assert_contents(&image, &model);
            let held = std::fs::read(&data).unwrap();
            assert_eq!(held.len(), len);
            assert!(options != ",data_file_raw=on" || held == model, "step {step}: the data file is no raw image");
            let opened = open();
            let at = random.below(len as u64) as usize;
            let bytes = random.bytes((len - at).min(100_000));
            opened.write_at(at as u64, &bytes).unwrap();
            model[at..at + bytes.len()].copy_from_slice(&bytes);
            opened.close().unwrap();
            assert_contents(&image, &model);
        }
    }
    // One that is not opened is not cut off, and the disk stays as it is.
    let closed = writable().data_file(qcow2::DataFile::LeaveClosed);
    assert!(Image::open(&image, &closed).unwrap().resize(512).is_err());
    assert_ne!(open().len(), 512);
}
