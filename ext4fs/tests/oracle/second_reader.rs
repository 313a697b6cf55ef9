//! What we have written, and what a crash has left, read by another reader: the crate ext4-view.

use std::collections::BTreeMap;

use ext4_view::{Ext4, Ext4Error, FileType};
use ext4fs::{FileKind, FileSystem, NewNode, Ownership, Timestamp};

use crate::common::{LAYOUTS, NOW, check, has_tool, mke2fs, open, pattern, scratch, walk};
use crate::recovery;

/// What both readers tell of a path. Of directories the length says how names are kept.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    len: Option<u64>,
    contents: Vec<u8>,
}

fn by_us(fs: &FileSystem) -> BTreeMap<Vec<u8>, Node> {
    let node = |found: crate::common::Found| {
        let (kind, len) = match found.metadata.kind {
            FileKind::Directory => ("directory", None),
            FileKind::Symlink => ("symbolic link", Some(found.metadata.size)),
            FileKind::File => ("file", Some(found.metadata.size)),
            _ => ("special", None),
        };
        let owner = (found.metadata.uid, found.metadata.gid);
        Node { kind, mode: found.metadata.mode, owner, len, contents: found.bytes }
    };
    walk(fs).into_iter().map(|(path, found)| (path, node(found))).collect()
}

fn by_them(fs: &Ext4) -> Result<BTreeMap<Vec<u8>, Node>, Ext4Error> {
    let mut tree = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(directory) = pending.pop() {
        let path = if directory.is_empty() { b"/".as_slice() } else { &directory };
        for entry in fs.read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name: &[u8] = name.as_ref();
            if name == b"." || name == b".." {
                continue;
            }
            let path = [directory.as_slice(), b"/", name].concat();
            let metadata = fs.symlink_metadata(path.as_slice())?;
            let (kind, contents) = match metadata.file_type() {
                FileType::Directory => ("directory", Vec::new()),
                FileType::Symlink => ("symbolic link", fs.read_link(path.as_slice())?.as_ref().to_vec()),
                FileType::Regular => ("file", fs.read(path.as_slice())?),
                _ => ("special", Vec::new()),
            };
            let len = (kind == "file" || kind == "symbolic link").then(|| metadata.len());
            let owner = (metadata.uid(), metadata.gid());
            let mode = u32::from(metadata.mode()) & 0o7777;
            tree.insert(path.clone(), Node { kind, mode, owner, len, contents });
            if kind == "directory" {
                pending.push(path);
            }
        }
    }
    Ok(tree)
}

/// Compares both readings of an image. `false` where the other reader does not know a feature of it.
fn compare(image: Vec<u8>, ours: &FileSystem, what: &str) -> bool {
    let theirs = match Ext4::load(Box::new(image)) {
        Ok(fs) => by_them(&fs),
        Err(error) => Err(error),
    };
    let theirs = match theirs {
        Ok(tree) => tree,
        Err(Ext4Error::Incompatible(_)) => return false,
        Err(error) => panic!("{what}: {error}"),
    };
    let ours = by_us(ours);
    assert!(ours.keys().eq(theirs.keys()), "{what}: other names");
    for (path, node) in &ours {
        assert!(*node == theirs[path], "{what}: {} differs", String::from_utf8_lossy(path));
    }
    true
}

fn fill(fs: &mut FileSystem, holes: bool) {
    let owner = Ownership { mode: 0o640, uid: 70_000, gid: 1 };
    fs.create_dir_all(b"/many/below").unwrap();
    let many = fs.resolve(b"/many").unwrap();
    for n in 0..900u32 {
        let name = format!("a name that is long enough to fill blocks, number {n}");
        let file = fs.create(many, name.as_bytes(), NewNode::File, owner).unwrap();
        if n % 9 == 0 {
            fs.write_at(file, 0, &pattern(n as usize, n)).unwrap();
        }
    }
    for n in (0..900).filter(|n| n % 5 == 0) {
        fs.remove_file(format!("/many/a name that is long enough to fill blocks, number {n}").as_bytes()).unwrap();
    }
    let pieces = fs.create(fs.root(), b"pieces", NewNode::File, owner).unwrap();
    let step = if holes { 8192 } else { 3000 };
    for n in (0..700u64).rev().filter(|_| holes).chain((0..700).filter(|_| !holes)) {
        fs.write_at(pieces, n * step, &pattern(3000, n as u32)).unwrap();
    }
    if holes {
        fs.punch_hole(pieces, 100_000, 1_000_000).unwrap();
    }
    fs.set_len(pieces, step * 600 + 1).unwrap();
    fs.write(b"/large", &pattern(2_000_000, 5)).unwrap();
    fs.symlink(b"many/below", b"/short link").unwrap();
    fs.symlink(&b"a longer target/".repeat(50), b"/long link").unwrap();
    fs.rename_path(b"/many/below", b"/above").unwrap();
    fs.set_times(pieces, Timestamp { seconds: 1 << 33, nanoseconds: 1 }, NOW).unwrap();
}

#[test]
fn another_reader_finds_what_we_wrote() {
    if !has_tool("second reader", "mke2fs") {
        return;
    }
    let folder = scratch();
    let mut compared = 0;
    // The other reader wants inodes of 256 bytes.
    for (name, arguments) in
        LAYOUTS.iter().filter(|(_, arguments)| !["-I 128", "-r 0"].iter().any(|a| arguments.contains(a)))
    {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (device, mut fs) = open(&path);
        // The other reader takes a missing indirect block for block 0.
        let block_maps = ["^extents", "ext2", "ext3"].iter().any(|word| arguments.contains(word));
        fill(&mut fs, !block_maps);
        check(&mut fs, &device, &path, name);
        compared += u32::from(compare(device.to_vec(), &fs, name));
    }
    assert!(compared >= 18, "only {compared} of {} layouts are known to the other reader", LAYOUTS.len());
}

#[test]
fn another_reader_replays_a_journal_as_we_do() {
    if !has_tool("second reader of journals", "mke2fs") {
        return;
    }
    let folder = scratch();
    // Journals without checksums are not replayed by the other.
    for arguments in ["-t ext4 -b 4096", "-t ext4 -b 1024", "-t ext4 -b 1024 -O metadata_csum_seed,^orphan_file"] {
        let Some(path) = recovery::crashed(folder.path(), arguments) else { return };
        let image = std::fs::read(path).unwrap();
        let ours = FileSystem::open_read_only(std::sync::Arc::new(block::Memory::from(image.clone()))).unwrap();
        assert!(compare(image, &ours, arguments), "{arguments}");
    }
}
