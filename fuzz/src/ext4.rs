//! File systems that are damaged in one place or in several.
//!
//! Each target is a function that makes the file system of an input, and then does what the rest of the input says.

use std::sync::Arc;

use block::Memory;
use ext4fs::{FileKind, FileSystem, NewNode, OpenOptions, Ownership, Timestamp};

use crate::base::{BLOCK, INODE, JOURNAL, base};
use crate::input::Input;

/// The superblock and the group descriptors, 2048 bytes, in front of an otherwise sound file system.
///
/// Input: which base, the bytes, and what is done.
pub fn ext4_superblock(data: &[u8]) {
    run(superblock, data);
}

fn superblock(input: &mut Input<'_>) -> Vec<u8> {
    let base = base(input.u8());
    base.filled(&[1024, 2048], BLOCK, input)
}

/// A whole file system with up to 15 changes.
///
/// Input: which base, the changes, and what is done.
pub fn ext4_image(data: &[u8]) {
    run(image, data);
}

fn image(input: &mut Input<'_>) -> Vec<u8> {
    base(input.u8()).patched(input)
}

/// The blocks of a directory: of a linear one, or of a hashed one.
///
/// Input: which base and directory, how many bytes of each block (2 bytes), the bytes, and what is done.
pub fn ext4_directory(data: &[u8]) {
    run(directory, data);
}

fn directory(input: &mut Input<'_>) -> Vec<u8> {
    let selector = input.u8();
    let base = base(selector >> 1);
    let blocks = base.place(if selector & 1 == 0 { "directory" } else { "hashed" });
    let len = usize::from(input.u16()) % (BLOCK + 1);
    base.filled(blocks, len, input)
}

/// What leads to a file's blocks: 60 bytes in its inode, with its flags and length, and the blocks of its extent tree.
///
/// Input: which base and file, the inode's flags (4 bytes) and length (4 bytes), the 60 bytes, how many bytes of each
/// block of the tree (2 bytes), the bytes, and what is done.
pub fn ext4_extents(data: &[u8]) {
    run(extents, data);
}

fn extents(input: &mut Input<'_>) -> Vec<u8> {
    let selector = input.u8();
    let base = base(selector >> 1);
    let inode = base.place(if selector & 1 == 0 { "extents" } else { "holes" })[0];
    let (flags, len) = (input.u32(), input.u32());
    let mut bytes = base.filled(&[inode + 40], 60, input);
    bytes[inode + 32..inode + 36].copy_from_slice(&flags.to_le_bytes());
    bytes[inode + 4..inode + 8].copy_from_slice(&len.to_le_bytes());
    let tree = usize::from(input.u16()) % (BLOCK + 1);
    for &block in base.place("tree") {
        let fill = input.bytes(tree);
        bytes[block..][..fill.len()].copy_from_slice(fill);
    }
    bytes
}

/// Extended attributes, in an inode and in a block.
///
/// Input: which base, how many bytes of the inode's attributes and of the block (2 bytes each), the bytes, and what is
/// done.
pub fn ext4_attributes(data: &[u8]) {
    run(attributes, data);
}

fn attributes(input: &mut Input<'_>) -> Vec<u8> {
    let base = base(input.u8());
    let (in_inode, in_block) = (usize::from(input.u16()) % 129, usize::from(input.u16()) % (BLOCK + 1));
    let inode = base.place("attributes")[0];
    let mut bytes = base.filled(&[inode + INODE - 128], in_inode, input);
    let block = base.place("value")[0];
    let fill = input.bytes(in_block);
    bytes[block..][..fill.len()].copy_from_slice(fill);
    bytes
}

/// A journal that waits for its replay: the bytes of its first blocks.
///
/// Input: how many bytes of each (2 bytes), the bytes, and what is done.
pub fn ext4_journal(data: &[u8]) {
    run(journal, data);
}

fn journal(input: &mut Input<'_>) -> Vec<u8> {
    let base = base(JOURNAL);
    let len = usize::from(input.u16()) % (BLOCK + 1);
    base.filled(base.place("journal"), len, input)
}

/// The file system of an input of this target, for others to judge: as the input makes it, and, where it can be opened,
/// after what the input says was done to it and flushed. `None` where there is no such target.
pub fn ext4_before_and_after(target: &str, data: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let make = match target {
        "ext4_superblock" => superblock,
        "ext4_image" => image,
        "ext4_directory" => directory,
        "ext4_extents" => extents,
        "ext4_attributes" => attributes,
        "ext4_journal" => journal,
        _ => return None,
    };
    let mut input = Input(data);
    let before = make(&mut input);
    let device = Arc::new(Memory::from(before.clone()));
    let after = use_file_system(&device, input).map(|()| device.to_vec());
    Some((before, after))
}

