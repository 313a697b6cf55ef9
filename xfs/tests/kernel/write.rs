//! The same changes made by the kernel and by us: the trees are equal, and xfs_repair finds nothing.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use block::{Access, HostFile};
use xfs::{FileKind, FileSystem, NewNode, OpenOptions, Ownership, Timestamp};

use crate::common::{
    ALL, EL7, EL8, EL9, Image, Tree, assert_same, noise, populate, populate_a_little, tree_of, tree_of_kernel,
};

const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };

/// A change to a tree, by paths.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create(String, Vec<u8>),
    Write(String, u64, Vec<u8>),
    Truncate(String, u64),
    Mkdir(String),
    Symlink(String, usize),
    Link(String, String),
    Unlink(String),
    RemoveAll(String),
    Rename(String, String),
    Mode(String, u32),
    Owner(String, u32, u32),
    Xattr(String, String, usize),
    RemoveXattr(String, String),
}

pub(crate) fn open(image: &Image) -> FileSystem {
    let device = HostFile::open(&image.path, Access::ReadWrite).unwrap();
    let fs = FileSystem::open(Arc::new(device), &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
    assert_eq!(fs.read_only_reason(), None);
    fs
}

pub(crate) fn find(fs: &FileSystem, path: &str) -> u64 {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(fs.root(), |at, name| fs.lookup(at, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("no {path}")))
}

fn parent<'a>(fs: &FileSystem, path: &'a str) -> (u64, &'a [u8]) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (find(fs, parent), name.as_bytes())
}

pub(crate) fn remove_all(fs: &mut FileSystem, directory: u64) {
    for entry in fs.read_dir(directory).unwrap() {
        if entry.kind == FileKind::Directory {
            remove_all(fs, entry.inode);
            fs.remove_dir(directory, &entry.name).unwrap();
        } else {
            fs.unlink(directory, &entry.name).unwrap();
        }
    }
}

fn ours(fs: &mut FileSystem, step: &Step) {
    let root = |mode| Ownership { mode, uid: 0, gid: 0 };
    match step {
        Step::Create(path, data) => {
            let (directory, name) = parent(fs, path);
            let inode = fs.create(directory, name, NewNode::File, root(0o644)).unwrap();
            fs.write_at(inode, 0, data).unwrap();
        }
        Step::Write(path, offset, data) => fs.write_at(find(fs, path), *offset, data).unwrap(),
        Step::Truncate(path, len) => fs.set_len(find(fs, path), *len).unwrap(),
        Step::Mkdir(path) => {
            let (directory, name) = parent(fs, path);
            fs.create(directory, name, NewNode::Directory, root(0o755)).unwrap();
        }
        Step::Symlink(path, len) => {
            let (directory, name) = parent(fs, path);
            fs.create(directory, name, NewNode::Symlink("t".repeat(*len).as_bytes()), root(0o777)).unwrap();
        }
        Step::Link(old, new) => {
            let (directory, name) = parent(fs, new);
            fs.link(directory, name, find(fs, old)).unwrap();
        }
        Step::Unlink(path) => {
            let (directory, name) = parent(fs, path);
            fs.unlink(directory, name).unwrap();
        }
        Step::RemoveAll(path) => {
            remove_all(fs, find(fs, path));
            let (directory, name) = parent(fs, path);
            fs.remove_dir(directory, name).unwrap();
        }
        Step::Rename(old, new) => {
            let ((from, from_name), (to, to_name)) = (parent(fs, old), parent(fs, new));
            fs.rename(from, from_name, to, to_name).unwrap();
        }
        Step::Mode(path, mode) => fs.set_mode(find(fs, path), *mode).unwrap(),
        Step::Owner(path, uid, gid) => fs.set_owner(find(fs, path), *uid, *gid).unwrap(),
        Step::Xattr(path, name, len) => fs.set_xattr(find(fs, path), name.as_bytes(), &noise(*len, 77)).unwrap(),
        Step::RemoveXattr(path, name) => fs.remove_xattr(find(fs, path), name.as_bytes()).unwrap(),
    }
}

