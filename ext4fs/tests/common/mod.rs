//! What the tests share: images made by mke2fs, and the judges e2fsck, debugfs and the kernel.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use block::Memory;
use ext4fs::{FileSystem, OpenOptions, Timestamp};

/// Feature sets that all tests go through: a name, and mke2fs's arguments.
pub(crate) const LAYOUTS: &[(&str, &str)] = &[
    ("ext4", "-t ext4 -b 4096 -g 4096"),
    ("ext4 of 1.47", "-t ext4 -b 4096 -g 4096 -O metadata_csum_seed,orphan_file"),
    ("ext4 in one group", "-t ext4 -b 4096"),
    ("ext4 with 1 KiB blocks", "-t ext4 -b 1024"),
    ("ext4 with 2 KiB blocks", "-t ext4 -b 2048 -g 4096"),
    ("ext4 without 64bit", "-t ext4 -b 1024 -O ^64bit"),
    ("ext4 without metadata_csum", "-t ext4 -b 4096 -g 4096 -O ^metadata_csum"),
    ("ext4 with uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"),
    ("ext4 with uninit_bg and 64bit", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,64bit"),
    ("ext4 without extents", "-t ext4 -b 1024 -O ^extents,^64bit"),
    ("ext4 without flex_bg", "-t ext4 -b 1024 -O ^flex_bg,^resize_inode"),
    ("ext4 without journal", "-t ext4 -b 4096 -g 4096 -O ^has_journal"),
    ("ext4 without dir_index", "-t ext4 -b 1024 -O ^dir_index"),
    ("ext4 without filetype", "-t ext4 -b 1024 -O ^filetype"),
    ("ext4 with large_dir", "-t ext4 -b 1024 -O large_dir"),
    ("ext4 with 128-byte inodes", "-t ext4 -b 1024 -I 128"),
    ("ext4 with 1 KiB inodes", "-t ext4 -b 4096 -g 4096 -I 1024"),
    ("ext4 with meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    ("ext4 with sparse_super2", "-t ext4 -b 1024 -O sparse_super2"),
    ("ext3", "-t ext3 -b 1024"),
    ("ext3 with 4 KiB blocks", "-t ext3 -b 4096 -g 4096"),
    ("ext2", "-t ext2 -b 1024"),
    ("ext2 with 128-byte inodes", "-t ext2 -b 1024 -I 128"),
    ("ext2 of revision 0", "-t ext2 -b 1024 -r 0"),
];

/// The moment that the tests' changes are stamped with.
pub(crate) const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };

/// Whether a tool is there. One that is missing is an error where the environment says `CI=true`.
pub(crate) fn has_tool(test: &str, tool: &str) -> bool {
    if Command::new(tool).arg("-V").output().is_ok() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is not installed");
    println!("SKIPPED {test}: {tool} is not installed");
    false
}

/// A folder that goes when the test ends.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn run(command: &mut Command) -> Output {
    command.env("MKE2FS_DETERMINISTIC", "1").env("E2FSPROGS_FAKE_TIME", "1600000000").env("LC_ALL", "C");
    command.output().unwrap()
}

/// An image of `mebibytes` made by mke2fs, holding a copy of `from` where given.
pub(crate) fn mke2fs(folder: &Path, arguments: &str, mebibytes: u64, from: Option<&Path>) -> PathBuf {
    let path = folder.join("image");
    let _ = std::fs::remove_file(&path);
    std::fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-U", "11111111-2222-3333-4444-555555555555"]).args(arguments.split(' '));
    if !arguments.contains("-r 0") {
        command.args(["-E", "hash_seed=11111111-2222-3333-4444-555555555555"]);
    }
    if let Some(from) = from {
        command.arg("-d").arg(from);
    }
    let output = run(command.arg(&path));
    assert!(output.status.success(), "mke2fs {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    path
}

/// Lets e2fsck look at an image without changing it: any finding fails the test.
pub(crate) fn e2fsck(path: &Path, what: &str) {
    let output = run(Command::new("e2fsck").args(["-fn"]).arg(path));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(0), "{what}: e2fsck -fn says\n{text}");
    // Things that e2fsck would like to mend without calling them errors end with "<n>? no".
    assert!(!text.contains("? no"), "{what}: e2fsck -fn says\n{text}");
}

/// What debugfs prints for a request.
pub(crate) fn debugfs(path: &Path, request: &str) -> Vec<u8> {
    run(Command::new("debugfs").args(["-R", request]).arg(path)).stdout
}

/// Opens an image's copy in memory for writing.
pub(crate) fn open(path: &Path) -> (Arc<Memory>, FileSystem) {
    let device = Arc::new(Memory::from(std::fs::read(path).unwrap()));
    let fs = FileSystem::open(device.clone(), &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
    assert_eq!(fs.read_only_reason(), None);
    (device, fs)
}

/// Flushes, stores what the device holds in `path`, and lets e2fsck look at it.
pub(crate) fn check(fs: &mut FileSystem, device: &Memory, path: &Path, what: &str) {
    fs.flush().unwrap();
    std::fs::write(path, device.to_vec()).unwrap();
    e2fsck(path, what);
}

/// Bytes that differ from place to place and are the same each time.
pub(crate) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}
