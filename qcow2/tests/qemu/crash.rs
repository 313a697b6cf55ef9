//! A crash at any moment of a change to the image itself leaves it as it was or as it is to be.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::oracle::{Random, check, disk, oracle_missing, path, run, temp_dir};
use block::{Memory, Outcome, ReadAt, Trace, read_vec, replay};
use qcow2::{Image, OpenOptions};

const LEN: usize = 1 << 20;

/// What an image holds: its disk, each of its snapshots by name, and its bitmaps.
type Contents = (Vec<(String, Vec<u8>)>, Vec<Bits>);
/// A bitmap's name, whether it is enabled, and what is dirty.
type Bits = (String, bool, Vec<(u64, u64)>);

fn contents(bytes: &[u8]) -> Contents {
    let open = || Image::open_storage(Arc::new(Memory::from(bytes.to_vec())), &OpenOptions::new()).unwrap();
    let image = open();
    let mut held = vec![(String::new(), read_vec(&image, 0, image.len()).unwrap())];
    for snapshot in image.snapshots().unwrap() {
        let device = open().into_snapshot(&snapshot.id).unwrap();
        held.push((snapshot.name, read_vec(&device, 0, device.len()).unwrap()));
    }
    let bits = |name: &str| image.read_bitmap(name).unwrap().ranges().map(|range| (range.start, range.end)).collect();
    let bitmaps = image.bitmaps().unwrap().into_iter().map(|bitmap| (bits(&bitmap.name), bitmap));
    (held, bitmaps.map(|(bits, bitmap)| (bitmap.name, bitmap.enabled, bits)).collect())
}

/// The image has no errors, but may have leaks.
fn check_but_for_leaks(image: &Path) {
    let status =
        std::process::Command::new("qemu-img").args(["check", "-q", "-f", "qcow2", path(image)]).status().unwrap();
    assert!(matches!(status.code(), Some(0 | 3)), "{status}");
}

/// Judges every state that a crash during `change` may leave of `initial`.
fn crash(initial: &[u8], state_file: &Path, change: impl FnOnce(&mut Image)) {
    crash_judged(initial, state_file, check, |_| false, change);
}

fn crash_judged(
    initial: &[u8],
    state_file: &Path,
    check: fn(&Path),
    is_allowed: impl Fn(&Contents) -> bool,
    change: impl FnOnce(&mut Image),
) {
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
            let known = found == old || found == new || is_allowed(&found);
            assert!(known, "after {end} of {} events, variant {variant}", events.len());
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
    let dir = temp_dir();
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

#[test]
fn bitmaps_change_at_once_or_not_at_all() {
    if oracle_missing("bitmaps_change_at_once_or_not_at_all") {
        return;
    }
    let dir = temp_dir();
    let (raw, image, state) = (dir.path().join("raw"), dir.path().join("image"), dir.path().join("state"));
    std::fs::write(&raw, disk(LEN, 127)).unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", path(&raw), path(&image)]);
    let without = std::fs::read(&image).unwrap();
    let add = |image: &mut Image| image.add_bitmap("new", Some(512)).unwrap();
    crash_judged(&without, &state, check_but_for_leaks, |_| false, add);

    let with_one = |bytes: &[u8]| {
        std::fs::write(&image, bytes).unwrap();
        run("qemu-img", &["bitmap", "--add", "-f", "qcow2", "-g", "512", path(&image), "old"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 5 100k 90k", path(&image)]);
        std::fs::read(&image).unwrap()
    };
    let initial = with_one(&without);
    crash_judged(&initial, &state, check_but_for_leaks, |_| false, add);
    crash_judged(&initial, &state, check_but_for_leaks, |_| false, |image| image.clear_bitmap("old").unwrap());
    crash_judged(&initial, &state, check_but_for_leaks, |_| false, |image| image.disable_bitmap("old").unwrap());
    // Dropping the last one is one switch.
    crash(&initial, &state, |image| image.remove_bitmap("old").unwrap());

    // An extension that a crash could tear: the bitmaps may be lost then, but are never wrong.
    let mut shifted = without;
    assert_eq!(shifted[112..120], [0; 8], "the end of QEMU's header extensions");
    shifted[112..120].copy_from_slice(&[0x12, 0x34, 0x56, 0x78, 0, 0, 3, 0x70]);
    std::fs::write(&image, &shifted).unwrap();
    let mut opened = Image::open(&image, &OpenOptions::new().writable(true)).unwrap();
    opened.add_bitmap("old", None).unwrap();
    drop(opened);
    let initial = std::fs::read(&image).unwrap();
    assert_eq!(initial[1000..1004], [0x23, 0x85, 0x28, 0x75]);
    crash_judged(&initial, &state, check_but_for_leaks, |(_, bitmaps)| bitmaps.is_empty(), add);
}
