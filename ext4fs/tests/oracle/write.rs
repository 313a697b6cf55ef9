//! Scripts of changes on every kind of file system that mke2fs makes, each judged by e2fsck and debugfs.

use crate::common::{LAYOUTS, NOW, check, debugfs, e2fsck, has_tool, mke2fs, open, pattern, scratch};
use ext4fs::{Error, FileKind, FileSystem, NewNode, Ownership};

const OWNER: Ownership = Ownership { mode: 0o640, uid: 70_000, gid: 80_000 };

/// Runs a script on a fresh file system of each layout; after it e2fsck must find nothing.
fn on_each_layout(test: &str, script: impl Fn(&mut FileSystem)) {
    if !has_tool(test, "mke2fs") {
        return;
    }
    let folder = scratch();
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (device, mut fs) = open(&path);
        script(&mut fs);
        check(&mut fs, &device, &path, &format!("{test}, {name}"));
    }
}

#[test]
fn files_are_created_overwritten_and_cut() {
    on_each_layout("files", |fs| {
        let root = fs.root();
        let file = fs.create(root, b"file", NewNode::File, OWNER).unwrap();
        let data = pattern(300_000, 1);
        fs.write_at(file, 0, &data).unwrap();
        assert_eq!(fs.read(b"/file").unwrap(), data);
        fs.write_at(file, 1234, b"hello").unwrap();
        fs.write_at(file, 299_998, b"the end").unwrap();
        let mut expected = data.clone();
        expected.resize(300_005, 0);
        expected[1234..1239].copy_from_slice(b"hello");
        expected[299_998..].copy_from_slice(b"the end");
        assert_eq!(fs.read(b"/file").unwrap(), expected);
        fs.set_len(file, 5000).unwrap();
        fs.set_len(file, 100_000).unwrap();
        expected.truncate(5000);
        expected.resize(100_000, 0);
        assert_eq!(fs.read(b"/file").unwrap(), expected);
        // Far behind the end: a hole.
        fs.write_at(file, 20_000_001, b"far").unwrap();
        expected.resize(20_000_001, 0);
        expected.extend_from_slice(b"far");
        assert_eq!(fs.read(b"/file").unwrap(), expected);
        let metadata = fs.metadata(file).unwrap();
        assert_eq!((metadata.mode, metadata.uid, metadata.gid, metadata.links), (0o640, 70_000, 80_000, 1));
        assert_eq!((metadata.size, metadata.modified.seconds), (20_000_004, NOW.seconds));
        assert!(metadata.sectors < 1000, "{} sectors", metadata.sectors);
        fs.write(b"/file", b"short").unwrap();
        assert_eq!(fs.metadata_path(b"/file").unwrap().inode, file);
        assert_eq!(fs.read(b"/file").unwrap(), b"short");
    });
}

#[test]
fn everything_removed_leaves_as_much_room_as_before() {
    on_each_layout("removal", |fs| {
        let before = fs.statfs();
        fs.create_dir_all(b"/a/b/c").unwrap();
        for n in 0..300u32 {
            fs.write(format!("/a/b/c/some file with a long name, number {n}").as_bytes(), &pattern(n as usize * 37, n))
                .unwrap();
        }
        fs.write(b"/a/big", &pattern(6_000_000, 7)).unwrap();
        fs.symlink(b"b/c", b"/a/link").unwrap();
        fs.symlink(&[b'x'; 700], b"/a/long link").unwrap();
        fs.hard_link(b"/a/big", b"/a/b/big too").unwrap();
        fs.remove_file(b"/a/big").unwrap();
        assert_eq!(fs.metadata_path(b"/a/b/big too").unwrap().links, 1);
        assert_eq!(fs.read_link_path(b"/a/long link").unwrap(), [b'x'; 700]);
        assert_eq!(fs.read(b"/a/link/some file with a long name, number 299").unwrap(), pattern(299 * 37, 299));
        assert!(matches!(fs.remove_dir_path(b"/a"), Err(Error::DirectoryNotEmpty)));
        fs.remove_dir_all(b"/a").unwrap();
        assert!(!fs.exists(b"/a").unwrap());
        assert_eq!(fs.statfs(), before);
    });
}

#[test]
fn many_names_in_one_directory() {
    on_each_layout("names", |fs| {
        let root = fs.root();
        let free = fs.statfs().free_inodes.min(3000);
        let first = fs.create(root, b"first", NewNode::File, OWNER).unwrap();
        for n in 0..free - 2 {
            let name = format!("name {n} of many in this one directory");
            if n % 2 == 0 && fs.metadata(first).unwrap().links < 60_000 {
                fs.link(root, name.as_bytes(), first).unwrap();
            } else {
                fs.create(root, name.as_bytes(), NewNode::File, OWNER).unwrap();
            }
        }
        assert_eq!(fs.read_dir(root).unwrap().len() as u32, free - 2 + 2);
        for n in (0..free - 2).filter(|n| n % 3 != 0) {
            fs.unlink(root, format!("name {n} of many in this one directory").as_bytes()).unwrap();
        }
        for n in 0..free - 2 {
            let found = fs.lookup(root, format!("name {n} of many in this one directory").as_bytes()).unwrap();
            assert_eq!(found.is_some(), n % 3 == 0);
        }
    });
}

