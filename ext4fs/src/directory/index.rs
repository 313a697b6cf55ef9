//! One index block of an htree: its entries, limits and checksum.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html#hash-tree-directories>, kernel `fs/ext4/namei.c`
//! (`dx_probe`, `ext4_dx_csum`, `get_dx_countlimit`).

use std::sync::Arc;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{DirectoryBlocks, DirectoryBlocksMut, DirectoryFormat, Place, block, read_block};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::layout::dir_entry::DirEntryHeader;
use crate::layout::htree::{
    DxCountLimit, DxEntry, DxRootInfo, DxTail, NODE_ENTRIES_OFFSET, ROOT_ENTRIES_OFFSET, ROOT_INFO_OFFSET,
};
use crate::metadata_cache::Block;

/// Bytes of an entry.
const ENTRY_LEN: usize = size_of::<DxEntry>();
/// The upper four bits of a block's number are reserved.
const BLOCK_MASK: u32 = 0x0fff_ffff;

/// What a block of an indexed directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Directory entries.
    Leaf,
    /// `.`, `..` and the top of the tree: block 0.
    Root,
    /// A level between the root and the leaves.
    Node,
}

/// What a block holds, by its number and its first bytes. An index block below the root begins with an unused entry
/// that takes the whole block. Where there are checksums no block of entries can; without them one can that has
/// lost all its names, and its bytes tell only that it does not hold what an index block must.
pub(super) fn kind_of(f: &DirectoryFormat, indexed: bool, block: u32, bytes: &[u8]) -> BlockKind {
    if !indexed {
        return BlockKind::Leaf;
    }
    if block == 0 {
        return BlockKind::Root;
    }
    let Ok((header, _)) = DirEntryHeader::read_from_prefix(bytes) else { return BlockKind::Leaf };
    let covers = block::decode_rec_len(header.rec_len.get(), bytes.len()) == f.block_size;
    let is_node = header.inode.get() == 0
        && covers
        && (f.checksum
            || (header.name_len == 0
                && header.file_type == 0
                && count_limit(bytes, BlockKind::Node)
                    .is_some_and(|found| counts_are_right(f, BlockKind::Node, found))));
    if is_node { BlockKind::Node } else { BlockKind::Leaf }
}

/// An index block in memory, known to be well-formed, and a position in it.
#[derive(Debug, Clone)]
pub(super) struct Index {
    pub(super) block: u32,
    pub(super) bytes: Block,
    kind: BlockKind,
    /// The entry that a search went through.
    pub(super) at: usize,
}

impl Index {
    /// Reads an index block of the kind expected at this level.
    pub(super) fn read(
        dir: &(impl DirectoryBlocks + ?Sized),
        f: &DirectoryFormat,
        block: u32,
        kind: BlockKind,
    ) -> Result<Self> {
        let place = Place { inode: dir.inode(), block };
        let bytes = read_block(dir, f, block)?;
        if kind_of(f, true, block, &bytes) != kind {
            return Err(Error::corrupt("htree", place, "must be an index block".to_owned()));
        }
        Ok(Self { block, bytes, kind, at: 0 })
    }

    /// A new index block below the root, with no entries yet.
    pub(super) fn new_node(f: &DirectoryFormat) -> Self {
        let mut bytes = vec![0; f.block_size];
        block::write_unused(&mut bytes, f.block_size);
        let mut index = Self { block: 0, bytes: bytes.into(), kind: BlockKind::Node, at: 0 };
        index.set_count_limit(0, limit(f, BlockKind::Node));
        index
    }

