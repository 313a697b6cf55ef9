//! The commands of `goldenseal image` that make and change images, beside qemu-img: the same arguments end with the same exit
//! code, and leave images of which qemu-img says the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{oracle_missing, qemu_img_check, run};
use serde_json::Value;

fn run_in(dir: &Path, program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(dir).output().unwrap()
}

fn ours(dir: &Path, args: &[&str]) -> Output {
    run_in(dir, env!("CARGO_BIN_EXE_goldenseal"), &[&["image"], args].concat())
}

/// The files that every case starts from: `image.qcow2` over `mid.qcow2` over `base.raw`, and `other.qcow2` with bitmaps.
fn prepare(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let mut bytes = vec![0; 2 << 20];
    bytes[..600_000].fill(7);
    std::fs::write(dir.join("base.raw"), &bytes).unwrap();
    bytes[300_000..900_000].fill(9);
    std::fs::write(dir.join("new.raw"), &bytes[..1_500_160]).unwrap();
    let qemu = |args: &[&str]| {
        let out = run_in(dir, "qemu-img", args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    };
    qemu(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2"]);
    qemu(&["create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "image.qcow2", "3M"]);
    qemu(&["create", "-q", "-f", "qcow2", "other.qcow2", "2M"]);
    let write = |file: &str, commands: &[&str]| {
        let commands: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        assert!(run_in(dir, "qemu-io", &[&["-f", "qcow2"], &commands[..], &[file]].concat()).status.success());
    };
    write("mid.qcow2", &["write -P 2 64k 128k", "write -z 512k 64k"]);
    write("image.qcow2", &["write -P 3 128k 128k", "write -z 1M 64k", "write -P 4 2560k 64k"]);
    write("other.qcow2", &["write -P 1 0 1M"]);
    qemu(&["snapshot", "-c", "first", "other.qcow2"]);
    qemu(&["bitmap", "--add", "-g", "4k", "other.qcow2", "a"]);
    write("other.qcow2", &["write -P 6 256k 64k"]);
    qemu(&["bitmap", "--add", "-g", "64k", "--disable", "other.qcow2", "b"]);
}

/// What qemu-img says of an image, but for what two images made at different moments need not share.
fn said(dir: &Path, file: &str) -> Value {
    let out = run_in(dir, "qemu-img", &["info", "--output=json", "-U", file]);
    let mut value: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{file}: {e}: {}", String::from_utf8_lossy(&out.stderr)));
    let object = value.as_object_mut().unwrap();
    for key in ["actual-size", "children"] {
        object.remove(key);
    }
    for snapshot in object.get_mut("snapshots").and_then(Value::as_array_mut).into_iter().flatten() {
        for key in ["date-sec", "date-nsec", "icount"] {
            snapshot.as_object_mut().unwrap().remove(key);
        }
    }
    value
}

#[test]
fn images_are_changed_as_qemu_img_changes_them() {
    if oracle_missing("images_are_changed_as_qemu_img_changes_them", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let start = temporary.path().join("start");
    prepare(&start);
    let cases: &[&[&[&str]]] = &[
        &[
            &["snapshot", "-c", "one", "image.qcow2"],
            &["snapshot", "-l", "image.qcow2"],
            &["snapshot", "-d", "one", "image.qcow2"],
        ],
        &[&["snapshot", "-d", "none", "image.qcow2"]],
        &[&["snapshot", "-a", "first", "other.qcow2"]],
        &[&["snapshot", "-c", "one", "-d", "one", "image.qcow2"]],
        &[
            &["bitmap", "--remove", "other.qcow2", "a"],
            &["bitmap", "--remove", "other.qcow2", "b"],
            &["snapshot", "-a", "first", "other.qcow2"],
        ],
        &[
            &["resize", "image.qcow2", "+1M"],
            &["resize", "image.qcow2", "-1M"],
            &["resize", "--shrink", "image.qcow2", "-1M"],
        ],
        &[&["resize", "--preallocation=full", "other.qcow2", "4M"], &["resize", "--shrink", "other.qcow2", "1M"]],
        &[&["resize", "--preallocation=metadata", "image.qcow2", "5M"], &["resize", "image.qcow2", "nothing"]],
        &[
            &["resize", "-f", "raw", "base.raw", "3M"],
            &["resize", "--preallocation=falloc", "--shrink", "other.qcow2", "1M"],
        ],
        &[
            &["bitmap", "--add", "--disable", "-g", "64k", "image.qcow2", "x"],
            &["bitmap", "--enable", "image.qcow2", "x"],
        ],
        &[&["bitmap", "--merge", "a", "other.qcow2", "b"], &["bitmap", "--clear", "other.qcow2", "a"]],
        &[&["bitmap", "--add", "--merge", "a", "-b", "other.qcow2", "-F", "qcow2", "mid.qcow2", "copy"]],
        &[
            &["bitmap", "--add", "other.qcow2", "a"],
            &["bitmap", "other.qcow2", "a"],
            &["bitmap", "--remove", "other.qcow2", "z"],
        ],
        &[&["rebase", "-b", "new.raw", "-F", "raw", "image.qcow2"]],
        &[&["rebase", "-b", "base.raw", "-F", "raw", "image.qcow2"]],
        &[&["rebase", "-b", "", "image.qcow2"], &["rebase", "-u", "-b", "absent", "-F", "raw", "image.qcow2"]],
        &[&["rebase", "-u", "-b", "new.raw", "-F", "raw", "image.qcow2"], &["rebase", "image.qcow2"]],
        &[&["rebase", "-b", "absent.raw", "-F", "raw", "image.qcow2"]],
        &[&["commit", "-q", "image.qcow2"]],
        &[&["commit", "-q", "-d", "image.qcow2"]],
        &[
            &["commit", "-q", "-b", "base.raw", "image.qcow2"],
            &["commit", "-b", "absent", "image.qcow2"],
            &["commit", "other.qcow2"],
        ],
        &[
            &["amend", "-o", "compat=0.10", "image.qcow2"],
            &["amend", "-o", "compat=1.1,lazy_refcounts=on", "image.qcow2"],
        ],
        &[&["amend", "-o", "refcount_bits=64", "other.qcow2"], &["amend", "-o", "size=5M", "image.qcow2"]],
        &[&["amend", "-o", "cluster_size=4k", "image.qcow2"], &["amend", "-o", "refcount_bits=3", "image.qcow2"]],
        &[&["amend", "-o", "backing_file=new.raw", "image.qcow2"], &["amend", "image.qcow2"]],
        &[&["convert", "-O", "qcow2", "-l", "first", "other.qcow2", "new.qcow2"]],
        &[&["convert", "-O", "qcow2", "-B", "mid.qcow2", "-F", "qcow2", "image.qcow2", "new.qcow2"]],
        &[
            &["convert", "-O", "qcow2", "-o", "compat=0.10", "image.qcow2", "new.qcow2"],
            &["convert", "-n", "-O", "qcow2", "base.raw", "new.qcow2"],
        ],
        &[
            &["convert", "-O", "raw", "-S", "0", "image.qcow2", "new.raw"],
            &["convert", "-n", "-O", "raw", "image.qcow2", "base.raw"],
        ],
    ];
    for (number, commands) in cases.iter().enumerate() {
        let (a, b) = (temporary.path().join(format!("{number}a")), temporary.path().join(format!("{number}b")));
        for dir in [&a, &b] {
            run("cp", &["-r", start.to_str().unwrap(), dir.to_str().unwrap()]);
        }
        for args in *commands {
            let (mine, theirs) = (ours(&a, args), run_in(&b, "qemu-img", args));
            let told = String::from_utf8_lossy(&mine.stderr).into_owned();
            assert_eq!(mine.status.code(), theirs.status.code(), "{args:?}: {told}");
            println!("{args:?}: {:?} {told}", mine.status.code());
        }
        for file in ["image.qcow2", "mid.qcow2", "other.qcow2", "new.qcow2"] {
            if !b.join(file).exists() {
                assert!(!a.join(file).exists());
                continue;
            }
            assert_eq!(said(&a, file), said(&b, file), "{commands:?}");
            if said(&a, file).get("backing-filename").is_none_or(|name| name != "absent") {
                qemu_img_check(&a.join(file));
                let (a, b) = (a.join(file), b.join(file));
                run("qemu-img", &["compare", a.to_str().unwrap(), b.to_str().unwrap()]);
            }
        }
        for file in ["base.raw", "new.raw"] {
            assert!(
                std::fs::read(a.join(file)).unwrap() == std::fs::read(b.join(file)).unwrap(),
                "{commands:?}: {file}"
            );
        }
        for dir in [&a, &b] {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn images_are_made_with_all_of_qemu_imgs_options() {
    if oracle_missing("images_are_made_with_all_of_qemu_imgs_options", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let start = temporary.path().join("start");
    prepare(&start);
    let cases: &[&[&str]] = &[
        &["-o", "compat=0.10"],
        &["-o", "lazy_refcounts=on,refcount_bits=1"],
        &["-o", "compression_type=zstd"],
        &["-o", "preallocation=metadata,cluster_size=4k"],
        &["-o", "preallocation=falloc"],
        &["-o", "preallocation=full,compat=v2"],
        &["-o", "extended_l2=on,preallocation=metadata"],
        &["-o", "data_file=data"],
        &["-o", "data_file=data,data_file_raw=on"],
        &["-b", "mid.qcow2", "-F", "qcow2"],
        &["-o", "backing_file=base.raw,backing_fmt=raw,compat=0.10"],
        &["-b", "base.raw", "-F", "raw", "-o", "extended_l2=on,preallocation=metadata"],
        &["-u", "-b", "absent", "-F", "qcow2"],
        // What does not go together.
        &["-o", "compat=0.10,lazy_refcounts=on"],
        &["-o", "compat=0.10,refcount_bits=8"],
        &["-o", "compat=0.10,extended_l2=on"],
        &["-o", "compat=0.10,compression_type=zstd"],
        &["-o", "compat=0.10,data_file=data"],
        &["-o", "data_file_raw=on"],
        &["-o", "cluster_size=3k"],
        &["-o", "cluster_size=4k,extended_l2=on"],
        &["-o", "bogus=1"],
        &["-b", "base.raw"],
        &["-b", "base.raw", "-F", "raw", "-o", "preallocation=metadata"],
        &["-b", "base.raw", "-F", "raw", "-o", "data_file=data,data_file_raw=on"],
    ];
    for options in cases {
        let (a, b) = (temporary.path().join("a"), temporary.path().join("b"));
        for dir in [&a, &b] {
            let _ = std::fs::remove_dir_all(dir);
            run("cp", &["-r", start.to_str().unwrap(), dir.to_str().unwrap()]);
        }
        let args = [&["create", "-q", "-f", "qcow2"], *options, &["made.qcow2", "2500k"]].concat();
        let (mine, theirs) = (ours(&a, &args), run_in(&b, "qemu-img", &args));
        assert_eq!(mine.status.code(), theirs.status.code(), "{args:?}: {}", String::from_utf8_lossy(&mine.stderr));
        if !mine.status.success() {
            assert!(!a.join("made.qcow2").exists(), "{args:?}");
            continue;
        }
        assert_eq!(said(&a, "made.qcow2"), said(&b, "made.qcow2"), "{args:?}");
        if options.contains(&"absent") {
            continue;
        }
        let same = run_in(&a, "qemu-img", &["compare", "made.qcow2", b.join("made.qcow2").to_str().unwrap()]);
        assert!(same.status.success(), "{args:?}");
        let mapped = |dir: &Path, program: fn(&Path, &[&str]) -> Output| {
            let out = program(dir, &["map", "--output=json", "made.qcow2"]);
            let mut entries: Value = serde_json::from_slice(&out.stdout).unwrap();
            // Where clusters lie in the file is ours to choose.
            entries
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|entry| drop(entry.as_object_mut().unwrap().remove("offset")));
            entries
        };
        let theirs = |dir: &Path, args: &[&str]| run_in(dir, "qemu-img", args);
        if !options.iter().any(|option| option.contains("preallocation")) {
            assert_eq!(mapped(&a, theirs), mapped(&b, theirs), "{args:?}");
        }
        if !options.contains(&"extended_l2=on,preallocation=metadata") {
            // There QEMU tells a run in two parts.
            assert_eq!(mapped(&a, ours), mapped(&a, theirs), "{args:?}");
        }
        // It is written, by both, and stays sound.
        let write = run_in(&a, "qemu-io", &["-c", "write -P 5 100k 200k", "-c", "read -P 5 100k 200k", "made.qcow2"]);
        assert!(write.status.success() && !String::from_utf8_lossy(&write.stdout).contains("failed"), "{args:?}");
        let written = run_in(&a, "qemu-img", &["check", "made.qcow2"]);
        assert!(written.status.success(), "{args:?}: {}", String::from_utf8_lossy(&written.stdout));
    }
    // The disk is as long as the backing file's where nothing else is said.
    assert!(
        ours(&start, &["create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "long.qcow2"]).status.success()
    );
    assert_eq!(said(&start, "long.qcow2")["virtual-size"], 2 << 20);
    assert_eq!(ours(&start, &["create", "-q", "-f", "qcow2", "none.qcow2"]).status.code(), Some(1));
    assert_eq!(ours(&start, &["create", "-q", "-f", "qcow2", "-b", "absent", "-F", "raw", "x"]).status.code(), Some(1));
    // A data file that holds something is left alone.
    assert_eq!(
        ours(&start, &["create", "-q", "-f", "qcow2", "-o", "data_file=base.raw", "x", "2M"]).status.code(),
        Some(1)
    );
    assert!(ours(&start, &["create", "-q", "-o", "preallocation=full", "full.raw", "64k"]).status.success());
    assert_eq!(std::fs::read(start.join("full.raw")).unwrap(), vec![0; 65_536]);
}

#[test]
fn parts_and_snapshots_are_mapped_measured_and_compared_as_by_qemu_img() {
    if oracle_missing("parts_and_snapshots_are_mapped_measured_and_compared_as_by_qemu_img", &["qemu-img", "qemu-io"]) {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    prepare(dir);
    let json = |out: &Output| serde_json::from_slice::<Value>(&out.stdout).unwrap();
    for args in [
        &["map", "--output=json", "--start-offset=64k", "--max-length=200k", "image.qcow2"][..],
        &["map", "--output=json", "-s", "1000k", "image.qcow2"],
        &["map", "--output=json", "-l", "100000", "other.qcow2"],
        &["measure", "--output=json", "-O", "qcow2", "-l", "first", "other.qcow2"],
        &["measure", "--output=json", "-O", "raw", "-l", "snapshot.name=first", "other.qcow2"],
    ] {
        let (mine, theirs) = (ours(dir, args), run_in(dir, "qemu-img", args));
        assert_eq!(json(&mine), json(&theirs), "{args:?}");
    }
    run_in(dir, "qemu-img", &["convert", "-O", "qcow2", "other.qcow2", "copy.qcow2"]);
    run_in(dir, "qemu-img", &["convert", "-O", "raw", "other.qcow2", "copy.raw"]);
    for args in [
        &["compare", "-s", "other.qcow2", "copy.qcow2"][..],
        &["compare", "-s", "other.qcow2", "image.qcow2"],
        &["compare", "-s", "-f", "qcow2", "-F", "raw", "other.qcow2", "copy.raw"],
        &["compare", "-f", "qcow2", "-F", "raw", "-q", "other.qcow2", "copy.raw"],
        &["compare", "other.qcow2"],
        &["compare", "other.qcow2", "absent"],
        &["info"],
        &["info", "--bogus", "image.qcow2"],
        &["measure", "-O", "qcow2", "--size", "1M", "image.qcow2"],
    ] {
        let (mine, theirs) = (ours(dir, args), run_in(dir, "qemu-img", args));
        assert_eq!(mine.status.code(), theirs.status.code(), "{args:?}: {}", String::from_utf8_lossy(&mine.stdout));
    }
    // What an image names elsewhere is neither opened nor needed to describe it; how to allow it is said.
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data.raw");
    let option = format!("data_file={}", data.display());
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &option, dir.join("far.qcow2").to_str().unwrap(), "1M"]);
    let info = ["info", "--output=json", "far.qcow2"];
    assert_eq!(json(&ours(dir, &info)), json(&run_in(dir, "qemu-img", &info)));
    let map = ours(dir, &["map", "far.qcow2"]);
    let told = String::from_utf8_lossy(&map.stderr).into_owned();
    assert!(map.status.code() == Some(1) && told.contains("--backing-dir"), "{told}");
    let allowed = ["map", "--backing-dir", elsewhere.path().to_str().unwrap(), "far.qcow2"];
    assert!(ours(dir, &allowed).status.success());
    let name = format!(r#"json:{{"driver":"qcow2","file.filename":"{}/mid.qcow2"}}"#, dir.display());
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-b", &name, "-F", "qcow2", dir.join("json.qcow2").to_str().unwrap()],
    );
    for args in [&["info", "--output=json", "json.qcow2"][..], &["map", "--output=json", "json.qcow2"]] {
        assert_eq!(json(&ours(dir, args)), json(&run_in(dir, "qemu-img", args)), "{args:?}");
    }
    let chain = json(&ours(dir, &["info", "--output=json", "--backing-chain", "json.qcow2"]));
    assert_eq!(chain.as_array().unwrap().len(), 3);
}
