//! File systems that were not unmounted: what we make of their logs is what the kernel makes of them.

use std::fs::File;
use std::path::Path;

use xfs::LogState;

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
