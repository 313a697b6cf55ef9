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

use block::{Memory, Overlay, WriteAt};
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
