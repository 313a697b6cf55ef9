//! `goldenseal image` beside qemu-img: the same keys, values and exit codes for the same image.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{Random, oracle_missing, qemu_img_check, run};
use serde_json::Value;

fn image(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_goldenseal")).arg("image").args(args).current_dir(dir).output().unwrap()
}

fn qemu_img(dir: &Path, args: &[&str]) -> Output {
    Command::new("qemu-img").args(args).current_dir(dir).output().unwrap()
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
}

/// The same arguments give the same JSON and the same exit code.
fn assert_same(dir: &Path, args: &[&str]) {
    let (ours, theirs) = (image(dir, args), qemu_img(dir, args));
    assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}: {}", String::from_utf8_lossy(&ours.stderr));
    assert_eq!(json(&ours), json(&theirs), "{args:?}");
}

/// Files of all kinds in `dir`: raw ones and images, their names and formats.
fn make_images(dir: &Path) -> Vec<(String, &'static str)> {
    let mut random = Random(7);
    let mut bytes = vec![0; 5 << 20];
    for (index, byte) in bytes.iter_mut().enumerate() {
        // Noise, text that compresses, and holes.
        *byte = match index >> 18 {
            0..=2 => random.next() as u8,
            4..=6 => (index / 9 % 90) as u8,
            12 => 1,
            _ => 0,
        };
    }
    let name = |name: &str| dir.join(name).display().to_string();
    std::fs::write(name("disk.raw"), &bytes).unwrap();
    run("cp", &["--sparse=always", &name("disk.raw"), &name("sparse.raw")]);
    let mut made = vec![("disk.raw".to_owned(), "raw"), ("sparse.raw".to_owned(), "raw")];
    let kinds: &[(&str, &[&str])] = &[
        ("plain", &[]),
        ("v2", &["-o", "compat=0.10"]),
        ("small-clusters", &["-o", "cluster_size=512"]),
        ("large-clusters", &["-o", "cluster_size=2M"]),
        ("refcounts", &["-o", "refcount_bits=1"]),
        ("lazy", &["-o", "lazy_refcounts=on"]),
        ("zlib", &["-c"]),
        ("zstd", &["-c", "-o", "compression_type=zstd"]),
        ("subclusters", &["-o", "extended_l2=on"]),
        ("preallocated", &["-o", "preallocation=metadata"]),
    ];
    for (kind, options) in kinds {
        let file = format!("{kind}.qcow2");
        run("qemu-img", &[&["convert", "-O", "qcow2"], *options, &[&name("disk.raw"), &name(&file)]].concat());
        made.push((file, "qcow2"));
    }
    let create = |file: &str, args: &[&str]| {
        assert!(qemu_img(dir, &[&["create", "-q", "-f", "qcow2"], args].concat()).status.success());
        (file.to_owned(), "qcow2")
    };
    let write = |file: &str, commands: &[&str]| {
        let commands: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        run("qemu-io", &[&["-f", "qcow2"], &commands[..], &[&name(file)]].concat());
    };
    made.push(create("empty.qcow2", &["empty.qcow2", "1G"]));
    made.push(create("over-raw.qcow2", &["-b", "sparse.raw", "-F", "raw", "over-raw.qcow2"]));
    write("over-raw.qcow2", &["write 100k 100k", "write -z 1M 1M", "discard 3M 64k"]);
    made.push(create("longer.qcow2", &["-b", "over-raw.qcow2", "-F", "qcow2", "longer.qcow2", "9M"]));
    write("longer.qcow2", &["write 4M 64k", "write 8M 70k"]);
    run("cp", &[&name("plain.qcow2"), &name("snapshots.qcow2")]);
    run("qemu-img", &["snapshot", "-c", "before", &name("snapshots.qcow2")]);
    write("snapshots.qcow2", &["write 1M 200k"]);
    made.push(("snapshots.qcow2".to_owned(), "qcow2"));
    run("cp", &[&name("plain.qcow2"), &name("bitmaps.qcow2")]);
    run("qemu-img", &["bitmap", "--add", &name("bitmaps.qcow2"), "backup"]);
    run("qemu-img", &["bitmap", "--add", "--disable", "-g", "4k", &name("bitmaps.qcow2"), "other"]);
    made.push(("bitmaps.qcow2".to_owned(), "qcow2"));
    made
}

