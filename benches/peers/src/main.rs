//! The work of `qcow2/benches/image_io.rs`, done by other crates, and codecs by themselves:
//!
//!     cargo run --release -- read imago|qcow2-rs FILE BYTES
//!     cargo run --release -- random imago|qcow2-rs FILE BYTES COUNT
//!     cargo run --release -- codec inflate|deflate|unzstd|zstd FILE BYTES
//!
//! prints one line of JSON: seconds of wall time and of CPU for the work alone, and how much was done.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use qcow2_rs::dev::Qcow2DevParams;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::utils::qcow2_setup_dev_sync;

const STEP: usize = 2 << 20;
const BLOCK: usize = 4096;
const STRIDE: u64 = 104_729;
const CLUSTER: usize = 65_536;

/// CPU of this process so far, in seconds: all its threads, to the nanosecond.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let used = tasks.map(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|used| used.parse::<f64>().ok()).unwrap_or(0.0)
    });
    used.sum::<f64>() / 1e9
}

fn timed(amount: u64, work: impl FnOnce()) {
    let (wall, used) = (Instant::now(), cpu());
    work();
    let (seconds, cpu) = (wall.elapsed().as_secs_f64(), cpu() - used);
    println!("{{\"seconds\": {seconds}, \"cpu\": {cpu}, \"amount\": {amount}}}");
}

/// The offsets of random blocks of the first `bytes`.
fn places(bytes: u64, count: u64) -> impl Iterator<Item = u64> {
    let blocks = bytes / BLOCK as u64;
    (1..=count).map(move |index| index * STRIDE % blocks * BLOCK as u64)
}

fn read(peer: &str, path: &Path, bytes: u64, random: Option<u64>) {
    let warm = || (0..bytes).step_by(STEP);
    match peer {
        "imago" => {
            let image = imago::qcow2::Qcow2::<imago::file::File>::builder_path(path);
            let image = FormatAccess::new(image.open(PermissiveImplicitOpenGate::default()).unwrap());
            // Aligned to a page, as the buffers of the other peer and of ours are.
            let mut room = vec![1u8; STEP + BLOCK];
            let start = room.as_ptr().align_offset(BLOCK);
            let mut buf = &mut room[start..start + STEP];
            match random {
                None => timed(bytes, || {
                    warm().for_each(|at| {
                        image.read(&mut buf[..], at).unwrap();
                        black_box(&buf);
                    });
                }),
                Some(count) => {
                    warm().for_each(|at| image.read(&mut buf[..], at).unwrap());
                    buf = &mut buf[..BLOCK];
                    timed(count, || {
                        places(bytes, count).for_each(|at| {
                            image.read(&mut buf[..], at).unwrap();
                            black_box(&buf);
                        });
                    });
                }
            }
        }
        "qcow2-rs" => {
            let params = Qcow2DevParams::new(9, None, None, true, false);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let image = qcow2_setup_dev_sync(path, &params).unwrap();
            // Without this it knows no L1 table, and reads zeros.
            runtime.block_on(image.qcow2_prep_io()).unwrap();
            let mut buf = Qcow2IoBuf::<u8>::new(STEP);
            let mut small = Qcow2IoBuf::<u8>::new(BLOCK);
            match random {
                None => timed(bytes, || {
                    runtime.block_on(async {
                        for at in warm() {
                            image.read_at(&mut buf, at).await.unwrap();
                            black_box(&buf);
                        }
                    });
                }),
                Some(count) => {
                    runtime.block_on(async {
                        for at in warm() {
                            image.read_at(&mut buf, at).await.unwrap();
                            assert!(at > 0 || buf.iter().any(|&byte| byte != 0), "nothing was read");
                        }
                    });
                    timed(count, || {
                        runtime.block_on(async {
                            for at in places(bytes, count) {
                                image.read_at(&mut small, at).await.unwrap();
                                black_box(&small);
                            }
                        });
                    });
                }
            }
        }
        other => panic!("no peer {other}"),
    }
}

/// The codecs as our crate sets them, on one core.
fn codec(work: &str, path: &Path, bytes: u64) {
    let data = std::fs::read(path).unwrap();
    let clusters: Vec<&[u8]> = data[..bytes as usize].chunks(CLUSTER).collect();
    let mut out = vec![0; 2 * CLUSTER];
    let mut deflate = Compressor::new(CompressionLvl::new(4).unwrap());
    let mut zstd = zstd::bulk::Compressor::new(3).unwrap();
    let mut pack = |cluster: &[u8], out: &mut [u8]| match work {
        "inflate" | "deflate" => deflate.deflate_compress(cluster, out).unwrap(),
        _ => zstd.compress_to_buffer(cluster, out).unwrap(),
    };
    if matches!(work, "deflate" | "zstd") {
        return timed(bytes, || clusters.iter().for_each(|cluster| _ = black_box(pack(cluster, &mut out))));
    }
    let packed: Vec<Vec<u8>> = clusters
        .iter()
        .map(|cluster| {
            let len = pack(cluster, &mut out);
            out[..len].to_vec()
        })
        .collect();
    let mut inflate = Decompressor::new();
    let mut unzstd = zstd::bulk::Decompressor::new().unwrap();
    let mut out = vec![0; CLUSTER];
    timed(bytes, || {
        for stream in &packed {
            let len = match work {
                "inflate" => inflate.deflate_decompress(stream, &mut out).unwrap(),
                _ => unzstd.decompress_to_buffer(stream, &mut out).unwrap(),
            };
            black_box(len);
        }
    });
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |at: usize| args[at].parse::<u64>().unwrap();
    match args[..] {
        ["read", peer, path, _] => read(peer, Path::new(path), number(3), None),
        ["random", peer, path, _, _] => read(peer, Path::new(path), number(3), Some(number(4))),
        ["codec", work, path, _] => codec(work, Path::new(path), number(3)),
        _ => eprintln!("see the head of src/main.rs"),
    }
}
