//! `copy-out` and `diff`, judged by e2fsprogs and the host's own diff.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod common;

use std::process::{Command, Output};

use common::{oracle_missing, run, small_guest_path, text};

fn goldenseal(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_goldenseal")).args(args).output().unwrap()
}

/// Where the root file system of the small guest lies in its disk, as `inspect` tells.
fn root_offset() -> u64 {
    let out = goldenseal(&["inspect", "--json", text(&small_guest_path())]);
    let inspection: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    inspection["volumes"][1]["start"].as_u64().unwrap()
}

#[test]
fn copied_out_is_what_debugfs_dumps() {
    if oracle_missing("copied_out_is_what_debugfs_dumps", &["qemu-img", "debugfs", "diff"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("a.raw");
    run("qemu-img", &["convert", "-O", "raw", text(&small_guest_path()), text(&raw)]);
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    std::fs::create_dir(&ours).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    let out = goldenseal(&["copy-out", text(&small_guest_path()), "/etc", "/root", text(&ours)]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let device = format!("{}?offset={}", text(&raw), root_offset());
    for name in ["/etc", "/root"] {
        run("debugfs", &["-R", &format!("rdump {name} {}", text(&theirs)), &device]);
    }
    assert!(std::fs::read_dir(ours.join("etc")).unwrap().count() > 10);
    run("diff", &["--no-dereference", "-r", text(&ours), text(&theirs)]);
    // What is there is never written over.
    let again = goldenseal(&["copy-out", text(&small_guest_path()), "/etc/hosts", "/root", text(&ours)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists"));
}

#[test]
fn a_diff_names_each_change() {
    if oracle_missing("a_diff_names_each_change", &["qemu-img", "debugfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("a.raw");
    run("qemu-img", &["convert", "-O", "raw", text(&small_guest_path()), text(&raw)]);
    let image = small_guest_path();
    let diff = |args: &[&str]| goldenseal(&[&["diff", text(&image), text(&raw)], args].concat());
    let same = diff(&["--times"]);
    assert_eq!((same.status.code(), same.stdout.len()), (Some(0), 0));

    let device = format!("{}?offset={}", text(&raw), root_offset());
    let file = dir.path().join("new");
    std::fs::write(&file, "new").unwrap();
    let commands = [
        "rm /etc/hostname".to_owned(),
        format!("write {} /etc/new", text(&file)),
        "set_inode_field /etc/passwd mode 0100600".to_owned(),
        "set_inode_field /etc/group uid 7".to_owned(),
        "ea_set /etc/os-release user.note hello".to_owned(),
    ];
    let script = dir.path().join("script");
    std::fs::write(&script, commands.join("\n")).unwrap();
    run("debugfs", &["-w", "-f", text(&script), &device]);
    let out = diff(&["--json", "/etc"]);
    assert_eq!(out.status.code(), Some(3));
    let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let found: Vec<(&str, &str, String)> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let changes = row.get("changes").map(ToString::to_string).unwrap_or_default();
            (row["path"].as_str().unwrap(), row["difference"].as_str().unwrap(), changes)
        })
        .collect();
    let expected = [
        ("/etc/group", "changed", r#"["owner 0:0 -> 7:0"]"#),
        ("/etc/hostname", "removed", ""),
        ("/etc/new", "added", ""),
        ("/etc/os-release", "changed", r#"["attributes"]"#),
        ("/etc/passwd", "changed", r#"["mode 0644 -> 0600"]"#),
    ];
    assert_eq!(found, expected.map(|(path, what, changes)| (path, what, changes.to_owned())));
    assert!(diff(&["-q"]).stdout.is_empty());
}