#[test]
fn inodes_and_blocks_run_out_cleanly() {
    on_each_layout("out of space", |fs| {
        let root = fs.root();
        let directory = fs.create(root, b"full", NewNode::Directory, OWNER).unwrap();
        let mut made = 0u32;
        let error = loop {
            let kind = if made.is_multiple_of(10) { NewNode::Directory } else { NewNode::File };
            match fs.create(directory, made.to_string().as_bytes(), kind, OWNER) {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NoSpace(_)), "{error}");
        assert!(made > 1000);
        let file = fs.lookup(directory, b"1").unwrap().unwrap();
        let chunk = pattern(1 << 20, 3);
        let mut len = 0;
        while fs.write_at(file, len, &chunk).is_ok() {
            len += chunk.len() as u64;
        }
        let mut small = 0;
        while fs.write_at(file, len + small, &[7; 512]).is_ok() {
            small += 512;
        }
        // What is kept for the map and for quota files: some blocks, or some clusters of 16.
        assert!(fs.statfs().free_blocks < 200, "{:?}", fs.statfs());
        assert_eq!(fs.metadata(file).unwrap().size, len + small);
    });
}

#[test]
fn renames_replace_and_move_directories() {
    on_each_layout("renames", |fs| {
        fs.create_dir_all(b"/a/b").unwrap();
        fs.create_dir_all(b"/c/empty").unwrap();
        fs.write(b"/a/one", b"one").unwrap();
        fs.write(b"/a/two", &pattern(50_000, 2)).unwrap();
        fs.rename_path(b"/a/one", b"/a/two").unwrap();
        assert_eq!(fs.read(b"/a/two").unwrap(), b"one");
        fs.rename_path(b"/a/b", b"/c/empty").unwrap();
        fs.rename_path(b"/c/empty", b"/moved").unwrap();
        assert!(matches!(fs.rename_path(b"/a", b"/a/below"), Err(Error::Invalid(_))));
        assert!(matches!(fs.rename_path(b"/c", b"/a/two"), Err(Error::NotADirectory(_))));
        assert!(matches!(fs.rename_path(b"/a/two", b"/c"), Err(Error::IsADirectory(_))));
        fs.rename_path(b"/a", b"/c/a").unwrap();
        fs.rename_path(b"/c/a/two", b"/a file").unwrap();
        fs.hard_link(b"/a file", b"/same").unwrap();
        fs.rename_path(b"/same", b"/a file").unwrap();
        assert!(fs.exists(b"/same").unwrap());
        assert_eq!(fs.read(b"/c/../a file").unwrap(), b"one");
        let root = fs.metadata(fs.root()).unwrap();
        assert_eq!(root.links, 2 + 3, "lost+found, c, moved");
    });
}

#[test]
fn attributes_are_set_and_removed() {
    on_each_layout("attributes", |fs| {
        let root = fs.root();
        let file = fs.create(root, b"file", NewNode::File, OWNER).unwrap();
        // The owner's entry in a quota file stays.
        fs.set_owner(file, 100_000, 5).unwrap();
        let free = fs.statfs().free_blocks;
        fs.set_xattr(file, b"security.selinux", b"system_u:object_r:etc_t:s0\0").unwrap();
        fs.set_xattr(file, b"user.large", &pattern(700, 4)).unwrap();
        fs.set_xattr(file, b"user.small", b"x").unwrap();
        fs.set_xattr(file, b"user.large", &pattern(600, 5)).unwrap();
        assert_eq!(fs.xattr(file, b"user.large").unwrap().unwrap(), pattern(600, 5));
        assert_eq!(fs.xattr(file, b"security.selinux").unwrap().unwrap(), b"system_u:object_r:etc_t:s0\0");
        assert!(matches!(fs.set_xattr(file, b"user.huge", &[1; 70_000]), Err(Error::NoSpace(_))));
        assert_eq!(fs.xattr(file, b"user.huge").unwrap(), None);
        fs.remove_xattr(file, b"user.large").unwrap();
        fs.remove_xattr(file, b"user.large").unwrap();
        fs.set_mode(file, 0o4755).unwrap();
        let metadata = fs.metadata(file).unwrap();
        assert_eq!((metadata.kind, metadata.mode, metadata.uid, metadata.gid), (FileKind::File, 0o4755, 100_000, 5));
        fs.set_xattr(file, b"user.large", &pattern(700, 4)).unwrap();
        fs.unlink(root, b"file").unwrap();
        assert_eq!(fs.statfs().free_blocks, free);
        fs.write(b"/kept", b"kept").unwrap();
        let kept = fs.resolve(b"/kept").unwrap();
        fs.set_xattr(kept, b"user.large", &pattern(700, 4)).unwrap();
    });
}