/// Opens it for reading and looks at everything, then for writing, and does what the rest of the input says; then
/// removes everything.
fn run(make: fn(&mut Input<'_>) -> Vec<u8>, data: &[u8]) {
    let mut input = Input(data);
    let device = Arc::new(Memory::from(make(&mut input)));
    if let Ok(fs) = FileSystem::open_read_only(device.clone()) {
        walk(&fs);
    }
    let _ = use_file_system(&device, input);
    // What failed half way through refused everything else; so all of this is done by one that is new.
    if let Some(mut fs) = open(&device) {
        walk(&fs);
        for path in [&b"/text"[..], b"/extents", b"/holes", b"/attributes", b"/slow"] {
            let _ = fs.remove_file(path);
        }
        for path in [&b"/directory"[..], b"/hashed", b"/deep"] {
            let _ = fs.remove_dir_all(path);
        }
        let _ = fs.scrub();
        let _ = fs.flush();
    }
}

fn open(device: &Arc<Memory>) -> Option<FileSystem> {
    let clock = Some(Timestamp { seconds: 1_800_000_000, nanoseconds: 0 });
    FileSystem::open(device.clone(), &OpenOptions { read_only: false, clock }).ok()
}

/// Does up to 8 changes; `None` where the file system cannot be opened or flushed.
fn use_file_system(device: &Arc<Memory>, mut input: Input<'_>) -> Option<()> {
    let mut fs = open(device)?;
    for _ in 0..8 {
        if input.is_empty() {
            break;
        }
        change(&mut fs, &mut input);
    }
    fs.flush().ok()
}

/// More than the bases have, by far.
const MAX_INODES: usize = 2000;

fn walk(fs: &FileSystem) {
    let _ = (fs.statfs(), fs.uuid(), fs.label(), fs.type_name(), fs.check());
    let mut directories = vec![fs.root()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs.read_dir(directory) else { continue };
        for entry in entries.iter().take(MAX_INODES) {
            let found = fs.lookup(directory, &entry.name);
            let Ok(metadata) = fs.metadata(entry.inode) else { continue };
            if !seen.insert(entry.inode) || seen.len() > MAX_INODES {
                continue;
            }
            let _ = found;
            look(fs, entry.inode, metadata.kind, metadata.size);
            if metadata.kind == FileKind::Directory {
                directories.push(entry.inode);
            }
        }
    }
    for path in [&b"/directory/../deep/a/b"[..], b"/fast", b"/slow", b"/hashed/entry-", b"/directory/one"] {
        let _ = fs.metadata_path(path);
        let _ = fs.exists(path);
    }
}

fn look(fs: &FileSystem, inode: u32, kind: FileKind, size: u64) {
    for name in fs.xattr_names(inode).unwrap_or_default() {
        let _ = fs.xattr(inode, &name);
    }
    match kind {
        FileKind::File => {
            let mut buf = [0; 3000];
            for at in [0, 30_000, size / 2, size.saturating_sub(2000)] {
                let read = fs.read_at(inode, at, &mut buf);
                assert!(read.is_err() || read.is_ok_and(|read| read <= buf.len()), "more was read than was asked for");
            }
        }
        FileKind::Symlink => {
            let _ = fs.read_link(inode);
        }
        _ => {}
    }
}

const OWNERSHIP: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };

/// One change, of a file that the bases have or that an earlier change made.
fn change(fs: &mut FileSystem, input: &mut Input<'_>) {
    let (what, argument) = (input.u8(), input.u8());
    let names: [&[u8]; 8] = [b"text", b"extents", b"holes", b"attributes", b"slow", b"new", b"hard", b"fast"];
    let name = names[usize::from(argument) % names.len()];
    let directories: [&[u8]; 4] = [b"/", b"/directory", b"/hashed", b"/deep/a"];
    let Ok(directory) = fs.resolve(directories[usize::from(argument >> 6)]) else { return };
    let root = fs.root();
    let inode = fs.lookup(root, name).ok().flatten();
    let long = [b'n'; 255];
    let new = &long[..usize::from(argument).max(1)];
    match what % 16 {
        0 => drop(fs.create(directory, new, NewNode::File, OWNERSHIP)),
        1 => drop(fs.create(directory, new, NewNode::Directory, OWNERSHIP)),
        2 => drop(fs.create(directory, new, NewNode::Symlink(&long[..usize::from(what).max(1)]), OWNERSHIP)),
        3 => drop(fs.unlink(root, name)),
        4 => drop(fs.remove_dir(root, b"directory")),
        5 => drop(fs.rename(root, name, directory, new)),
        6 => drop(fs.remove_dir_all(directories[usize::from(argument) % directories.len()])),
        7 => {
            let Some(inode) = inode else { return };
            let at = u64::from(input.u32()) % (80 << 20);
            let data = vec![what; usize::from(input.u16()) % 5000];
            if fs.write_at(inode, at, &data).is_ok() {
                let size = fs.metadata(inode).map(|metadata| metadata.size);
                assert!(size.is_err() || size.is_ok_and(|size| data.is_empty() || size >= at + data.len() as u64));
            }
        }
        8 => drop(inode.map(|inode| fs.set_len(inode, u64::from(input.u32()) % (80 << 20)))),
        9 => drop(inode.map(|inode| fs.set_xattr(inode, b"user.new", &long[..usize::from(what)]))),
        10 => drop(inode.map(|inode| fs.remove_xattr(inode, b"user.large"))),
        11 => drop(inode.map(|inode| fs.link(directory, new, inode))),
        12 => drop(fs.scrub()),
        13 => drop(inode.map(|inode| {
            let _ = fs.set_mode(inode, 0o600);
            let _ = fs.set_owner(inode, u32::from(argument) << 12, 7);
            fs.set_times(inode, Timestamp { seconds: 1 << 33, nanoseconds: 5 }, Timestamp::default())
        })),
        14 => drop(fs.write(&[b"/directory/", new].concat(), &long)),
        _ => drop(fs.flush()),
    }
}
