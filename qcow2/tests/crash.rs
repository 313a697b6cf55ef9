//! A crash at any moment of a change to the image itself leaves it as it was or as it is to be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use block::{Memory, Outcome, ReadAt, Trace, read_vec, replay};
use common::{Random, check, disk, oracle_missing, path, run};
use qcow2::{Image, OpenOptions};

const LEN: usize = 1 << 20;

/// What an image holds: its disk, and each of its snapshots by name.
type Contents = Vec<(String, Vec<u8>)>;

fn contents(bytes: &[u8]) -> Contents {
    let open = || Image::open_storage(Arc::new(Memory::from(bytes.to_vec())), &OpenOptions::new()).unwrap();
    let image = open();
    let mut held = vec![(String::new(), read_vec(&image, 0, image.len()).unwrap())];
    for snapshot in image.snapshots().unwrap() {
        let device = open().into_snapshot(&snapshot.id).unwrap();
        held.push((snapshot.name, read_vec(&device, 0, device.len()).unwrap()));
    }
    held
}

/// Judges every state that a crash during `change` may leave of `initial`.
fn crash(initial: &[u8], state_file: &Path, change: impl FnOnce(&mut Image)) {
    let trace = Arc::new(Trace::new(Memory::from(initial.to_vec())));
    let mut image = Image::open_storage(trace.clone(), &OpenOptions::new().writable(true)).unwrap();
    change(&mut image);
    drop(image);
    let events = trace.events();
    let old = contents(initial);
    let new = contents(&replay(initial, &events, |_, _| Outcome::Kept).unwrap());
    assert!(old != new);
    let mut random = Random(101);
    let (mut olds, mut news) = (0, 0);
    for end in 0..=events.len() {
        let mut last = Vec::new();
        for variant in 0..5 {
            let state = replay(initial, &events[..end], |_, _| match variant {
                0 => Outcome::Lost,
                1 => Outcome::Kept,
                _ => match random.below(3) {
                    0 => Outcome::Lost,
                    1 => Outcome::Torn(random.below(128)),
                    _ => Outcome::Kept,
                },
            })
            .unwrap();
            if state == last {
                continue;
            }
            let found = contents(&state);
            assert!(found == old || found == new, "after {end} of {} events, variant {variant}", events.len());
            if found == old {
                olds += 1
            } else {
                news += 1
            }
            std::fs::write(state_file, &state).unwrap();
            check(state_file);
            last = state;
        }
    }
    println!("{} events: {olds} times the old image, {news} times the new one", events.len());
    assert!(olds > 0 && news > 0);
}

#[test]
fn snapshots_and_lengths_change_at_once_or_not_at_all() {
    if oracle_missing("snapshots_and_lengths_change_at_once_or_not_at_all") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, image, state) = (dir.path().join("raw"), dir.path().join("image"), dir.path().join("state"));
    std::fs::write(&raw, disk(LEN, 103)).unwrap();
    for options in [&["-o", "cluster_size=4k"][..], &["-c", "-o", "cluster_size=4k"], &["-o", "cluster_size=512"]] {
        run("qemu-img", &[&["convert", "-f", "raw", "-O", "qcow2"], options, &[path(&raw), path(&image)]].concat());
        for name in ["a", "b"] {
            run("qemu-img", &["snapshot", "-c", name, path(&image)]);
            let pattern = if name == "a" { "write -P 5 100k 90k" } else { "write -P 6 500k 90k" };
            run("qemu-io", &["-f", "qcow2", "-c", pattern, path(&image)]);
        }
        let initial = std::fs::read(&image).unwrap();
        crash(&initial, &state, |image| {
            image.create_snapshot("c", SystemTime::UNIX_EPOCH).unwrap();
        });
        crash(&initial, &state, |image| image.apply_snapshot("a").unwrap());
        crash(&initial, &state, |image| image.delete_snapshot("a").unwrap());
        crash(&initial, &state, |image| image.delete_all_snapshots().unwrap());
        crash(&initial, &state, |image| image.resize(5 << 20).unwrap());
        crash(&initial, &state, |image| image.resize(300_544).unwrap());
    }
}