pub(crate) fn kernels(top: &Path, step: &Step) {
    let at = |path: &String| top.join(path);
    match step {
        Step::Create(path, data) => std::fs::write(at(path), data).unwrap(),
        Step::Write(path, offset, data) => {
            std::fs::OpenOptions::new().write(true).open(at(path)).unwrap().write_all_at(data, *offset).unwrap();
        }
        Step::Truncate(path, len) => {
            std::fs::OpenOptions::new().write(true).open(at(path)).unwrap().set_len(*len).unwrap()
        }
        Step::Mkdir(path) => std::fs::create_dir(at(path)).unwrap(),
        Step::Symlink(path, len) => std::os::unix::fs::symlink("t".repeat(*len), at(path)).unwrap(),
        Step::Link(old, new) => std::fs::hard_link(at(old), at(new)).unwrap(),
        Step::Unlink(path) => std::fs::remove_file(at(path)).unwrap(),
        Step::RemoveAll(path) => std::fs::remove_dir_all(at(path)).unwrap(),
        Step::Rename(old, new) => std::fs::rename(at(old), at(new)).unwrap(),
        Step::Mode(path, mode) => std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(*mode)).unwrap(),
        Step::Owner(path, uid, gid) => std::os::unix::fs::lchown(at(path), Some(*uid), Some(*gid)).unwrap(),
        Step::Xattr(path, name, len) => {
            rustix::fs::lsetxattr(at(path), name, &noise(*len, 77), rustix::fs::XattrFlags::empty()).unwrap();
        }
        Step::RemoveXattr(path, name) => drop(rustix::fs::lremovexattr(at(path), name)),
    }
}

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