#[test]
fn info_check_map_and_measure_print_what_qemu_img_prints() {
    if oracle_missing("info_check_map_and_measure_print_what_qemu_img_prints", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (file, format) in make_images(dir) {
        println!("{file}");
        for args in [
            &["info", "--output=json", "-f", format][..],
            &["info", "--output=json"],
            &["info", "--output=json", "-U"],
            &["map", "--output=json", "-f", format],
            &["measure", "--output=json", "-O", "qcow2", "-f", format],
            &["measure", "--output=json", "-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", "-f", format],
            &["measure", "--output=json", "-O", "qcow2", "-o", "extended_l2=on,cluster_size=2M", "-f", format],
            &["measure", "--output=json", "-O", "raw", "-f", format],
        ] {
            assert_same(dir, &[args, &[&file]].concat());
        }
        if format == "qcow2" {
            assert_same(dir, &["check", "--output=json", &file]);
            assert_same(dir, &["info", "--output=json", "--backing-chain", &file]);
        }
        // For people, at least the numbers are the same.
        let human = |out: Output| String::from_utf8_lossy(&out.stdout).into_owned();
        for command in ["map", "measure"] {
            let args = [&[command][..], if command == "map" { &[] } else { &["-O", "qcow2"] }, &[&file]].concat();
            let (ours, theirs) = (image(dir, &args), qemu_img(dir, &args));
            assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}");
            if ours.status.success() {
                assert_eq!(human(ours), human(theirs), "{args:?}");
            }
        }
        assert!(image(dir, &["info", &file]).status.success());
    }
    for size in ["0", "1", "1M", "1G", "300G"] {
        assert_same(dir, &["measure", "--output=json", "-O", "qcow2", "--size", size]);
        assert_same(dir, &["measure", "--output=json", "-O", "qcow2", "-o", "cluster_size=512", "--size", "1G"]);
    }
}

