//! Features that few file systems have, each as the kernel or e2fsprogs uses it.

use std::process::Command;
use std::sync::Arc;

use block::Memory;
use ext4fs::{Error, FileSystem, NewNode, OpenOptions, Ownership};

use crate::common::{check, debugfs, e2fsck, has_tool, mke2fs, open, pattern, scratch, with_kernel_mount};

const OWNER: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };

#[test]
fn a_file_system_in_use_is_refused() {
    const TEST: &str = "mmp";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024 -O mmp", 16, None);
    let (device, mut fs) = open(&path);
    fs.write(b"/file", b"contents").unwrap();
    check(&mut fs, &device, &path, TEST);
    let before = std::fs::read(&path).unwrap();
    let mut used = Vec::new();
    with_kernel_mount(TEST, &path, "rw", |point| {
        std::fs::write(point.join("other"), b"other").unwrap();
        assert!(Command::new("sync").arg("-f").arg(point).status().unwrap().success());
        used = std::fs::read(&path).unwrap();
    });
    if used.is_empty() {
        return;
    }
    let in_use = FileSystem::open(Arc::new(Memory::from(used.clone())), &OpenOptions::default());
    assert!(matches!(in_use, Err(Error::InUse(_))), "{in_use:?}");
    assert!(FileSystem::open_read_only(Arc::new(Memory::from(used.clone()))).is_ok());
    // Someone mounts it while we have it open.
    let device = Arc::new(Memory::from(before));
    let mut fs = FileSystem::open(device.clone(), &OpenOptions::default()).unwrap();
    fs.write(b"/file", b"changed").unwrap();
    block::WriteAt::write_at(device.as_ref(), 0, &used).unwrap();
    assert!(matches!(fs.flush(), Err(Error::InUse(_))));
    assert!(matches!(fs.flush(), Err(Error::Poisoned)));
}

#[test]
fn encrypted_trees_are_listed_and_removed_but_not_read() {
    const TEST: &str = "encrypt";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 4096 -O encrypt", 48, None);
    let mut mounted = false;
    with_kernel_mount(TEST, &path, "rw,test_dummy_encryption", |point| {
        let top = point.join("top");
        std::fs::create_dir(&top).unwrap();
        for n in 0..700 {
            std::fs::write(top.join(format!("{n:_>60}")), pattern(n * 20, n as u32)).unwrap();
        }
        std::os::unix::fs::symlink("target", top.join("link")).unwrap();
        std::os::unix::fs::symlink("t".repeat(200), top.join("long link")).unwrap();
        std::fs::create_dir(top.join("below")).unwrap();
        std::fs::write(top.join("below/file"), b"secret").unwrap();
        mounted = true;
    });
    if !mounted {
        return;
    }
    let (device, mut fs) = open(&path);
    let root = fs.root();
    let top = fs.read_dir(root).unwrap().into_iter().find(|entry| entry.name != b"lost+found").unwrap();
    let entries = fs.read_dir(top.inode).unwrap();
    assert_eq!(entries.len(), 703);
    let refused = fs.create(top.inode, b"new", NewNode::File, OWNER);
    assert!(matches!(&refused, Err(Error::Unsupported(why)) if why.contains("encrypted")), "{refused:?}");
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(fs.lookup(top.inode, &entry.name).unwrap(), Some(entry.inode));
        match entry.kind {
            ext4fs::FileKind::File => {
                let mut bytes = [0; 10];
                assert!(matches!(fs.read_at(entry.inode, 0, &mut bytes), Err(Error::Unsupported(_))));
                assert!(matches!(fs.write_at(entry.inode, 0, b"x"), Err(Error::Unsupported(_))));
                fs.set_mode(entry.inode, 0o600).unwrap();
                if n % 2 == 0 {
                    fs.unlink(top.inode, &entry.name).unwrap();
                }
            }
            ext4fs::FileKind::Symlink => {
                assert!(matches!(fs.read_link(entry.inode), Err(Error::Unsupported(_))));
                fs.unlink(top.inode, &entry.name).unwrap();
            }
            _ => assert!(matches!(fs.remove_dir(top.inode, &entry.name), Err(Error::DirectoryNotEmpty))),
        }
    }
    check(&mut fs, &device, &path, "half removed");
    fs.scrub().unwrap();
    check(&mut fs, &device, &path, "scrubbed");
    let free = fs.statfs().free_inodes;
    fs.rename(root, &top.name, root, b"moved").unwrap();
    fs.remove_dir_all(b"/moved").unwrap();
    assert!(fs.statfs().free_inodes > free + 300);
    check(&mut fs, &device, &path, "all removed");
}

#[test]
fn sealed_files_are_read_and_removed_but_not_written() {
    if !has_tool("verity", "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 4096 -O verity,stable_inodes", 16, None);
    let (device, mut fs) = open(&path);
    fs.write(b"/sealed", &pattern(5000, 1)).unwrap();
    check(&mut fs, &device, &path, "before");
    let sealed = Command::new("debugfs").args(["-w", "-R", "sif /sealed flags 0x180000"]).arg(&path).output();
    assert!(sealed.unwrap().status.success());
    let (device, mut fs) = open(&path);
    assert!(fs.read(b"/sealed").unwrap() == pattern(5000, 1));
    let refused = fs.write(b"/sealed", b"changed");
    assert!(matches!(&refused, Err(Error::Unsupported(why)) if why.contains("verity")), "{refused:?}");
    fs.rename_path(b"/sealed", b"/moved").unwrap();
    fs.set_mode(fs.resolve(b"/moved").unwrap(), 0o400).unwrap();
    check(&mut fs, &device, &path, "moved");
    fs.remove_file(b"/moved").unwrap();
    check(&mut fs, &device, &path, "removed");
}