    /// A new root over one block of entries.
    pub(super) fn new_root(f: &DirectoryFormat, inode: u32, parent: u32, leaf: u32) -> Self {
        let mut bytes = vec![0; f.block_size];
        block::write_dots(&mut bytes, f, inode, parent, f.block_size);
        let info =
            DxRootInfo { hash_version: f.default_hash, info_length: 8, indirect_levels: 0, ..DxRootInfo::new_zeroed() };
        bytes[ROOT_INFO_OFFSET..ROOT_ENTRIES_OFFSET].copy_from_slice(info.as_bytes());
        let mut index = Self { block: 0, bytes: bytes.into(), kind: BlockKind::Root, at: 0 };
        index.set_count_limit(1, limit(f, BlockKind::Root));
        index.set_child(0, leaf);
        index
    }

    /// How many entries there are; at least 1 in a block that was read.
    pub(super) fn count(&self) -> usize {
        count_limit(&self.bytes, self.kind).map_or(0, |(_, count)| count)
    }

    /// Whether there is no room for another entry.
    pub(super) fn is_full(&self, f: &DirectoryFormat) -> bool {
        self.count() >= limit(f, self.kind)
    }

    /// The lowest hash below entry `at`. That of the first is not stored: it is the block's own.
    pub(super) fn hash(&self, at: usize) -> u32 {
        if at == 0 { 0 } else { self.word(at, 0) }
    }

    /// The block below entry `at`.
    pub(super) fn child(&self, at: usize) -> u32 {
        self.word(at, 4) & BLOCK_MASK
    }

    /// The last entry whose hash is not above `hash`.
    pub(super) fn position(&self, hash: u32) -> usize {
        let (mut low, mut high) = (1, self.count());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.hash(middle) > hash {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low - 1
    }

    /// Adds an entry behind entry `at`; there has to be room.
    pub(super) fn insert_after(&mut self, at: usize, hash: u32, block: u32) {
        let (count, start) = (self.count(), self.offset(at + 1));
        let end = self.offset(count);
        let bytes = self.bytes_mut();
        bytes.copy_within(start..end, start + ENTRY_LEN);
        let entry = DxEntry { hash: U32::new(hash), block: U32::new(block) };
        bytes[start..start + ENTRY_LEN].copy_from_slice(entry.as_bytes());
        self.set_count(count + 1);
    }

    /// Moves the entries from `from` on into a new index block and returns the hash that they begin with.
    pub(super) fn move_entries(&mut self, from: usize, into: &mut Self) -> u32 {
        let (count, hash) = (self.count(), self.hash(from));
        let (start, end) = (self.offset(from), self.offset(count));
        let target = into.offset(0);
        let room = count_limit(&into.bytes, into.kind).map_or(0, |(limit, _)| limit);
        let moved = into.bytes_mut();
        moved[target..target + end - start].copy_from_slice(&self.bytes[start..end]);
        // The first entry's hash was copied over the count and the limit.
        moved[target..target + 4].fill(0);
        into.set_count_limit(count - from, room);
        let kept = self.offset(from.max(1));
        self.bytes_mut()[kept..end].fill(0);
        self.set_count(from.max(1));
        hash
    }

    /// Levels of index blocks below this one, which is the root.
    pub(super) fn levels(&self) -> usize {
        usize::from(self.bytes[ROOT_INFO_OFFSET + 6])
    }

    /// Sets the number of levels below the root, with `child` as the root's only entry.
    pub(super) fn grow(&mut self, child: u32) {
        self.bytes_mut()[ROOT_INFO_OFFSET + 6] += 1;
        self.set_child(0, child);
    }

    /// The number of the tree's hash; this is the root.
    pub(super) fn hash_version(&self) -> u8 {
        self.bytes[ROOT_INFO_OFFSET + 4]
    }

    /// Writes the block with its checksum.
    pub(super) fn write(&mut self, dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat) -> Result<()> {
        set_checksum(Arc::make_mut(&mut self.bytes).as_mut_slice(), f, self.kind, dir.checksum_seed());
        dir.write(self.block, self.bytes.clone())
    }

    /// Adds the block at the directory's end, with its checksum.
    pub(super) fn append(&mut self, dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat) -> Result<u32> {
        set_checksum(Arc::make_mut(&mut self.bytes).as_mut_slice(), f, self.kind, dir.checksum_seed());
        self.block = dir.append(self.bytes.to_vec())?;
        Ok(self.block)
    }

    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.bytes)
    }

    fn offset(&self, at: usize) -> usize {
        entries_offset(self.kind) + at * ENTRY_LEN
    }

    fn word(&self, at: usize, within: usize) -> u32 {
        let start = self.offset(at) + within;
        self.bytes.get(start..).and_then(|rest| U32::read_from_prefix(rest).ok()).map_or(0, |(word, _)| word.get())
    }

    fn set_child(&mut self, at: usize, block: u32) {
        let start = self.offset(at) + 4;
        self.bytes_mut()[start..start + 4].copy_from_slice(&block.to_le_bytes());
    }

    fn set_count(&mut self, count: usize) {
        let limit = count_limit(&self.bytes, self.kind).map_or(0, |(limit, _)| limit);
        self.set_count_limit(count, limit);
    }

    fn set_count_limit(&mut self, count: usize, limit: usize) {
        let start = self.offset(0);
        // A block has room for fewer than 8192 entries.
        let fits = |number: usize| U16::new(u16::try_from(number).unwrap_or(u16::MAX));
        let new = DxCountLimit { limit: fits(limit), count: fits(count) };
        self.bytes_mut()[start..start + 4].copy_from_slice(new.as_bytes());
    }
}

