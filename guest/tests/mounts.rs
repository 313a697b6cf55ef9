//! Several file systems in one tree, and what changes may and may not do to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use guest::memory::MemoryFileSystem;
use guest::{Error, FileKind, FileSystem, Guest, NewNode, Ownership, Result, Timestamp, Walk};

fn tree(files: &[&str]) -> Box<MemoryFileSystem> {
    let mut fs = MemoryFileSystem::new();
    for file in files {
        match file.strip_suffix('/') {
            Some(directory) => fs.add_dir(directory).unwrap(),
            None => fs.add_file(file, file).unwrap(),
        };
    }
    Box::new(fs)
}

/// `/`, `/var`, `/var/log`, `/home`, given in no order.
fn guest() -> Guest {
    let mut home = tree(&["/ann/file"]);
    home.set_read_only(Some("it is a test"));
    Guest::from_file_systems(
        tree(&["/etc/hosts", "/var/hidden", "/home/", "/tmp/x"]),
        vec![
            (b"/var/log".to_vec(), tree(&["/syslog", "/journal/1"])),
            (b"/home".to_vec(), home as Box<dyn FileSystem>),
            (b"/var".to_vec(), tree(&["/log/hidden", "/lib/x"])),
        ],
    )
    .unwrap()
}

fn walked(guest: &Guest, top: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut visit = |path: &[u8], _: &_| {
        paths.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(Walk::Continue)
    };
    guest.walk(top.as_bytes(), &mut visit).unwrap();
    let mut names = Vec::new();
    let mut visit = |path: &[u8], _| {
        names.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(())
    };
    guest.walk_names(top.as_bytes(), &mut visit).unwrap();
    assert_eq!(paths, names);
    paths
}

fn cause(result: Result<()>) -> String {
    format!("{:?}", result.unwrap_err().cause())
}

#[test]
fn mounts_cover_what_is_below_them() {
    let guest = guest();
    let paths: Vec<_> = guest.mounts().iter().map(|mount| String::from_utf8(mount.path.clone()).unwrap()).collect();
    assert_eq!(paths, ["/", "/var", "/home", "/var/log"]);
    assert_eq!(guest.lstat(b"/var/hidden").unwrap(), None);
    assert_eq!(guest.lstat(b"/var/log/hidden").unwrap(), None);
    assert_eq!(guest.read(b"/var/log/syslog").unwrap(), b"/syslog");
    assert_eq!(guest.resolve(b"/var/log/../../etc").unwrap().unwrap(), b"/etc");
    let expected = [
        "/etc",
        "/etc/hosts",
        "/home",
        "/home/ann",
        "/home/ann/file",
        "/tmp",
        "/tmp/x",
        "/var",
        "/var/lib",
        "/var/lib/x",
        "/var/log",
        "/var/log/journal",
        "/var/log/journal/1",
        "/var/log/syslog",
    ];
    assert_eq!(walked(&guest, "/"), expected);
    assert_eq!(walked(&guest, "/var/log/"), expected[11..].to_vec());
    assert_eq!(walked(&guest, "/etc/hosts"), [""; 0]);
    assert_eq!(walked(&guest, "/missing"), [""; 0]);
    let entries = guest.read_dir(b"/var").unwrap();
    assert_eq!(entries[1].inode, guest.stat(b"/var/log").unwrap().unwrap().inode);
    assert_eq!(guest.glob("/var/*/*").unwrap().len(), 3);
}

#[test]
fn a_walk_goes_where_it_is_told() {
    let guest = guest();
    let mut paths = Vec::new();
    let skip = &mut |path: &[u8], _: &_| {
        paths.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(if path == b"/var/log" { Walk::SkipDirectory } else { Walk::Continue })
    };
    guest.walk(b"/var", skip).unwrap();
    assert_eq!(paths, ["/var/lib", "/var/lib/x", "/var/log"]);
    let stop = guest.walk(b"/", &mut |_, _| Err(Error::NoSpace));
    assert!(matches!(stop, Err(Error::NoSpace)));
}

#[test]
fn a_walk_does_not_go_through_links() {
    let mut fs = tree(&["/a/b/c"]);
    fs.add_symlink("/a/link", "/a").unwrap();
    fs.add_symlink("/top", "a").unwrap();
    let guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    assert_eq!(walked(&guest, "/a"), ["/a/b", "/a/b/c", "/a/link"]);
    assert_eq!(walked(&guest, "/top"), [""; 0]);
    assert_eq!(walked(&guest, "/top/b"), ["/top/b/c"]);
}

