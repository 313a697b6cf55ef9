//! Images that we change, in place and in transactions, judged by qemu-img.

use std::path::Path;

use crate::oracle::{Random, assert_contents, check, disk, oracle_missing, path, run, temp_dir};
use block::{WriteAt, read_vec};
use qcow2::{Backing, Image, OpenOptions};

const LEN: usize = 3 << 20;

/// Changes a device and a model of it in the same random way.
fn change(device: &dyn WriteAt, model: &mut [u8], random: &mut Random, steps: usize) {
    for _ in 0..steps {
        let offset = random.below(model.len() as u64) as usize;
        let limit = if random.below(4) == 0 { 400_000 } else { 9_000 };
        let len = (1 + random.below(limit) as usize).min(model.len() - offset);
        match random.below(5) {
            0 => {
                device.discard(offset as u64, len as u64).unwrap();
                model[offset..offset + len].fill(0);
            }
            1 => {
                device.write_zeroes(offset as u64, len as u64).unwrap();
                model[offset..offset + len].fill(0);
            }
            _ => {
                let bytes = random.bytes(len);
                device.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
            }
        }
    }
    assert!(read_vec(device, 0, device.len()).unwrap() == model);
}

/// Makes the kinds of image that are to be changed; the callback gets each with what it holds.
fn for_each_image(dir: &Path, mut with: impl FnMut(&str, &Path, Vec<u8>)) {
    let raw = dir.join("disk.raw");
    let bytes = disk(LEN, 11);
    std::fs::write(&raw, &bytes).unwrap();
    let kinds: &[(&str, &[&str])] = &[
        ("plain", &[]),
        ("version 2", &["-o", "compat=0.10"]),
        ("512-byte clusters", &["-o", "cluster_size=512"]),
        ("4 KiB clusters", &["-o", "cluster_size=4k"]),
        ("2 MiB clusters", &["-o", "cluster_size=2M"]),
        ("1-bit refcounts", &["-o", "refcount_bits=1"]),
        ("64-bit refcounts, 512-byte clusters", &["-o", "refcount_bits=64,cluster_size=512"]),
        ("zlib", &["-c"]),
        ("zlib, 4 KiB clusters", &["-c", "-o", "cluster_size=4k"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("not sparse", &["-S", "0"]),
        ("extended L2", &["-o", "extended_l2=on"]),
        ("extended L2, 16 KiB clusters", &["-o", "extended_l2=on,cluster_size=16k"]),
        ("extended L2, 2 MiB clusters", &["-o", "extended_l2=on,cluster_size=2M"]),
        ("extended L2, zlib", &["-c", "-o", "extended_l2=on"]),
    ];
    for (name, options) in kinds {
        let image = dir.join("disk.qcow2");
        let args = [&["convert", "-f", "raw", "-O", "qcow2"], *options, &[path(&raw), path(&image)]].concat();
        run("qemu-img", &args);
        with(name, &image, bytes.clone());
    }
    for (name, options) in [
        ("backed", "compat=1.1"),
        ("backed, version 2", "compat=0.10"),
        ("backed, extended L2", "extended_l2=on"),
        ("backed, extended L2, 16 KiB clusters", "extended_l2=on,cluster_size=16k"),
    ] {
        let image = dir.join("disk.qcow2");
        run("qemu-img", &["create", "-f", "qcow2", "-o", options, "-b", "disk.raw", "-F", "raw", path(&image)]);
        let mut bytes = bytes.clone();
        if options.contains("extended_l2") {
            crate::oracle::change_by_qemu(&image, &mut bytes, &mut Random(13), 60);
        }
        with(name, &image, bytes);
    }
}

fn writable() -> OpenOptions {
    OpenOptions::new().writable(true).backing(Backing::Within(Vec::new()))
}

#[test]
fn writes_in_place_are_what_qemu_reads() {
    if oracle_missing("writes_in_place_are_what_qemu_reads") {
        return;
    }
    let dir = temp_dir();
    for_each_image(dir.path(), |name, path, mut model| {
        println!("{name}");
        let mut random = Random(23);
        for _ in 0..2 {
            let image = Image::open(path, &writable()).unwrap();
            change(&image, &mut model, &mut random, 40);
            image.flush().unwrap();
            drop(image);
            check(path);
            assert_contents(path, &model);
        }
    });
}

#[test]
fn transactions_are_what_qemu_reads() {
    if oracle_missing("transactions_are_what_qemu_reads") {
        return;
    }
    let dir = temp_dir();
    for_each_image(dir.path(), |name, path, mut model| {
        println!("{name}");
        let mut random = Random(29);
        for memory in [64 << 20, 200_000, 0] {
            let before = std::fs::read(path).unwrap();
            let dropped = Image::open(path, &writable()).unwrap().begin().unwrap();
            change(&dropped, &mut model.clone(), &mut random, 30);
            drop(dropped);
            assert!(std::fs::read(path).unwrap() == before, "a dropped transaction changed the file");

            let transaction = Image::open(path, &writable()).unwrap().begin().unwrap().memory_limit(memory);
            change(&transaction, &mut model, &mut random, 30);
            assert!(transaction.commit().unwrap().changed);
            assert!(read_vec(transaction.image(), 0, LEN as u64).unwrap() == model);
            drop(transaction);
            check(path);
            assert_contents(path, &model);
        }
        // Writing what is there changes nothing, down to the file's bytes.
        let before = std::fs::read(path).unwrap();
        let transaction = Image::open(path, &writable()).unwrap().begin().unwrap();
        transaction.write_at(0, &model).unwrap();
        assert!(!transaction.commit().unwrap().changed);
        drop(transaction);
        assert!(std::fs::read(path).unwrap() == before);
    });
}

#[test]
fn what_a_transaction_removes_is_gone_from_the_file() {
    if oracle_missing("what_a_transaction_removes_is_gone_from_the_file") {
        return;
    }
    let dir = temp_dir();
    let raw = dir.path().join("disk.raw");
    let mut bytes = disk(LEN, 31);
    let secret = b"THE-SECRET-THAT-MUST-GO-0123456789";
    let at: Vec<usize> = (0..20).map(|i| 50_000 + i * 140_000).collect();
    for &at in &at {
        bytes[at..at + secret.len()].copy_from_slice(secret);
    }
    std::fs::write(&raw, &bytes).unwrap();
    for options in [&[][..], &["-c", "-o", "cluster_size=4k"], &["-c"], &["-o", "cluster_size=2M"]] {
        let image = dir.path().join("disk.qcow2");
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], options, &[path(&raw), path(&image)]].concat());
        let transaction = Image::open(&image, &writable()).unwrap().begin().unwrap();
        let mut model = bytes.clone();
        for &at in &at {
            transaction.discard(at as u64, secret.len() as u64).unwrap();
            model[at..at + secret.len()].fill(0);
        }
        transaction.commit().unwrap();
        drop(transaction);
        check(&image);
        assert_contents(&image, &model);
        let file = std::fs::read(&image).unwrap();
        assert!(!file.windows(secret.len()).any(|window| window == secret), "{options:?}");
    }
}

