//! Raw images and block devices are sealed in place, with a redo log.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use block::{Access, ExtentKind, HostFile, ReadAt, Staged};
use common::{Random, oracle_missing, run, small_guest_path, text};

fn raw_guest(dir: &Path) -> PathBuf {
    let raw = dir.join("guest.raw");
    run("qemu-img", &["convert", "-O", "raw", text(&small_guest_path()), text(&raw)]);
    raw
}

fn goldenseal(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_goldenseal"));
    command.args(args).env("SOURCE_DATE_EPOCH", "1800000000");
    command
}

fn done(args: &[&str]) -> Output {
    let out = goldenseal(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// All that a file holds but zeros, with its place; holes are not read.
fn contents(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = HostFile::open(path, Access::Read).unwrap();
    let (mut blocks, mut at) = (Vec::new(), 0);
    while at < file.len() {
        let extent = file.extent_at(at, (1 << 20).min(file.len() - at)).unwrap();
        if extent.kind == ExtentKind::Data {
            let bytes = block::read_vec(&file, at, extent.len).unwrap();
            let offsets = (at..).step_by(512);
            let filled = offsets.zip(bytes.chunks(512)).filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0));
            blocks.extend(filled.map(|(offset, bytes)| (offset, bytes.to_vec())));
        }
        at += extent.len;
    }
    blocks
}

/// Where the ext file systems of a disk start.
fn file_systems(disk: &HostFile) -> Vec<u64> {
    let starts = volumes::discover(disk).unwrap().volumes.into_iter().map(|volume| volume.start);
    let is_ext = |start: &u64| {
        let mut magic = [0; 2];
        disk.read_at(start + 1024 + 56, &mut magic).is_ok() && magic == [0x53, 0xEF]
    };
    starts.filter(is_ext).collect()
}

/// Has e2fsck judge every ext file system of a raw image.
fn e2fsck(image: &Path) {
    let starts = file_systems(&HostFile::open(image, Access::Read).unwrap());
    assert!(!starts.is_empty());
    for start in starts {
        run("e2fsck", &["-fn", &format!("{}?offset={start}", text(image))]);
    }
}

#[test]
fn a_raw_image_is_sealed_in_place_as_to_a_new_file() {
    if oracle_missing("a_raw_image_is_sealed_in_place_as_to_a_new_file", &["qemu-img", "e2fsck"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, new) = (raw_guest(dir.path()), dir.path().join("new.raw"));
    let before = std::fs::read(&raw).unwrap();
    let out = goldenseal(&["audit", "-q", text(&raw)]).output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    done(&["seal", "-q", "--dry-run", text(&raw)]);
    done(&["seal", "-q", text(&raw), "-o", text(&new), "--format", "raw"]);
    assert!(std::fs::read(&raw).unwrap() == before);
    done(&["seal", "-q", text(&raw)]);
    assert!(std::fs::read(&raw).unwrap() == std::fs::read(&new).unwrap());
    e2fsck(&raw);
    done(&["audit", "-q", text(&raw)]);
    let sealed = std::fs::read(&raw).unwrap();
    done(&["seal", "-q", text(&raw)]);
    assert!(std::fs::read(&raw).unwrap() == sealed, "sealing twice changes nothing");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no log is left: {names:?}");
}

#[test]
fn sealing_a_raw_image_may_be_killed_at_any_moment() {
    if oracle_missing("sealing_a_raw_image_may_be_killed_at_any_moment", &["qemu-img", "e2fsck"]) {
        return;
    }
    // In memory where that can be had: each round writes and flushes the whole image.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let raw = raw_guest(dir.path());
    let kept = dir.path().join("kept.raw");
    // With its holes, so that the first sealing takes as long as the others.
    let copy = |from: &Path, to: &Path| run("cp", &["--sparse=always", text(from), text(to)]);
    copy(&raw, &kept);
    let old = contents(&raw);
    let seal = || {
        let mut command = goldenseal(&["seal", "-q", text(&raw)]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let started = std::time::Instant::now();
    assert!(seal().wait().unwrap().success());
    let whole = started.elapsed();
    let new = contents(&raw);
    let mut random = Random(77);
    let (mut olds, mut news, mut logs) = (0, 0, 0);
    for round in 0..30 {
        copy(&kept, &raw);
        let mut child = seal();
        // What is worth being killed in is at the end.
        let part = if round % 4 == 0 { 0 } else { whole.as_micros() as u64 * 3 / 5 };
        std::thread::sleep(Duration::from_micros(part + random.below(whole.as_micros() as u64 * 3 / 5)));
        let _ = child.kill();
        child.wait().unwrap();
        logs += usize::from(dir.path().join("guest.raw.redo-log").exists());
        // What reads goes through the log; what writes finishes it.
        done(&["inspect", text(&raw)]);
        drop(Staged::open(&raw, None).unwrap());
        let found = contents(&raw);
        assert!(found == old || found == new);
        if round % 10 == 0 {
            e2fsck(&raw);
        }
        if found == old {
            olds += 1
        } else {
            news += 1
        }
        assert!(seal().wait().unwrap().success());
        assert!(contents(&raw) == new);
    }
    println!("{olds} times the old image, {news} times the new one, {logs} logs left behind");
}

#[test]
fn a_block_device_is_sealed_in_place_but_not_while_it_is_mounted() {
    let name = "a_block_device_is_sealed_in_place_but_not_while_it_is_mounted";
    if oracle_missing(name, &["qemu-img", "e2fsck"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_guest(dir.path());
    let attached = Command::new("losetup").args(["-f", "--show", "-P", text(&raw)]).output();
    let Some(out) = attached.ok().filter(|out| out.status.success()) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "loop devices are needed");
        println!("SKIPPED {name}: no loop device");
        return;
    };
    let device = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let log = dir.path().join("log");
    let refused = goldenseal(&["seal", "-q", &device]).output().unwrap();
    let sealed = goldenseal(&["seal", "-q", &device, "--redo-log", text(&log)]).output().unwrap();
    let disk = HostFile::open(&raw, Access::ReadUnlocked).unwrap();
    let start = file_systems(&disk)[0];
    run("losetup", &["-d", &device]);
    let out = run("losetup", &["-f", "--show", "-o", &start.to_string(), text(&raw)]);
    let device = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let mount = dir.path().join("mnt");
    std::fs::create_dir(&mount).unwrap();
    run("mount", &[&device, text(&mount)]);
    let busy = goldenseal(&["seal", "-q", &device, "--redo-log", text(&log)]).output().unwrap();
    run("umount", &[text(&mount)]);
    run("losetup", &["-d", &device]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("outlasts a restart"));
    assert!(sealed.status.success(), "{}", String::from_utf8_lossy(&sealed.stderr));
    assert!(String::from_utf8_lossy(&busy.stderr).contains("busy"), "{}", String::from_utf8_lossy(&busy.stderr));
    assert!(!log.exists());
    e2fsck(&raw);
}
