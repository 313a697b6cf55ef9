//! Directories of thousands of names, under each hash, made by us and by the kernel.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::{check, debugfs, e2fsck, has_tool, mke2fs, open, scratch, with_kernel_mount};
use ext4fs::{FileSystem, NewNode, Ownership};

const OWNER: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };

/// Names of all lengths, some with bytes above 127, which signed and unsigned hashes see differently.
fn name(n: usize) -> Vec<u8> {
    let mut name = format!("{n}-").into_bytes();
    name.resize(name.len() + n * 7 % 60, if n.is_multiple_of(3) { 0xe9 } else { b'x' });
    name
}

/// Gives one file all of these names in a new directory.
fn fill(fs: &mut FileSystem, path: &[u8], names: impl Iterator<Item = Vec<u8>>) {
    fs.create_dir(path).unwrap();
    let directory = fs.resolve(path).unwrap();
    let file = fs.create(directory, b"first", NewNode::File, OWNER).unwrap();
    for name in names {
        fs.link(directory, &name, file).unwrap();
    }
}

#[test]
fn every_hash_is_that_of_e2fsck_and_the_kernel() {
    const TEST: &str = "hashes";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for (algorithm, flags) in [("legacy", 1), ("half_md4", 1), ("tea", 1), ("legacy", 2), ("half_md4", 2), ("tea", 2)] {
        for block_size in ["1024", "4096"] {
            let what = format!("{algorithm}, s_flags {flags}, {block_size}");
            let path = mke2fs(folder.path(), &format!("-t ext4 -b {block_size}"), 48, None);
            let tuned = Command::new("tune2fs").args(["-E", &format!("hash_alg={algorithm}")]).arg(&path).output();
            assert!(tuned.unwrap().status.success());
            let commands = ["-w", "-R", &format!("ssv flags {flags}")];
            assert!(Command::new("debugfs").args(commands).arg(&path).output().unwrap().status.success());

            let (device, mut fs) = open(&path);
            fill(&mut fs, b"/many", (0..4000).map(name));
            check(&mut fs, &device, &path, &what);
            let dump = String::from_utf8_lossy(&debugfs(&path, "htree_dump /many")).into_owned();
            assert!(dump.contains("Indirect levels: "), "{what}: {dump}");
            // Every other name goes, and e2fsck still finds each in the leaf that its hash leads to.
            for n in (0..4000).step_by(2) {
                fs.remove_file(&[b"/many/", name(n).as_slice()].concat()).unwrap();
            }
            check(&mut fs, &device, &path, &what);
            with_kernel_mount(TEST, &path, "ro", |point| {
                use std::os::unix::ffi::OsStrExt;
                let many = point.join("many");
                for n in 0..4000 {
                    let found = many.join(std::ffi::OsStr::from_bytes(&name(n))).symlink_metadata().is_ok();
                    assert_eq!(found, n % 2 == 1, "{what}: {n}");
                }
                assert_eq!(std::fs::read_dir(&many).unwrap().count(), 2001, "{what}");
            });
        }
    }
}

#[test]
fn trees_grow_levels_that_e2fsck_accepts() {
    const TEST: &str = "levels";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    // 200 bytes a name: 4 in a leaf of 1 KiB, so that 20,000 need two levels of index blocks, and 50,000 three.
    for (features, count, levels) in [("", 20_000, 1), ("-O large_dir", 50_000, 2)] {
        let path = mke2fs(folder.path(), format!("-t ext4 -b 1024 -N 64 {features}").trim_end(), 48, None);
        let (device, mut fs) = open(&path);
        fill(&mut fs, b"/deep", (0..count).map(|n| format!("{n:_>200}").into_bytes()));
        check(&mut fs, &device, &path, features);
        let dump = String::from_utf8_lossy(&debugfs(&path, "htree_dump /deep")).into_owned();
        assert!(dump.contains(&format!("Indirect levels: {levels}")), "{}", &dump[..400.min(dump.len())]);
        for n in 0..count {
            assert!(fs.exists(format!("/deep/{n:_>200}").as_bytes()).unwrap());
        }
    }
}

#[test]
fn directories_of_the_kernel_are_searched_and_changed() {
    const TEST: &str = "directories of the kernel";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in ["-t ext4 -b 4096", "-t ext4 -b 1024", "-t ext3 -b 1024"] {
        let path = mke2fs(folder.path(), arguments, 64, None);
        let mut mounted = false;
        with_kernel_mount(TEST, &path, "rw", |point| {
            use std::os::unix::ffi::OsStrExt;
            let many = point.join("many");
            std::fs::create_dir(&many).unwrap();
            std::fs::write(many.join("first"), b"1").unwrap();
            for n in 0..6000 {
                std::fs::hard_link(many.join("first"), many.join(std::ffi::OsStr::from_bytes(&name(n)))).unwrap();
            }
            mounted = true;
        });
        if !mounted {
            return;
        }
        let (device, mut fs) = open(&path);
        let (many, file) = (fs.resolve(b"/many").unwrap(), fs.resolve(b"/many/first").unwrap());
        for n in 0..6000 {
            assert_eq!(fs.lookup(many, &name(n)).unwrap(), Some(file), "{arguments}: {n}");
        }
        let listed: BTreeSet<_> = fs.read_dir(many).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(listed.len(), 6001);
        for n in 0..6000 {
            fs.unlink(many, &name(n)).unwrap();
            fs.link(many, &name(n + 10_000), file).unwrap();
        }
        check(&mut fs, &device, &path, arguments);
        e2fsck(&path, arguments);
    }
}
