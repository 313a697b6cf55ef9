//! Files removed from FAT file systems that mkfs.vfat made and mtools filled, judged by fsck.vfat.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

mod oracle;

use std::path::Path;
use std::process::Command;

use block::{Access, HostFile, Memory, ReadAt, WriteAt};
use oracle::{device, file, installed, run};

const TOOLS: &[&str] = &["mkfs.vfat", "fsck.vfat", "mcopy", "mmd", "mdir", "mtype"];

/// A file system with a loader, its seed, and others beside them.
fn filled(temp: &tempfile::TempDir, name: &str, mib: u64, options: &[&str]) -> std::path::PathBuf {
    let path = file(temp, name, mib << 20);
    run("mkfs.vfat", &[options, &["FILE"]].concat(), &path);
    run("mmd", &["-i", "FILE", "::/EFI", "::/loader", "::/loader/a long name of a directory", "::/EFI/BOOT"], &path);
    let copy = |contents: &[u8], to: &str| {
        let source = temp.path().join("source");
        std::fs::write(&source, contents).unwrap();
        run("mcopy", &["-i", "FILE", source.to_str().unwrap(), to], &path);
    };
    copy(&[0x11; 9000], "::/EFI/BOOT/BOOTX64.EFI");
    copy(b"default x\n", "::/loader/loader.conf");
    copy(b"SECRET-SEED-of-32-bytes-or-more-", "::/loader/random-seed");
    copy(&b"SECRET-LONG ".repeat(20_000), "::/loader/a long name of a directory/Another Long Name.bin");
    path
}

fn whole(path: &Path) {
    let output = Command::new("fsck.vfat").args(["-n", path.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("Free cluster summary wrong"), "{said}");
}

#[test]
fn removed_files_leave_a_whole_file_system() {
    if !installed("removed_files_leave_a_whole_file_system", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for (name, mib, options) in [
        ("12", 4, &["-F", "12"][..]),
        ("16", 32, &["-F", "16", "-s", "1"]),
        ("32", 64, &["-F", "32", "-s", "1"]),
        ("one", 64, &["-F", "32", "-s", "1", "-f", "1", "-S", "512"]),
        ("sectors", 32, &["-F", "16", "-S", "2048"]),
    ] {
        let path = filled(&temp, name, mib, options);
        whole(&path);
        let disk = HostFile::open(&path, Access::ReadWrite).unwrap();
        let remove = |path: &[&str]| volumes::remove_fat_file(&disk, path).unwrap();
        assert_eq!(remove(&["LOADER", "random-seed"]), Some(32), "{name}");
        assert_eq!(remove(&["loader", "A Long Name of a Directory", "another long name.bin"]), Some(240_000));
        assert_eq!(remove(&["loader", "random-seed"]), None);
        assert_eq!(remove(&["loader"]), None, "a directory is no file");
        assert_eq!(remove(&["nothing", "random-seed"]), None);
        disk.flush().unwrap();
        drop(disk);
        whole(&path);
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("SECRET"), "{name}");
        let list = run("mdir", &["-i", "FILE", "-b", "-/", "::/"], &path);
        assert!(
            list.contains("loader.conf") && list.contains("BOOTX64.EFI") && !list.contains("random-seed"),
            "{list}"
        );
        assert_eq!(run("mtype", &["-i", "FILE", "::/loader/loader.conf"], &path), "default x\n");
    }
}

#[test]
fn damage_gives_errors_and_ends() {
    if !installed("damage_gives_errors_and_ends", TOOLS) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = filled(&temp, "image", 4, &["-F", "12"]);
    let sound = block::read_vec(&device(&path), 0, 4 << 20).unwrap();
    let mut state = 5_u64;
    let mut next = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..3000 {
        let mut bytes = sound.clone();
        for _ in 0..1 + next(4) {
            // Boot sector, tables and the first directories.
            let limit = [64, 40_000][next(2)];
            let (at, value) = (next(limit), next(256) as u8);
            bytes[at] = value;
        }
        let disk = Memory::from(bytes);
        for path in [&["loader", "random-seed"][..], &["loader", "a long name of a directory", "another long name.bin"]]
        {
            let before = disk.to_vec();
            if volumes::remove_fat_file(&disk, path).is_err() {
                assert!(disk.to_vec() == before, "an error, but something was written");
            }
        }
        assert_eq!(disk.len(), 4 << 20);
    }
    // A chain that leads back to itself.
    let disk = Memory::from(sound);
    disk.write_at(512, &[0xf8, 0xff, 0xff, 0x02, 0x20, 0x00, 0x03, 0x30, 0x00]).unwrap();
    let _ = volumes::remove_fat_file(&disk, &["loader", "random-seed"]);
}
