//! File systems that were not unmounted: what we make of their logs is what the kernel makes of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Access, HostFile};
use xfs::{FileSystem, LogState, OpenOptions};

use crate::common::{ALL, EL7, EL8, EL9, Image, assert_same, noise, populate, run, tree_of, tree_of_kernel};
use crate::write::{kernels, open, script};

/// How a machine stops.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// All that was done is in the log.
    AfterFlush,
    /// What was not synced is lost.
    AtOnce,
    /// It goes on, and a copy is made.
    Running,
}

/// Changes a populated file system, and stops in the midst of it.
fn stopped(test: &str, options: &str, seed: u64, stop: Stop) -> Option<Image> {
    let mut image = Image::new(test, options)?;
    let before = image.mounted(|top| {
        populate(top);
        tree_of_kernel(top)
    });
    let mut copy = None;
    let path = image.path.clone();
    image.mounted(|top| {
        let mut held = Vec::new();
        for (number, step) in script(&before, seed, 400).iter().enumerate() {
            kernels(top, step);
            if number % 150 == 100 {
                run("sync", &["-f", top.to_str().unwrap()]);
            }
            if number % 40 == 7 {
                held.push(deleted_but_open(top, number));
            }
        }
        match stop {
            Stop::AfterFlush => run("xfs_io", &["-x", "-c", "shutdown -f", top.to_str().unwrap()]),
            Stop::AtOnce => {
                synced(top);
                std::fs::write(top.join("lost"), b"lost").unwrap();
                run("xfs_io", &["-x", "-c", "shutdown", top.to_str().unwrap()]);
            }
            Stop::Running => {
                synced(top);
                copy = Some(Image::copy_of(&path));
            }
        }
        drop(held);
    });
    Some(copy.unwrap_or(image))
}

/// A file that is safe, and with it all that was done before.
fn synced(top: &Path) {
    let file = File::create(top.join("synced")).unwrap();
    file.sync_all().unwrap();
}