/// A script for a tree: it keeps its own account of what there is.
pub(crate) fn script(tree: &Tree, seed: u64, len: usize) -> Vec<Step> {
    let mut dice = Dice(seed);
    let name = |path: &Vec<u8>| String::from_utf8(path.clone()).unwrap();
    let kind = |wanted: u32| move |mode: u32| mode & 0o170_000 == wanted;
    let of = |wanted: u32| -> Vec<String> {
        tree.iter()
            .filter(|(path, facts)| !path.is_empty() && kind(wanted)(facts.mode))
            .map(|(path, _)| name(path))
            .collect()
    };
    let (mut files, mut directories) = (of(0o100_000), of(0o040_000));
    let links = of(0o120_000);
    let mut others: Vec<String> = links;
    let mut used: BTreeSet<String> = tree.keys().map(name).collect();
    let mut steps = Vec::new();
    for number in 0..len {
        let directory = directories[dice.roll(directories.len())].clone();
        let fresh = format!("{directory}/new-{number}-{}", "y".repeat(dice.roll(40)));
        let file = files[dice.roll(files.len())].clone();
        match dice.roll(20) {
            0..3 => {
                let len = [0, 10, 4096, 5000, 100_000, 700_000][dice.roll(6)];
                steps.push(Step::Create(fresh.clone(), noise(len, number as u64)));
                files.push(fresh.clone());
            }
            3 => {
                steps.push(Step::Mkdir(fresh.clone()));
                directories.push(fresh.clone());
            }
            4 => {
                steps.push(Step::Symlink(fresh.clone(), 1 + dice.roll(1023)));
                others.push(fresh.clone());
            }
            5 => {
                steps.push(Step::Link(file, fresh.clone()));
                files.push(fresh.clone());
            }
            6..10 => {
                let list = if dice.roll(4) == 0 && !others.is_empty() { &mut others } else { &mut files };
                let at = dice.roll(list.len());
                let gone = list.swap_remove(at);
                used.remove(&gone);
                steps.push(Step::Unlink(gone));
                continue;
            }
            10 | 11 => {
                let data = noise(1 + dice.roll(30_000), number as u64);
                steps.push(Step::Write(file, dice.roll(200_000) as u64, data));
                continue;
            }
            12 => {
                steps.push(Step::Truncate(file, [0, 1, 4096, 77_777, 5_000_000][dice.roll(5)]));
                continue;
            }
            13 => {
                steps.push(Step::Mode(file, dice.roll(0o10_000) as u32));
                continue;
            }
            14 => {
                steps.push(Step::Owner(file.clone(), dice.roll(100_000) as u32, dice.roll(100_000) as u32));
                // chown(2) may clear bits of the mode.
                steps.push(Step::Mode(file, 0o4755));
                continue;
            }
            15 | 16 => {
                let path = if dice.roll(2) == 0 { file } else { directory };
                let name = ["user.a", "security.selinux", "trusted.t", "user.longer-name"][dice.roll(4)].to_owned();
                if path == "attributes/many" {
                    continue;
                }
                steps.push(match dice.roll(4) {
                    0 => Step::RemoveXattr(path, name),
                    _ => Step::Xattr(path, name, [0, 20, 40, 250][dice.roll(4)]),
                });
                continue;
            }
            17 => {
                steps.push(Step::Rename(file.clone(), fresh.clone()));
                files.retain(|path| *path != file);
                used.remove(&file);
                files.push(fresh.clone());
            }
            18 => {
                let target = files[dice.roll(files.len())].clone();
                // Two names of one inode: nothing is renamed.
                if target == file || target.contains("hard") || file.contains("hard") || file.contains("new") {
                    continue;
                }
                steps.push(Step::Rename(file.clone(), target));
                files.retain(|path| *path != file);
                used.remove(&file);
                continue;
            }
            _ => {
                let at = dice.roll(directories.len());
                if directories.len() < 6 || directories[at].contains('/') || number % 3 != 0 {
                    continue;
                }
                let gone = directories.swap_remove(at);
                let below = format!("{gone}/");
                for list in [&mut files, &mut directories, &mut others] {
                    list.retain(|path| !path.starts_with(&below));
                }
                steps.push(Step::RemoveAll(gone));
                continue;
            }
        }
        used.insert(fresh);
    }
    steps
}

/// Without what depends on when it was done.
fn timeless(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|facts| facts.modified = (0, 0));
    tree
}

fn check(test: &str, options: &str, seed: u64) {
    check_script(test, options, seed, 300, populate);
}

