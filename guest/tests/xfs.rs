//! A guest on XFS, made by mkfs.xfs and the kernel, changed, and judged by xfs_repair and the kernel. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use block::{Access, HostFile};
use guest::{Guest, OpenOptions, Timestamp};

fn run(tool: &str, args: &[&str]) -> bool {
    let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap());
    Command::new(tool).env("PATH", path).args(args).output().is_ok_and(|output| output.status.success())
}

/// Runs something on the mounted image.
fn mounted(image: &Path, at: &Path, action: impl FnOnce(&Path)) {
    let (image, at_text) = (image.to_str().unwrap(), at.to_str().unwrap());
    assert!(run("mount", &["-t", "xfs", "-o", "loop", image, at_text]));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| action(at)));
    let unmounted = (0..100).any(|_| {
        let done = run("umount", &[at_text]);
        if !done {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        done
    });
    assert!(unmounted);
    result.unwrap();
}

#[test]
fn a_guest_on_xfs_is_changed_and_scrubbed() {
    change_and_scrub("a_guest_on_xfs_is_changed_and_scrubbed", |_| {});
}

/// A machine that is killed leaves a log that has to be replayed, and files that were deleted while they were open.
#[test]
fn a_guest_on_xfs_that_was_killed_is_changed_and_scrubbed() {
    change_and_scrub("a_guest_on_xfs_that_was_killed_is_changed_and_scrubbed", |top| {
        let held = top.join("held");
        std::fs::write(&held, "a secret of the machine\n".repeat(9999)).unwrap();
        let open = std::fs::File::open(&held).unwrap();
        assert!(run("sync", &["-f", top.to_str().unwrap()]));
        std::fs::remove_file(held).unwrap();
        assert!(run("xfs_io", &["-x", "-c", "shutdown -f", top.to_str().unwrap()]));
        drop(open);
    });
}

/// What happens to a guest after it was filled is `stop`.
fn change_and_scrub(test: &str, stop: fn(&Path)) {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (image, at) = (directory.path().join("image"), directory.path().join("mount"));
    std::fs::create_dir(&at).unwrap();
    std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root || !run("mkfs.xfs", &["-q", "-f", image.to_str().unwrap()]) {
        println!("SKIPPED {test}: it needs root and mkfs.xfs");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "both are needed in CI");
        return;
    }
    mounted(&image, &at, |top| {
        for folder in ["etc", "var/log/old", "home/ann"] {
            std::fs::create_dir_all(top.join(folder)).unwrap();
        }
        std::fs::write(top.join("etc/os-release"), "ID=rocky\nVERSION_ID=\"9.4\"\n").unwrap();
        std::fs::write(top.join("etc/machine-id"), "5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n").unwrap();
        for number in 0..500 {
            std::fs::write(top.join(format!("var/log/old/log{number}")), "a secret of the machine\n".repeat(300))
                .unwrap();
        }
        std::fs::write(top.join("home/ann/essay"), "stays\n".repeat(9999)).unwrap();
        stop(top);
    });

    let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
    let disk = Arc::new(HostFile::open(&image, Access::ReadWrite).unwrap());
    let mut guest = Guest::open(disk, &OpenOptions { now, ..OpenOptions::default() }).unwrap();
    assert_eq!((guest.os().id.as_str(), guest.mounts()[0].type_name.as_str()), ("rocky", "xfs"));
    guest.set_len(b"/etc/machine-id", 0).unwrap();
    guest.write(b"/etc/hostname", b"localhost\n").unwrap();
    for path in guest.glob("/var/log/old/*").unwrap() {
        guest.remove_file(&path).unwrap();
    }
    assert!(guest.scrub().unwrap().bytes_zeroed > 500 * 4096);
    guest.flush().unwrap();
    assert_eq!(guest.scrub().unwrap().bytes_zeroed, 0);
    drop(guest);

    assert!(run("xfs_repair", &["-n", "-f", image.to_str().unwrap()]), "xfs_repair finds something");
    let held = std::fs::read(&image).unwrap();
    assert!(!held.chunks(4096).any(|block| block.starts_with(b"a secret of the machine")), "the logs are still there");
    mounted(&image, &at, |top| {
        assert_eq!(std::fs::read(top.join("etc/machine-id")).unwrap(), b"");
        assert_eq!(std::fs::read(top.join("etc/hostname")).unwrap(), b"localhost\n");
        assert_eq!(std::fs::read_dir(top.join("var/log/old")).unwrap().count(), 0);
        assert_eq!(std::fs::read(top.join("home/ann/essay")).unwrap(), "stays\n".repeat(9999).as_bytes());
    });
    assert!(run("xfs_repair", &["-n", "-f", image.to_str().unwrap()]), "xfs_repair finds something after mounting");
}
