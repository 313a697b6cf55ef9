//! File systems that were not unmounted: what we make of their logs is what the kernel makes of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Access, HostFile, Overlay, WriteAt};
use proptest::prelude::*;
use xfs::{FileSystem, LogState, OpenOptions};

use crate::common::{ALL, EL7, EL8, EL9, Image, assert_same, noise, populate, run, tree_of, tree_of_kernel};
use crate::log::Log;
use crate::write::{kernels, script};

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
        for (number, step) in script(&before, seed, 300).iter().enumerate() {
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
pub(crate) fn synced(top: &Path) {
    let file = File::create(top.join("synced")).unwrap();
    file.sync_all().unwrap();
}

/// A file with blocks and attributes that has no name any more.
fn deleted_but_open(top: &Path, number: usize) -> File {
    let path = top.join(format!("held-{number}"));
    std::fs::write(&path, noise(number * 1000, 3)).unwrap();
    let value = noise(2000, 4);
    rustix::fs::lsetxattr(&path, "user.held", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

pub(crate) fn open(image: &Image) -> FileSystem {
    let device = HostFile::open(&image.path, Access::ReadWrite).unwrap();
    let fs = FileSystem::open(Arc::new(device), &OpenOptions::default()).unwrap();
    assert_eq!(fs.read_only_reason(), None);
    fs
}

/// Replays a log, and has the kernel do the same: both find the same tree, xfs_repair finds nothing, and the kernel can
/// go on. Returns what was found in the log.
pub(crate) fn replayed_alike(image: &mut Image, what: &str) -> LogState {
    let mut kernels = Image::copy_of(&image.path);
    let expected = kernels.mounted(tree_of_kernel);
    kernels.repair_finds_nothing(&format!("{what}: as the kernel replayed it"));
    drop(kernels);
    let mut fs = open(image);
    let state = fs.log_state().clone();
    assert_same(&tree_of(&fs), &expected, &format!("{what}: in memory"));
    fs.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(fs);
    image.repair_finds_nothing(what);
    let fs = image.open();
    assert_eq!(fs.log_state(), &LogState::Clean, "{what}");
    assert_same(&tree_of(&fs), &expected, &format!("{what}: opened again"));
    let found = image.mounted(|top| {
        let found = tree_of_kernel(top);
        for number in 0..100 {
            std::fs::write(top.join(format!("more{number}")), noise(number * 999, 5)).unwrap();
        }
        std::fs::remove_dir_all(top.join("files")).ok();
        found
    });
    assert_same(&found, &expected, &format!("{what}: the kernel"));
    image.repair_finds_nothing(&format!("{what}, and the kernel"));
    state
}

fn check(test: &str, options: &str, seed: u64, stop: Stop) {
    let what = format!("{options}, seed {seed}, {stop:?}");
    let Some(mut image) = stopped(test, options, seed, stop) else { return };
    // Reading alone sees the same, and changes nothing.
    let before = std::fs::metadata(&image.path).unwrap().modified().unwrap();
    let fs = image.open();
    assert!(matches!(fs.log_state(), LogState::Replayed { transactions: 1.., .. }), "{what}: {:?}", fs.log_state());
    let read = tree_of(&fs);
    drop(fs);
    let fs = open(&image);
    assert_same(&tree_of(&fs), &read, &format!("{what}: read only"));
    drop(fs);
    assert_eq!(std::fs::metadata(&image.path).unwrap().modified().unwrap(), before, "{what}: read only");
    let state = replayed_alike(&mut image, &what);
    assert!(matches!(state, LogState::Replayed { orphans: 5.., .. }), "{what}: {state:?}");
}

#[test]
fn logs_are_replayed_as_the_kernel_does() {
    let ages = [(EL7, Stop::AtOnce), (EL8, Stop::Running), (EL9, Stop::AfterFlush), (ALL, Stop::AtOnce)];
    for (seed, (options, stop)) in ages.into_iter().enumerate() {
        check("logs_are_replayed_as_the_kernel_does", options, 50 + seed as u64, stop);
    }
}

#[test]
fn logs_of_every_shape_are_replayed() {
    for (seed, (options, stop)) in [
        (format!("{EL8} -b size=1024 -n size=16384 -l size=8m"), Stop::AfterFlush),
        (format!("{ALL} -b size=2048 -i size=1024 -l su=32k"), Stop::AtOnce),
        (format!("{EL9} -i size=2048 -l su=256k"), Stop::Running),
        (format!("{ALL} -s size=4096 -d agcount=9"), Stop::AfterFlush),
        (format!("{EL7} -b size=65536 -i size=1024"), Stop::Running),
    ]
    .into_iter()
    .enumerate()
    {
        check("logs_of_every_shape_are_replayed", &options, 70 + seed as u64, stop);
    }
}

#[test]
fn logs_that_have_gone_around_are_replayed() {
    for options in [format!("{EL7} -b size=1024 -l size=5m"), format!("{ALL} -l size=16m,su=64k")] {
        let test = "logs_that_have_gone_around_are_replayed";
        let Some(mut image) = Image::new(test, &options) else { return };
        let path = image.path.clone();
        let stopped = image.mounted(|top| {
            for batch in 0..2000 {
                let folder = top.join(format!("batch{batch}"));
                std::fs::create_dir(&folder).unwrap();
                for number in 0..40 {
                    std::fs::write(folder.join(format!("file{number}")), noise(number, 1)).unwrap();
                }
                synced(top);
                if batch % 3 == 2 {
                    std::fs::remove_dir_all(folder).unwrap();
                    synced(top);
                }
                if batch % 4 == 0 && Log::of(&path).is_around_its_end() {
                    return Some(Image::copy_of(&path));
                }
            }
            None
        });
        let mut stopped = stopped.expect("the log goes around its end");
        let state = replayed_alike(&mut stopped, &options);
        assert!(matches!(state, LogState::Replayed { transactions: 1.., .. }), "{options}: {state:?}");
    }
}

/// A file system whose log was written over and over while files came and went: one that was shared is rewritten, or
/// deleted. None of it is in place.
fn busy(test: &str, options: &str) -> Option<Image> {
    let mut image = Image::new(test, options)?;
    image.mounted(|top| {
        for number in 0..35_u64 {
            let file = File::create(top.join(format!("file{number}"))).unwrap();
            for at in 0..number {
                file.write_at(&noise(5000, at), at * 16384).unwrap();
            }
            let (from, to) = (top.join(format!("file{number}")), top.join(format!("shared{number}")));
            run("cp", &["--reflink=auto", from.to_str().unwrap(), to.to_str().unwrap()]);
        }
    });
    let path = image.path.clone();
    let stopped = image.mounted(|top| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    synced(top);
                }
            });
            for number in 0..35 {
                std::fs::remove_file(top.join(format!("file{number}"))).unwrap();
                std::fs::write(top.join(format!("new{number}")), noise(number * 3000, 1)).unwrap();
                let shared = top.join(format!("shared{number}"));
                if number % 3 == 0 {
                    let file = std::fs::OpenOptions::new().write(true).open(shared).unwrap();
                    (0..number).for_each(|at| file.write_all_at(&noise(3000, 7), at as u64 * 16384).unwrap());
                    file.sync_all().unwrap();
                } else {
                    std::fs::remove_file(shared).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        Image::copy_of(&path)
    });
    Some(stopped)
}

/// An image that is changed in memory alone.
fn overlay(image: &Image) -> Arc<Overlay<HostFile>> {
    Arc::new(Overlay::new(HostFile::open(&image.path, Access::ReadUnlocked).unwrap()))
}

/// A machine may stop between any two writes of the log, with work announced that is done in none of them.
#[test]
fn logs_may_end_after_any_record() {
    let mut all_with_work = 0;
    for options in [EL8, ALL, ALL, ALL] {
        let Some(stopped) = busy("logs_may_end_after_any_record", options) else { return };
        let log = Log::of(&stopped.path);
        let (mut with_work, mut without) = (0, 0);
        for at in log.records.iter().skip(2).rev().step_by(3) {
            let zeros = vec![0; log.end - at];
            let cut = overlay(&stopped);
            cut.write_at(*at as u64, &zeros).unwrap();
            let fs = FileSystem::open(cut, &OpenOptions::default()).unwrap();
            assert_eq!(fs.read_only_reason(), None, "{options}, cut at {at}");
            // Both kinds are tried.
            match fs.log_state() {
                LogState::Replayed { finished: 1.., .. } if with_work < 2 => with_work += 1,
                LogState::Replayed { finished: 0, .. } if without < 1 => without += 1,
                _ => continue,
            }
            let mut image = Image::copy_of(&stopped.path);
            std::fs::OpenOptions::new()
                .write(true)
                .open(&image.path)
                .unwrap()
                .write_all_at(&zeros, *at as u64)
                .unwrap();
            replayed_alike(&mut image, &format!("{options}, cut at {at}"));
            if with_work == 2 {
                break;
            }
        }
        all_with_work += with_work;
        if all_with_work > 2 {
            return;
        }
    }
    assert!(all_with_work > 0, "a log announces work that is not done");
}

/// Opens a file system whose log is damaged, and changes it: whatever it says, it says it.
fn go_on(disk: Arc<dyn WriteAt>) {
    let Ok(mut fs) = FileSystem::open(disk, &OpenOptions::default()) else { return };
    let root = fs.root();
    for entry in fs.read_dir(root).unwrap_or_default().into_iter().take(30) {
        let _ = fs.write_at(entry.inode, 5000, &[1; 9000]);
        let _ = fs.unlink(root, &entry.name);
    }
    let _ = fs.flush();
    let _ = fs.scrub();
}

#[test]
fn damaged_logs_do_no_harm() {
    for options in [format!("{ALL} -b size=1024"), EL8.to_owned()] {
        let Some(stopped) = busy("damaged_logs_do_no_harm", &options) else { return };
        let log = Log::of(&stopped.path);
        let file = File::open(&stopped.path).unwrap();
        let near: Vec<usize> = log.records.iter().rev().take(400).copied().collect();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            cases: 80,
            ..ProptestConfig::default()
        });
        // What of a record, and with what; whether its checksum is put right, and the log ends with it.
        let change = (prop::sample::select(near), 0_usize..2000, any::<u8>(), any::<bool>(), any::<bool>());
        runner
            .run(&prop::collection::vec(change, 1..4), |changes| {
                let overlay = overlay(&stopped);
                for (at, offset, value, is_sound, is_last) in changes {
                    let mut record = log.record(&file, at);
                    let end = at + record.len();
                    let offset = offset % record.len();
                    record[offset] = value;
                    if is_sound {
                        Log::put_checksum(&mut record);
                    }
                    overlay.write_at(at as u64, &record).unwrap();
                    if is_last {
                        overlay.write_at(end as u64, &vec![0; log.end - end]).unwrap();
                    }
                }
                go_on(overlay);
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn a_damaged_log_is_refused_with_advice() {
    let Some(stopped) = busy("a_damaged_log_is_refused_with_advice", EL9) else { return };
    let log = Log::of(&stopped.path);
    let disk = overlay(&stopped);
    // Far from the end: no machine that stops leaves that behind.
    let at = log.records[log.records.len() - 12];
    disk.write_at(at as u64 + 600, &[0x5a; 9]).unwrap();
    let fs = FileSystem::open(disk, &OpenOptions::default()).unwrap();
    let reason = fs.read_only_reason().unwrap_or_else(|| panic!("{:?} of {}", fs.log_state(), log.records.len()));
    assert!(reason.contains("checksum") && reason.contains("boot the guest once and shut it down"), "{reason}");
    assert_eq!(fs.log_state(), &LogState::NotReplayed(reason.to_owned()));
}
