//! Directories built as a whole from their entries, in the least form that holds them.

use super::{DirFormat, Entry, LEAF_OFFSET, hash};
use crate::bytes::{put, put16, put32, put64};

/// What belongs into a block's header once its place is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// Of blocks of entries, and of free indexes: checksum at byte 4.
    Data,
    /// Of leaves and nodes: checksum at byte 12.
    Leaf,
}

/// A block of a directory, whose header is not yet filled in.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where in the directory, in bytes.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) header: Header,
}

const FREE_OFFSET: u64 = 2 * LEAF_OFFSET;
const HEADER: usize = 64;

/// The directory as bytes for the inode, where no more than `room` are needed.
pub(crate) fn short(entries: &[&Entry], parent: u64, has_ftype: bool) -> Option<Vec<u8>> {
    if entries.len() > 255 {
        return None;
    }
    let wide =
        entries.iter().filter(|entry| entry.inode > u32::MAX.into()).count() + usize::from(parent > u32::MAX.into());
    let number = |bytes: &mut Vec<u8>, inode: u64| match wide {
        0 => bytes.extend((inode as u32).to_be_bytes()),
        _ => bytes.extend(inode.to_be_bytes()),
    };
    let mut bytes = vec![entries.len() as u8, wide as u8];
    number(&mut bytes, parent);
    let format = DirFormat { is_v5: true, has_ftype, block_size: 0 };
    // Where each entry would be in a block.
    let mut at = format.data_header() + format.entry_len(1) + format.entry_len(2);
    for entry in entries {
        bytes.push(entry.name.len() as u8);
        bytes.extend(u16::try_from(at).ok()?.to_be_bytes());
        bytes.extend_from_slice(&entry.name);
        if has_ftype {
            bytes.push(entry.file_type);
        }
        number(&mut bytes, entry.inode);
        at += format.entry_len(entry.name.len());
    }
    Some(bytes)
}

/// The directory as blocks, in the order of their offsets, and how long its part of entries is. `unit` is a block of the
/// file system, in which leaves are numbered.
pub(crate) fn blocks(entries: &[&Entry], own: u64, parent: u64, format: DirFormat, unit: usize) -> (Vec<Built>, u64) {
    let size = format.block_size;
    let dot = Entry { name: b".".to_vec(), inode: own, file_type: 2 };
    let dotdot = Entry { name: b"..".to_vec(), inode: parent, file_type: 2 };
    let all = [&dot, &dotdot].into_iter().chain(entries.iter().copied());
    let total: usize = all.clone().map(|entry| format.entry_len(entry.name.len())).sum();
    let leaf_bytes = (entries.len() + 2) * 8 + 8;
    if HEADER + total + leaf_bytes <= size {
        return (vec![one_block(all, entries.len() + 2, format)], size as u64);
    }
    let mut built: Vec<Built> = Vec::new();
    let mut leaves: Vec<(u32, u32)> = Vec::new();
    let mut bests: Vec<u16> = Vec::new();
    let mut bytes = data_block(b"XDD3", size);
    let mut at = HEADER;
    for entry in all {
        let len = format.entry_len(entry.name.len());
        if at + len > size {
            bests.push(finish(&mut bytes, at, size));
            let offset = (built.len() * size) as u64;
            built.push(Built {
                offset,
                bytes: std::mem::replace(&mut bytes, data_block(b"XDD3", size)),
                header: Header::Data,
            });
            at = HEADER;
        }
        write_entry(&mut bytes, at, entry, format);
        let place = (built.len() * size + at) as u64;
        leaves.push((hash(&entry.name), (place >> 3) as u32));
        at += len;
    }
    bests.push(finish(&mut bytes, at, size));
    built.push(Built { offset: (built.len() * size) as u64, bytes, header: Header::Data });
    let len = (built.len() * size) as u64;
    leaves.sort_unstable();
    if HEADER + leaves.len() * 8 + bests.len() * 2 + 4 <= size {
        built.push(single_leaf(&leaves, &bests, size));
    } else {
        built.extend(leaf_tree(&leaves, size, unit));
        built.extend(free_indexes(&bests, size));
    }
    (built, len)
}

fn data_block(magic: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    put(&mut bytes, 0, magic);
    bytes
}

fn write_entry(bytes: &mut [u8], at: usize, entry: &Entry, format: DirFormat) {
    put64(bytes, at, entry.inode);
    put(bytes, at + 8, &[entry.name.len() as u8]);
    put(bytes, at + 9, &entry.name);
    if format.has_ftype {
        put(bytes, at + 9 + entry.name.len(), &[entry.file_type]);
    }
    put16(bytes, at + format.entry_len(entry.name.len()) - 2, at as u16);
}