#[test]
fn subdirectories_beyond_65000_are_not_counted() {
    const TEST: &str = "dir_nlink";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024 -N 70000 -I 128 -O ^has_journal", 110, None);
    let (device, mut fs) = open(&path);
    fs.create_dir(b"/top").unwrap();
    let top = fs.resolve(b"/top").unwrap();
    let add = |fs: &mut FileSystem, n: u32| {
        fs.create(top, format!("{n}").as_bytes(), NewNode::Directory, OWNER).unwrap();
    };
    (0..64_998).for_each(|n| add(&mut fs, n));
    // The kernel counts as far as 64,999 + 1.
    assert_eq!(fs.metadata(top).unwrap().links, 65_000);
    (64_998..65_010).for_each(|n| add(&mut fs, n));
    assert_eq!(fs.metadata(top).unwrap().links, 1);
    check(&mut fs, &device, &path, "many");
    (0..100).for_each(|n| fs.remove_dir(top, format!("{n}").as_bytes()).unwrap());
    assert_eq!(fs.metadata(top).unwrap().links, 1);
    check(&mut fs, &device, &path, "fewer");
}

#[test]
fn a_full_index_is_refused_before_anything_is_changed() {
    if !has_tool("full index", "mke2fs") {
        return;
    }
    let folder = scratch();
    // 250 bytes a name: 3 in a leaf of 1 KiB.
    let path = mke2fs(folder.path(), "-t ext4 -b 1024 -N 64 -O ^has_journal", 64, None);
    let (device, mut fs) = open(&path);
    fs.create_dir(b"/full").unwrap();
    let directory = fs.resolve(b"/full").unwrap();
    let file = fs.create(directory, b"first", NewNode::File, OWNER).unwrap();
    let mut count = 0;
    let refused = loop {
        match fs.link(directory, format!("{count:_>250}").as_bytes(), file) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace(_)), "{refused}");
    assert!(count > 10_000, "{count}");
    let made = fs.create(directory, &[b'n'; 250], NewNode::File, OWNER);
    assert!(made.is_ok() || matches!(made, Err(Error::NoSpace(_))), "{made:?}");
    fs.write(b"/elsewhere", b"still works").unwrap();
    check(&mut fs, &device, &path, "full");
}

#[test]
fn usage_is_kept_for_users_groups_and_projects() {
    if !has_tool("quota", "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in
        ["-t ext4 -b 1024 -I 256 -O quota,project", "-t ext4 -b 4096 -O quota,project", "-t ext3 -b 1024 -O quota"]
    {
        let projects = arguments.contains("project");
        let path = mke2fs(folder.path(), arguments, 32, None);
        let (device, mut fs) = open(&path);
        for n in 0..120u32 {
            // Ids far apart need many blocks of references.
            let owner = Ownership { mode: 0o644, uid: n * n * 70_001, gid: n % 7 * 1000 };
            let name = format!("{n}");
            let node = match n % 5 {
                0 => NewNode::Directory,
                1 => {
                    NewNode::Symlink(b"a target that is so long that it needs a block of its own, since it has no room")
                }
                _ => NewNode::File,
            };
            let inode = fs.create(fs.root(), name.as_bytes(), node, owner).unwrap();
            if n % 5 > 1 {
                fs.write_at(inode, 0, &pattern(n as usize * 500, n)).unwrap();
            }
            if n % 3 == 0 {
                fs.set_xattr(inode, b"user.attribute", &pattern(600, n)).unwrap();
            }
            if projects && n % 4 == 0 {
                fs.set_project(inode, n / 20 + 1, n % 5 == 0).unwrap();
            }
        }
        check(&mut fs, &device, &path, arguments);
        if projects {
            let listed = String::from_utf8_lossy(&debugfs(&path, "list_quota project")).into_owned();
            assert_eq!(listed.lines().filter(|line| !line.trim().is_empty()).count(), 1 + 7, "{listed}");
            fs.create(fs.resolve(b"/20").unwrap(), b"inherits", NewNode::File, OWNER).unwrap();
            assert_eq!(fs.project(fs.resolve(b"/20/inherits").unwrap()).unwrap(), 2);
            let other = fs.rename_path(b"/1", b"/20/1");
            assert!(matches!(other, Err(Error::Invalid(_))), "{other:?}");
        }
        for n in (0..120u32).step_by(2) {
            let inode = fs.resolve(format!("/{n}/").trim_end_matches('/').as_bytes());
            match (n % 5, inode) {
                (0, _) => fs.remove_dir_all(format!("/{n}").as_bytes()).unwrap(),
                (1, _) => fs.remove_file(format!("/{n}").as_bytes()).unwrap(),
                (2, Ok(inode)) => fs.set_len(inode, 1).unwrap(),
                (_, inode) => fs.set_owner(inode.unwrap(), 77, 88).unwrap(),
            }
        }
        check(&mut fs, &device, &path, arguments);
        fs.scrub().unwrap();
        check(&mut fs, &device, &path, arguments);
        with_kernel_mount("quota", &path, "rw", |point| {
            std::fs::write(point.join("by the kernel"), pattern(9999, 3)).unwrap();
        });
        e2fsck(&path, arguments);
    }
}
