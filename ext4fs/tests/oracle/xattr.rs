//! Extended attributes and ACLs, set by the kernel and read by us, and the other way round.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::common::{check, has_tool, mke2fs, open, pattern, scratch, with_kernel_mount};
use ext4fs::{Error, FileSystem, NewNode, Ownership};

const OWNER: Ownership = Ownership { mode: 0o640, uid: 0, gid: 0 };
/// user::rw-, user:1000:r--, group::r--, mask::r--, other::---, as xattr(7) has it.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
    \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// What a file is given: with 256-byte inodes the first fits the inode, the others need a block.
fn attributes(n: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    all.insert(b"user.small".to_vec(), format!("value {n}").into_bytes());
    all.insert(b"security.selinux".to_vec(), b"system_u:object_r:etc_t:s0\0".to_vec());
    all.insert(b"trusted.empty".to_vec(), Vec::new());
    all.insert(b"user.large".to_vec(), pattern(300, n as u32 % 3));
    all.insert(b"system.posix_acl_access".to_vec(), ACL.to_vec());
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn set_by_kernel(file: &Path, name: &[u8], value: &[u8]) {
    let name = std::str::from_utf8(name).unwrap();
    let set = Command::new("setfattr").args(["-n", name, "-v", &format!("0x{}", hex(value))]).arg(file).output();
    let set = set.unwrap();
    assert!(set.status.success(), "{name}: {}", String::from_utf8_lossy(&set.stderr));
}

fn read_by_kernel(file: &Path) -> BTreeMap<Vec<u8>, String> {
    let output = Command::new("getfattr").args(["-d", "-m", "-", "-e", "hex"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    pairs
        .map(|line| match line.split_once("=0x") {
            Some((name, value)) => (name.as_bytes().to_vec(), value.to_owned()),
            None => (line.trim_end_matches('=').as_bytes().to_vec(), String::new()),
        })
        .collect()
}

fn read_by_us(fs: &FileSystem, path: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let inode = fs.resolve(path).unwrap();
    let names = fs.xattr_names(inode).unwrap();
    names.into_iter().map(|name| (name.clone(), fs.xattr(inode, &name).unwrap().unwrap())).collect()
}

#[test]
fn attributes_mean_the_same_to_the_kernel() {
    const TEST: &str = "attributes and the kernel";
    if !has_tool(TEST, "mke2fs") || !has_tool(TEST, "setfattr") {
        return;
    }
    let folder = scratch();
    for arguments in [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024 -O ^metadata_csum",
        "-t ext4 -b 1024 -I 512",
        "-t ext3 -b 1024 -I 128",
        "-t ext2 -b 1024",
    ] {
        let path = mke2fs(folder.path(), arguments, 48, None);
        let mut mounted = false;
        with_kernel_mount(TEST, &path, "rw,user_xattr,acl", |point| {
            for n in 0..12 {
                let file = point.join(format!("theirs-{n}"));
                std::fs::write(&file, b"x").unwrap();
                for (name, value) in attributes(n) {
                    set_by_kernel(&file, &name, &value);
                }
            }
            mounted = true;
        });
        if !mounted {
            return;
        }
        let (device, mut fs) = open(&path);
        for n in 0..12 {
            assert_eq!(read_by_us(&fs, format!("/theirs-{n}").as_bytes()), attributes(n), "{arguments}");
            let file = fs.create(fs.root(), format!("ours-{n}").as_bytes(), NewNode::File, OWNER).unwrap();
            for (name, value) in attributes(n) {
                fs.set_xattr(file, &name, &value).unwrap();
            }
            // Of blocks that the kernel let several inodes share, one inode's is changed, and one's is dropped.
            let theirs = fs.resolve(format!("/theirs-{n}").as_bytes()).unwrap();
            match n % 3 {
                0 => fs.set_xattr(theirs, b"user.large", b"changed").unwrap(),
                1 => fs.remove_xattr(theirs, b"user.large").unwrap(),
                _ => fs.remove_file(format!("/theirs-{n}").as_bytes()).unwrap(),
            }
        }
        let file = fs.resolve(b"/ours-0").unwrap();
        let too_large = fs.set_xattr(file, b"user.huge", &vec![1; 70_000]);
        assert!(matches!(too_large, Err(Error::NoSpace(_))), "{too_large:?}");
        check(&mut fs, &device, &path, arguments);
        with_kernel_mount(TEST, &path, "ro,user_xattr,acl", |point| {
            for n in 0..12 {
                let expected = |mut all: BTreeMap<Vec<u8>, Vec<u8>>, large: Option<&[u8]>| {
                    match large {
                        Some(value) => all.insert(b"user.large".to_vec(), value.to_vec()),
                        None => all.remove(b"user.large".as_slice()),
                    };
                    all.into_iter().map(|(name, value)| (name, hex(&value))).collect::<BTreeMap<_, _>>()
                };
                let large = pattern(300, n as u32 % 3);
                let ours = read_by_kernel(&point.join(format!("ours-{n}")));
                assert_eq!(ours, expected(attributes(n), Some(&large)), "{arguments}");
                let theirs = point.join(format!("theirs-{n}"));
                match n % 3 {
                    0 => assert_eq!(read_by_kernel(&theirs), expected(attributes(n), Some(b"changed"))),
                    1 => assert_eq!(read_by_kernel(&theirs), expected(attributes(n), None)),
                    _ => assert!(!theirs.exists()),
                }
            }
        });
    }
}
