//! Devices, pipes and sockets, and the flags that chattr(1) sets: made by the kernel and read by us, and the other way round.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use ext4fs::{DeviceNumber, Error, FileFlags, FileKind, NewNode, Ownership};

use crate::common::{check, has_tool, mke2fs, open, scratch, with_kernel_mount};

const OWNER: Ownership = Ownership { mode: 0o620, uid: 3, gid: 5 };
/// Numbers that fit 8 bits each, and numbers that do not.
const DEVICES: [(u32, u32); 6] = [(1, 3), (255, 255), (8, 256), (256, 0), (4095, 1_048_575), (0, 7)];

fn mknod(path: &Path, kind: &str, device: Option<(u32, u32)>) {
    let mut command = Command::new("mknod");
    command.arg(path).arg(kind).args(device.iter().flat_map(|(major, minor)| [major.to_string(), minor.to_string()]));
    assert!(command.status().unwrap().success());
}

#[test]
fn devices_pipes_and_sockets_mean_the_same_to_the_kernel() {
    const TEST: &str = "special files";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in ["-t ext4 -b 4096", "-t ext4 -b 1024 -I 128 -O quota", "-t ext2 -b 1024", "-t ext4 -O inline_data"]
    {
        let path = mke2fs(folder.path(), arguments, 32, None);
        let mut mounted = false;
        with_kernel_mount(TEST, &path, "rw", |point| {
            for (n, device) in DEVICES.into_iter().enumerate() {
                mknod(&point.join(format!("char {n}")), "c", Some(device));
                mknod(&point.join(format!("block {n}")), "b", Some(device));
            }
            mknod(&point.join("pipe"), "p", None);
            drop(std::os::unix::net::UnixListener::bind(point.join("socket")).unwrap());
            mounted = true;
        });
        let (device, mut fs) = open(&path);
        fs.create_dir(b"/ours").unwrap();
        let ours = fs.resolve(b"/ours").unwrap();
        for (n, (major, minor)) in DEVICES.into_iter().enumerate() {
            let number = DeviceNumber { major, minor };
            let made = [("char", FileKind::CharDevice), ("block", FileKind::BlockDevice)];
            for (name, kind) in made {
                let name = format!("{name} {n}");
                if mounted {
                    let found = fs.metadata_path(format!("/{name}").as_bytes()).unwrap();
                    assert_eq!((found.kind, found.device), (kind, number), "{arguments}: {name}");
                }
                let node = match kind {
                    FileKind::CharDevice => NewNode::CharDevice(number),
                    _ => NewNode::BlockDevice(number),
                };
                let inode = fs.create(ours, name.as_bytes(), node, OWNER).unwrap();
                assert_eq!(fs.metadata(inode).unwrap().device, number);
            }
        }
        fs.create(ours, b"pipe", NewNode::Fifo, OWNER).unwrap();
        let socket = fs.create(ours, b"socket", NewNode::Socket, OWNER).unwrap();
        for wrong in [(4096, 0), (0, 1 << 20)] {
            let number = DeviceNumber { major: wrong.0, minor: wrong.1 };
            assert!(matches!(fs.create(ours, b"wrong", NewNode::CharDevice(number), OWNER), Err(Error::Invalid(_))));
        }
        assert!(matches!(fs.write_at(socket, 0, b"x"), Err(Error::NotAFile(_))));
        fs.set_xattr(socket, b"security.selinux", b"system_u:object_r:device_t:s0\0").unwrap();
        check(&mut fs, &device, &path, arguments);
        with_kernel_mount(TEST, &path, "ro", |point| {
            for (n, (major, minor)) in DEVICES.into_iter().enumerate() {
                for (name, is_char) in [("char", true), ("block", false)] {
                    let found = point.join(format!("ours/{name} {n}")).symlink_metadata().unwrap();
                    let kind = found.file_type();
                    assert_eq!((kind.is_char_device(), kind.is_block_device()), (is_char, !is_char), "{arguments}");
                    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
                    assert_eq!(number, (major, minor), "{arguments}");
                    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o620, 3, 5));
                }
            }
            assert!(point.join("ours/pipe").symlink_metadata().unwrap().file_type().is_fifo());
            assert!(point.join("ours/socket").symlink_metadata().unwrap().file_type().is_socket());
        });
        fs.remove_dir_all(b"/ours").unwrap();
        for entry in fs.read_dir(fs.root()).unwrap().into_iter().filter(|entry| entry.kind != FileKind::Directory) {
            fs.unlink(fs.root(), &entry.name).unwrap();
        }
        check(&mut fs, &device, &path, arguments);
    }
}

#[test]
fn flags_are_those_of_chattr() {
    const TEST: &str = "flags";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 4096", 16, None);
    let mut mounted = false;
    with_kernel_mount(TEST, &path, "rw", |point| {
        std::fs::write(point.join("theirs"), b"kept").unwrap();
        mounted =
            Command::new("chattr").arg("+iAd").arg(point.join("theirs")).status().is_ok_and(|done| done.success());
    });
    let (device, mut fs) = open(&path);
    let set = FileFlags::IMMUTABLE | FileFlags::NO_ACCESS_TIME | FileFlags::NO_DUMP;
    if mounted {
        let theirs = fs.resolve(b"/theirs").unwrap();
        assert_eq!(fs.flags(theirs).unwrap(), set);
        assert!(matches!(fs.write(b"/theirs", b"x"), Err(Error::NotPermitted(_))));
        assert!(matches!(fs.remove_file(b"/theirs"), Err(Error::NotPermitted(_))));
        fs.set_flags(theirs, FileFlags::NO_DUMP).unwrap();
        fs.write(b"/theirs", b"changed").unwrap();
    }
    fs.write(b"/ours", b"x").unwrap();
    let ours = fs.resolve(b"/ours").unwrap();
    assert!(matches!(fs.set_flags(ours, FileFlags::TOP_DIRECTORY), Err(Error::Invalid(_))));
    fs.set_flags(ours, set).unwrap();
    check(&mut fs, &device, &path, TEST);
    with_kernel_mount(TEST, &path, "ro", |point| {
        let listed =
            Command::new("lsattr").arg("-d").args([point.join("ours"), point.join("theirs")]).output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let flags: Vec<Vec<char>> = text
            .lines()
            .map(|line| line.split(' ').next().unwrap().chars().filter(|letter| *letter != '-').collect())
            .collect();
        assert_eq!(flags[0], ['i', 'd', 'A', 'e']);
        assert!(!mounted || flags[1] == ['d', 'e']);
    });
}
