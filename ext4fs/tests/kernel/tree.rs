//! What a file system holds, as the kernel reads it and as we do.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use ext4fs::{FileKind, FileSystem};

/// What is at one path. Of directories neither size nor time is told: they say how names are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) modified: i64,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A symbolic link's target, or a checksum of a file's contents.
    pub(crate) contents: Vec<u8>,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

const STEP: usize = 1 << 16;

/// A checksum of contents, in which zeros count only by where they are.
fn sum(contents: &mut u64, offset: u64, bytes: &[u8]) {
    for (index, block) in bytes.chunks(1024).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            let trimmed = &block[..block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
            let crc = u64::from(crc32c::crc32c(trimmed));
            let place = offset / 1024 + index as u64;
            *contents = contents.rotate_left(7) ^ crc.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place;
        }
    }
}

fn attributes_of(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 16 << 10];
    let len = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// The tree below a mount point.
pub(crate) fn by_kernel(root: &Path) -> Tree {
    // Where data is yet to be given blocks, Linux 6.18 may not find it when asked for what is no hole.
    rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
    let mut tree = Tree::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let inside = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            if inside == b"lost+found" {
                continue;
            }
            let found = path.symlink_metadata().unwrap();
            let contents = if found.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else if found.is_file() {
                let (file, mut contents) = (File::open(&path).unwrap(), 0);
                let mut buf = vec![0; STEP];
                let mut at = 0;
                // Holes are passed over: what is read of them is nothing.
                loop {
                    let data = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                        Ok(data) => data,
                        Err(rustix::io::Errno::NXIO) => break,
                        Err(error) => panic!("{}: {error}", path.display()),
                    };
                    at = data / STEP as u64 * STEP as u64;
                    let len = file.read_at(&mut buf, at).unwrap();
                    sum(&mut contents, at, &buf[..len]);
                    at += STEP as u64;
                }
                contents.to_le_bytes().to_vec()
            } else {
                Vec::new()
            };
            let directory = found.is_dir();
            let node = Node {
                mode: found.mode(),
                uid: found.uid(),
                gid: found.gid(),
                links: found.nlink(),
                size: if directory { 0 } else { found.size() },
                modified: found.mtime(),
                attributes: attributes_of(&path),
                contents,
            };
            if directory {
                pending.push(path);
            }
            tree.insert(inside, node);
        }
    }
    tree
}

/// The tree of an open file system.
pub(crate) fn by_us(fs: &FileSystem) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(Vec::new(), fs.root())];
    let mut buf = vec![0; STEP];
    while let Some((path, directory)) = pending.pop() {
        for entry in fs.read_dir(directory).unwrap() {
            let path = if path.is_empty() { entry.name.clone() } else { [path.as_slice(), b"/", &entry.name].concat() };
            if path == b"lost+found" {
                continue;
            }
            let found = fs.metadata(entry.inode).unwrap();
            let (kind, contents) = match found.kind {
                FileKind::Directory => {
                    pending.push((path.clone(), entry.inode));
                    (0o040_000, Vec::new())
                }
                FileKind::Symlink => (0o120_000, fs.read_link(entry.inode).unwrap()),
                _ => {
                    let (mut contents, mut at) = (0, 0);
                    while at < found.size {
                        let len = fs.read_at(entry.inode, at, &mut buf).unwrap();
                        sum(&mut contents, at, &buf[..len]);
                        at += len as u64;
                    }
                    (0o100_000, contents.to_le_bytes().to_vec())
                }
            };
            let names = fs.xattr_names(entry.inode).unwrap();
            let value = |name: Vec<u8>| (name.clone(), fs.xattr(entry.inode, &name).unwrap().unwrap());
            let node = Node {
                mode: kind | found.mode,
                uid: found.uid,
                gid: found.gid,
                links: u64::from(found.links),
                size: if found.kind == FileKind::Directory { 0 } else { found.size },
                modified: found.modified.seconds,
                attributes: names.into_iter().map(value).collect(),
                contents,
            };
            tree.insert(path, node);
        }
    }
    tree
}

/// Fails where two trees differ. Times count for the paths whose times were set.
pub(crate) fn compare(one: &Tree, other: &Tree, timed: &[Vec<u8>], what: &str) {
    for (path, node) in one {
        let name = String::from_utf8_lossy(path);
        let Some(found) = other.get(path) else { panic!("{what}: {name} is missing in the second tree") };
        let mut found = found.clone();
        if !timed.contains(path) {
            found.modified = node.modified;
        }
        if node.attributes != found.attributes {
            let lengths = |node: &Node| -> Vec<(String, usize)> {
                let attributes = node.attributes.iter();
                attributes.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.len())).collect()
            };
            panic!("{what}: {name} has other attributes: {:?} and {:?}", lengths(node), lengths(&found));
        }
        found.attributes.clear();
        let node = Node { attributes: BTreeMap::new(), ..node.clone() };
        assert_eq!(node, found, "{what}: {name} differs");
    }
    if let Some(more) = other.keys().find(|path| !one.contains_key(*path)) {
        panic!("{what}: {} is only in the second tree", String::from_utf8_lossy(more));
    }
}
