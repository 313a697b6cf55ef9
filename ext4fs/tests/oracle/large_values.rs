//! Extended attributes with inodes of their own (`ea_inode`), and access control lists that directories hand down.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use ext4fs::{Error, FileSystem, NewNode, Ownership};

use crate::common::{check, e2fsck, has_tool, mke2fs, open, pattern, scratch, with_kernel_mount};

const OWNER: Ownership = Ownership { mode: 0o666, uid: 0, gid: 0 };

fn value_by_kernel(file: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("getfattr").args(["--only-values", "-n", name]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn set_by_kernel(file: &Path, name: &str, value: &[u8]) {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let set = Command::new("setfattr").args(["-n", name, "-v", &format!("0x{hex}")]).arg(file).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

#[test]
fn large_values_mean_the_same_to_the_kernel() {
    const TEST: &str = "large values";
    if !has_tool(TEST, "mke2fs") || !has_tool(TEST, "setfattr") {
        return;
    }
    let folder = scratch();
    for arguments in [
        "-t ext4 -b 4096 -O ea_inode",
        "-t ext4 -b 1024 -I 256 -O ea_inode,quota,project",
        "-t ext4 -b 4096 -I 512 -O ea_inode,inline_data,^metadata_csum",
        "-t ext4 -b 1024 -I 128 -O ea_inode",
    ] {
        let path = mke2fs(folder.path(), arguments, 48, None);
        let lengths = [10, 600, 950, 968, 969, 1024, 3000, 4040, 4041, 9000, 40_000];
        let mut mounted = false;
        with_kernel_mount(TEST, &path, "rw", |point| {
            for n in 0..10usize {
                let file = point.join(format!("theirs-{n}"));
                std::fs::write(&file, b"x").unwrap();
                // Files of the same attributes share what holds them.
                for (m, len) in lengths[..6].iter().enumerate() {
                    set_by_kernel(&file, &format!("user.{m}"), &pattern(*len, n as u32 % 3));
                }
            }
            mounted = true;
        });
        if !mounted {
            return;
        }
        e2fsck(&path, arguments);
        let (device, mut fs) = open(&path);
        let read = |fs: &FileSystem, path: &str, m: usize| {
            fs.xattr(fs.resolve(path.as_bytes()).unwrap(), format!("user.{m}").as_bytes()).unwrap()
        };
        for n in 0..10usize {
            for (m, len) in lengths[..6].iter().enumerate() {
                assert!(read(&fs, &format!("/theirs-{n}"), m).unwrap() == pattern(*len, n as u32 % 3));
            }
        }
        for n in 0..10usize {
            let name = format!("/theirs-{n}");
            let inode = fs.resolve(name.as_bytes()).unwrap();
            match n {
                0..3 => fs.remove_file(name.as_bytes()).unwrap(),
                3..5 => fs.set_xattr(inode, b"user.4", &pattern(2000, 9)).unwrap(),
                5..7 => fs.remove_xattr(inode, b"user.5").unwrap(),
                _ => fs.set_owner(inode, 1000 + n as u32, 5).unwrap(),
            }
            check(&mut fs, &device, &path, &format!("{arguments}, {n}"));
        }
        let file = fs.create(fs.root(), b"ours", NewNode::File, OWNER).unwrap();
        let mut expected = BTreeMap::new();
        for (m, len) in lengths.iter().enumerate() {
            fs.set_xattr(file, format!("user.{m}").as_bytes(), &pattern(*len, 7)).unwrap();
            expected.insert(m, pattern(*len, 7));
        }
        check(&mut fs, &device, &path, arguments);
        for (m, len) in [(0, 5000), (10, 10), (9, 9001), (3, 0), (5, 1025)] {
            fs.set_xattr(file, format!("user.{m}").as_bytes(), &pattern(len, 8)).unwrap();
            expected.insert(m, pattern(len, 8));
            check(&mut fs, &device, &path, &format!("{arguments}, {m} is {len} long"));
        }
        let too_large = fs.set_xattr(file, b"user.huge", &vec![1; 70_000]);
        assert!(matches!(too_large, Err(Error::NoSpace(_))), "{too_large:?}");
        for (m, value) in &expected {
            assert!(read(&fs, "/ours", *m).as_ref() == Some(value), "{arguments}: {m}");
        }
        fs.scrub().unwrap();
        check(&mut fs, &device, &path, arguments);
        with_kernel_mount(TEST, &path, "rw", |point| {
            for (m, value) in &expected {
                assert!(value_by_kernel(&point.join("ours"), &format!("user.{m}")) == *value, "{arguments}: {m}");
            }
            set_by_kernel(&point.join("ours"), "user.9", b"short");
            std::fs::remove_file(point.join("theirs-4")).unwrap();
        });
        e2fsck(&path, arguments);
        let (device, mut fs) = open(&path);
        for n in 5..10 {
            fs.remove_file(format!("/theirs-{n}").as_bytes()).unwrap();
        }
        fs.remove_file(b"/ours").unwrap();
        check(&mut fs, &device, &path, arguments);
    }
}

#[test]
fn default_acls_are_handed_down_as_by_the_kernel() {
    const TEST: &str = "default ACLs";
    if !has_tool(TEST, "mke2fs") || !has_tool(TEST, "setfacl") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 4096", 16, None);
    let defaults = [
        "u::rwx,g::r-x,o::---",
        "u::rwx,u:1000:rw,g::r-x,o::r,m::rwx",
        "u::r,g::rwx,g:5:x,m::rx,o::rwx",
        "u::-,g::-,o::-",
    ];
    let modes = [0o644, 0o4755, 0o600, 0o777, 0o2070, 0];
    let mut by_kernel = BTreeMap::new();
    let acls = |point: &Path| {
        let output = Command::new("getfacl").args(["-n", "-p", "-R", "."]).current_dir(point).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    with_kernel_mount(TEST, &path, "rw", |point| {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        for (n, default) in defaults.iter().enumerate() {
            for (made, kernel) in [("a", true), ("b", false)] {
                let directory = point.join(made).join(n.to_string());
                std::fs::create_dir_all(&directory).unwrap();
                let set = Command::new("setfacl").args(["-d", "-m", default]).arg(&directory).output().unwrap();
                assert!(set.status.success(), "{default}: {}", String::from_utf8_lossy(&set.stderr));
                for mode in modes.into_iter().filter(|_| kernel) {
                    let file = directory.join(format!("file {mode:o}"));
                    std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file).unwrap();
                    std::fs::DirBuilder::new().mode(mode).create(directory.join(format!("dir {mode:o}"))).unwrap();
                }
            }
        }
        by_kernel.insert(0, acls(&point.join("a")));
    });
    if by_kernel.is_empty() {
        return;
    }
    let (device, mut fs) = open(&path);
    for n in 0..defaults.len() {
        let directory = fs.resolve(format!("/b/{n}").as_bytes()).unwrap();
        for mode in modes {
            let owner = Ownership { mode, uid: 0, gid: 0 };
            fs.create(directory, format!("file {mode:o}").as_bytes(), NewNode::File, owner).unwrap();
            // mkdir(2) takes only the sticky bit beside permissions.
            let owner = Ownership { mode: mode & 0o1777, uid: 0, gid: 0 };
            fs.create(directory, format!("dir {mode:o}").as_bytes(), NewNode::Directory, owner).unwrap();
        }
    }
    check(&mut fs, &device, &path, TEST);
    with_kernel_mount(TEST, &path, "ro", |point| {
        let mut ours: Vec<String> = acls(&point.join("b")).split("\n\n").map(str::to_owned).collect();
        let mut theirs: Vec<String> = by_kernel[&0].split("\n\n").map(str::to_owned).collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    });
}
