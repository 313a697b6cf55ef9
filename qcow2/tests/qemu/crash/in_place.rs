//! Writing in place: a crash leaves leaked clusters at worst, and each sector as it was or as it is to be.

use std::path::Path;
use std::sync::Arc;

use block::{Memory, ReadAt, Storage, WriteAt, read_vec};
use qcow2::{Backing, DataFile, Image, OpenOptions};

use super::{Allowed, check_by_qemu, check_by_us, for_each_state, recorded};
use crate::oracle::{Random, disk, oracle_missing, path, run, temp_dir};

const LEN: usize = 700 << 10;

/// Opens what is in the storages: an image, and its data file where it has one.
fn open(dir: &Path, files: Vec<Arc<dyn Storage>>, writable: bool) -> Image {
    let folders = vec![dir.to_owned()];
    let mut options = OpenOptions::new().writable(writable).backing(Backing::Within(folders));
    let mut files = files.into_iter();
    let image = files.next().unwrap();
    if let Some(data) = files.next() {
        options = options.data_file(DataFile::Deny).data_storage(data);
    }
    Image::open_storage(image, &options).unwrap()
}

/// Writes, zeroes and discards, and compresses where the seed is odd; returns what the disk holds after each change, and from which event on that is safe.
fn change(image: &Image, before: Vec<u8>, events: impl Fn() -> usize, seed: u64) -> Vec<(Vec<u8>, Option<usize>)> {
    let mut random = Random(seed);
    let mut versions = vec![(before.clone(), Some(0))];
    let mut model = before;
    for _ in 0..14 {
        let grain = [1, 512, 4096, 32 << 10][random.below(4) as usize];
        let offset = random.below(LEN as u64) as usize / grain * grain;
        let len = ((1 + random.below(60_000 / grain as u64 + 1) as usize) * grain).min(LEN - offset);
        let mut safe = None;
        let compresses = seed % 2 == 1;
        match random.below(6) {
            0 => {
                image.discard(offset as u64, len as u64).unwrap();
                model[offset..offset + len].fill(0);
            }
            1 => {
                image.write_zeroes(offset as u64, len as u64).unwrap();
                model[offset..offset + len].fill(0);
            }
            2 => {
                image.flush().unwrap();
                safe = Some(events());
            }
            3 if compresses => {
                let size = image.allocation_unit().unwrap().len as usize;
                let offset = offset / size * size;
                let bytes = random.bytes(97).repeat(3 * size / 97 + 1);
                let bytes = &bytes[..(3 * size).min(LEN - offset)];
                image.write_compressed(offset as u64, bytes).unwrap();
                model[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            _ => {
                let bytes = random.bytes(len);
                image.write_at(offset as u64, &bytes).unwrap();
                model[offset..offset + len].copy_from_slice(&bytes);
            }
        }
        versions.push((model.clone(), safe));
    }
    versions
}

/// How the image is made, what is behind it, and whether it has a data file.
const KINDS: &[(&str, &str, bool)] = &[
    ("cluster_size=4k", "", false),
    ("cluster_size=512,refcount_bits=64", "", false),
    ("compat=0.10,cluster_size=4k", "raw", false),
    ("cluster_size=64k,compression_type=zstd", "compressed", false),
    ("cluster_size=16k,extended_l2=on", "raw", false),
    ("cluster_size=64k,extended_l2=on", "", false),
    ("cluster_size=32k,extended_l2=on", "snapshot", false),
    ("cluster_size=4k", "snapshot", false),
    ("cluster_size=4k", "", true),
    ("cluster_size=4k,data_file_raw=on", "", true),
    ("cluster_size=16k,extended_l2=on", "raw", true),
];

#[test]
fn each_sector_is_as_it_was_or_as_it_is_to_be() {
    if oracle_missing("each_sector_is_as_it_was_or_as_it_is_to_be") {
        return;
    }
    let dir = temp_dir();
    let (image, data, raw) = (dir.path().join("image"), dir.path().join("data"), dir.path().join("disk.raw"));
    std::fs::write(&raw, disk(LEN - 9000, 41)).unwrap();
    for (number, (options, start, has_data)) in KINDS.iter().enumerate() {
        let mut options = (*options).to_owned();
        if *has_data {
            options += &format!(",data_file={}", path(&data));
        }
        if *start == "compressed" {
            run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", &options, path(&raw), path(&image)]);
            run("qemu-img", &["resize", "-q", path(&image), &LEN.to_string()]);
        } else {
            let mut args = vec!["create", "-q", "-f", "qcow2", "-o", &options];
            if *start == "raw" {
                args.extend(["-b", path(&raw), "-F", "raw"]);
            }
            run("qemu-img", &[&args[..], &[path(&image), &LEN.to_string()]].concat());
        }
        run("qemu-io", &["-f", "qcow2", "-c", "write -P 7 100k 150k", "-c", "write -z 300k 70k", path(&image)]);
        if *start == "snapshot" {
            run("qemu-img", &["snapshot", "-c", "one", path(&image)]);
        }
        let mut initial = vec![std::fs::read(&image).unwrap()];
        if *has_data {
            initial.push(std::fs::read(&data).unwrap());
        }

        let (storages, log) = recorded(&initial);
        let storages = storages.into_iter().map(|storage| storage as Arc<dyn Storage>).collect();
        let opened = open(dir.path(), storages, true);
        let before = read_vec(&opened, 0, LEN as u64).unwrap();
        let versions =
            change(&opened, before, || log.lock().unwrap().len(), 2 * number as u64 + 51 - u64::from(*has_data));
        drop(opened);
        let events = log.lock().unwrap().clone();

        let states = for_each_state(&initial, &events, |state| {
            let oldest = versions.iter().rposition(|(_, safe)| safe.is_some_and(|safe| safe <= state.end)).unwrap();
            let storage = |bytes: &Vec<u8>| Arc::new(Memory::from(bytes.clone())) as Arc<dyn Storage>;
            let opened = open(dir.path(), state.files.iter().map(storage).collect(), false);
            let found = read_vec(&opened, 0, LEN as u64).unwrap();
            for (sector, bytes) in found.chunks(512).enumerate() {
                let at = sector * 512;
                let known = versions[oldest..].iter().any(|(version, _)| version[at..at + bytes.len()] == *bytes);
                assert!(known, "{options} {start}: the sector at {at} after {} of {} events", state.end, events.len());
            }
            check_by_us(&opened, Allowed::Leaks);
            if state.for_qemu {
                std::fs::write(&image, &state.files[0]).unwrap();
                if *has_data {
                    std::fs::write(&data, &state.files[1]).unwrap();
                }
                check_by_qemu(&image, Allowed::Leaks);
            }
        });
        println!("{options} {start}: {} events, {states} states", events.len());
        assert!(states > 20);
        if *has_data {
            std::fs::remove_file(&data).unwrap();
        }
    }
}
