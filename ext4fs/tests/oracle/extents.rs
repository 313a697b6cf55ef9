//! Files in thousands of pieces: deep extent trees and block maps, unwritten extents.

use std::process::Command;

use ext4fs::{FileSystem, NewNode, OpenOptions, Ownership};

use crate::common::{check, debugfs, has_tool, mke2fs, open, pattern, scratch};

const OWNER: Ownership = Ownership { mode: 0o600, uid: 0, gid: 0 };

const LAYOUTS: &[(&str, u64)] = &[
    ("-t ext4 -b 1024", 1024),
    ("-t ext4 -b 4096", 4096),
    ("-t ext4 -b 1024 -O ^metadata_csum", 1024),
    ("-t ext4 -b 1024 -C 4096 -O bigalloc", 1024),
    ("-t ext4 -b 4096 -C 65536 -O bigalloc,^metadata_csum", 4096),
    ("-t ext3 -b 1024", 1024),
    ("-t ext2 -b 4096", 4096),
];

/// The numbers below `count`, in an order that jumps about.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    let step = 1_000_003 % count;
    (0..count).map(move |n| n * step % count)
}

#[test]
fn thousands_of_extents_grow_and_shrink() {
    if !has_tool("extents", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (arguments, size) in LAYOUTS {
        for order in ["up", "down", "about"] {
            let what = format!("{arguments}, {order}");
            let path = mke2fs(folder.path(), arguments, 40, None);
            let (device, mut fs) = open(&path);
            let free = fs.statfs().free_blocks;
            let root = fs.root();
            let file = fs.create(root, b"file", NewNode::File, OWNER).unwrap();
            const PIECES: u64 = 2003;
            let mut expected = vec![0; (PIECES * 2 * size) as usize];
            let numbers: Vec<u64> = match order {
                "up" => (0..PIECES).collect(),
                "down" => (0..PIECES).rev().collect(),
                _ => shuffled(PIECES).collect(),
            };
            for n in &numbers {
                let data = pattern(*size as usize, *n as u32);
                let at = n * 2 * size;
                fs.write_at(file, at, &data).unwrap();
                expected[at as usize..][..data.len()].copy_from_slice(&data);
            }
            let len = (PIECES * 2 - 1) * size;
            expected.truncate(len as usize);
            assert!(fs.read(b"/file").unwrap() == expected, "{what}");
            check(&mut fs, &device, &path, &what);
            assert!(debugfs(&path, "cat /file") == expected, "{what}");
            // Fill some of the holes, so that pieces join.
            for n in shuffled(PIECES).filter(|n| n % 3 == 0 && *n < PIECES - 1) {
                let data = pattern(*size as usize, n as u32 + 5000);
                let at = (n * 2 + 1) * size;
                fs.write_at(file, at, &data).unwrap();
                expected[at as usize..][..data.len()].copy_from_slice(&data);
            }
            assert!(fs.read(b"/file").unwrap() == expected, "{what}");
            check(&mut fs, &device, &path, &what);
            for part in [0.9, 0.31, 0.3, 0.05, 0.001] {
                let cut = (len as f64 * part) as u64;
                fs.set_len(file, cut).unwrap();
                expected.truncate(cut as usize);
                assert!(fs.read(b"/file").unwrap() == expected, "{what}");
                check(&mut fs, &device, &path, &format!("{what}, cut to {cut}"));
            }
            fs.write_at(file, len, b"the end").unwrap();
            check(&mut fs, &device, &path, &what);
            fs.unlink(root, b"file").unwrap();
            assert_eq!(fs.statfs().free_blocks, free);
            check(&mut fs, &device, &path, &what);
        }
    }
}

#[test]
fn two_files_that_grow_in_turns() {
    if !has_tool("turns", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (arguments, size) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 40, None);
        let (device, mut fs) = open(&path);
        let root = fs.root();
        let files = [b"a", b"b"].map(|name| fs.create(root, name, NewNode::File, OWNER).unwrap());
        for n in 0..1500u64 {
            fs.write_at(files[(n % 2) as usize], n / 2 * size, &pattern(*size as usize, n as u32)).unwrap();
        }
        check(&mut fs, &device, &path, arguments);
        fs.unlink(root, b"a").unwrap();
        check(&mut fs, &device, &path, arguments);
        // What is left free is in pieces, and this file takes them all.
        let len = fs.statfs().free_blocks * 9 / 10 * size;
        let file = fs.create(root, b"c", NewNode::File, OWNER).unwrap();
        fs.write_at(file, 0, &vec![7; len as usize]).unwrap();
        check(&mut fs, &device, &path, arguments);
    }
}

#[test]
fn writing_into_unwritten_extents() {
    if !has_tool("unwritten", "debugfs") {
        return;
    }
    let folder = scratch();
    for arguments in ["-t ext4 -b 1024", "-t ext4 -b 4096"] {
        let path = mke2fs(folder.path(), arguments, 40, None);
        let (device, mut fs) = open(&path);
        let root = fs.root();
        let file = fs.create(root, b"file", NewNode::File, OWNER).unwrap();
        fs.set_len(file, 5_000_000).unwrap();
        check(&mut fs, &device, &path, arguments);
        let made = Command::new("debugfs").args(["-w", "-R", "fallocate /file 2 1200"]).arg(&path).output().unwrap();
        assert!(made.status.success());
        let device = std::sync::Arc::new(block::Memory::from(std::fs::read(&path).unwrap()));
        let mut fs = FileSystem::open(device.clone(), &OpenOptions::default()).unwrap();
        let before = fs.metadata(file).unwrap().sectors;
        assert!(before > 2000, "{before} sectors");
        let mut expected = vec![0; 5_000_000];
        assert!(fs.read(b"/file").unwrap() == expected);
        for n in 0..300u64 {
            let (at, len) = (n * 7919 % 1000 * 1100 + 2100, 1 + n * 37 % 3000);
            let data = pattern(len as usize, n as u32);
            fs.write_at(file, at, &data).unwrap();
            expected[at as usize..][..data.len()].copy_from_slice(&data);
            assert!(n % 50 != 0 || fs.read(b"/file").unwrap() == expected);
        }
        assert!(fs.read(b"/file").unwrap() == expected);
        check(&mut fs, &device, &path, arguments);
        assert!(debugfs(&path, "cat /file") == expected);
        fs.set_len(file, 400_001).unwrap();
        check(&mut fs, &device, &path, arguments);
        fs.unlink(root, b"file").unwrap();
        check(&mut fs, &device, &path, arguments);
    }
}