#[test]
fn snapshots_keep_what_they_hold_until_they_are_deleted() {
    if oracle_missing("snapshots_keep_what_they_hold_until_they_are_deleted") {
        return;
    }
    let dir = temp_dir();
    for_each_image(dir.path(), |name, image, mut model| {
        if name.starts_with("1-bit") {
            return; // such refcounts allow no snapshots
        }
        println!("{name}");
        let old = model.clone();
        run("qemu-img", &["snapshot", "-c", "before", path(image)]);
        let mut random = Random(37);
        let transaction = Image::open(image, &writable()).unwrap().begin().unwrap();
        assert_eq!(transaction.image().info().unwrap().snapshots[0].name, "before");
        change(&transaction, &mut model, &mut random, 20);
        transaction.commit().unwrap();
        drop(transaction);
        check(image);
        assert_contents(image, &model);
        let contents = image.with_extension("snapshot");
        run("qemu-img", &["convert", "-l", "snapshot.name=before", "-O", "raw", path(image), path(&contents)]);
        assert!(std::fs::read(&contents).unwrap() == old);

        let opened = Image::open(image, &writable()).unwrap();
        change(&opened, &mut model, &mut random, 20);
        drop(opened);
        check(image);
        assert_contents(image, &model);

        let transaction = Image::open(image, &writable()).unwrap().begin().unwrap();
        transaction.delete_snapshots();
        change(&transaction, &mut model, &mut random, 3);
        transaction.commit().unwrap();
        drop(transaction);
        check(image);
        assert_contents(image, &model);
        assert!(Image::open(image, &writable()).unwrap().info().unwrap().snapshots.is_empty());
    });
}