#[test]
fn mount_points_have_to_be_directories() {
    for path in [&b"/missing"[..], b"/etc/hosts", b"/etc/hosts/x", b"relative"] {
        let guest = Guest::from_file_systems(tree(&["/etc/hosts"]), vec![(path.to_vec(), tree(&[]))]);
        assert!(matches!(guest.unwrap_err(), Error::At { action: "mount on", .. }));
    }
}

#[test]
fn a_mount_over_a_mount_is_what_is_seen() {
    let below = vec![
        (b"/data".to_vec(), tree(&["/first"]) as Box<dyn FileSystem>),
        (b"/data".to_vec(), tree(&["/second"]) as Box<dyn FileSystem>),
    ];
    let mut guest = Guest::from_file_systems(tree(&["/data/"]), below).unwrap();
    assert_eq!(walked(&guest, "/"), ["/data", "/data/second"]);
    assert_eq!(cause(guest.remove_dir(b"/data")), "MountPoint");
}

#[test]
fn mount_points_cannot_be_removed_or_moved() {
    let mut guest = guest();
    assert_eq!(cause(guest.remove_dir(b"/var/log")), "MountPoint");
    assert_eq!(cause(guest.remove_dir(b"/var")), "MountPoint");
    assert_eq!(cause(guest.remove_file(b"/var")), "IsADirectory");
    assert_eq!(cause(guest.rename(b"/var", b"/other")), "MountPoint");
    assert_eq!(cause(guest.rename(b"/tmp", b"/home")), "MountPoint");
    assert_eq!(cause(guest.rename(b"/tmp/x", b"/var/x")), "CrossesFileSystems");
    assert_eq!(cause(guest.hard_link(b"/tmp/x", b"/var/x")), "CrossesFileSystems");
    let mut deep = Guest::from_file_systems(tree(&["/a/b/c/"]), vec![(b"/a/b/c".to_vec(), tree(&[]))]).unwrap();
    assert_eq!(cause(deep.rename(b"/a", b"/z")), "MountPoint");
}

#[test]
fn read_only_file_systems_are_left_alone() {
    let mut guest = guest();
    let results = [
        guest.write(b"/home/ann/file", b""),
        guest.write(b"/home/ann/new", b""),
        guest.set_len(b"/home/ann/file", 0),
        guest.remove_file(b"/home/ann/file"),
        guest.remove_all(b"/home/ann", &mut |_, _| panic!("nothing was removed")),
        guest.create_dir(b"/home/x", 0o755),
        guest.set_mode(b"/home/ann", 0),
        guest.set_xattr(b"/home/ann", b"user.x", b""),
        guest.rename(b"/home/ann", b"/home/x"),
    ];
    for result in results {
        assert_eq!(cause(result), "ReadOnly { device: \"/home\", reason: \"it is a test\" }");
    }
    assert_eq!(guest.read(b"/home/ann/file").unwrap(), b"/ann/file");
    guest.scrub().unwrap();
    guest.flush().unwrap();
}

