//! What the tests share: the oracle (qemu-img), and bytes to fill disks with.

use std::path::Path;
use std::process::{Command, Output};

/// Whether qemu-img and qemu-io are there. Where they are not, the test is skipped by name; in CI that is a failure.
pub(crate) fn oracle_missing(test: &str) -> bool {
    let there = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|out| out.status.success());
    for tool in ["qemu-img", "qemu-io"] {
        if !there(tool) {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is not installed");
            println!("SKIPPED {test}: {tool} is not installed");
            return true;
        }
    }
    false
}

/// A directory for images: in memory, where the host has such a place.
pub(crate) fn temp_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub(crate) fn run(tool: &str, args: &[&str]) -> Output {
    let mut out = Command::new(tool).args(args).output().unwrap();
    // A program that another test starts at the same moment holds our descriptors, and their locks, until its exec.
    for _ in 0..50 {
        if out.status.success() || !text(&out.stderr).contains("lock") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        out = Command::new(tool).args(args).output().unwrap();
    }
    assert!(out.status.success(), "{tool} {args:?}\n{}{}", text(&out.stdout), text(&out.stderr));
    out
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The image has neither errors nor leaks.
pub(crate) fn check(image: &Path) {
    run("qemu-img", &["check", "-f", "qcow2", path(image)]);
}

/// The image holds these bytes, as QEMU reads it.
pub(crate) fn assert_contents(image: &Path, expected: &[u8]) {
    let raw = image.with_extension("contents");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", path(image), path(&raw)]);
    let found = std::fs::read(&raw).unwrap();
    assert_eq!(found.len(), expected.len());
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first difference");
}

/// Has qemu-io write, zero and discard at random, so that subclusters of one cluster are held in different ways; `model`
/// follows.
pub(crate) fn change_by_qemu(image: &Path, model: &mut [u8], random: &mut Random, steps: usize) {
    let mut commands = Vec::new();
    for step in 0..steps {
        let grain = [512, 512, 2048, 16_384][random.below(4) as usize];
        let offset = random.below(model.len() as u64) as usize / grain * grain;
        let len = ((1 + random.below(40_000 / grain as u64 + 2) as usize) * grain).min(model.len() - offset);
        let (command, pattern) = match random.below(4) {
            0 => (format!("write -z -u {offset} {len}"), 0),
            1 => (format!("write -z {offset} {len}"), 0),
            _ => (format!("write -P {} {offset} {len}", step % 255 + 1), (step % 255 + 1) as u8),
        };
        commands.push(command);
        model[offset..offset + len].fill(pattern);
    }
    let args: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
    run("qemu-io", &[&["-f", "qcow2"], &args[..], &[path(image)]].concat());
}

/// A small generator of pseudo-random numbers, so that each failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A disk with noise, text that compresses, and holes.
pub(crate) fn disk(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let step = (1 + random.below(200_000) as usize).min(len - at);
        match random.below(3) {
            0 => bytes[at..at + step].copy_from_slice(&random.bytes(step)),
            1 => {
                for (i, byte) in bytes[at..at + step].iter_mut().enumerate() {
                    *byte = b'a' + (i / 50 % 26) as u8;
                }
            }
            _ => {}
        }
        at += step;
    }
    bytes
}
