//! What the tests of the whole program share: the oracles, and the guest that ships with the project.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Whether one of the programs that judge is missing. The test is then skipped by name; in CI that is a failure.
pub fn oracle_missing(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        let flag = if *tool == "e2fsck" || *tool == "debugfs" { "-V" } else { "--version" };
        if Command::new(tool).arg(flag).output().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is not installed");
            println!("SKIPPED {test}: {tool} is not installed");
            return true;
        }
    }
    false
}

pub fn run(tool: &str, args: &[&str]) -> Output {
    let out = Command::new(tool).args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{tool} {args:?}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn qemu_img_check(image: &Path) {
    run("qemu-img", &["check", "-q", "-f", "qcow2", text(image)]);
}

/// Where the guest that ships with the project is.
pub fn small_guest_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test-images/small-guest.qcow2")
}

/// The file of the guest that ships with the project: as it is, or with its clusters not compressed.
pub fn small_guest(plain: bool, dir: &Path) -> Vec<u8> {
    let shipped = small_guest_path();
    if !plain {
        return std::fs::read(shipped).unwrap();
    }
    let image = dir.join("plain.qcow2");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "qcow2", text(&shipped), text(&image)]);
    std::fs::read(image).unwrap()
}

/// A small generator of pseudo-random numbers, so that each failure can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
