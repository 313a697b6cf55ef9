//! Snapshots, lengths and bitmaps: a crash leaves the image as it was or as it is to be.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use block::{Memory, ReadAt, Storage, read_vec};
use qcow2::{Image, OpenOptions};

use super::{Allowed, check_by_qemu, check_by_us, for_each_state, recorded};
use crate::oracle::{disk, oracle_missing, path, run, temp_dir};

const LEN: usize = 512 << 10;

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

/// Judges the states that a crash during `change` may leave of `initial`: what it held before, or what it is to hold, and
/// beside that only what `is_allowed` says.
fn crash(
    initial: &[u8],
    state_file: &Path,
    allowed: Allowed,
    is_allowed: impl Fn(&Contents) -> bool,
    change: impl FnOnce(&mut Image),
) {
    let initial = [initial.to_vec()];
    let (storages, log) = recorded(&initial);
    let mut image = Image::open_storage(storages[0].clone(), &OpenOptions::new().writable(true)).unwrap();
    change(&mut image);
    drop(image);
    let events = log.lock().unwrap().clone();
    let (old, new) = (contents(&initial[0]), contents(&storages[0].memory.to_vec()));
    assert!(old != new);
    let (mut olds, mut news) = (0, 0);
    for_each_state(&initial, &events, |state| {
        let bytes = &state.files[0];
        let found = contents(bytes);
        assert!(found == old || found == new || is_allowed(&found), "after {} of {} events", state.end, events.len());
        let count = if found == old { &mut olds } else { &mut news };
        *count += 1;
        let storage = Arc::new(Memory::from(bytes.clone()));
        check_by_us(&Image::open_storage(storage, &OpenOptions::new()).unwrap(), allowed);
        if state.for_qemu {
            std::fs::write(state_file, bytes).unwrap();
            check_by_qemu(state_file, allowed);
        }
    });
    println!("{} events: {olds} times the old image, {news} times the new one", events.len());
    assert!(olds > 0 && news > 0);
}

fn at_once(initial: &[u8], state_file: &Path, change: impl FnOnce(&mut Image)) {
    crash(initial, state_file, Allowed::Nothing, |_| false, change);
}

fn but_for_leaks(initial: &[u8], state_file: &Path, change: impl FnOnce(&mut Image)) {
    crash(initial, state_file, Allowed::Leaks, |_| false, change);
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
            let pattern = if name == "a" { "write -P 5 100k 90k" } else { "write -P 6 300k 90k" };
            run("qemu-io", &["-f", "qcow2", "-c", pattern, path(&image)]);
        }
        let initial = std::fs::read(&image).unwrap();
        at_once(&initial, &state, |image| {
            image.create_snapshot("c", SystemTime::UNIX_EPOCH).unwrap();
        });
        at_once(&initial, &state, |image| image.apply_snapshot("a").unwrap());
        at_once(&initial, &state, |image| image.delete_snapshot("a").unwrap());
        at_once(&initial, &state, |image| image.delete_all_snapshots().unwrap());
        at_once(&initial, &state, |image| image.resize(5 << 20).unwrap());
        at_once(&initial, &state, |image| image.resize(200_704).unwrap());
    }
}

#[test]
fn a_disk_in_a_data_file_has_its_old_length_or_its_new_one() {
    if oracle_missing("a_disk_in_a_data_file_has_its_old_length_or_its_new_one") {
        return;
    }
    let dir = temp_dir();
    let (raw, image, data) = (dir.path().join("raw"), dir.path().join("image"), dir.path().join("data"));
    let held = disk(LEN + 1536, 131);
    std::fs::write(&raw, &held).unwrap();
    for options in ["cluster_size=4k", "cluster_size=64k,data_file_raw=on", "cluster_size=16k,extended_l2=on"] {
        let _ = std::fs::remove_file(&data);
        let options = format!("{options},data_file={}", path(&data));
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", &options, path(&raw), path(&image)]);
        let initial = [std::fs::read(&image).unwrap(), std::fs::read(&data).unwrap()];
        for len in [5 << 20, LEN + 4096, 200_704, 512] {
            let open = |image: Arc<dyn Storage>, data: Arc<dyn Storage>, writable| {
                let options = OpenOptions::new().writable(writable).data_storage(data);
                Image::open_storage(image, &options).unwrap()
            };
            let (storages, log) = recorded(&initial);
            let mut opened = open(storages[0].clone(), storages[1].clone(), true);
            opened.resize(len as u64).unwrap();
            opened.close().unwrap();
            let events = log.lock().unwrap().clone();
            let mut new = held.clone();
            new.resize(len, 0);
            let (mut olds, mut news) = (0, 0);
            for_each_state(&initial, &events, |state| {
                let file = |at: usize| Arc::new(Memory::from(state.files[at].clone()));
                let opened = open(file(0), file(1), false);
                let found = read_vec(&opened, 0, opened.len()).unwrap();
                assert!(found == held || found == new, "{options}: to {len}, after {} events", state.end);
                *if found == held { &mut olds } else { &mut news } += 1;
                check_by_us(&opened, Allowed::Nothing);
                if state.for_qemu {
                    std::fs::write(&image, &state.files[0]).unwrap();
                    std::fs::write(&data, &state.files[1]).unwrap();
                    check_by_qemu(&image, Allowed::Leaks);
                }
            });
            assert!(olds > 0 && news > 0, "{olds} {news}");
        }
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
    but_for_leaks(&without, &state, add);

    let with_one = |bytes: &[u8]| {
        std::fs::write(&image, bytes).unwrap();
        run("qemu-img", &["bitmap", "--add", "-f", "qcow2", "-g", "512", path(&image), "old"]);
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 5 100k 90k", path(&image)]);
        std::fs::read(&image).unwrap()
    };
    let initial = with_one(&without);
    but_for_leaks(&initial, &state, add);
    but_for_leaks(&initial, &state, |image| image.clear_bitmap("old").unwrap());
    but_for_leaks(&initial, &state, |image| image.disable_bitmap("old").unwrap());
    // Dropping the last one is one switch.
    at_once(&initial, &state, |image| image.remove_bitmap("old").unwrap());

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
    crash(&initial, &state, Allowed::Leaks, |(_, bitmaps)| bitmaps.is_empty(), add);
}