/// A script of so many steps on what there is, by the kernel and by us.
fn check_script(test: &str, options: &str, seed: u64, len: usize, populate: fn(&Path)) {
    let Some(mut image) = Image::new(test, options) else { return };
    let before = image.mounted(|top| {
        populate(top);
        tree_of_kernel(top)
    });
    let what = format!("{options}, seed {seed}");
    let mut copy = Image::copy_of(&image.path);
    let steps = script(&before, seed, len);
    let expected = copy.mounted(|top| {
        for step in &steps {
            kernels(top, step);
        }
        timeless(tree_of_kernel(top))
    });
    let mut fs = open(&image);
    for (number, step) in steps.iter().enumerate() {
        ours(&mut fs, step);
        // Some changes see what was flushed, and most what was not.
        if number % 100 == len / 5 {
            fs.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    fs.flush().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_same(&timeless(tree_of(&fs)), &expected, &format!("{what}: in memory"));
    drop(fs);
    image.repair_finds_nothing(&what);
    assert_same(&timeless(tree_of(&image.open())), &expected, &format!("{what}: opened again"));
    // The kernel agrees, and can go on from there.
    let found = image.mounted(|top| {
        let found = timeless(tree_of_kernel(top));
        for number in 0..200 {
            std::fs::write(top.join(format!("more{number}")), noise(number * 999, 5)).unwrap();
        }
        std::fs::write(top.join("much"), noise(30 << 20, 6)).unwrap();
        for number in (0..200).step_by(2) {
            std::fs::remove_file(top.join(format!("more{number}"))).unwrap();
        }
        std::fs::remove_dir_all(top.join("files")).ok();
        found
    });
    assert_same(&found, &expected, &format!("{what}: the kernel"));
    image.repair_finds_nothing(&format!("{what}, and the kernel"));
}

#[test]
fn features_of_every_age() {
    for (seed, options) in [EL7, EL8, EL9, ALL].iter().enumerate() {
        check("features_of_every_age", options, seed as u64);
    }
}

#[test]
fn blocks_of_every_size() {
    for (seed, size) in [1024, 16384, 65536].into_iter().enumerate() {
        check("blocks_of_every_size", &format!("{ALL} -b size={size}"), 10 + seed as u64);
    }
    check("blocks_of_every_size", &format!("{EL8} -b size=1024 -n size=8192 -d agcount=7 -i size=512"), 13);
}

/// Every age of features with every size of blocks, inodes, directory blocks and sectors.
#[test]
fn whole_matrix() {
    let mut seed = 100;
    for age in [EL7, EL8, EL9, ALL] {
        for sizes in [
            "-b size=1024",
            "-b size=2048 -i size=1024",
            "-b size=4096 -i size=2048",
            "-b size=8192",
            "-b size=32768 -i size=1024",
            "-b size=65536",
            "-b size=1024 -n size=16384",
            "-n size=65536 -d agcount=2",
            "-s size=4096 -d agcount=9",
        ] {
            seed += 1;
            check_script("whole_matrix", &format!("{age} {sizes}"), seed, 60, populate_a_little);
        }
    }
}

#[test]
fn the_trap_of_stale_blocks() {
    let Some(mut image) = Image::new("the_trap_of_stale_blocks", "") else { return };
    image.mounted(|top| {
        std::fs::create_dir(top.join("big")).unwrap();
        std::fs::create_dir(top.join("etc")).unwrap();
        std::fs::write(top.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        for number in 0..6000 {
            std::fs::write(top.join(format!("big/entry-with-a-long-name-{number}")), "").unwrap();
        }
    });
    let mut fs = open(&image);
    let big = find(&fs, "big");
    remove_all(&mut fs, big);
    let root = fs.root();
    fs.remove_dir(root, b"big").unwrap();
    let id = find(&fs, "etc/machine-id");
    fs.set_len(id, 0).unwrap();
    fs.write_at(id, 0, &[b'n'; 6000]).unwrap();
    let new = fs.create(find(&fs, "etc"), b"new", NewNode::File, Ownership { mode: 0o600, uid: 0, gid: 0 }).unwrap();
    fs.write_at(new, 0, &noise(50_000, 9)).unwrap();
    fs.flush().unwrap();
    image.repair_finds_nothing("after the trap");
    image.mounted(|top| {
        assert!(!top.join("big").exists());
        assert_eq!(std::fs::read(top.join("etc/machine-id")).unwrap(), [b'n'; 6000]);
        assert_eq!(std::fs::read(top.join("etc/new")).unwrap(), noise(50_000, 9));
        assert_eq!(
            std::fs::read_dir(top)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
                .collect::<Vec<_>>(),
            [b"etc".to_vec()]
        );
    });
}

/// What a file system holds that no file of it does.
fn leftovers(image: &Image, secrets: &[&[u8]]) -> Vec<String> {
    let output =
        std::process::Command::new("grep").args(["-a", "-o", "SECRET-[a-z]*"]).arg(&image.path).output().unwrap();
    let found = |secret: &&&[u8]| output.stdout.split(|byte| *byte == b'\n').any(|line| line == **secret);
    secrets.iter().filter(found).map(|secret| String::from_utf8_lossy(secret).into_owned()).collect()
}

#[test]
fn what_is_scrubbed_is_gone() {
    for options in [EL7, ALL] {
        let Some(mut image) = Image::new("what_is_scrubbed_is_gone", options) else { return };
        let secrets: [&[u8]; 6] = [
            b"SECRET-contents",
            b"SECRET-name",
            b"SECRET-attribute",
            b"SECRET-target",
            b"SECRET-preallocated",
            b"SECRET-tail",
        ];
        let before = image.mounted(|top| {
            populate(top);
            std::fs::write(top.join("contents"), b"SECRET-contents ".repeat(9999)).unwrap();
            for number in 0..40 {
                std::fs::write(top.join(format!("dir4/SECRET-name{number}")), "x").unwrap();
                std::fs::write(top.join(format!("dir2/SECRET-name{number}")), "x").unwrap();
            }
            let value = b"SECRET-attribute".repeat(9);
            for path in ["attributes/file0", "attributes/file3", "attributes/many"] {
                rustix::fs::lsetxattr(top.join(path), "user.s", &value, rustix::fs::XattrFlags::empty()).unwrap();
            }
            std::os::unix::fs::symlink("SECRET-target".repeat(20), top.join("target")).unwrap();
            std::os::unix::fs::symlink("SECRET-target".repeat(60), top.join("target2")).unwrap();
            std::fs::write(top.join("tail"), b"SECRET-tail".repeat(10)).unwrap();
            std::fs::write(top.join("tail2"), b"SECRET-preallocated".repeat(10_000)).unwrap();
            crate::common::run("sync", &["-f", top.to_str().unwrap()]);
            // Deleted by the kernel: nothing of it is overwritten.
            for path in ["contents", "target", "target2", "tail2"] {
                std::fs::remove_file(top.join(path)).unwrap();
            }
            for number in 0..40 {
                std::fs::remove_file(top.join(format!("dir4/SECRET-name{number}"))).unwrap();
                std::fs::remove_file(top.join(format!("dir2/SECRET-name{number}"))).unwrap();
            }
            for path in ["attributes/file0", "attributes/file3", "attributes/many"] {
                rustix::fs::lremovexattr(top.join(path), "user.s").unwrap();
            }
            std::fs::OpenOptions::new().write(true).open(top.join("tail")).unwrap().set_len(0).unwrap();
            crate::common::run("fallocate", &["-l", "9000000", top.join("preallocated").to_str().unwrap()]);
            tree_of_kernel(top)
        });
        assert!(leftovers(&image, &secrets).len() > 3, "{options}: {:?}", leftovers(&image, &secrets));
        let mut fs = open(&image);
        let report = fs.scrub().unwrap();
        fs.flush().unwrap();
        println!("{report:?}");
        assert!(
            report.unused_blocks > 0 && report.directories > 0 && report.inodes > 0 && report.log > 0,
            "{report:?}"
        );
        assert_eq!(leftovers(&image, &secrets), Vec::<String>::new(), "{options}");
        drop(fs);
        image.repair_finds_nothing("scrubbed");
        let held = std::fs::read(&image.path).unwrap();
        let mut fs = open(&image);
        let again = fs.scrub().unwrap();
        fs.flush().unwrap();
        assert_eq!(again, xfs::ScrubReport::default(), "{options}: a second time");
        drop(fs);
        assert!(held == std::fs::read(&image.path).unwrap(), "{options}: a second time");
        let found = image.mounted(|top| {
            let found = tree_of_kernel(top);
            std::fs::write(top.join("more"), noise(9 << 20, 1)).unwrap();
            found
        });
        assert_same(&found, &before, options);
        image.repair_finds_nothing("scrubbed and mounted");
        assert_same(
            &tree_of(&image.open()).into_iter().filter(|(path, _)| path != b"more" && !path.is_empty()).collect(),
            &before.into_iter().filter(|(path, _)| !path.is_empty()).collect(),
            options,
        );
    }
}