/// A file with blocks and attributes that has no name any more, and one that never had.
fn deleted_but_open(top: &Path, number: usize) -> File {
    let path = top.join(format!("held-{number}"));
    std::fs::write(&path, noise(number * 1000, 3)).unwrap();
    let value = noise(2000, 4);
    rustix::fs::lsetxattr(&path, "user.held", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

/// Replays a log, and has the kernel do the same. Whether the file system could be written.
fn replayed_alike(image: &mut Image, what: &str) -> bool {
    let mut kernels = Image::copy_of(&image.path);
    let expected = kernels.mounted(tree_of_kernel);
    kernels.repair_finds_nothing(&format!("{what}: as the kernel replayed it"));
    assert_same(&tree_of(&image.open()), &expected, &format!("{what}: read only"));
    let device = HostFile::open(&image.path, Access::ReadWrite).unwrap();
    let mut fs = FileSystem::open(Arc::new(device), &OpenOptions::default()).unwrap();
    if let Some(reason) = fs.read_only_reason() {
        assert!(reason.contains("unfinished work"), "{what}: {reason}");
        println!("{reason}");
        return false;
    }
    assert_same(&tree_of(&fs), &expected, &format!("{what}: in memory"));
    fs.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(fs);
    image.repair_finds_nothing(what);
    let found = image.mounted(|top| {
        let found = tree_of_kernel(top);
        for number in 0..50 {
            std::fs::write(top.join(format!("more{number}")), noise(number * 999, 5)).unwrap();
        }
        found
    });
    assert_same(&found, &expected, &format!("{what}: the kernel"));
    image.repair_finds_nothing(&format!("{what}, and the kernel"));
    true
}

fn check(test: &str, options: &str, seed: u64, stop: Stop) {
    let what = format!("{options}, seed {seed}, {stop:?}");
    let Some(mut image) = stopped(test, options, seed, stop) else { return };
    if let Some(keep) = std::env::var_os("KEEP") {
        std::fs::copy(&image.path, keep).unwrap();
    }
    let mut kernels = Image::copy_of(&image.path);
    let expected = kernels.mounted(tree_of_kernel);
    kernels.repair_finds_nothing(&format!("{what}: as the kernel replayed it"));
    // Reading alone changes nothing.
    let held = std::fs::read(&image.path).unwrap();
    let fs = image.open();
    assert!(
        matches!(fs.log_state(), LogState::Replayed { transactions: 1.., orphans: 0 }),
        "{what}: {:?}",
        fs.log_state()
    );
    assert_same(&tree_of(&fs), &expected, &format!("{what}: read only"));
    drop(fs);
    assert!(held == std::fs::read(&image.path).unwrap(), "{what}: read only");
    let mut fs = open(&image);
    assert!(matches!(fs.log_state(), LogState::Replayed { orphans: 5.., .. }), "{what}: {:?}", fs.log_state());
    assert_same(&tree_of(&fs), &expected, &format!("{what}: in memory"));
    let file = fs.lookup(fs.root(), b"owners").unwrap();
    if let Some(file) = file {
        fs.write_at(file, 2, b"one").unwrap();
        fs.write_at(file, 2, b"ne").unwrap();
    }
    fs.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(fs);
    image.repair_finds_nothing(&what);
    let fs = image.open();
    assert_eq!(fs.log_state(), &LogState::Clean, "{what}");
    drop(fs);
    image.mounted(|top| {
        for number in 0..200 {
            std::fs::write(top.join(format!("more{number}")), noise(number * 999, 5)).unwrap();
        }
        std::fs::remove_dir_all(top.join("files")).ok();
    });
    image.repair_finds_nothing(&format!("{what}, and the kernel"));
}

#[test]
fn logs_are_replayed_as_the_kernel_does() {
    for (seed, options) in [EL7, EL8, EL9, ALL].iter().enumerate() {
        for stop in [Stop::AfterFlush, Stop::AtOnce, Stop::Running] {
            check("logs_are_replayed_as_the_kernel_does", options, 50 + seed as u64, stop);
        }
    }
}

/// Where the log lies in an image, in bytes, and the places of its records since the last one before `after`.
fn log_records(bytes: &[u8]) -> (usize, usize, Vec<usize>) {
    let number =
        |at: usize, len: usize| bytes[at..at + len].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let (size, blocks, group_blocks) = (number(4, 4), number(96, 4), number(84, 4));
    let fsb = number(48, 8);
    let (group, block) = (fsb >> bytes[124], fsb & ((1 << bytes[124]) - 1));
    let start = ((group * group_blocks + block) * size) as usize;
    let end = start + (blocks * size) as usize;
    let records = (start..end).step_by(512).filter(|at| bytes[*at..].starts_with(&0xfeed_babe_u32.to_be_bytes()));
    (start, end, records.collect())
}

/// Takes all of a log from a record of its first round on.
fn cut(bytes: &mut [u8], at: usize, end: usize) {
    bytes[at..end].fill(0);
}

/// A machine may stop between any two writes of the log.
#[test]
fn logs_may_end_after_any_record() {
    for (seed, options) in [EL8, ALL].into_iter().enumerate() {
        let test = "logs_may_end_after_any_record";
        let Some(mut image) = Image::new(test, options) else { return };
        image.mounted(|top| {
            for number in 0..60_u64 {
                let file = File::create(top.join(format!("file{number}"))).unwrap();
                for at in 0..number {
                    file.write_at(&noise(5000, at), at * 16384).unwrap();
                }
            }
        });
        let mut stopped = None;
        let path = image.path.clone();
        image.mounted(|top| {
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // The log is written over and over, while files come and go.
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        synced(top);
                    }
                });
                for number in 0..60 {
                    std::fs::remove_file(top.join(format!("file{number}"))).unwrap();
                    std::fs::write(top.join(format!("new{number}")), noise(number * 3000, 1)).unwrap();
                    let _ = std::fs::copy(top.join(format!("new{number}")), top.join(format!("copy{number}")));
                }
                done.store(true, Ordering::Relaxed);
            });
            stopped = Some(Image::copy_of(&path));
        });
        let bytes = std::fs::read(&stopped.unwrap().path).unwrap();
        let (_, end, records) = log_records(&bytes);
        println!("{} records", records.len());
        for at in records.iter().rev().step_by(7).take(20) {
            let what = format!("{options}, seed {seed}, cut at {at}");
            let mut image = Image::copy_of(&image.path);
            let mut cut_bytes = bytes.clone();
            cut(&mut cut_bytes, *at, end);
            std::fs::write(&image.path, cut_bytes).unwrap();
            let copy = std::path::PathBuf::from("/root/tmp-xfs/cut.img");
            std::fs::copy(&image.path, &copy).unwrap();
            println!("{what}: {:?}", replayed_alike(&mut image, &what));
        }
    }
}
