//! Changes that go in steps: a repair, and a commit into the backing file.

use std::path::Path;
use std::sync::Arc;

use block::{Memory, Storage, read_vec};
use qcow2::{Backing, Image, OpenOptions, Repair};

use super::{Allowed, check_by_qemu, check_by_us, for_each_state, recorded};
use crate::oracle::{disk, oracle_missing, path, run, temp_dir};

const LEN: usize = 512 << 10;

fn word(bytes: &[u8], at: usize) -> usize {
    (u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize
}

/// Breaks an image of 4 KiB clusters.
type Break = fn(&mut Vec<u8>);

const BREAKS: &[(&str, Break)] = &[
    ("leaks", |bytes| {
        let end = bytes.len();
        bytes.resize(end + 3 * 4096, 0x5a);
        let block = word(bytes, word(bytes, 48));
        (end / 4096..end / 4096 + 3).for_each(|cluster| bytes[block + cluster * 2 + 1] = 1);
    }),
    ("all refcounts of 0", |bytes| {
        let block = word(bytes, word(bytes, 48));
        bytes[block..block + 4096].fill(0);
    }),
    ("no refcount block", |bytes| {
        let table = word(bytes, 48);
        bytes[table..table + 8].fill(0);
    }),
    ("COPIED flags missing, and the dirty bit", |bytes| {
        let l1 = word(bytes, 40);
        let l2 = word(bytes, l1);
        (l2..l2 + 4096).step_by(16).for_each(|entry| bytes[entry] &= 0x7f);
        bytes[79] |= 1;
    }),
    ("a cluster used twice", |bytes| {
        let l2 = word(bytes, word(bytes, 40));
        let entries: Vec<usize> = (l2..l2 + 4096).step_by(8).filter(|&at| bytes[at] & 0x80 != 0).take(2).collect();
        bytes.copy_within(entries[0]..entries[0] + 8, entries[1]);
    }),
];

#[test]
fn a_repair_that_was_cut_off_lost_nothing_and_may_be_done_again() {
    if oracle_missing("a_repair_that_was_cut_off_lost_nothing_and_may_be_done_again") {
        return;
    }
    let dir = temp_dir();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image"));
    std::fs::write(&raw, disk(LEN, 103)).unwrap();
    for snapshot in [false, true] {
        run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", path(&raw), path(&image)]);
        if snapshot {
            run("qemu-img", &["snapshot", "-c", "one", path(&image)]);
            run("qemu-io", &["-f", "qcow2", "-c", "write -P 5 100k 90k", path(&image)]);
        }
        let good = std::fs::read(&image).unwrap();
        for (name, damage) in BREAKS {
            let mut broken = good.clone();
            damage(&mut broken);
            let initial = [broken];
            let (storages, log) = recorded(&initial);
            let repair = |storage: Arc<dyn Storage>| {
                let image = Image::open_storage(storage, &OpenOptions::new().repair(true)).unwrap();
                let report = image.repair(Repair::All, &mut |_| {}).unwrap();
                assert!(report.is_clean(), "{name}: {report:?}");
            };
            let contents = |bytes: &[u8]| {
                let storage = Arc::new(Memory::from(bytes.to_vec()));
                read_vec(&Image::open_storage(storage, &OpenOptions::new()).unwrap(), 0, LEN as u64).unwrap()
            };
            repair(storages[0].clone());
            let held = contents(&initial[0]);
            let events = log.lock().unwrap().clone();
            assert!(!events.is_empty(), "{name}");
            let states = for_each_state(&initial, &events, |state| {
                assert!(contents(&state.files[0]) == held, "{name}, after {} of {}", state.end, events.len());
                if state.for_qemu {
                    // QEMU can go on with it as well as we.
                    std::fs::write(&image, &state.files[0]).unwrap();
                    run("qemu-img", &["check", "-q", "-r", "all", path(&image)]);
                    assert!(contents(&std::fs::read(&image).unwrap()) == held, "{name}");
                }
                let again = Arc::new(Memory::from(state.files[0].clone()));
                repair(again.clone());
                assert!(contents(&again.to_vec()) == held, "{name}");
                if state.for_qemu {
                    std::fs::write(&image, again.to_vec()).unwrap();
                    check_by_qemu(&image, Allowed::Nothing);
                }
            });
            println!("{name}: {} events, {states} states", events.len());
        }
    }
}

#[test]
fn a_commit_into_the_backing_file_that_was_cut_off_changes_nothing_that_is_seen() {
    if oracle_missing("a_commit_into_the_backing_file_that_was_cut_off_changes_nothing_that_is_seen") {
        return;
    }
    let dir = temp_dir();
    let (raw, base, overlay) = (dir.path().join("raw"), dir.path().join("base"), dir.path().join("overlay"));
    std::fs::write(&raw, disk(LEN, 107)).unwrap();
    let options = OpenOptions::new().backing(Backing::Within(vec![dir.path().to_owned()]));
    let open = |file: &Path, writable: bool| {
        // A program that another test starts may hold the locks for a moment.
        for _ in 0..50 {
            if let Ok(image) = Image::open(file, &options.clone().writable(writable)) {
                return image;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Image::open(file, &options.clone().writable(writable)).unwrap()
    };
    for (format, kind) in
        [("raw", "cluster_size=4k"), ("qcow2", "cluster_size=4k"), ("qcow2", "extended_l2=on,cluster_size=16k")]
    {
        run("qemu-img", &["convert", "-f", "raw", "-O", format, path(&raw), path(&base)]);
        run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", kind, "-b", path(&base), "-F", format, path(&overlay)]);
        let commands = ["write -P 1 70k 100k", "write -z 256k 100k", "write -P 2 400k 1k"];
        let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        run("qemu-io", &[&["-f", "qcow2"], &args[..], &[path(&overlay)]].concat());
        let held = read_vec(&open(&overlay, false), 0, LEN as u64).unwrap();

        let initial = [std::fs::read(&overlay).unwrap(), std::fs::read(&base).unwrap()];
        let (storages, log) = recorded(&initial);
        let image = Image::open_storage(storages[0].clone(), &options.clone().writable(true)).unwrap();
        let storage: Arc<dyn Storage> = storages[1].clone();
        let written = if format == "raw" {
            image.commit_to(|| Ok(storage), &mut |_| {})
        } else {
            image.commit_to(|| Image::open_storage(storage, &OpenOptions::new().writable(true)), &mut |_| {})
        };
        assert!(written.unwrap() >= 201 << 10);
        let events = log.lock().unwrap().clone();
        let states = for_each_state(&initial, &events, |state| {
            std::fs::write(&overlay, &state.files[0]).unwrap();
            std::fs::write(&base, &state.files[1]).unwrap();
            let image = open(&overlay, false);
            let found = read_vec(&image, 0, LEN as u64).unwrap();
            assert!(found == held, "{kind} over {format}, after {} of {} events", state.end, events.len());
            check_by_us(&image, Allowed::Leaks);
            drop(image);
            if state.for_qemu {
                check_by_qemu(&overlay, Allowed::Leaks);
                if format == "qcow2" {
                    check_by_qemu(&base, Allowed::Leaks);
                }
            }
        });
        println!("{kind} over {format}: {} events, {states} states", events.len());
    }
}
