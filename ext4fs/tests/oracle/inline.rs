//! Inline data: files and directories in their inodes, made by us and by the kernel, until they outgrow them.

use std::collections::BTreeMap;

use ext4fs::{FileSystem, NewNode, Ownership};

use crate::common::{
    check, compare_with_folder, debugfs, e2fsck, has_tool, mke2fs, open, pattern, scratch, with_kernel_mount,
};

const OWNER: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };
const LAYOUTS: &[&str] = &[
    "-t ext4 -b 1024 -I 256 -O inline_data",
    "-t ext4 -b 4096 -I 512 -O inline_data,^metadata_csum",
    "-t ext4 -b 4096 -I 1024 -O inline_data,ea_inode",
];

fn is_inline(path: &std::path::Path, file: &str) -> bool {
    String::from_utf8_lossy(&debugfs(path, &format!("stat {file}"))).contains("Flags: 0x1000")
}

#[test]
fn files_grow_shrink_and_leave_their_inode() {
    const TEST: &str = "inline files";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 48, None);
        let (device, mut fs) = open(&path);
        let mut expected = BTreeMap::new();
        for len in [0, 1, 59, 60, 61, 100, 140, 152, 156, 160, 164, 200, 400, 900, 920, 930, 1000, 5000] {
            let name = format!("/{len}");
            fs.write(name.as_bytes(), &pattern(len, len as u32)).unwrap();
            expected.insert(name, pattern(len, len as u32));
        }
        check(&mut fs, &device, &path, arguments);
        assert!(is_inline(&path, "/100") && !is_inline(&path, "/5000"));
        let step = |fs: &mut FileSystem, name: &str, bytes: &mut Vec<u8>, n: usize| {
            let inode = fs.resolve(name.as_bytes()).unwrap();
            match n % 6 {
                0 => {
                    let len = n * 37 % 300;
                    fs.set_len(inode, len as u64).unwrap();
                    bytes.resize(len, 0);
                }
                1 => {
                    let data = pattern(n * 11 % 90 + 1, n as u32);
                    let at = n * 13 % 200;
                    fs.write_at(inode, at as u64, &data).unwrap();
                    bytes.resize(bytes.len().max(at + data.len()), 0);
                    bytes[at..at + data.len()].copy_from_slice(&data);
                }
                2 => fs.set_xattr(inode, b"user.some", &pattern(n % 70, n as u32)).unwrap(),
                3 => fs.remove_xattr(inode, b"user.some").unwrap(),
                4 => fs.set_xattr(inode, b"security.selinux", b"system_u:object_r:etc_t:s0\0").unwrap(),
                _ => fs.set_len(inode, 0).map(|()| bytes.clear()).unwrap(),
            }
        };
        for n in 0..300 {
            let name = expected.keys().nth(n * 7 % expected.len()).unwrap().clone();
            step(&mut fs, &name, expected.get_mut(&name).unwrap(), n * 31 % 97);
            assert!(fs.read(name.as_bytes()).unwrap() == expected[&name], "{arguments}: {name}, step {n}");
            if n % 60 == 0 {
                check(&mut fs, &device, &path, arguments);
            }
        }
        fs.scrub().unwrap();
        check(&mut fs, &device, &path, arguments);
        for (name, bytes) in &expected {
            assert!(fs.read(name.as_bytes()).unwrap() == *bytes, "{arguments}: {name}");
        }
        with_kernel_mount(TEST, &path, "rw", |point| {
            compare_with_folder(&fs, point, arguments);
            for (n, name) in expected.keys().enumerate() {
                let file = std::fs::OpenOptions::new().write(true).open(point.join(&name[1..])).unwrap();
                file.set_len(n as u64 * 31).unwrap();
            }
        });
        e2fsck(&path, arguments);
        let (device, mut fs) = open(&path);
        for (n, (name, mut bytes)) in expected.into_iter().enumerate() {
            bytes.resize(n * 31, 0);
            assert!(fs.read(name.as_bytes()).unwrap() == bytes, "{arguments}: {name}");
            fs.remove_file(name.as_bytes()).unwrap();
        }
        check(&mut fs, &device, &path, arguments);
    }
}

#[test]
fn directories_grow_shrink_and_leave_their_inode() {
    const TEST: &str = "inline directories";
    if !has_tool(TEST, "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 48, None);
        with_kernel_mount(TEST, &path, "rw", |point| {
            for n in 0..12 {
                let directory = point.join(format!("kernel {n}"));
                std::fs::create_dir(&directory).unwrap();
                (0..n).for_each(|m| std::fs::write(directory.join("x".repeat(m + 3)), b"x").unwrap());
                (0..n / 2).for_each(|m| std::fs::remove_file(directory.join("x".repeat(m * 2 + 3))).unwrap());
            }
        });
        let (device, mut fs) = open(&path);
        let root = fs.root();
        for entry in fs.read_dir(root).unwrap().into_iter().filter(|entry| entry.name.starts_with(b"kernel")) {
            fs.create(entry.inode, b"ours", NewNode::File, OWNER).unwrap();
            fs.create(entry.inode, b"d", NewNode::Directory, OWNER).unwrap();
        }
        check(&mut fs, &device, &path, arguments);
        for n in 0..30usize {
            let directory = format!("/{n}");
            fs.create_dir(directory.as_bytes()).unwrap();
            for m in 0..n {
                let name = format!("{directory}/{}", "y".repeat(m * 5 % 60 + 1) + &m.to_string());
                match m % 3 {
                    0 => fs.write(name.as_bytes(), &pattern(m, 1)).unwrap(),
                    1 => fs.create_dir(name.as_bytes()).unwrap(),
                    _ => fs.symlink(b"target", name.as_bytes()).unwrap(),
                }
            }
        }
        check(&mut fs, &device, &path, arguments);
        assert!(is_inline(&path, "/0") && is_inline(&path, "/2") && !is_inline(&path, "/29"));
        for n in 0..30usize {
            let inode = fs.resolve(format!("/{n}").as_bytes()).unwrap();
            fs.set_xattr(inode, b"user.attribute", &pattern(n * 3, 1)).unwrap();
            for (m, entry) in fs.read_dir(inode).unwrap().into_iter().enumerate() {
                if m % 2 == 0 {
                    fs.rename(
                        inode,
                        &entry.name,
                        fs.resolve(format!("/{}", (n + 7) % 30).as_bytes()).unwrap(),
                        &entry.name,
                    )
                    .unwrap();
                }
            }
        }
        check(&mut fs, &device, &path, arguments);
        fs.scrub().unwrap();
        assert_eq!(fs.scrub().unwrap().bytes_zeroed, 0);
        check(&mut fs, &device, &path, arguments);
        with_kernel_mount(TEST, &path, "ro", |point| compare_with_folder(&fs, point, arguments));
        for entry in fs.read_dir(root).unwrap() {
            if entry.name != b"lost+found" {
                fs.remove_dir_all(&[b"/", entry.name.as_slice()].concat()).unwrap();
            }
        }
        check(&mut fs, &device, &path, arguments);
    }
}