#[test]
fn checks_end_with_qemu_imgs_exit_codes_and_repair() {
    if oracle_missing("checks_end_with_qemu_imgs_exit_codes_and_repair", &["qemu-img"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let name = |name: &str| dir.join(name).display().to_string();
    std::fs::write(name("disk.raw"), [7; 300_000]).unwrap();
    run("qemu-img", &["convert", "-O", "qcow2", &name("disk.raw"), &name("whole.qcow2")]);
    let whole = std::fs::read(name("whole.qcow2")).unwrap();
    let word = |at: usize| u64::from_be_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let block = word(word(48));
    let broken = |file: &str, at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        std::fs::write(name(file), bytes).unwrap();
    };
    // A refcount of 2 for the header; one of 0 for the last cluster, which is its own.
    broken("leak.qcow2", block + 1, 2);
    broken("corrupt.qcow2", block + 2 * 5 + 1, 0);
    for (file, code) in [("whole.qcow2", 0), ("leak.qcow2", 3), ("corrupt.qcow2", 2), ("disk.raw", 63), ("none", 1)] {
        assert_eq!(image(dir, &["check", "-q", file]).status.code(), Some(code), "{file}");
        assert_eq!(qemu_img(dir, &["check", "-q", file]).status.code(), Some(code), "{file}");
    }
    let told = image(dir, &["check", "leak.qcow2"]);
    assert!(String::from_utf8_lossy(&told.stderr).contains("leak: refcount at offset 0x0"));
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 leaked clusters were found on the image."));
    for (file, what) in [("leak.qcow2", "leaks"), ("corrupt.qcow2", "all")] {
        run("cp", &[&name(file), &name("theirs.qcow2")]);
        let args = ["check", "--output=json", "-r", what];
        let (ours, theirs) =
            (image(dir, &[&args[..], &[file]].concat()), qemu_img(dir, &[&args[..], &["theirs.qcow2"]].concat()));
        assert_eq!(ours.status.code(), Some(0), "{}", String::from_utf8_lossy(&ours.stderr));
        let (ours, theirs) = (json(&ours), json(&theirs));
        for key in ["leaks-fixed", "corruptions-fixed", "check-errors", "corruptions", "leaks"] {
            assert_eq!(ours.get(key), theirs.get(key), "{file}: {key}");
        }
        qemu_img_check(&dir.join(file));
    }
}

#[test]
fn images_are_compared_as_qemu_img_compares_them() {
    if oracle_missing("images_are_compared_as_qemu_img_compares_them", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make_images(dir);
    let other = dir.join("other.raw").display().to_string();
    let mut bytes = std::fs::read(dir.join("disk.raw")).unwrap();
    bytes[3_200_001] = 9;
    std::fs::write(&other, bytes).unwrap();
    std::fs::write(dir.join("short.raw"), &std::fs::read(&other).unwrap()[..2 << 20]).unwrap();
    let files = ["disk.raw", "zstd.qcow2", "other.raw", "short.raw", "longer.qcow2", "snapshots.qcow2", "none"];
    for a in files {
        for b in files {
            let args = ["compare", a, b];
            let (ours, theirs) = (image(dir, &args), qemu_img(dir, &args));
            assert_eq!(ours.status.code(), theirs.status.code(), "{args:?}: {}", String::from_utf8_lossy(&ours.stderr));
            let words = |out: &Output| String::from_utf8_lossy(&out.stdout).into_owned();
            if ours.status.code() == Some(0) {
                assert_eq!(words(&ours), words(&theirs), "{args:?}");
            }
        }
    }
    // QEMU names the first sector or so that differs, we the first byte.
    let out = image(dir, &["compare", "disk.raw", "other.raw"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "Content mismatch at offset 3200001!\n");
    assert!(image(dir, &["compare", "-q", "disk.raw", "other.raw"]).stdout.is_empty());
}

#[test]
fn what_is_converted_and_created_is_what_qemu_img_reads() {
    if oracle_missing("what_is_converted_and_created_is_what_qemu_img_reads", &["qemu-img", "qemu-io"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let options: &[&[&str]] = &[
        &["-O", "raw"],
        &["-O", "qcow2"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=2M", "-m", "2"],
        &["-O", "qcow2", "-o", "cluster_size=512,refcount_bits=64"],
        &["-O", "qcow2", "-o", "extended_l2=on", "-o", "compat=1.1"],
    ];
    for (file, format) in make_images(dir) {
        for options in options {
            println!("{file} {options:?}");
            let out = image(dir, &[&["convert", "-f", format], *options, &[&file, "out"]].concat());
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let written = options[1];
            let same = qemu_img(dir, &["compare", "-f", format, "-F", written, &file, "out"]);
            assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
            if written == "qcow2" {
                qemu_img_check(&dir.join("out"));
            }
        }
    }
    let out = image(dir, &["create", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=8", "new.qcow2", "3G"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    qemu_img_check(&dir.join("new.qcow2"));
    let info = json(&qemu_img(dir, &["info", "--output=json", "new.qcow2"]));
    assert_eq!(info["virtual-size"], 3u64 << 30);
    assert_eq!(info["cluster-size"], 4096);
    assert_eq!(info["format-specific"]["data"]["refcount-bits"], 8);
    assert!(image(dir, &["create", "-q", "new.raw", "1000000"]).status.success());
    assert_eq!(std::fs::metadata(dir.join("new.raw")).unwrap().len(), 1_000_448);
    for wrong in [
        &["create", "-f", "qcow2", "-o", "cluster_size=3k", "x", "1M"][..],
        &["create", "-f", "qcow2", "-o", "no_such=1", "x", "1M"],
        &["create", "-f", "raw", "-o", "cluster_size=4k", "x", "1M"],
        &["convert", "-c", "disk.raw", "x"],
        &["convert", "disk.raw", "/dev/null"],
        &["convert", "none", "x"],
    ] {
        assert!(!image(dir, wrong).status.success(), "{wrong:?}");
        assert!(!dir.join("x").exists(), "{wrong:?}");
    }
}