#[test]
fn remove_all_empties_mounts_and_keeps_their_mount_points() {
    let mut guest = guest();
    let mut removed = Vec::new();
    guest
        .remove_all(b"/var/", &mut |path, metadata| {
            removed.push((String::from_utf8(path.to_vec()).unwrap(), metadata.kind == FileKind::Directory));
        })
        .unwrap();
    let expected = [
        ("/var/lib/x", false),
        ("/var/lib", true),
        ("/var/log/journal/1", false),
        ("/var/log/journal", true),
        ("/var/log/syslog", false),
    ];
    assert_eq!(removed, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert_eq!(walked(&guest, "/var"), ["/var/log"]);
    guest.remove_all(b"/var/log", &mut |_, _| panic!("it is empty")).unwrap();
    guest.remove_all(b"/var/nothing/at/all", &mut |_, _| panic!("it is missing")).unwrap();
    assert!(matches!(guest.remove_all(b"/", &mut |_, _| ()).unwrap_err().cause(), Error::InvalidPath(_)));
    assert!(matches!(guest.remove_all(b"/tmp/..", &mut |_, _| ()).unwrap_err().cause(), Error::InvalidPath(_)));
}

#[test]
fn remove_all_takes_links_and_not_what_they_lead_to() {
    let mut fs = tree(&["/keep/file", "/gone/file", "/gone/a/b/c"]);
    fs.add_symlink("/gone/link", "/keep").unwrap();
    fs.add_symlink("/gone/loop", "loop").unwrap();
    fs.add_special("/gone/fifo", FileKind::Fifo).unwrap();
    fs.add_symlink("/top", "gone").unwrap();
    let mut guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    guest.remove_all(b"/top/", &mut |_, _| ()).unwrap();
    assert!(guest.lstat(b"/gone").unwrap().is_some());
    let mut count = 0;
    guest.remove_all(b"/gone", &mut |_, _| count += 1).unwrap();
    assert_eq!((count, walked(&guest, "/")), (8, vec!["/keep".to_owned(), "/keep/file".to_owned()]));
}

#[test]
fn writing_in_place_keeps_everything_but_the_contents() {
    let mut fs = tree(&[]);
    let inode = fs.add_file("/etc/shadow", b"root:secret\n").unwrap();
    fs.set_mode(inode, 0o640).unwrap();
    fs.set_owner(inode, 0, 42).unwrap();
    fs.set_xattr(inode, b"security.selinux", b"system_u:object_r:shadow_t:s0\0").unwrap();
    fs.add_symlink("/etc/link", "shadow").unwrap();
    fs.add_symlink("/etc/dangling", "../var/new").unwrap();
    fs.add_dir("/var").unwrap();
    fs.set_clock(Timestamp { seconds: 5, nanoseconds: 0 });
    let mut guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    let before = guest.stat(b"/etc/shadow").unwrap().unwrap();

    guest.write(b"/etc/shadow", b"root:secret\n").unwrap();
    assert_eq!(guest.stat(b"/etc/shadow").unwrap().unwrap(), before);
    guest.write(b"/etc/link", b"root:*\n").unwrap();
    let after = guest.stat(b"/etc/shadow").unwrap().unwrap();
    assert_eq!((after.inode, after.mode, after.uid, after.gid, after.size), (before.inode, 0o640, 0, 42, 7));
    assert_eq!(after.modified.seconds, 5);
    assert_eq!(guest.read(b"/etc/shadow").unwrap(), b"root:*\n");
    assert!(guest.xattr(b"/etc/shadow", b"security.selinux").unwrap().is_some());

    guest.write(b"/etc/dangling", b"new").unwrap();
    let new = guest.lstat(b"/var/new").unwrap().unwrap();
    assert_eq!((new.kind, new.mode, new.uid, new.gid), (FileKind::File, 0o644, 0, 0));
    assert_eq!(guest.xattr_names(b"/var/new").unwrap(), [b""; 0]);
    assert_eq!(cause(guest.write(b"/etc", b"")), "IsADirectory");
    assert_eq!(cause(guest.write(b"/missing/file", b"")), "NotFound");
    assert_eq!(cause(guest.write(b"/etc/shadow/file", b"")), "NotADirectory");
}

#[test]
fn what_is_new_is_labelled_like_its_directory() {
    let mut fs = tree(&["/var/"]);
    let etc = fs.add_dir("/etc").unwrap();
    fs.set_xattr(etc, b"security.selinux", b"system_u:system_r:etc_t:s0\0").unwrap();
    let mut guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    guest.write(b"/etc/file", b"").unwrap();
    guest.create_dir_all(b"/etc/a/b", 0o700).unwrap();
    guest.symlink(b"file", b"/etc/link").unwrap();
    for path in [&b"/etc/file"[..], b"/etc/a", b"/etc/a/b", b"/etc/link"] {
        let label = guest.xattr(path, b"security.selinux").unwrap().unwrap();
        assert_eq!(label, b"system_u:object_r:etc_t:s0\0");
    }
    guest.write(b"/var/file", b"").unwrap();
    assert_eq!(guest.xattr(b"/var/file", b"security.selinux").unwrap(), None);
}

#[test]
fn directories_are_made_with_their_parents() {
    let mut fs = tree(&["/a/file", "/real/"]);
    fs.add_symlink("/link", "real").unwrap();
    fs.add_symlink("/nowhere", "missing").unwrap();
    let mut guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    guest.create_dir_all(b"//link/x//y/", 0o750).unwrap();
    assert_eq!(guest.stat(b"/real/x/y").unwrap().unwrap().mode, 0o750);
    guest.create_dir_all(b"/real/x/y", 0o700).unwrap();
    assert_eq!(guest.stat(b"/real/x/y").unwrap().unwrap().mode, 0o750);
    assert_eq!(cause(guest.create_dir_all(b"/a/file", 0o755)), "AlreadyExists");
    assert_eq!(cause(guest.create_dir_all(b"/a/file/x", 0o755)), "AlreadyExists");
    assert_eq!(cause(guest.create_dir_all(b"/nowhere/x", 0o755)), "AlreadyExists");
    guest.create_dir_all(b"/", 0o755).unwrap();
    assert_eq!(cause(guest.create_dir(b"/a", 0o755)), "AlreadyExists");
    assert_eq!(cause(guest.create_dir(b"/x/y", 0o755)), "NotFound");
}

#[test]
fn attributes_follow_links_or_do_not() {
    let mut fs = tree(&["/file"]);
    fs.add_symlink("/link", "file").unwrap();
    let mut guest = Guest::from_file_systems(fs, Vec::new()).unwrap();
    let time = Timestamp { seconds: -7, nanoseconds: 9 };
    guest.set_mode(b"/link", 0o104_755).unwrap();
    guest.set_owner(b"/link", 7, 8).unwrap();
    guest.set_times(b"/link", time, time).unwrap();
    let file = guest.lstat(b"/file").unwrap().unwrap();
    assert_eq!((file.mode, file.uid, file.gid, file.accessed, file.modified), (0o4755, 7, 8, time, time));
    guest.set_xattr(b"/link", b"trusted.x", b"1").unwrap();
    assert_eq!(guest.xattr(b"/file", b"trusted.x").unwrap(), None);
    assert_eq!(guest.xattr_names(b"/link").unwrap(), [b"trusted.x".to_vec()]);
    guest.remove_xattr(b"/link", b"trusted.x").unwrap();
    guest.remove_xattr(b"/link", b"trusted.x").unwrap();
    assert_eq!(guest.xattr(b"/link", b"trusted.x").unwrap(), None);
}

/// The memory file system's own rules, which a guest checks before it asks.
#[test]
fn the_memory_file_system_keeps_its_rules() {
    let mut fs = tree(&["/a/b/c", "/file"]);
    let root = fs.root();
    let a = fs.lookup(root, b"a").unwrap().unwrap();
    let b = fs.lookup(a, b"b").unwrap().unwrap();
    let owner = Ownership { mode: 0o644, uid: 1, gid: 2 };
    let error = |result: Result<()>| format!("{:?}", result.unwrap_err());
    assert_eq!(error(fs.rename(root, b"a", b, b"a")), "InvalidPath(\"a directory cannot be moved below itself\")");
    assert_eq!(error(fs.remove_dir(root, b"a")), "NotEmpty");
    assert_eq!(error(fs.unlink(root, b"a")), "IsADirectory");
    assert_eq!(error(fs.remove_dir(root, b"file")), "NotADirectory");
    assert_eq!(error(fs.create(root, b"file", NewNode::File, owner).map(|_| ())), "AlreadyExists");
    assert!(fs.create(root, b"x/y", NewNode::File, owner).is_err());
    assert_eq!(error(fs.link(root, b"x", a)), "IsADirectory");
    let file = fs.lookup(root, b"file").unwrap().unwrap();
    assert_eq!(error(fs.write_at(file, u64::MAX, b"x")), "NoSpace");
    assert_eq!(error(fs.set_len(file, u64::MAX)), "NoSpace");

    assert_eq!(fs.metadata(root).unwrap().links, 3);
    fs.rename(a, b"b", root, b"b").unwrap();
    assert_eq!((fs.metadata(root).unwrap().links, fs.metadata(a).unwrap().links), (4, 2));
    fs.link(root, b"second", file).unwrap();
    fs.unlink(root, b"file").unwrap();
    assert_eq!(fs.metadata(file).unwrap().links, 1);
    fs.unlink(root, b"second").unwrap();
    assert!(fs.metadata(file).is_err());
}
