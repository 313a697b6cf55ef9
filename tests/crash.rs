//! A crash at any moment of a sealing leaves the old image or the new one, and nothing in between.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use block::{Event, ExtentKind, Memory, Outcome, ReadAt, Trace, replay};
use common::{Random, oracle_missing, qemu_img_check, small_guest};
use guest::{Guest, OpenOptions, Timestamp};
use qcow2::Image;
use seal::{Options, Selection};

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanoseconds: 0 };

fn writable() -> qcow2::OpenOptions {
    qcow2::OpenOptions::new().writable(true)
}

/// All that the disk in an image holds, zeros left out.
fn contents(image: &dyn ReadAt) -> Vec<(u64, Vec<u8>)> {
    const BLOCK: usize = 4096;
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < image.len() {
        let extent = image.extent_at(at, (1 << 20).min(image.len() - at)).unwrap();
        if extent.kind == ExtentKind::Data {
            let bytes = block::read_vec(image, at, extent.len).unwrap();
            for (index, block) in bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|&b| b != 0)) {
                blocks.push((at + (index * BLOCK) as u64, block.to_vec()));
            }
        }
        at += extent.len;
    }
    blocks
}

fn contents_of_file(bytes: Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    contents(&Image::open_storage(Arc::new(Memory::from(bytes)), &qcow2::OpenOptions::new()).unwrap())
}

/// Seals an image and returns every event on its file.
fn seal_and_record(initial: &[u8], memory_limit: usize) -> Vec<Event> {
    let trace = Arc::new(Trace::new(Memory::from(initial.to_vec())));
    let image = Image::open_storage(trace.clone(), &writable()).unwrap();
    let transaction = Arc::new(image.begin().unwrap().memory_limit(memory_limit));
    let options = OpenOptions { root: None, read_only: false, now: NOW };
    let mut guest = Guest::open(transaction.clone(), &options).unwrap();
    let report = seal::run(&mut guest, &Selection::defaults(), &Options::default()).unwrap();
    assert!(report.is_changed());
    drop(guest);
    transaction.commit().unwrap();
    trace.events()
}

#[test]
fn after_a_crash_the_image_is_the_old_one_or_the_new_one() {
    if oracle_missing("after_a_crash_the_image_is_the_old_one_or_the_new_one", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state_file = dir.path().join("state.qcow2");
    let mut states = 0;
    let (mut olds, mut news) = (0, 0);
    // In one image clusters are compressed, in the other plain; the small memory makes the transaction spill.
    for (plain, memory_limit) in [(false, 32 << 20), (true, 256 << 10)] {
        let initial = small_guest(plain, dir.path());
        let old = contents_of_file(initial.clone());
        let events = seal_and_record(&initial, memory_limit);
        let new = contents_of_file(replay(&initial, &events, |_, _| Outcome::Kept).unwrap());
        assert!(old != new);
        let mut random = Random(1234);
        let mut last = Vec::new();
        for end in 0..=events.len() {
            for variant in 0..6 {
                let state = replay(&initial, &events[..end], |_, _| match variant {
                    0 => Outcome::Lost,
                    1 => Outcome::Kept,
                    _ => match random.below(4) {
                        0 => Outcome::Lost,
                        1 => Outcome::Torn(random.below(200)),
                        _ => Outcome::Kept,
                    },
                })
                .unwrap();
                states += 1;
                if state == last {
                    continue;
                }
                let found = contents_of_file(state.clone());
                assert!(found == old || found == new, "after {end} of {} events, variant {variant}", events.len());
                if found == old {
                    olds += 1
                } else {
                    news += 1
                }
                // No leak either: a transaction over it finds nothing to put right.
                let image = Image::open_storage(Arc::new(Memory::from(state.clone())), &writable()).unwrap();
                assert_eq!(image.begin().unwrap().commit().unwrap().clusters_written, 0);
                // The oracle takes a process each time: every state around the switch, and the plain ones elsewhere.
                if variant < 2 || end + 8 > events.len() {
                    std::fs::write(&state_file, &state).unwrap();
                    qemu_img_check(&state_file);
                }
                last = state;
            }
        }
    }
    println!("{states} states; of the distinct ones {olds} are the old image, {news} the new one");
    assert!(states > 2000 && olds > 100 && news > 2, "{states} states, {olds} old, {news} new");
}

#[test]
fn the_program_may_be_killed_at_any_moment() {
    if oracle_missing("the_program_may_be_killed_at_any_moment", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let initial = small_guest(true, dir.path());
    let image = dir.path().join("killed.qcow2");
    let seal = |image: &Path| {
        Command::new(env!("CARGO_BIN_EXE_goldenseal"))
            .args(["seal", "-q"])
            .arg(image)
            .env("SOURCE_DATE_EPOCH", NOW.seconds.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    std::fs::write(&image, &initial).unwrap();
    let started = std::time::Instant::now();
    assert!(seal(&image).wait().unwrap().success());
    let whole = started.elapsed();
    let old = contents_of_file(initial.clone());
    let new = contents_of_file(std::fs::read(&image).unwrap());
    let mut random = Random(4321);
    let (mut olds, mut news) = (0, 0);
    for _ in 0..60 {
        std::fs::write(&image, &initial).unwrap();
        let mut child = seal(&image);
        std::thread::sleep(Duration::from_micros(random.below(whole.as_micros() as u64 * 5 / 4)));
        let _ = child.kill();
        child.wait().unwrap();
        qemu_img_check(&image);
        let found = contents_of_file(std::fs::read(&image).unwrap());
        assert!(found == old || found == new);
        if found == old {
            olds += 1
        } else {
            news += 1
        }
        // Whatever the kill left behind, the next run finishes the work.
        assert!(seal(&image).wait().unwrap().success());
        assert!(contents_of_file(std::fs::read(&image).unwrap()) == new);
    }
    println!("{olds} times the old image, {news} times the new one");
}

#[test]
fn an_error_of_the_disk_at_any_call_leaves_the_old_image_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    if oracle_missing("an_error_of_the_disk_at_any_call_leaves_the_old_image_or_the_new_one", &["qemu-img"]) {
        return;
    }
    let initial = small_guest(true, dir.path());
    let old = contents_of_file(initial.clone());
    let run = |fail_from: u64| {
        let memory = Arc::new(Memory::from(initial.clone()));
        let fault = Arc::new(block::Fault::new(memory.clone(), fail_from));
        let attempt = || -> Result<(), Box<dyn std::error::Error>> {
            let transaction = Arc::new(Image::open_storage(fault.clone(), &writable())?.begin()?);
            let options = OpenOptions { root: None, read_only: false, now: NOW };
            let mut guest = Guest::open(transaction.clone(), &options)?;
            seal::run(&mut guest, &Selection::defaults(), &Options::default())?;
            drop(guest);
            transaction.commit()?;
            Ok(())
        };
        (attempt().is_ok(), fault.calls(), contents_of_file(memory.to_vec()))
    };
    let (good, calls, new) = run(u64::MAX);
    assert!(good);
    let step = (calls / 300).max(1);
    for fail_from in (0..calls).step_by(step as usize).chain(calls.saturating_sub(60)..calls) {
        let (good, _, found) = run(fail_from);
        assert!(!good, "the failure of call {fail_from} of {calls} was not reported");
        assert!(found == old || found == new, "call {fail_from} of {calls}");
    }
}