/// Marks what is behind the entries as free. Returns how much that is.
fn finish(bytes: &mut [u8], at: usize, end: usize) -> u16 {
    let len = end - at;
    if len == 0 {
        return 0;
    }
    put16(bytes, at, 0xffff);
    put16(bytes, at + 2, len as u16);
    put16(bytes, end - 2, at as u16);
    // The longest free space of the block comes first in its header.
    put16(bytes, 48, at as u16);
    put16(bytes, 50, len as u16);
    len as u16
}

fn one_block<'a>(entries: impl Iterator<Item = &'a Entry>, count: usize, format: DirFormat) -> Built {
    let size = format.block_size;
    let mut bytes = data_block(b"XDB3", size);
    let mut leaves = Vec::new();
    let mut at = HEADER;
    for entry in entries {
        write_entry(&mut bytes, at, entry, format);
        leaves.push((hash(&entry.name), (at >> 3) as u32));
        at += format.entry_len(entry.name.len());
    }
    let leaf = size - 8 - count * 8;
    finish(&mut bytes, at, leaf);
    leaves.sort_unstable();
    for (slot, (hash, address)) in leaves.iter().enumerate() {
        put32(&mut bytes, leaf + slot * 8, *hash);
        put32(&mut bytes, leaf + slot * 8 + 4, *address);
    }
    put32(&mut bytes, size - 8, count as u32);
    Built { offset: 0, bytes, header: Header::Data }
}

/// A leaf or a node: magic number, how many pairs, and the pairs.
fn pairs(magic: u16, pairs: &[(u32, u32)], size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    put16(&mut bytes, 8, magic);
    put16(&mut bytes, 56, pairs.len() as u16);
    for (slot, (first, second)) in pairs.iter().enumerate() {
        put32(&mut bytes, HEADER + slot * 8, *first);
        put32(&mut bytes, HEADER + slot * 8 + 4, *second);
    }
    bytes
}

fn single_leaf(leaves: &[(u32, u32)], bests: &[u16], size: usize) -> Built {
    let mut bytes = pairs(0x3df1, leaves, size);
    put32(&mut bytes, size - 4, bests.len() as u32);
    for (slot, best) in bests.iter().enumerate() {
        put16(&mut bytes, size - 4 - bests.len() * 2 + slot * 2, *best);
    }
    Built { offset: LEAF_OFFSET, bytes, header: Header::Leaf }
}

/// Leaves with a tree above them, whose root is the first block.
fn leaf_tree(leaves: &[(u32, u32)], size: usize, unit: usize) -> Vec<Built> {
    let capacity = (size - HEADER) / 8;
    let mut next_block = 1_u64;
    let mut built = Vec::new();
    let mut items = leaves.to_vec();
    let mut level = 0_u16;
    let offset = |number: u64| LEAF_OFFSET + number * size as u64;
    let block = |number: u64| (offset(number) / unit as u64) as u32;
    loop {
        let blocks = items.len().div_ceil(capacity);
        let is_root = level > 0 && blocks == 1;
        let mut above = Vec::new();
        let first = if is_root { 0 } else { next_block };
        for at in 0..blocks {
            let mine = &items[at * items.len() / blocks..(at + 1) * items.len() / blocks];
            let mut bytes = pairs(if level == 0 { 0x3dff } else { 0x3ebe }, mine, size);
            if level > 0 {
                put16(&mut bytes, 58, level);
            }
            let number = first + at as u64;
            put32(&mut bytes, 0, if at + 1 < blocks { block(number + 1) } else { 0 });
            put32(&mut bytes, 4, if at > 0 { block(number - 1) } else { 0 });
            above.push((mine.last().map_or(0, |(hash, _)| *hash), block(number)));
            built.push(Built { offset: offset(number), bytes, header: Header::Leaf });
        }
        if is_root {
            break;
        }
        next_block += blocks as u64;
        items = above;
        level += 1;
    }
    built.sort_unstable_by_key(|block| block.offset);
    built
}

fn free_indexes(bests: &[u16], size: usize) -> Vec<Built> {
    let capacity = (size - HEADER) / 2;
    let index = |(at, bests): (usize, &[u16])| {
        let mut bytes = data_block(b"XDF3", size);
        put32(&mut bytes, 48, (at * capacity) as u32);
        put32(&mut bytes, 52, bests.len() as u32);
        put32(&mut bytes, 56, bests.len() as u32);
        for (slot, best) in bests.iter().enumerate() {
            put16(&mut bytes, HEADER + slot * 2, *best);
        }
        Built { offset: FREE_OFFSET + (at * size) as u64, bytes, header: Header::Data }
    };
    bests.chunks(capacity).enumerate().map(index).collect()
}
