//! One piece of work on one image, timed from inside: what `benches/qcow2_peers.py` runs beside other programs.
//!
//!     cargo bench -p goldenseal-qcow2 --bench image_io -- WORK raw|qcow2 FILE [NUMBER...]
//!
//! prints one line of JSON: seconds of wall time and of CPU for the work alone, and how much was done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unimplemented,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may fail by panic, and prints what it measured"
)]

use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use block::{Access, HostFile, ReadAt, Storage, WriteAt};
use qcow2::{Compression, CreateOptions, Image, OpenOptions};
use rustix::time::{ClockId, clock_gettime};

const STEP: usize = 2 << 20;
const BLOCK: usize = 4096;
/// A prime: with it a walk in steps of so many blocks meets every block once.
const STRIDE: u64 = 104_729;

const USAGE: &str = "\
read raw|qcow2 FILE BYTES            2 MiB at a time
random raw|qcow2 FILE BYTES COUNT THREADS   4 KiB at a time, within the first BYTES
readall qcow2 FILE THREADS           the whole disk, in order
create zlib|zstd|none FILE TARGET THREADS   a new image
write raw|qcow2 FILE BYTES           2 MiB at a time, to a new file, with one flush
allocate raw|qcow2 FILE COUNT        4 KiB at random places of an empty image, with one flush
check qcow2 FILE
open raw|qcow2 FILE COUNT            and close";

fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn timed(amount: u64, work: impl FnOnce()) {
    let (wall, used) = (Instant::now(), cpu());
    work();
    let (seconds, cpu) = (wall.elapsed().as_secs_f64(), cpu() - used);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0").trim_end_matches("kB").trim();
    println!("{{\"seconds\": {seconds}, \"cpu\": {cpu}, \"amount\": {amount}, \"peak_kib\": {peak}}}");
}

fn open(kind: &str, path: &Path, writable: bool) -> Arc<dyn Storage> {
    let access = if writable { Access::ReadWrite } else { Access::Read };
    match kind {
        "raw" => Arc::new(HostFile::open(path, access).unwrap()),
        _ => Arc::new(Device(Image::open(path, &OpenOptions::new().writable(writable)).unwrap())),
    }
}

/// An image where a storage is wanted: its length does not change here.
struct Device(Image);

impl ReadAt for Device {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        self.0.read_at(offset, buf)
    }
}

impl WriteAt for Device {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        self.0.write_at(offset, buf)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        self.0.write_zeroes(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        self.0.discard(offset, len)
    }
    fn flush(&self) -> block::Result<()> {
        self.0.flush()
    }
}

impl Storage for Device {
    fn set_len(&self, _: u64) -> block::Result<()> {
        Ok(())
    }
}

/// Bytes of the disk that hold data.
fn data_in(device: &dyn ReadAt) -> u64 {
    let (mut at, mut data) = (0, 0);
    while at < device.len() {
        let extent = device.extent_at(at, device.len() - at).unwrap();
        data += if extent.kind == block::ExtentKind::Data { extent.len } else { 0 };
        at += extent.len;
    }
    data
}

/// A buffer of `len` bytes that begins where a page does, as those of the peers do.
fn aligned(room: &mut Vec<u8>, len: usize) -> &mut [u8] {
    room.resize(len + BLOCK, 1);
    let start = room.as_ptr().align_offset(BLOCK);
    &mut room[start..start + len]
}

fn read(device: &dyn ReadAt, bytes: u64) {
    let mut room = Vec::new();
    let buf = aligned(&mut room, STEP);
    timed(bytes, || {
        for at in (0..bytes).step_by(STEP) {
            device.read_at(at, buf).unwrap();
            black_box(&buf);
        }
    });
}

fn random(device: &dyn ReadAt, bytes: u64, count: u64, threads: u64) {
    let blocks = bytes / BLOCK as u64;
    let mut warm = vec![1; STEP];
    (0..bytes).step_by(STEP).for_each(|at| device.read_at(at, &mut warm[..STEP.min((bytes - at) as usize)]).unwrap());
    timed(count * threads, || {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut room = Vec::new();
                    let buf = aligned(&mut room, BLOCK);
                    let mut block = thread * (blocks / threads);
                    for _ in 0..count {
                        block = (block + STRIDE) % blocks;
                        device.read_at(block * BLOCK as u64, buf).unwrap();
                        black_box(&buf);
                    }
                });
            }
        });
    });
}

