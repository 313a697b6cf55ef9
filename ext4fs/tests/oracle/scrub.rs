//! Scrubbing: what is not in use reads as zeros, what is in use stays, and a second time there is nothing to do.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::{Access, HostFile, Memory, Trace};
use ext4fs::{Error, FileKind, FileSystem, NewNode, OpenOptions, Ownership, ScrubReport};

use crate::common::{LAYOUTS, NOW, check, e2fsck, has_tool, mke2fs, open, pattern, scratch, walk, with_kernel_mount};

const OWNER: Ownership = Ownership { mode: 0o600, uid: 1, gid: 2 };
/// What all that is planted holds, and nothing else does.
const PLANT: &[u8] = b"PLANTED";

/// An image whose every byte was written before mke2fs made the file system on it, as on a disk that was used before.
fn used_disk(folder: &Path, arguments: &str) -> PathBuf {
    let path = folder.join("image");
    std::fs::write(&path, PLANT.repeat((48 << 20) / PLANT.len() + 1).split_at(48 << 20).0).unwrap();
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"])
        .args(arguments.split(' '))
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr));
    path
}

fn count(bytes: &[u8], text: &[u8]) -> usize {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == text[0]);
    starts.filter(|(at, _)| bytes[*at..].starts_with(text)).count()
}

/// The blocks that dumpe2fs lists as free, and the size of one.
fn free_blocks(path: &Path) -> (Vec<std::ops::RangeInclusive<usize>>, usize) {
    let output = Command::new("dumpe2fs").arg(path).env("LC_ALL", "C").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let size = text.lines().find_map(|line| line.strip_prefix("Block size:")).unwrap().trim().parse().unwrap();
    let mut free = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("  Free blocks: ")) {
        for range in line.split(", ").filter(|range| !range.is_empty()) {
            let (start, end) = range.split_once('-').unwrap_or((range, range));
            free.push(start.parse().unwrap()..=end.parse().unwrap());
        }
    }
    (free, size)
}

/// Checks that all free blocks are zeros.
fn check_free_blocks(path: &Path, what: &str) {
    let bytes = std::fs::read(path).unwrap();
    let (free, size) = free_blocks(path);
    assert!(!free.is_empty(), "{what}: dumpe2fs lists no free blocks");
    for block in free.into_iter().flatten() {
        assert!(bytes[block * size..(block + 1) * size].iter().all(|byte| *byte == 0), "{what}: block {block}");
    }
}