#[test]
fn debugfs_sees_what_was_written() {
    if !has_tool("debugfs", "debugfs") {
        return;
    }
    let folder = scratch();
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (device, mut fs) = open(&path);
        let data = pattern(1_000_000, 9);
        fs.create_dir_all(b"/x/y").unwrap();
        fs.write(b"/x/y/data", &data).unwrap();
        let inode = fs.resolve(b"/x/y/data").unwrap();
        fs.set_owner(inode, 70_000, 80_000).unwrap();
        fs.set_xattr(inode, b"user.name", b"value").unwrap();
        fs.symlink(b"x/y/data", b"/link").unwrap();
        check(&mut fs, &device, &path, name);
        assert_eq!(debugfs(&path, "cat /x/y/data"), data, "{name}");
        let stat = String::from_utf8(debugfs(&path, "stat /x/y/data")).unwrap();
        assert!(stat.contains("User: 70000   Group: 80000"), "{name}: {stat}");
        assert!(stat.contains("Size: 1000000") && stat.contains("Links: 1"), "{name}: {stat}");
        assert!(
            String::from_utf8(debugfs(&path, "stat /link")).unwrap().contains("Fast link dest: \"x/y/data\""),
            "{name}"
        );
        let value = String::from_utf8(debugfs(&path, "ea_get /x/y/data user.name")).unwrap();
        assert!(value.contains("value"), "{name}: {value}");
    }
}

#[test]
fn a_directory_with_more_subdirectories_than_links() {
    if !has_tool("dir_nlink", "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024 -N 70000", 160, None);
    let (device, mut fs) = open(&path);
    let root = fs.root();
    let directory = fs.create(root, b"full", NewNode::Directory, OWNER).unwrap();
    for n in 0..65_010 {
        fs.create(directory, format!("{n}").as_bytes(), NewNode::Directory, OWNER).unwrap();
    }
    assert_eq!(fs.metadata(directory).unwrap().links, 1);
    check(&mut fs, &device, &path, "dir_nlink");
    fs.remove_dir_all(b"/full").unwrap();
    check(&mut fs, &device, &path, "dir_nlink, removed");

    // Without the feature, 64,998 is the end.
    let path = mke2fs(folder.path(), "-t ext3 -b 1024 -N 70000", 160, None);
    let (device, mut fs) = open(&path);
    let directory = fs.create(root, b"full", NewNode::Directory, OWNER).unwrap();
    let made = (0..).take_while(|n| fs.create(directory, format!("{n}").as_bytes(), NewNode::Directory, OWNER).is_ok());
    assert_eq!(made.count(), 64_998);
    let error = fs.create(directory, b"another", NewNode::Directory, OWNER);
    assert!(matches!(error, Err(Error::TooManyLinks(_))), "{error:?}");
    fs.create(directory, b"file", NewNode::File, OWNER).unwrap();
    check(&mut fs, &device, &path, "no dir_nlink");
}

#[test]
fn the_ends_of_the_largest_files() {
    on_each_layout("large files", |fs| {
        let root = fs.root();
        let block = u64::from(fs.statfs().block_size);
        let file = fs.create(root, b"file", NewNode::File, OWNER).unwrap();
        fs.write_at(file, (1 << 31) + 5, b"past two gibibytes").unwrap();
        let extents = (u64::from(u32::MAX)) * block;
        let pointers = block / 4;
        let mapped = ((12 + pointers + pointers.pow(2) + pointers.pow(3)) * block).min(extents);
        let end = if fs.write_at(file, extents - 4, b"last").is_ok() { extents } else { mapped };
        fs.write_at(file, end - 4, b"last").unwrap();
        assert!(matches!(fs.write_at(file, end - 3, b"last"), Err(Error::FileTooLarge(_))));
        assert!(matches!(fs.write_at(file, u64::MAX - 3, b"last"), Err(Error::FileTooLarge(_))));
        assert!(matches!(fs.set_len(file, u64::MAX), Err(Error::FileTooLarge(_))));
        let mut bytes = [0; 10];
        assert_eq!(fs.read_at(file, end - 4, &mut bytes).unwrap(), 4);
        assert_eq!(&bytes[..4], b"last");
        assert_eq!(fs.metadata(file).unwrap().size, end);
    });
}

#[test]
fn nothing_is_written_where_nothing_is_changed() {
    if !has_tool("clean open", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let before = std::fs::read(&path).unwrap();
        let (device, mut fs) = open(&path);
        let root = fs.root();
        fs.read_dir(root).unwrap();
        assert!(fs.unlink(root, b"missing").is_err());
        fs.remove_xattr(root, b"user.missing").unwrap();
        fs.flush().unwrap();
        assert!(device.to_vec() == before, "{name}: the image was changed");
        e2fsck(&path, name);
    }
}
