//! Benchmarks on a large image: `cargo bench --bench large_image`.
//!
//! A disk of 4 GiB of which 1 GiB is data, in a file of the page cache, is read as a raw file and as qcow2 side by side;
//! then what the start of a transaction costs, which walks all metadata.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may fail by panic")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use block::{Access, HostFile, ReadAt, Storage, WriteAt};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use qcow2::{CreateOptions, Image, OpenOptions};

const DISK: u64 = 4 << 30;
const DATA: u64 = 1 << 30;
const STEP: usize = 2 << 20;

/// A disk with 16 MiB of data, then 48 MiB of nothing, and so on.
fn make(dir: &Path) -> (PathBuf, PathBuf) {
    let (raw, image) = (dir.join("large.raw"), dir.join("large.qcow2"));
    if !image.exists() {
        let _ = std::fs::remove_file(&raw);
        let file = HostFile::create_new(&raw).unwrap();
        file.set_len(DISK).unwrap();
        let mut state = 1u64;
        let mut chunk = vec![0; 16 << 20];
        for index in 0..DATA / chunk.len() as u64 {
            for word in chunk.as_chunks_mut::<8>().0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                *word = state.to_le_bytes();
            }
            file.write_at(index * (64 << 20), &chunk).unwrap();
        }
        let new = HostFile::create_new(&image).unwrap();
        qcow2::create(&new, &file, &CreateOptions::new(), &mut |_| {}).unwrap();
    }
    (raw, image)
}

fn read_data(device: &dyn ReadAt, buf: &mut [u8]) {
    for index in 0..DATA / (16 << 20) {
        for part in 0..(16 << 20) / STEP as u64 {
            device.read_at(index * (64 << 20) + part * STEP as u64, buf).unwrap();
        }
    }
}

fn read_random(device: &dyn ReadAt, buf: &mut [u8]) {
    let mut state = 7u64;
    for _ in 0..10_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let block = (state >> 33) % (DATA / 4096);
        let offset = block / 4096 * (64 << 20) + block % 4096 * 4096;
        device.read_at(offset, &mut buf[..4096]).unwrap();
    }
}

fn large_image(criterion: &mut Criterion) {
    let dir = PathBuf::from(std::env::var("CARGO_TARGET_TMPDIR").unwrap_or_else(|_| "target/tmp".to_owned()));
    std::fs::create_dir_all(&dir).unwrap();
    let (raw_path, path) = make(&dir);
    let raw = HostFile::open(&raw_path, Access::Read).unwrap();
    let image = Image::open(&path, &OpenOptions::new()).unwrap();
    let mut buf = vec![0; STEP];

    let mut group = criterion.benchmark_group("sequential read");
    group.throughput(Throughput::Bytes(DATA)).sample_size(10).measurement_time(Duration::from_secs(10));
    group.bench_function("raw file", |b| b.iter(|| read_data(black_box(&raw), &mut buf)));
    group.bench_function("qcow2", |b| b.iter(|| read_data(black_box(&image), &mut buf)));
    group.finish();

    let mut group = criterion.benchmark_group("10,000 random reads of 4 KiB");
    group.throughput(Throughput::Elements(10_000)).sample_size(20);
    group.bench_function("raw file", |b| b.iter(|| read_random(black_box(&raw), &mut buf)));
    group.bench_function("qcow2", |b| b.iter(|| read_random(black_box(&image), &mut buf)));
    group.finish();
    drop(image);

    let mut group = criterion.benchmark_group("transaction");
    group.sample_size(20);
    group.bench_function("open and begin", |b| {
        b.iter(|| Image::open(black_box(&path), &OpenOptions::new()).unwrap().begin().unwrap());
    });
    group.finish();
}

criterion_group!(benches, large_image);
criterion_main!(benches);
