//! File systems that need no mounting: version 4, which kernels no longer mount, and damaged ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;

use block::{Fault, Memory, Overlay, ReadAt, WriteAt};
use proptest::prelude::*;
use xfs::{FileKind, FileSystem, Result};

/// The bytes of a file system that mkfs.xfs filled from a prototype, and the number of its files.
fn prototype(options: &str, count: usize) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let contents = directory.path().join("contents");
    std::fs::write(&contents, "contents of a file\n".repeat(500)).unwrap();
    let mut text = "/dummy\n0 0\nd--755 3 4\n".to_owned();
    for (name, count) in [("few", 5), ("block", 40), ("many", count)] {
        writeln!(text, "{name} d--755 0 0").unwrap();
        for number in 0..count {
            let long = "n".repeat(number % 40);
            writeln!(text, "{number}{long} ---644 {number} 7 {}", contents.display()).unwrap();
        }
        text.push_str("$\n");
    }
    writeln!(text, "link l--777 0 0 few/0\nlong l--777 0 0 {}\nfifo p--600 0 0\n$", "t".repeat(700)).unwrap();
    let (proto, image) = (directory.path().join("proto"), directory.path().join("image"));
    std::fs::write(&proto, text).unwrap();
    std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
    let mut command = Command::new("mkfs.xfs");
    command.env("PATH", format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap()));
    command.args(["-q", "-f", "--unsupported"]).args(options.split_whitespace()).arg("-p").arg(&proto).arg(&image);
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            println!("SKIPPED hostile: mkfs.xfs is not installed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "mkfs.xfs has to be installed in CI");
            return None;
        }
    }
    Some(std::fs::read(image).unwrap())
}

/// Reads everything; what cannot be read is passed over. Returns the number of files, and of errors.
fn walk(fs: &FileSystem) -> (usize, usize) {
    fn note<T>(errors: &mut usize, result: Result<T>) -> Option<T> {
        *errors += usize::from(result.is_err());
        result.ok()
    }
    let (mut files, mut errors, mut visits) = (0, 0, 0);
    let mut pending = vec![fs.root()];
    while let Some(inode) = pending.pop() {
        visits += 1;
        if visits > 20_000 {
            break;
        }
        let Some(metadata) = note(&mut errors, fs.metadata(inode)) else { continue };
        if let Some(names) = note(&mut errors, fs.xattr_names(inode)) {
            for name in names {
                note(&mut errors, fs.xattr(inode, &name));
            }
        }
        match metadata.kind {
            FileKind::Directory => {
                for entry in note(&mut errors, fs.read_dir(inode)).unwrap_or_default() {
                    pending.push(entry.inode);
                }
            }
            FileKind::File => {
                files += 1;
                let mut bytes = vec![0; metadata.size.min(1 << 20) as usize];
                note(&mut errors, fs.read_at(inode, 0, &mut bytes));
                note(&mut errors, fs.read_at(inode, u64::MAX / 2, &mut [0; 100]));
            }
            FileKind::Symlink => drop(note(&mut errors, fs.read_link(inode))),
            _ => {}
        }
    }
    (files, errors)
}

const V4: [&str; 4] = [
    "-m crc=0 -n ftype=0",
    "-m crc=0 -n ftype=1 -i size=256",
    "-m crc=0 -b size=512 -i size=256",
    "-m crc=0 -b size=1024 -n size=4096 -i size=512",
];

#[test]
fn version_4_is_read_and_not_written() {
    for options in V4 {
        let Some(bytes) = prototype(options, 400) else { return };
        let disk = Arc::new(Memory::from(bytes));
        let fs = FileSystem::open(disk, &xfs::OpenOptions::default()).unwrap();
        assert_eq!(fs.read_only_reason(), Some("writing is not supported with version 4 of the format (no checksums)"));
        assert_eq!(walk(&fs), (445, 0), "{options}");
        let many = fs.lookup(fs.root(), b"many").unwrap().unwrap();
        let file = fs.lookup(many, b"77nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn").unwrap().unwrap();
        assert_eq!((fs.metadata(file).unwrap().uid, fs.metadata(file).unwrap().size), (77, 9500));
        let long = fs.lookup(fs.root(), b"long").unwrap().unwrap();
        assert_eq!(fs.read_link(long).unwrap(), [b't'; 700]);
    }
}

