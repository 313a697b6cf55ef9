//! The guest that ships with the project, sealed by the real program and judged by others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::tree::{MARKS, assert_as_reported, changes, planted, tree};
use common::{oracle_missing, qemu_img_check, run, small_guest_path, text};
use serde_json::Value;

/// Where the root file system is in the small guest, as its partition table says: sfdisk made it so.
const ROOT_OFFSET: u64 = 2 << 20;

fn goldenseal(args: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_goldenseal")).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
}

/// The disk of an image, and of it the root file system.
fn raw_root(image: &Path) -> (Vec<u8>, PathBuf) {
    let raw = image.with_extension("raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(image), text(&raw)]);
    let disk = std::fs::read(&raw).unwrap();
    let root = image.with_extension("root");
    // The backup of the partition table takes the last 33 sectors.
    std::fs::write(&root, &disk[ROOT_OFFSET as usize..disk.len() - (1 << 20)]).unwrap();
    (disk, root)
}

#[test]
fn sealing_removes_what_it_says_and_nothing_else() {
    let test = "sealing_removes_what_it_says_and_nothing_else";
    if oracle_missing(test, &["qemu-img", "e2fsck", "getfattr"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.qcow2");
    std::fs::copy(small_guest_path(), &image).unwrap();
    let (_, root_before) = raw_root(&image);
    let before_copy = dir.path().join("before.root");
    std::fs::rename(root_before, &before_copy).unwrap();

    let dry = goldenseal(&["seal", "-n", "--json", text(&image)]);
    assert_eq!(dry["committed"], false);
    assert!(std::fs::read(&image).unwrap() == std::fs::read(small_guest_path()).unwrap());
    let report = goldenseal(&["seal", "--json", text(&image)]);
    assert_eq!(report["committed"], true);
    assert_eq!(report["operations"], dry["operations"], "a dry run reports exactly what is done");
    assert_eq!(report["guest"]["root"], "gpt:2");
    assert_eq!(report["guest"]["id"], "goldenseal-example");

    qemu_img_check(&image);
    let (disk, root) = raw_root(&image);
    run("e2fsck", &["-fn", text(&root)]);

    // Secrets: gone from the disk and from the file, or still there where nothing was to be done.
    let file = std::fs::read(&image).unwrap();
    let secrets = std::fs::read_to_string(small_guest_path().with_extension("secrets")).unwrap();
    let (on_disk, in_file) = (planted(&disk), planted(&file));
    let mut gone = 0;
    for line in secrets.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        assert!(MARKS.iter().any(|mark| fields[0].as_bytes().starts_with(mark)), "{line}");
        let (secret, class, path) = (fields[0].as_bytes(), fields[2], fields[3]);
        match class {
            "default" => {
                gone += 1;
                assert!(!on_disk.contains(secret), "{line} is still on the disk");
                assert!(!in_file.contains(secret), "{line} is still in the file");
            }
            "keep" | "optional" => assert!(on_disk.contains(secret), "{line} of {path} is gone"),
            _ => {}
        }
    }
    assert!(gone > 150);

    // Sealed means sealed.
    let again = goldenseal(&["seal", "--json", text(&image)]);
    assert!(changes(&again).is_empty());
    assert_eq!(again["scrubbed"]["bytes_zeroed"], 0);
    assert!(std::fs::read(&image).unwrap() == file);

    // What the kernel sees differs exactly as the report says.
    let mount = dir.path().join("mnt");
    let options = "ro,loop,noload";
    let (Some(old), Some(new)) = (tree(&before_copy, &mount, options), tree(&root, &mount, options)) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot mount");
        println!("SKIPPED {test}: the comparison of trees needs root and a loop device");
        return;
    };
    assert!(old.len() > 500 && old.keys().any(|path| !path.is_ascii()));
    assert_as_reported(&old, &new, &changes(&report));
}

#[test]
fn a_new_file_is_written_in_every_form_and_holds_the_same() {
    if oracle_missing("a_new_file_is_written_in_every_form_and_holds_the_same", &["qemu-img", "e2fsck"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = small_guest_path();
    let before = std::fs::read(&image).unwrap();
    let mut outputs = Vec::new();
    for (name, options) in [
        ("plain.qcow2", &[][..]),
        ("zlib.qcow2", &["--compress", "zlib"]),
        ("zstd.qcow2", &["--compress", "zstd"]),
        ("disk.raw", &["--format", "raw"]),
    ] {
        let output = dir.path().join(name);
        let args = [&["seal", "-q", text(&image), "-o", text(&output)], options].concat();
        let done = Command::new(env!("CARGO_BIN_EXE_goldenseal"))
            .args(args)
            .env("SOURCE_DATE_EPOCH", "1800000000")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        if !name.ends_with("raw") {
            qemu_img_check(&output);
        }
        outputs.push(output);
    }
    assert!(std::fs::read(&image).unwrap() == before);
    for output in &outputs[1..] {
        run("qemu-img", &["compare", text(&outputs[0]), text(output)]);
    }
    assert!(std::fs::metadata(&outputs[1]).unwrap().len() < std::fs::metadata(&outputs[0]).unwrap().len() / 4);
    run("e2fsck", &["-fn", text(&raw_root(&outputs[2]).1)]);
    // A raw image is sealed to a new file as well.
    let again = dir.path().join("again.qcow2");
    let report = goldenseal(&["seal", "--json", text(&outputs[3]), "-o", text(&again)]);
    assert_eq!(report["scrubbed"]["bytes_zeroed"], 0);
    run("qemu-img", &["compare", text(&outputs[3]), text(&again)]);
}
