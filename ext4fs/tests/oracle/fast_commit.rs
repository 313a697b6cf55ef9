//! Fast commits: what the kernel left of its last changes, replayed by us, by the kernel and by e2fsck.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::Memory;
use ext4fs::{FileKind, FileSystem, OpenOptions};

use crate::common::{Found, NOW, e2fsck, has_tool, mke2fs, pattern, scratch, walk, with_kernel_mount};

fn synced(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Changes that the kernel commits fast, each file by an fsync of its own. `n` chooses among them.
fn change(point: &Path, n: u32) {
    let at = |name: &str| point.join(name);
    let sync = |name: &str| std::fs::File::open(at(name)).unwrap().sync_all().unwrap();
    (0..40).for_each(|m| synced(&at(&format!("new {m}")), &pattern((m * 700) as usize, m)));
    let file = std::fs::OpenOptions::new().write(true).open(at("old 3")).unwrap();
    file.write_all_at(&pattern(200_000, 5), 300_000).unwrap();
    file.sync_all().unwrap();
    file.set_len(350_000).unwrap();
    file.write_all_at(&pattern(9000, 6), 10_000).unwrap();
    file.sync_all().unwrap();
    if n == 0 {
        return;
    }
    std::fs::hard_link(at("old 4"), at("link to 4")).unwrap();
    sync("old 4");
    std::fs::rename(at("old 5"), at("renamed 5")).unwrap();
    sync("renamed 5");
    std::fs::remove_file(at("new 7")).unwrap();
    std::fs::remove_file(at("old 6")).unwrap();
    synced(&at("new after removal"), &pattern(30_000, 9));
    std::fs::rename(at("old 8"), at("old 9")).unwrap();
    sync("old 9");
    let punched = Command::new("fallocate").args(["-p", "-o", "8192", "-l", "40960"]).arg(at("old 10")).status();
    assert!(punched.unwrap().success());
    sync("old 10");
    let kept = Command::new("fallocate").args(["-l", "500000"]).arg(at("new 9")).status();
    assert!(kept.unwrap().success());
    sync("new 9");
    std::fs::set_permissions(at("old 11"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    sync("old 11");
    if n == 1 {
        return;
    }
    for m in 0..5 {
        std::fs::create_dir(at(&format!("dir {m}"))).unwrap();
        for k in 0..m * 4 {
            synced(&at(&format!("dir {m}/{}", "n".repeat(k * 9 + 1))), &pattern(k * 100, 3));
        }
    }
    symlink("short", at("symlink")).unwrap();
    synced(&at("after the link"), b"x");
    std::fs::remove_dir(at("empty")).unwrap();
    synced(&at("last"), b"last");
}

/// An image as a crash would have left it after fast commits.
fn crashed(folder: &Path, arguments: &str, n: u32) -> Option<PathBuf> {
    let path = mke2fs(folder, arguments, 48, None);
    let copy = folder.join("crashed");
    let _ = std::fs::remove_file(&copy);
    with_kernel_mount("fast commits", &path, "rw", |point| {
        (0..20).for_each(|n| synced(&point.join(format!("old {n}")), &pattern(n * 5000, n as u32)));
        std::fs::create_dir(point.join("empty")).unwrap();
        assert!(Command::new("sync").arg("-f").arg(point).status().unwrap().success());
        change(point, n);
        std::fs::copy(&path, &copy).unwrap();
    });
    copy.exists().then_some(copy)
}

/// Kind, mode, size, links, sectors, contents.
type Essence = (FileKind, u32, u64, u32, u64, Vec<u8>);

/// All that a replay must restore: not times of directories, which get the time of the replay.
fn essence(found: BTreeMap<Vec<u8>, Found>) -> BTreeMap<Vec<u8>, Essence> {
    let each = |(path, found): (Vec<u8>, Found)| {
        let metadata = found.metadata;
        let sectors = if metadata.kind == FileKind::File { metadata.sectors } else { 0 };
        let links = if metadata.kind == FileKind::Directory { 0 } else { metadata.links };
        (path, (metadata.kind, metadata.mode, metadata.size, links, sectors, found.bytes))
    };
    found.into_iter().map(each).collect()
}

#[test]
fn fast_commits_are_replayed_as_by_the_kernel() {
    const TEST: &str = "fast commits";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in [
        "-t ext4 -b 4096 -O fast_commit",
        "-t ext4 -b 1024 -O fast_commit,orphan_file",
        "-t ext4 -b 1024 -O fast_commit,^metadata_csum,^64bit",
    ] {
        for n in 0..3 {
            let what = format!("{arguments}, {n}");
            let Some(path) = crashed(folder.path(), arguments, n) else { return };
            let bytes = std::fs::read(&path).unwrap();
            let options = OpenOptions { read_only: true, clock: None };
            let device = Arc::new(Memory::from(bytes.clone()));
            let seen = walk(&FileSystem::open(device.clone(), &options).unwrap());
            assert!(device.to_vec() == bytes, "{what}: written though read only");
            let options = OpenOptions { read_only: false, clock: Some(NOW) };
            let mut fs = FileSystem::open(device.clone(), &options).unwrap();
            assert_eq!(fs.read_only_reason(), None);
            assert_eq!(essence(walk(&fs)), essence(seen), "{what}");
            let ours = folder.path().join("ours");
            std::fs::write(&ours, device.to_vec()).unwrap();
            e2fsck(&ours, &what);
            fs.write(b"/old 1", b"changed").unwrap();
            fs.remove_file(b"/new 3").unwrap();
            fs.flush().unwrap();
            std::fs::write(&ours, device.to_vec()).unwrap();
            e2fsck(&ours, &what);

            let fresh = FileSystem::open_read_only(Arc::new(Memory::from(bytes))).unwrap();
            let ours = essence(walk(&fresh));
            assert!(ours.contains_key(b"/new 39".as_slice()), "{what}: no fast commit was replayed");
            with_kernel_mount(TEST, &path, "rw", |_| ());
            let theirs = FileSystem::open_read_only(Arc::new(Memory::from(std::fs::read(&path).unwrap()))).unwrap();
            let theirs = essence(walk(&theirs));
            let different: Vec<_> = ours
                .keys()
                .chain(theirs.keys())
                .filter(|path| ours.get(*path) != theirs.get(*path))
                .map(|path| {
                    let short =
                        |found: Option<&Essence>| found.map(|found| (found.0, found.1, found.2, found.3, found.4));
                    (String::from_utf8_lossy(path), short(ours.get(path)), short(theirs.get(path)))
                })
                .collect();
            assert!(different.is_empty(), "{what}: ours and the kernel's {different:?}");
        }
    }
}