/// Puts the checksums of all structures right that are recognised, so that damage is not found by them.
fn put_checksums(bytes: &mut [u8], block: usize) {
    let put = |part: &mut [u8], at: usize| {
        part[at..at + 4].fill(0);
        let sum = crc32c::crc32c(part);
        part[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    };
    for part in bytes.chunks_exact_mut(512) {
        match &part[..4] {
            b"XFSB" => put(part, 224),
            b"XAGF" => put(part, 216),
            b"XAGI" => put(part, 312),
            b"XAFL" => put(part, 32),
            [b'I', b'N', ..] => put(part, 100),
            _ => {}
        }
    }
    for part in bytes.chunks_exact_mut(block) {
        match (&part[..4], &part[8..10]) {
            (b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC", _) => put(part, 52),
            (b"BMA3", _) => put(part, 64),
            (b"XDB3" | b"XDD3" | b"XDF3", _) => put(part, 4),
            (b"XARM" | b"XSLM", _) | (_, [0x3d, 0xf1 | 0xff] | [0x3e, 0xbe] | [0x3b, 0xee]) => put(part, 12),
            _ => {}
        }
    }
}

/// Changes of a damaged file system: whatever they say, they say it.
fn change(disk: Arc<Memory>) {
    let Ok(mut fs) = FileSystem::open(disk, &xfs::OpenOptions::default()) else { return };
    walk(&fs);
    let root = fs.root();
    let owner = xfs::Ownership { mode: 0o644, uid: 1, gid: 2 };
    for entry in fs.read_dir(root).unwrap_or_default() {
        let _ = fs.set_xattr(entry.inode, b"security.selinux", &[b's'; 300]);
        for inner in fs.read_dir(entry.inode).unwrap_or_default().into_iter().take(20) {
            let _ = fs.write_at(inner.inode, 5000, &[1; 9000]);
            let _ = fs.set_len(inner.inode, 77);
            let _ = fs.unlink(entry.inode, &inner.name);
        }
        let _ = fs.create(entry.inode, &[b'n'; 200], xfs::NewNode::Symlink(&[b't'; 900]), owner);
        let _ = fs.rename(root, &entry.name, root, b"renamed");
    }
    let _ = fs.create(root, b"folder", xfs::NewNode::Directory, owner);
    let _ = fs.flush();
    let _ = fs.scrub();
    let _ = fs.flush();
}

#[test]
fn damaged_ones_are_changed_without_harm() {
    for options in ["-b size=1024 -m rmapbt=1,reflink=1 -i size=512", "-m finobt=1 -i nrext64=1"] {
        let Some(bytes) = prototype(options, 60) else { return };
        let block = if options.contains("1024") { 1024 } else { 4096 };
        // What the groups' headers, trees, inodes and directories hold.
        let magics: [&[u8]; 12] = [
            b"XAGF", b"XAGI", b"XAFL", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC", b"XDB3", b"XDD3", b"BMA3",
        ];
        let holds = |at: &usize| {
            let part = &bytes[*at..*at + 512];
            magics.contains(&&part[..4]) || (part.starts_with(b"IN") && part[2..4] != [0, 0])
        };
        let mut used: Vec<usize> = (0..bytes.len()).step_by(512).filter(holds).collect();
        used.truncate(400);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            cases: 60,
            ..ProptestConfig::default()
        });
        let one = (prop::sample::select(used), 4_usize..200, any::<u8>());
        runner
            .run(&prop::collection::vec(one, 1..4), |changes| {
                let mut damaged = bytes.clone();
                for (at, more, value) in changes {
                    damaged[at + more] = value;
                }
                put_checksums(&mut damaged, block);
                change(Arc::new(Memory::from(damaged)));
                Ok(())
            })
            .unwrap();
    }
}

/// Changes that do no more than give errors.
fn damage(bytes: &Arc<Memory>, changes: &[(usize, u8)]) {
    let disk = Arc::new(Overlay::new(Arc::clone(bytes)));
    for (at, value) in changes {
        disk.write_at(*at as u64, &[*value]).unwrap();
    }
    if let Ok(fs) = FileSystem::open_read_only(disk) {
        walk(&fs);
    }
}

#[test]
fn damaged_ones_give_errors() {
    for options in ["-m crc=0 -b size=512 -i size=256", "-b size=1024"] {
        let Some(bytes) = prototype(options, 60) else { return };
        // Where metadata are: what is neither zeros nor contents.
        let text = b"contents of a file\n";
        let used: Vec<usize> = (0..bytes.len())
            .step_by(8)
            .filter(|at| {
                let word = &bytes[*at..*at + 8];
                let block = &bytes[*at / 512 * 512..][..512];
                word != [0; 8]
                    && !text.windows(8).any(|text| text == word)
                    && !block.windows(19).any(|part| part == text)
            })
            .collect();
        let disk = Arc::new(Memory::from(bytes));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            cases: 300,
            ..ProptestConfig::default()
        });
        let change =
            (prop::sample::select(used), 0_usize..8, any::<u8>()).prop_map(|(at, more, value)| (at + more, value));
        runner
            .run(&prop::collection::vec(change, 1..6), |changes| {
                damage(&disk, &changes);
                Ok(())
            })
            .unwrap();
    }
}

