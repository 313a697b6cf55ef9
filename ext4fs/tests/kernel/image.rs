//! Images, and what the programs that are not ours do with them.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError};

use block::{Access, HostFile};
use ext4fs::FileSystem;

/// A folder that goes when the test ends, in memory where the host has such a place.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn output(command: &mut Command) -> Output {
    command.env("LC_ALL", "C").output().unwrap()
}

/// Makes an image. `false` where the mke2fs here does not know the arguments.
pub(crate) fn mke2fs(path: &Path, arguments: &str, mebibytes: u64) {
    std::fs::File::create(path).unwrap().set_len(mebibytes << 20).unwrap();
    let made = output(Command::new("mke2fs").args(["-q", "-F"]).args(arguments.split_whitespace()).arg(path));
    assert!(made.status.success(), "mke2fs {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A copy that keeps holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(output(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).status.success());
}

/// Lets e2fsck look at an image without changing it: any finding fails the test.
pub(crate) fn e2fsck(path: &Path, what: &str) {
    let judged = output(Command::new("e2fsck").arg("-fn").arg(path));
    let text = String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
    // An entry without a question is no finding, and two are none of ours. That an extent tree could be packed more
    // tightly: the kernel leaves such trees, too. And where there is no feature `filetype`, Linux 6.18 leaves the type
    // of `.` and `..` as it finds the memory of a new directory's block.
    let mut before = "";
    let mut findings = 0;
    for line in text.lines() {
        let kernels = before.starts_with("Entry '.") && before.ends_with("has filetype set.");
        findings += usize::from(line.contains("? no") && !line.contains("Optimize? no") && !kernels);
        before = line;
    }
    let tolerated = text.contains("has filetype set.") && judged.status.code() == Some(4);
    assert!(findings == 0 && (judged.status.code() == Some(0) || tolerated), "{what}: e2fsck -fn says\n{text}");
    let ours = FileSystem::open_read_only(Arc::new(HostFile::open(path, Access::Read).unwrap())).unwrap();
    assert_eq!(ours.check().unwrap(), [], "{what}: our own check");
}

/// Calls `work` with the point where the kernel has mounted an image. `None` where it does not mount it.
pub(crate) fn mounted<T>(image: &Path, options: &str, work: impl FnOnce(&Path) -> T) -> Option<T> {
    let point = scratch();
    let options = format!("loop,{options}");
    // Two mounts at once may be given one loop device.
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mount = output(Command::new("mount").args(["-o", &options]).arg(image).arg(point.path()));
    drop(turn);
    if !mount.status.success() {
        return None;
    }
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(point.path())));
    // A process that another test has just forked may hold the mount for a moment.
    let unmount = || output(Command::new("umount").arg(point.path())).status.success();
    let unmounted = (0..100).any(|_| {
        let done = unmount();
        if !done {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        done
    });
    assert!(unmounted, "cannot unmount");
    match worked {
        Ok(result) => Some(result),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether the kernel lets this process mount images at all. If not, that is an error where the environment says
/// `CI=true`.
pub(crate) fn may_mount(test: &str) -> bool {
    if Command::new("mke2fs").arg("-V").output().is_err() {
        return skipped(test, "mke2fs is not installed");
    }
    let folder = scratch();
    let image = folder.path().join("image");
    mke2fs(&image, "-t ext4", 4);
    mounted(&image, "ro", |_| ()).is_some() || skipped(test, "the kernel does not let us mount an image")
}

fn skipped(test: &str, why: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: {why}");
    println!("SKIPPED {test}: {why}");
    false
}