/// Scrubs again and checks that there is nothing to do.
fn check_idle(bytes: Vec<u8>, what: &str) {
    let device = Arc::new(Trace::new(Memory::from(bytes)));
    let mut fs = FileSystem::open(device.clone(), &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
    assert_eq!(fs.scrub().unwrap(), ScrubReport::default(), "{what}");
    fs.flush().unwrap();
    assert!(device.events().is_empty(), "{what}: {:?}", device.events().len());
}

#[test]
fn used_disks_become_clean_on_each_layout() {
    if !has_tool("scrub", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (name, arguments) in LAYOUTS {
        let path = used_disk(folder.path(), arguments);
        let (device, mut fs) = open(&path);
        fs.create_dir(b"/d").unwrap();
        for n in 0..300_usize {
            let text = [PLANT, format!("-gone-{n}").as_bytes()].concat();
            fs.write(&[b"/d/", text.as_slice()].concat(), &text.repeat(n)).unwrap();
            fs.write(format!("/d/kept-{n}").as_bytes(), &pattern(n * 50, n as u32)).unwrap();
        }
        fs.symlink(&[b'L'; 80], b"/long").unwrap();
        fs.symlink(b"short", b"/short").unwrap();
        let file = fs.resolve(b"/d/kept-7").unwrap();
        if !arguments.contains("-r 0") {
            fs.set_xattr(file, b"user.kept", &pattern(600, 3)).unwrap();
        }
        for n in 0..300 {
            fs.remove_file(format!("/d/PLANTED-gone-{n}").as_bytes()).unwrap();
        }
        let before = walk(&fs);
        let report = fs.scrub().unwrap();
        assert!(report.unused_blocks > 30 << 20, "{name}: {report:?}");
        assert_eq!(walk(&fs), before, "{name}");
        check(&mut fs, &device, &path, name);
        check_free_blocks(&path, name);
        let bytes = device.to_vec();
        // Left is the boot block at most.
        let left = count(&bytes, PLANT) * PLANT.len();
        assert!(left <= 1 << 10, "{name}: {left} bytes");
        check_idle(bytes, name);
        // What was scrubbed can still be written.
        fs.write(b"/d/new", &pattern(500_000, 1)).unwrap();
        for n in 0..200 {
            fs.write(format!("/d/new-{n}").as_bytes(), b"new").unwrap();
        }
        check(&mut fs, &device, &path, name);
    }
}

#[test]
fn what_the_kernel_deleted_is_gone() {
    const TEST: &str = "scrub after the kernel";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024 -O ^64bit",
        "-t ext4 -b 1024 -O ^metadata_csum",
        "-t ext4 -b 4096 -O orphan_file",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024",
    ] {
        let path = used_disk(folder.path(), arguments);
        let mut mounted = false;
        with_kernel_mount(TEST, &path, "rw", |point| {
            for directory in ["gone", "mixed"] {
                let directory = point.join(directory);
                std::fs::create_dir(&directory).unwrap();
                for n in 0..250_usize {
                    let target = "PLANTED".repeat(if n % 2 == 0 { 3 } else { 30 });
                    std::os::unix::fs::symlink(target, directory.join(format!("PLANTED-link-{n}"))).unwrap();
                    let file = directory.join(format!("PLANTED-file-{n}"));
                    std::fs::write(&file, PLANT.repeat(n * 30)).unwrap();
                }
            }
            std::fs::write(point.join("kept"), pattern(100_000, 9)).unwrap();
            // Blocks set aside keep what was in them, though they read as zeros.
            let _ = Command::new("fallocate").args(["-l", "2M"]).arg(point.join("set aside")).output();
            let synced = Command::new("sync").arg("-f").arg(point).status().unwrap();
            assert!(synced.success());
            std::fs::remove_dir_all(point.join("gone")).unwrap();
            for n in 0..250 {
                std::fs::remove_file(point.join(format!("mixed/PLANTED-link-{n}"))).unwrap();
                std::fs::remove_file(point.join(format!("mixed/PLANTED-file-{n}"))).unwrap();
                std::fs::write(point.join(format!("mixed/{n}")), b"kept").unwrap();
            }
            mounted = true;
        });
        if !mounted {
            return;
        }
        let (device, mut fs) = open(&path);
        let before = walk(&fs);
        assert_eq!(before.len(), 254, "{arguments}");
        assert!(count(&device.to_vec(), b"PLANTED-file-") > 0, "{arguments}");
        let report = fs.scrub().unwrap();
        assert!(report.inodes > 0, "{arguments}: {report:?}");
        assert_eq!(walk(&fs), before, "{arguments}");
        check(&mut fs, &device, &path, arguments);
        check_free_blocks(&path, arguments);
        let bytes = device.to_vec();
        assert_eq!(count(&bytes, b"PLANTED-"), 0, "{arguments}");
        assert!(count(&bytes, PLANT) * PLANT.len() <= 1 << 10, "{arguments}");
        check_idle(bytes, arguments);
        // The kernel finds all as it was, and can go on.
        with_kernel_mount(TEST, &path, "rw", |point| {
            assert_eq!(std::fs::read(point.join("kept")).unwrap(), pattern(100_000, 9));
            std::fs::remove_dir_all(point.join("mixed")).unwrap();
            std::fs::write(point.join("new"), pattern(3_000_000, 4)).unwrap();
        });
        e2fsck(&path, arguments);
    }
}

#[test]
fn space_is_given_back_to_the_host() {
    const TEST: &str = "scrub gives back";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = used_disk(folder.path(), "-t ext4 -b 4096");
    let scrub = || {
        let device = Arc::new(HostFile::open(&path, Access::ReadWrite).unwrap());
        let mut fs = FileSystem::open(device, &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
        let report = fs.scrub().unwrap();
        fs.flush().unwrap();
        (report, path.metadata().unwrap())
    };
    let (report, metadata) = scrub();
    assert!(report.unused_blocks > 30 << 20, "{report:?}");
    e2fsck(&path, TEST);
    let kept = metadata.blocks() * 512;
    assert!(kept < 2 << 20, "{kept} bytes are still stored");
    // Zeros that are stored are given back as well, though they are nothing that was wiped.
    let (free, size) = free_blocks(&path);
    let run = free.iter().max_by_key(|run| run.end() - run.start()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = (run.end() - run.start()) * size;
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; len], (run.start() * size) as u64).unwrap();
    assert!(path.metadata().unwrap().blocks() * 512 > kept + len as u64 / 2);
    let (report, metadata) = scrub();
    assert_eq!(report, ScrubReport::default());
    assert!(metadata.blocks() * 512 <= kept + 65536, "{} bytes are still stored", metadata.blocks() * 512);
}

#[test]
fn images_that_contradict_themselves_are_left_alone() {
    const TEST: &str = "scrub refuses";
    if !has_tool(TEST, "debugfs") {
        return;
    }
    let folder = scratch();
    // A block in use that is marked as free, an inode likewise, and a block with two owners.
    for damage in ["freeb {block}", "freei <{inode}>", "sif <{inode}> block[2] {other}"] {
        let path = used_disk(folder.path(), "-t ext4 -b 1024 -O ^extents,^64bit");
        let (device, mut fs) = open(&path);
        let file = fs.create(fs.root(), b"file", NewNode::File, OWNER).unwrap();
        fs.write_at(file, 0, &pattern(10_000, 1)).unwrap();
        let other = fs.create(fs.root(), b"other", NewNode::File, OWNER).unwrap();
        fs.write_at(other, 0, &pattern(10_000, 2)).unwrap();
        check(&mut fs, &device, &path, TEST);
        let block_of = |inode| {
            let said = crate::common::debugfs(&path, &format!("bmap <{inode}> 3"));
            String::from_utf8_lossy(&said).trim().to_owned()
        };
        let request = damage
            .replace("{block}", &block_of(file))
            .replace("{other}", &block_of(other))
            .replace("{inode}", &file.to_string());
        let damaged = Command::new("debugfs").args(["-w", "-R", &request]).arg(&path).output().unwrap();
        assert!(damaged.status.success());
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes != device.to_vec(), "{request} changed nothing");
        let device = Arc::new(Memory::from(bytes.clone()));
        let mut fs = FileSystem::open(device.clone(), &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
        let refused = fs.scrub();
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{request}: {refused:?}");
        fs.flush().unwrap();
        assert!(device.to_vec() == bytes, "{request}: written though refused");
    }
    // And a file system that is only read.
    let path = used_disk(folder.path(), "-t ext4 -b 1024");
    let device = Arc::new(Memory::from(std::fs::read(&path).unwrap()));
    let mut fs = FileSystem::open(device, &OpenOptions { read_only: true, clock: None }).unwrap();
    assert!(matches!(fs.scrub(), Err(Error::ReadOnly(_))));
}

/// All that can be read, as far as it goes: each path with its contents, or with what is wrong.
fn readable(fs: &FileSystem) -> Vec<(Vec<u8>, String, Vec<u8>)> {
    let (mut found, mut pending) = (Vec::new(), vec![(Vec::new(), fs.root(), 0)]);
    while let Some((path, directory, depth)) = pending.pop() {
        for entry in fs.read_dir(directory).unwrap_or_default() {
            let path = [path.as_slice(), b"/", &entry.name].concat();
            let mut bytes = vec![0; 50_000];
            let read = fs.read_at(entry.inode, 0, &mut bytes);
            let told = (fs.metadata(entry.inode), &read, fs.read_link(entry.inode), fs.xattr_names(entry.inode));
            let told = format!("{told:?}");
            bytes.truncate(read.unwrap_or(0));
            if entry.kind == FileKind::Directory && depth < 8 && found.len() < 2000 {
                pending.push((path.clone(), entry.inode, depth + 1));
            }
            found.push((path, told, bytes));
        }
    }
    found
}

#[test]
fn damaged_images_keep_what_can_be_read() {
    const TEST: &str = "scrub of damaged images";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for (arguments, mebibytes, rounds) in [
        ("-t ext4 -b 1024 -O ^metadata_csum,^has_journal", 2, 600),
        ("-t ext4 -b 1024 -O ^has_journal", 2, 200),
        ("-t ext2 -b 1024", 2, 600),
        ("-t ext2 -b 1024 -g 1024", 4, 300),
    ] {
        let path = mke2fs(folder.path(), arguments, mebibytes, None);
        let (device, mut fs) = open(&path);
        fs.create_dir_all(b"/a/b").unwrap();
        for n in 0..40_usize {
            fs.write(format!("/a/file {n}").as_bytes(), &pattern(n, n as u32)).unwrap();
            fs.write(format!("/a/b/gone {n}").as_bytes(), &pattern(n, n as u32)).unwrap();
        }
        for n in 0..40 {
            fs.remove_file(format!("/a/b/gone {n}").as_bytes()).unwrap();
        }
        fs.symlink(&[b't'; 100], b"/long").unwrap();
        fs.symlink(b"a/b", b"/short").unwrap();
        fs.set_xattr(fs.resolve(b"/a/file 1").unwrap(), b"user.large", &pattern(600, 1)).unwrap();
        fs.flush().unwrap();
        let image = device.to_vec();
        let used: Vec<usize> = (1024..image.len()).filter(|at| ![0, 0xff].contains(&image[*at])).collect();
        let (mut scrubbed, mut random) = (0, pattern(rounds * 30, 5).into_iter().map(usize::from));
        let mut next = move |below: usize| {
            let words = [random.next().unwrap(), random.next().unwrap(), random.next().unwrap()];
            (words[0] << 16 | words[1] << 8 | words[2]) % below
        };
        for round in 0..rounds {
            let mut bytes = image.clone();
            let changed: Vec<usize> = (0..=next(4)).map(|_| used[next(used.len())]).collect();
            for &at in &changed {
                let value = next(1280);
                // Bytes that are numbers go up by one, lose or gain a bit, or become anything.
                bytes[at] = match value >> 8 {
                    0 => bytes[at].wrapping_add(1),
                    1 => bytes[at] ^ 1 << (value & 7),
                    _ => value as u8,
                };
            }
            let device = Arc::new(Memory::from(bytes));
            let options = OpenOptions { read_only: false, clock: Some(NOW) };
            let Ok(mut fs) = FileSystem::open(device.clone(), &options) else { continue };
            let (before, stored) = (readable(&fs), device.to_vec());
            match fs.scrub() {
                Ok(_) => {
                    scrubbed += 1;
                    assert!(readable(&fs) == before, "{arguments}, round {round}: {changed:x?}");
                    fs.flush().unwrap();
                    let again = FileSystem::open(device.clone(), &options).unwrap();
                    assert!(readable(&again) == before, "{arguments}, round {round}: {changed:x?}, opened again");
                    check_idle(device.to_vec(), arguments);
                }
                Err(_) => {
                    let _ = fs.flush();
                    assert!(
                        device.to_vec() == stored,
                        "{arguments}, round {round}: {changed:x?}, written though refused"
                    );
                }
            }
        }
        assert!(
            (rounds / 10..rounds * 9 / 10).contains(&scrubbed),
            "{arguments}: {scrubbed} of {rounds} were scrubbed"
        );
    }
}