/// Changes of many kinds, up to the first that fails.
fn change_all(fs: &mut FileSystem) -> Result<()> {
    let root = fs.root();
    let owner = xfs::Ownership { mode: 0o640, uid: 1, gid: 2 };
    let folder = |fs: &FileSystem, name: &[u8]| Ok::<_, xfs::Error>(fs.lookup(root, name)?.unwrap());
    let many = folder(fs, b"many")?;
    for entry in fs.read_dir(many)?.into_iter().step_by(2) {
        fs.unlink(many, &entry.name)?;
    }
    let block = folder(fs, b"block")?;
    for entry in fs.read_dir(block)?.into_iter().take(10) {
        fs.write_at(entry.inode, 7000, &[3; 20_000])?;
        fs.set_len(entry.inode, 5000)?;
        fs.set_xattr(entry.inode, b"user.a", &[4; 700])?;
        fs.rename(block, &entry.name, many, &[b"moved-", &entry.name[..]].concat())?;
    }
    fs.flush()?;
    let new = fs.create(root, b"new", xfs::NewNode::Directory, owner)?;
    for number in 0..70 {
        let name = format!("file-{number}");
        let file = fs.create(new, name.as_bytes(), xfs::NewNode::File, owner)?;
        fs.write_at(file, 0, &vec![5; number * 100])?;
    }
    fs.create(new, b"link", xfs::NewNode::Symlink(&[b't'; 900]), owner)?;
    fs.flush()?;
    fs.scrub()?;
    fs.flush()
}

/// Whatever call of the device fails, and whether it works again: an error says so, and what is written in the end holds
/// together, or nothing more is written.
#[test]
fn a_device_that_fails_leaves_no_half_truths() {
    let Some(bytes) = prototype("-b size=1024 -m rmapbt=1,reflink=1 -i size=512", 200) else { return };
    // mkfs.xfs makes no sound links of such targets in blocks.
    let disk = Arc::new(Memory::from(bytes));
    let mut fs = FileSystem::open(Arc::<Memory>::clone(&disk), &xfs::OpenOptions::default()).unwrap();
    fs.unlink(fs.root(), b"long").unwrap();
    fs.flush().unwrap();
    drop(fs);
    let bytes = block::read_vec(&*disk, 0, disk.len()).unwrap();
    let run = |fail_from: u64| {
        let device = Arc::new(Fault::new(Memory::from(bytes.clone()), fail_from));
        let result = FileSystem::open(Arc::<Fault<Memory>>::clone(&device), &xfs::OpenOptions::default())
            .map(|mut fs| (change_all(&mut fs), fs));
        (device, result)
    };
    let (device, result) = run(u64::MAX);
    result.unwrap().0.unwrap();
    let calls = device.calls();
    let (mut sound, mut poisoned) = (0, 0);
    for fail_from in (0..calls).step_by(calls as usize / 50) {
        let (device, result) = run(fail_from);
        let (failed, mut fs) = match result {
            Ok(changed) => changed,
            Err(error) => {
                assert!(matches!(error, xfs::Error::Io(_)), "call {fail_from}: {error}");
                continue;
            }
        };
        let error = failed.unwrap_err();
        assert!(matches!(error, xfs::Error::Io(_)), "call {fail_from}: {error}");
        device.heal();
        let before = device.calls();
        match fs.flush() {
            Ok(()) => {
                let mut held = vec![0; bytes.len()];
                device.read_at(0, &mut held).unwrap();
                drop(fs);
                let fs = FileSystem::open_read_only(Arc::<Fault<Memory>>::clone(&device)).unwrap();
                assert_eq!(walk(&fs).1, 0, "call {fail_from}");
                let file = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(file.path(), held).unwrap();
                let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap());
                let repair = Command::new("xfs_repair")
                    .env("PATH", path)
                    .args(["-n", "-f", "-o", "force_geometry"])
                    .arg(file.path())
                    .output()
                    .unwrap();
                assert!(repair.status.success(), "call {fail_from}: {}", String::from_utf8_lossy(&repair.stderr));
                sound += 1;
            }
            Err(error) => {
                assert!(matches!(error, xfs::Error::Poisoned), "call {fail_from}: {error}");
                assert_eq!(device.calls(), before, "call {fail_from}: nothing more is written");
                poisoned += 1;
            }
        }
    }
    assert!(sound > 3 && poisoned > 3, "both happen: {sound} and {poisoned} times");
}