/// Checks an index block: that its limit is what the block has room for, the counts, and the checksum.
pub(super) fn check(bytes: &[u8], f: &DirectoryFormat, kind: BlockKind, seed: u32, place: Place) -> Result<()> {
    let wrong = |rule: String| Error::corrupt("htree", place, rule);
    if kind == BlockKind::Root {
        check_root(bytes, f, place)?;
    }
    let Some(found) = count_limit(bytes, kind).filter(|&found| counts_are_right(f, kind, found)) else {
        let found = count_limit(bytes, kind).unwrap_or((0, 0));
        return Err(wrong(format!(
            "limit must be {} and count from 1 to it, found limit {} and count {}",
            limit(f, kind),
            found.0,
            found.1
        )));
    };
    if !f.checksum {
        return Ok(());
    }
    let expected = checksum(bytes, f, kind, found.1, seed);
    let stored = tail(bytes, f, kind).map_or(0, |tail| tail.dt_checksum.get());
    if stored != expected {
        return Err(wrong(format!("checksum must be {expected:#010x}, found {stored:#010x}")));
    }
    Ok(())
}

/// Writes the checksum of an index block, where metadata has checksums.
pub(super) fn set_checksum(bytes: &mut [u8], f: &DirectoryFormat, kind: BlockKind, seed: u32) {
    if !f.checksum {
        return;
    }
    let count = count_limit(bytes, kind).map_or(0, |(_, count)| count);
    let sum = checksum(bytes, f, kind, count, seed);
    let at = tail_offset(f, kind) + 4;
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// Where the entries in use end in an index block that was checked, and where the room for entries ends.
pub(super) fn unused(bytes: &[u8], f: &DirectoryFormat, kind: BlockKind) -> std::ops::Range<usize> {
    let count = count_limit(bytes, kind).map_or(0, |(_, count)| count.min(limit(f, kind)));
    entries_offset(kind) + count * ENTRY_LEN..tail_offset(f, kind)
}

/// Makes a directory linear whose file system no longer has `COMPAT_DIR_INDEX`: kernels believe no index there, and
/// write over it.
pub(super) fn unindex(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat) -> Result<()> {
    for number in 0..dir.block_count() {
        let place = Place { inode: dir.inode(), block: number };
        let bytes = read_block(dir, f, number)?;
        let new = match kind_of(f, true, number, &bytes) {
            BlockKind::Leaf => continue,
            BlockKind::Node => block::build(f, dir.checksum_seed(), std::iter::empty()),
            BlockKind::Root => block::find(&bytes, f.block_size, place, |name| name == b"..")?
                .map(|(slot, _)| super::first_block(f, dir.checksum_seed(), dir.inode(), slot.inode)),
        };
        let new = new.ok_or_else(|| Error::corrupt("htree", place, "must hold `..`, found none".to_owned()))?;
        dir.write(number, new.into())?;
    }
    dir.set_indexed(false)
}

fn check_root(bytes: &[u8], f: &DirectoryFormat, place: Place) -> Result<()> {
    let wrong = |rule: String| Error::corrupt("htree root", place, rule);
    let header = |at: usize| bytes.get(at..).and_then(|rest| DirEntryHeader::read_from_prefix(rest).ok());
    let (Some((dot, _)), Some((dotdot, _))) = (header(0), header(12)) else {
        return Err(wrong("must begin with `.` and `..`".to_owned()));
    };
    let lens = [dot, dotdot].map(|header| block::decode_rec_len(header.rec_len.get(), bytes.len()));
    if lens != [12, f.block_size - 12] || [dot.name_len, dotdot.name_len] != [1, 2] {
        return Err(wrong(format!("must begin with `.` of 12 bytes and `..` for the rest, found {lens:?}")));
    }
    let info = bytes.get(ROOT_INFO_OFFSET..).and_then(|rest| DxRootInfo::read_from_prefix(rest).ok());
    let Some((info, _)) = info.filter(|(info, _)| info.reserved_zero.get() == 0 && info.info_length == 8) else {
        return Err(wrong("must hold dx_root_info of 8 bytes".to_owned()));
    };
    if info.unused_flags & 1 != 0 {
        return Err(Error::Unsupported(format!("{place}: htree with flags {:#x}", info.unused_flags)));
    }
    if info.indirect_levels > max_levels(f) {
        return Err(wrong(format!(
            "indirect_levels must be at most {}, found {}",
            max_levels(f),
            info.indirect_levels
        )));
    }
    Ok(())
}

/// The most levels that there may be below the root.
pub(super) fn max_levels(f: &DirectoryFormat) -> u8 {
    if f.large { 2 } else { 1 }
}

fn counts_are_right(f: &DirectoryFormat, kind: BlockKind, (found_limit, count): (usize, usize)) -> bool {
    found_limit == limit(f, kind) && count >= 1 && count <= found_limit
}

/// The limit and the count that a block states.
fn count_limit(bytes: &[u8], kind: BlockKind) -> Option<(usize, usize)> {
    let (found, _) = DxCountLimit::read_from_prefix(bytes.get(entries_offset(kind)..)?).ok()?;
    Some((usize::from(found.limit.get()), usize::from(found.count.get())))
}

fn entries_offset(kind: BlockKind) -> usize {
    if kind == BlockKind::Root { ROOT_ENTRIES_OFFSET } else { NODE_ENTRIES_OFFSET }
}

/// How many entries a block has room for.
fn limit(f: &DirectoryFormat, kind: BlockKind) -> usize {
    let tail = if f.checksum { size_of::<DxTail>() } else { 0 };
    (f.block_size - entries_offset(kind) - tail) / ENTRY_LEN
}

fn tail_offset(f: &DirectoryFormat, kind: BlockKind) -> usize {
    entries_offset(kind) + limit(f, kind) * ENTRY_LEN
}

fn tail(bytes: &[u8], f: &DirectoryFormat, kind: BlockKind) -> Option<DxTail> {
    DxTail::read_from_prefix(bytes.get(tail_offset(f, kind)..)?).ok().map(|(tail, _)| tail)
}

fn checksum(bytes: &[u8], f: &DirectoryFormat, kind: BlockKind, count: usize, seed: u32) -> u32 {
    let used = &bytes[..entries_offset(kind) + count.min(limit(f, kind)) * ENTRY_LEN];
    let tail = tail_offset(f, kind);
    let sum = crc32c(crc32c(seed, used), &bytes[tail..tail + 4]);
    crc32c(sum, &[0; 4])
}