#[test]
fn leaks_dirty_bits_and_bitmaps_are_put_right_by_a_commit() {
    if oracle_missing("leaks_dirty_bits_and_bitmaps_are_put_right_by_a_commit") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let mut model = disk(LEN, 41);
    std::fs::write(&raw, &model).unwrap();
    let convert = |options: &[&str]| {
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], options, &[path(&raw), path(&image)]].concat());
    };
    // Refcounts put off, and a crash.
    convert(&["-o", "lazy_refcounts=on"]);
    let crash = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 9 1M 300k", "-c", "flush", "-c", "abort", path(&image)])
        .output()
        .unwrap();
    assert!(!crash.status.success());
    assert!(Image::open(&image, &OpenOptions::new()).unwrap().info().unwrap().dirty_flag);
    model[1 << 20..(1 << 20) + (300 << 10)].fill(9);
    for in_place in [false, true] {
        let copy = dir.path().join("copy.qcow2");
        std::fs::copy(&image, &copy).unwrap();
        let mut model = model.clone();
        let opened = Image::open(&copy, &writable()).unwrap();
        if in_place {
            change(&opened, &mut model, &mut Random(43), 5);
            drop(opened);
        } else {
            let transaction = opened.begin().unwrap();
            change(&transaction, &mut model, &mut Random(43), 5);
            transaction.commit().unwrap();
        }
        check(&copy);
        assert_contents(&copy, &model);
        assert!(!Image::open(&copy, &OpenOptions::new()).unwrap().info().unwrap().dirty_flag);
    }

    // A bitmap no longer describes the contents.
    convert(&[]);
    let mut model = std::fs::read(&raw).unwrap();
    run("qemu-img", &["bitmap", "--add", "-f", "qcow2", path(&image), "backup"]);
    let transaction = Image::open(&image, &writable()).unwrap().begin().unwrap();
    change(&transaction, &mut model, &mut Random(47), 5);
    assert_eq!(transaction.commit().unwrap().bitmaps_dropped, 1);
    drop(transaction);
    check(&image);
    assert_contents(&image, &model);

    // A leaked cluster is given back, though nothing else changes.
    convert(&[]);
    let mut bytes = std::fs::read(&image).unwrap();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap()) as usize;
    let block = u64::from_be_bytes(bytes[table..table + 8].try_into().unwrap()) as usize;
    let leaked = bytes.len() / 65_536;
    bytes.resize((leaked + 1) * 65_536, 0x5a);
    bytes[block + leaked * 2 + 1] = 1;
    std::fs::write(&image, &bytes).unwrap();
    let transaction = Image::open(&image, &writable()).unwrap().begin().unwrap();
    assert!(transaction.commit().unwrap().changed);
    drop(transaction);
    check(&image);
    assert!(std::fs::metadata(&image).unwrap().len() <= (leaked as u64 + 4) * 65_536);
}

#[test]
fn an_image_with_a_cluster_that_is_used_and_called_free_is_refused() {
    let storage = block::Memory::new(0);
    qcow2::create(&storage, &block::Memory::from(disk(LEN, 53)), &qcow2::CreateOptions::new(), &mut |_| {}).unwrap();
    let mut bytes = storage.to_vec();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap()) as usize;
    let block = u64::from_be_bytes(bytes[table..table + 8].try_into().unwrap()) as usize;
    bytes[block + 2 * 3 + 1] = 0;
    let image = Image::open_storage(std::sync::Arc::new(block::Memory::from(bytes)), &writable()).unwrap();
    let error = image.begin().unwrap_err();
    assert_eq!(
        error.to_string(),
        "corrupt refcount at offset 0x30000: a cluster used 1 times must have that refcount, found 0"
    );
}
