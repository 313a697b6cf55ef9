//! Encrypted images on the command line, with qemu-img as the judge.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{oracle_missing, small_guest_path};
use serde_json::Value;

const SECRET: [&str; 2] = ["--object", "secret,id=s,file=passphrase"];
const NAMED: &str = "driver=qcow2,encrypt.key-secret=s,file.filename=a.qcow2";

fn goldenseal(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_goldenseal")).args(args).current_dir(dir).output().unwrap()
}

fn done(dir: &Path, tool: &str, args: &[&str]) -> Output {
    let tool = if tool == "goldenseal" { env!("CARGO_BIN_EXE_goldenseal") } else { tool };
    let out = Command::new(tool).args(args).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

fn error(out: &Output) -> String {
    assert!(!out.status.success());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout).unwrap()
}

/// A folder with a passphrase, whose newline counts, and the small guest in an encrypted image of ours.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("passphrase"), "correct horse\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "correct horse").unwrap();
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let guest = small_guest_path();
    let convert = ["image", "convert", "-O", "qcow2", "-o", luks, guest.to_str().unwrap(), "a.qcow2"];
    done(dir.path(), "goldenseal", &[&convert[..], &SECRET].concat());
    dir
}

#[test]
fn the_image_commands_take_secrets_as_qemu_img_does() {
    if oracle_missing("the_image_commands_take_secrets_as_qemu_img_does", &["qemu-img"]) {
        return;
    }
    let dir = folder();
    let dir = dir.path();
    let named = [&SECRET[..], &["--image-opts", NAMED]].concat();
    for args in [&["check", "--output=json"][..], &["map", "--output=json"]] {
        let args = [args, &named].concat();
        let ours = json(&done(dir, "goldenseal", &[&["image"], &args[..]].concat()));
        let mut theirs = json(&done(dir, "qemu-img", &args));
        if args[0] == "check" {
            theirs["filename"] = "a.qcow2".into(); // there, the options as JSON
        }
        assert_eq!(ours, theirs);
    }
    let info = ["info", "--output=json", "a.qcow2"];
    assert_eq!(json(&done(dir, "goldenseal", &[&["image"], &info[..]].concat())), json(&done(dir, "qemu-img", &info)));
    let guest = small_guest_path();
    let compare = |tool: &str, second: &str| {
        let image = if tool == "goldenseal" { &["image"][..] } else { &[] };
        let first = "driver=qcow2,file.filename=".to_owned() + guest.to_str().unwrap();
        let out = [image, &["compare", "-q"], &SECRET, &["--image-opts", &first, second]].concat();
        done(dir, tool, &out)
    };
    compare("qemu-img", NAMED);
    compare("goldenseal", NAMED);
    // Out of the encryption again, and what QEMU put in.
    done(dir, "goldenseal", &[&["image", "convert", "-O", "raw"], &named[..], &["plain.raw"]].concat());
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,encrypt.hash-alg=sha1";
    let convert = ["convert", "-O", "qcow2", "-o", luks, "plain.raw", "theirs.qcow2"];
    done(dir, "qemu-img", &[&convert[..], &SECRET].concat());
    compare("goldenseal", "driver=qcow2,encrypt.key-secret=s,file.filename=theirs.qcow2");

    let measure = ["measure", "--output=json", "-O", "qcow2", "-o", luks, "--size", "1G"];
    let measure = [&measure[..], &SECRET].concat();
    assert_eq!(
        json(&done(dir, "goldenseal", &[&["image"], &measure[..]].concat())),
        json(&done(dir, "qemu-img", &measure))
    );

    let without = error(&goldenseal(dir, &["image", "convert", "-O", "raw", "a.qcow2", "b.raw"]));
    assert!(without.contains("the image is encrypted, and no passphrase was given"), "{without}");
    assert!(!dir.join("b.raw").exists());
    let wrong = ["image", "compare", "--object", "secret,id=s,file=wrong", "--image-opts", NAMED, NAMED];
    assert!(error(&goldenseal(dir, &wrong)).contains("fits no key slot"));
    for usage in [
        &["image", "create", "-f", "qcow2", "-o", "encrypt.format=luks", "b.qcow2", "1M"][..],
        &["image", "create", "-f", "qcow2", "-o", "encrypt.format=aes,encrypt.key-secret=s", "b.qcow2", "1M"],
        &["image", "create", "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=t", "b.qcow2", "1M"],
        &["image", "create", "-f", "qcow2", "-o", "encrypt.key-secret=s", "b.qcow2", "1M"],
    ] {
        assert_eq!(goldenseal(dir, &[usage, &SECRET].concat()).status.code(), Some(1), "{usage:?}");
    }
}

#[test]
fn an_encrypted_guest_is_sealed_and_stays_encrypted() {
    if oracle_missing("an_encrypted_guest_is_sealed_and_stays_encrypted", &["qemu-img"]) {
        return;
    }
    let dir = folder();
    let dir = dir.path();
    let with = ["--passphrase-file", "passphrase"];
    let without = error(&goldenseal(dir, &["seal", "a.qcow2"]));
    assert!(without.contains("--passphrase-file"), "{without}");
    assert!(error(&goldenseal(dir, &["seal", "a.qcow2", "--passphrase-file", "wrong"])).contains("fits no key slot"));
    assert_eq!(goldenseal(dir, &[&["audit", "-q", "a.qcow2"], &with[..]].concat()).status.code(), Some(3));
    done(dir, "goldenseal", &[&["ls", "a.qcow2", "/etc"], &with[..]].concat());

    // To a new file: encrypted, unless plainly asked for otherwise.
    let out = |name: &str, more: &[&str]| {
        let args = [&["seal", "-q", "a.qcow2", "-o", name], &with[..], more].concat();
        goldenseal(dir, &args).status.code().unwrap()
    };
    assert_eq!(out("out.raw", &["--format", "raw"]), 2);
    assert_eq!(out("out.qcow2", &["--compress", "zlib"]), 2);
    assert!(!dir.join("out.raw").exists() && !dir.join("out.qcow2").exists());
    assert_eq!(out("out.qcow2", &[]), 0);
    assert_eq!(out("out.raw", &["--format", "raw", "--decrypt"]), 0);

    done(dir, "goldenseal", &[&["seal", "-q", "a.qcow2"], &with[..]].concat());
    for name in ["a.qcow2", "out.qcow2"] {
        assert_eq!(json(&done(dir, "qemu-img", &["info", "--output=json", name]))["encrypted"], true);
        assert_eq!(goldenseal(dir, &[&["audit", "-q", name], &with[..]].concat()).status.code(), Some(0));
        let named = format!("driver=qcow2,encrypt.key-secret=s,file.filename={name}");
        done(dir, "qemu-img", &[&["check", "-q"], &SECRET[..], &["--image-opts", &named]].concat());
    }
    assert_eq!(goldenseal(dir, &["audit", "-q", "out.raw"]).status.code(), Some(0));
    // Nothing of the guest is in the files as it is on the disk.
    let plain = std::fs::read(dir.join("out.raw")).unwrap();
    let word = b"PRETTY_NAME=";
    assert!(plain.windows(word.len()).any(|bytes| bytes == word));
    for name in ["a.qcow2", "out.qcow2"] {
        let file = std::fs::read(dir.join(name)).unwrap();
        assert!(!file.windows(word.len()).any(|bytes| bytes == word));
    }
}
