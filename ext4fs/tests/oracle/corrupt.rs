//! Images with bytes changed at random: whatever they hold, there is an error or an answer, and soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use block::Memory;
use ext4fs::{Error, FileKind, FileSystem, NewNode, OpenOptions, Ownership, Result};

use crate::common::{has_tool, mke2fs, pattern, scratch};

const OWNER: Ownership = Ownership { mode: 0o600, uid: 0, gid: 0 };

/// A small image with something of everything in it.
fn image(arguments: &str, mebibytes: u64) -> Vec<u8> {
    let folder = scratch();
    let path = mke2fs(folder.path(), arguments, mebibytes, None);
    let device = Arc::new(Memory::from(std::fs::read(path).unwrap()));
    let mut fs = FileSystem::open(device.clone(), &OpenOptions::default()).unwrap();
    fs.create_dir_all(b"/a/b").unwrap();
    let root = fs.root();
    let file = fs.create(root, b"pieces", NewNode::File, OWNER).unwrap();
    for n in 0..120 {
        fs.write_at(file, n * 2048, &pattern(1024, n as u32)).unwrap();
    }
    fs.write_at(file, 700_000, b"far").unwrap();
    for n in 0..60 {
        fs.write(format!("/a/file number {n} with a long name").as_bytes(), b"x").unwrap();
    }
    fs.symlink(&[b't'; 100], b"/long").unwrap();
    fs.symlink(b"a/b", b"/short").unwrap();
    fs.set_xattr(file, b"user.large", &pattern(600, 1)).unwrap();
    fs.set_xattr(file, b"user.small", b"small").unwrap();
    fs.flush().unwrap();
    device.to_vec()
}

/// Looks at everything, as far as it goes.
fn walk(fs: &FileSystem) -> Result<()> {
    let _ = fs.check();
    let mut pending = vec![(fs.root(), 0)];
    let mut budget = 2000;
    let mut bytes = vec![0; 1 << 16];
    while let Some((directory, depth)) = pending.pop() {
        for entry in fs.read_dir(directory).unwrap_or_default() {
            budget -= 1;
            if budget == 0 || depth > 20 {
                return Ok(());
            }
            let _ = fs.metadata(entry.inode);
            let _ = fs.lookup(directory, &entry.name);
            for name in fs.xattr_names(entry.inode).unwrap_or_default() {
                let _ = fs.xattr(entry.inode, &name);
            }
            let _ = fs.read_link(entry.inode);
            for offset in [0, 100_000, 690_000, 1 << 33, 1 << 45] {
                let _ = fs.read_at(entry.inode, offset, &mut bytes);
            }
            if entry.kind == FileKind::Directory {
                pending.push((entry.inode, depth + 1));
            }
        }
    }
    Ok(())
}

/// Changes a few things, as far as it goes.
fn change(fs: &mut FileSystem) -> Result<()> {
    let root = fs.root();
    let kept = |result: Result<()>| match result {
        Err(error @ (Error::Poisoned | Error::ReadOnly(_))) => Err(error),
        _ => Ok(()),
    };
    kept(fs.write(b"/a/new", &pattern(50_000, 1)))?;
    kept(fs.create_dir_all(b"/a/b/c/d"))?;
    if let Ok(Some(file)) = fs.lookup(root, b"pieces") {
        kept(fs.write_at(file, 3000, &pattern(9000, 2)))?;
        kept(fs.set_xattr(file, b"user.other", &pattern(200, 2)))?;
        kept(fs.set_len(file, 5000))?;
    }
    kept(fs.rename_path(b"/a/b", b"/moved"))?;
    kept(fs.remove_file(b"/long"))?;
    kept(fs.remove_dir_all(b"/a"))?;
    kept(fs.remove_file(b"/pieces"))?;
    fs.flush()
}

fn damage(arguments: &str, mebibytes: u64, rounds: u32) {
    let image = image(arguments, mebibytes);
    let used: Vec<usize> = (0..image.len()).filter(|n| image[*n] != 0).collect();
    let mut state = 0x1234_5678_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut opened = 0;
    for round in 0..rounds {
        let mut bytes = image.clone();
        let count = 1 + random(4);
        let changed: Vec<(usize, u8)> = (0..count)
            .map(|_| {
                // Mostly where something is; metadata has more small numbers than file contents have.
                let near = used[random(used.len())];
                let at = if random(4) == 0 { near.saturating_sub(random(16)) } else { near };
                let value = match random(5) {
                    0 => 0xFF,
                    1 => 0,
                    2 => bytes[at] ^ 1 << random(8),
                    3 => bytes[at].wrapping_add(1),
                    _ => random(256) as u8,
                };
                bytes[at] = value;
                (at, value)
            })
            .collect();
        let started = Instant::now();
        let device = Arc::new(Memory::from(bytes));
        if let Ok(mut fs) = FileSystem::open(device, &OpenOptions::default()) {
            opened += 1;
            let _ = walk(&fs);
            let _ = change(&mut fs);
            let _ = walk(&fs);
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{arguments}, round {round}, {changed:x?}: {took:?}");
    }
    assert!(opened > rounds / 3, "{arguments}: only {opened} of {rounds} could be opened at all");
}

#[test]
fn damaged_images_make_errors_not_panics() {
    if !has_tool("damage", "mke2fs") {
        return;
    }
    for (arguments, mebibytes, rounds) in [
        ("-t ext4 -b 1024 -O ^metadata_csum,^has_journal", 2, 1500),
        ("-t ext4 -b 1024 -O ^has_journal", 2, 500),
        ("-t ext2 -b 1024", 2, 1500),
        ("-t ext4 -b 1024 -O ^metadata_csum -J size=1", 8, 300),
    ] {
        damage(arguments, mebibytes, rounds);
    }
}

#[test]
fn every_byte_of_the_superblock_may_be_anything() {
    if !has_tool("superblock", "mke2fs") {
        return;
    }
    let image = image("-t ext2 -b 1024", 2);
    for at in 0..1024 {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = image.clone();
            bytes[1024 + at] = value;
            if let Ok(mut fs) = FileSystem::open(Arc::new(Memory::from(bytes)), &OpenOptions::default()) {
                let _ = walk(&fs);
                let _ = fs.write(b"/file", b"contents");
                let _ = fs.remove_file(b"/pieces");
                let _ = fs.flush();
            }
        }
    }
}

#[test]
fn images_that_were_cut_short_make_errors_not_panics() {
    if !has_tool("cut images", "mke2fs") {
        return;
    }
    for (arguments, mebibytes) in [("-t ext4 -b 1024 -O ^has_journal", 2), ("-t ext3 -b 1024 -J size=1", 4)] {
        let image = image(arguments, mebibytes);
        for cut in (0..64).map(|n| n * image.len() / 64).chain([1023, 1024, 2047, 2048, 3000, 5000]) {
            let device = Arc::new(Memory::from(image[..cut].to_vec()));
            let opened = FileSystem::open(device.clone(), &OpenOptions::default());
            assert!(matches!(opened, Err(Error::Corrupt(_))), "{arguments}, cut to {cut}");
            assert!(device.to_vec() == image[..cut], "{arguments}, cut to {cut}: what cannot be opened is not written");
        }
    }
}