fn create(kind: &str, source: &Path, target: &Path, threads: usize) {
    let source = HostFile::open(source, Access::Read).unwrap();
    let target = HostFile::create_new(target).unwrap();
    let compression = match kind {
        "zlib" => Some(Compression::Zlib),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    };
    let options = CreateOptions::new().compression(compression).threads(threads);
    timed(source.len(), || qcow2::create(&target, &source, &options, &mut |_| {}).unwrap());
}

/// A new file to write to: an empty image, or an empty file.
fn empty(kind: &str, path: &Path, len: u64) -> Arc<dyn Storage> {
    if kind == "raw" {
        std::fs::File::create_new(path).unwrap();
        return Arc::new(Growing(std::fs::File::options().read(true).write(true).open(path).unwrap(), len));
    }
    let file = HostFile::create_new(path).unwrap();
    qcow2::create(&file, &Nothing(len), &CreateOptions::new(), &mut |_| {}).unwrap();
    drop(file);
    open(kind, path, true)
}

/// A file that grows as it is written, as one does that no format stands in front of.
struct Growing(std::fs::File, u64);

impl ReadAt for Growing {
    fn len(&self) -> u64 {
        self.1
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        self.0.read_exact_at(buf, offset).unwrap();
        Ok(())
    }
}

impl WriteAt for Growing {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        self.0.write_all_at(buf, offset).unwrap();
        Ok(())
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        self.write_at(offset, &vec![0; len as usize])
    }
    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        self.write_zeroes(offset, len)
    }
    fn flush(&self) -> block::Result<()> {
        self.0.sync_data().unwrap();
        Ok(())
    }
}

impl Storage for Growing {
    fn set_len(&self, _: u64) -> block::Result<()> {
        Ok(())
    }
}

struct Nothing(u64);

impl ReadAt for Nothing {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_at(&self, _: u64, buf: &mut [u8]) -> block::Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn extent_at(&self, _: u64, len: u64) -> block::Result<block::Extent> {
        Ok(block::Extent { len, kind: block::ExtentKind::Hole })
    }
}

fn write(device: &dyn Storage, bytes: u64) {
    let buf: Vec<u8> = (0..STEP).map(|i| (i % 251) as u8 | 1).collect();
    timed(bytes, || {
        (0..bytes).step_by(STEP).for_each(|at| device.write_at(at, &buf).unwrap());
        device.flush().unwrap();
    });
}

fn allocate(device: &dyn Storage, count: u64) {
    let blocks = device.len() / BLOCK as u64;
    let buf = vec![1; BLOCK];
    timed(count, || {
        let mut block = 0;
        for _ in 0..count {
            block = (block + STRIDE) % blocks;
            device.write_at(block * BLOCK as u64, &buf).unwrap();
        }
        device.flush().unwrap();
    });
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |at: usize| args[at].parse::<u64>().unwrap();
    let path = |at: usize| Path::new(args[at]);
    match args[..] {
        ["read", kind, ..] => read(&*open(kind, path(2), false), number(3)),
        ["random", kind, ..] => random(&*open(kind, path(2), false), number(3), number(4), number(5)),
        ["readall", ..] => {
            let image = Image::open(path(2), &OpenOptions::new()).unwrap();
            let bytes = data_in(&image);
            timed(bytes, || {
                qcow2::read_in_order(&image, number(3) as usize, &mut |_, bytes| {
                    black_box(bytes);
                    Ok(())
                })
                .unwrap();
            });
        }
        ["create", kind, ..] => create(kind, path(2), path(3), number(4) as usize),
        ["write", kind, ..] => write(&*empty(kind, path(2), number(3)), number(3)),
        ["allocate", kind, ..] => allocate(&*empty(kind, path(2), 4 << 30), number(3)),
        ["check", ..] => {
            let image = Image::open(path(2), &OpenOptions::new()).unwrap();
            timed(1, || assert!(image.check(&mut |_| {}).unwrap().is_clean()));
        }
        ["open", kind, ..] => {
            let count = number(3);
            timed(count, || (0..count).for_each(|_| drop(black_box(open(kind, path(2), false)))));
        }
        _ => println!("{USAGE}"),
    }
}
