//! One block of directory entries.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html#linear-classic-directories>, kernel `fs/ext4/dir.c`
//! (`__ext4_check_dir_entry`) and `fs/ext4/namei.c` (`ext4_dirblock_csum_verify`, `ext4_generic_delete_entry`).

use std::sync::Arc;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{DirectoryFormat, Entry, Place};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::layout::dir_entry::{DirEntryHeader, DirEntryTail};
use crate::metadata_cache::Block;

/// Bytes of an entry before its name.
const HEADER_LEN: usize = size_of::<DirEntryHeader>();
/// The shortest `rec_len`: that of a name of one byte.
const MIN_REC_LEN: usize = 12;

/// An entry, in use or not, that lies wholly in its block: the name fits `rec_len`, and `rec_len` the block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) offset: usize,
    pub(super) rec_len: usize,
    pub(super) inode: u32,
    file_type: u8,
    name_len: usize,
}

impl Slot {
    /// The name, out of the block that the slot was read from.
    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.offset + HEADER_LEN;
        &bytes[start..start + self.name_len]
    }

    /// The end of the name in the block.
    pub(super) fn name_end(&self) -> usize {
        self.offset + HEADER_LEN + self.name_len
    }

    /// The entry, out of the block that the slot was read from. Kinds that do not exist become 0.
    pub(super) fn to_entry(self, f: &DirectoryFormat, bytes: &[u8]) -> Entry {
        let file_type = if f.has_file_type && self.file_type < 8 { self.file_type } else { 0 };
        Entry { inode: self.inode, file_type, name: self.name(bytes).to_vec() }
    }

    /// The bytes that the entry needs, 0 for one not in use.
    pub(super) fn needed(&self) -> usize {
        if self.inode == 0 { 0 } else { rec_len_for(self.name_len) }
    }
}

/// The bytes that an entry with a name of this length needs.
pub(super) fn rec_len_for(name_len: usize) -> usize {
    (HEADER_LEN + name_len + 3) & !3
}

/// Where the entries of a block end and its tail, if any, begins.
pub(super) fn entries_end(f: &DirectoryFormat) -> usize {
    if f.checksum { f.block_size - DirEntryTail::LEN } else { f.block_size }
}

/// The entries of `bytes[..end]`. The first that is malformed is an error, and the last item.
pub(super) fn slots(bytes: &[u8], end: usize, place: Place) -> Slots<'_> {
    Slots { bytes, end: end.min(bytes.len()), offset: 0, place }
}

/// The iterator that [`slots`] returns.
pub(super) struct Slots<'a> {
    bytes: &'a [u8],
    end: usize,
    offset: usize,
    place: Place,
}

impl Slots<'_> {
    /// The entry at the offset, if it is well-formed. Directories are searched by this, so it is made of few steps.
    #[inline(always)]
    fn decode(&self) -> Option<Slot> {
        let offset = self.offset;
        let header = self.bytes.get(offset..self.end)?.first_chunk()?;
        let word = u64::from_le_bytes(*header);
        let (rec_len, name_len) = ((word >> 32) as u16, (word >> 48) as u8);
        let rec_len = decode_rec_len(rec_len, self.bytes.len());
        let least = rec_len_for(usize::from(name_len)).max(MIN_REC_LEN);
        let sound = rec_len.is_multiple_of(4) && rec_len >= least && rec_len <= self.end - offset;
        let (inode, file_type) = (word as u32, (word >> 56) as u8);
        sound.then_some(Slot { offset, rec_len, inode, file_type, name_len: usize::from(name_len) })
    }

    /// What is wrong with the entry at the offset.
    #[cold]
    fn malformed(&self) -> Error {
        let (offset, left) = (self.offset, self.end - self.offset);
        let wrong = |rule: String| Error::corrupt("directory entry", self.place, rule);
        let Some((header, _)) =
            self.bytes.get(offset..self.end).and_then(|rest| DirEntryHeader::read_from_prefix(rest).ok())
        else {
            return wrong(format!("at offset {offset} must have {HEADER_LEN} bytes, found {left}"));
        };
        let rec_len = decode_rec_len(header.rec_len.get(), self.bytes.len());
        if rec_len < MIN_REC_LEN || !rec_len.is_multiple_of(4) || rec_len > left {
            let rule = format!("must be a multiple of 4 from {MIN_REC_LEN} to {left}, found {rec_len}");
            return wrong(format!("rec_len at offset {offset} {rule}"));
        }
        wrong(format!("name_len at offset {offset} must fit rec_len {rec_len}, found {}", header.name_len))
    }
}

impl Iterator for Slots<'_> {
    type Item = Result<Slot>;

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.end {
            return None;
        }
        let Some(slot) = self.decode() else {
            let malformed = self.malformed();
            self.offset = self.end;
            return Some(Err(malformed));
        };
        self.offset = slot.offset + slot.rec_len;
        Some(Ok(slot))
    }
}

/// The first entry whose name is wanted, and the offset of the one before it.
pub(super) fn find(
    bytes: &[u8],
    end: usize,
    place: Place,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<Option<(Slot, Option<usize>)>> {
    let mut previous = None;
    for slot in slots(bytes, end, place) {
        let slot = slot?;
        if slot.inode != 0 && is_wanted(slot.name(bytes)) {
            return Ok(Some((slot, previous)));
        }
        previous = Some(slot.offset);
    }
    Ok(None)
}

/// Puts an entry into the first gap that is wide enough. Returns whether there was one.
pub(super) fn insert(bytes: &mut Block, f: &DirectoryFormat, place: Place, e: &Entry) -> Result<bool> {
    let needed = rec_len_for(e.name.len());
    let mut gap = None;
    for slot in slots(bytes, entries_end(f), place) {
        let slot = slot?;
        // The walk goes on after the gap is found, so that nothing is written to a malformed block.
        if gap.is_none() && slot.rec_len - slot.needed() >= needed {
            gap = Some(slot);
        }
    }
    let Some(slot) = gap else { return Ok(false) };
    let bytes = Arc::make_mut(bytes);
    let (start, len) = (slot.offset + slot.needed(), slot.rec_len - slot.needed());
    if slot.inode != 0 {
        set_rec_len(bytes, slot.offset, slot.needed());
    }
    write_entry(bytes, f, start, len, e.inode, e.file_type, &e.name);
    Ok(true)
}

/// Removes an entry: it becomes part of the one before it, or unused if it is the first, and its bytes become zeros.
pub(super) fn remove(bytes: &mut [u8], slot: &Slot, previous: Option<usize>, f: &DirectoryFormat) {
    bytes[slot.offset..slot.offset + slot.rec_len].fill(0);
    match previous {
        Some(previous) => set_rec_len(bytes, previous, slot.offset + slot.rec_len - previous),
        None => write_entry(bytes, f, slot.offset, slot.rec_len, 0, 0, &[]),
    }
}

/// Lets an entry name another inode.
pub(super) fn set_target(bytes: &mut [u8], slot: &Slot, inode: u32, file_type: u8) {
    bytes[slot.offset..slot.offset + 4].copy_from_slice(&inode.to_le_bytes());
    bytes[slot.offset + HEADER_LEN - 1] = file_type;
}

/// A block with these entries and its checksum, or `None` where they do not fit.
pub(super) fn build<'a>(
    f: &DirectoryFormat,
    seed: u32,
    entries: impl ExactSizeIterator<Item = &'a Entry>,
) -> Option<Vec<u8>> {
    let (mut bytes, end) = (vec![0; f.block_size], entries_end(f));
    let (mut offset, count) = (0, entries.len());
    if count == 0 {
        write_unused(&mut bytes, end);
    }
    for (at, entry) in entries.enumerate() {
        let needed = rec_len_for(entry.name.len());
        if needed > end - offset {
            return None;
        }
        // The last entry takes all that is left.
        let len = if at + 1 == count { end - offset } else { needed };
        write_entry(&mut bytes, f, offset, len, entry.inode, entry.file_type, &entry.name);
        offset += needed;
    }
    set_leaf_checksum(&mut bytes, f, seed);
    Some(bytes)
}

/// Writes `.` and `..` at the start of a block, with `..` reaching to `end`.
pub(super) fn write_dots(bytes: &mut [u8], f: &DirectoryFormat, inode: u32, parent: u32, end: usize) {
    const DIRECTORY: u8 = 2;
    write_entry(bytes, f, 0, MIN_REC_LEN, inode, DIRECTORY, b".");
    write_entry(bytes, f, MIN_REC_LEN, end - MIN_REC_LEN, parent, DIRECTORY, b"..");
}

/// Writes the header of an entry that is not in use.
pub(super) fn write_unused(bytes: &mut [u8], rec_len: usize) {
    let header =
        DirEntryHeader { rec_len: U16::new(encode_rec_len(rec_len, bytes.len())), ..DirEntryHeader::new_zeroed() };
    bytes[..HEADER_LEN].copy_from_slice(header.as_bytes());
}

/// Writes one entry; the bytes after its name stay as they are.
fn write_entry(
    bytes: &mut [u8],
    f: &DirectoryFormat,
    offset: usize,
    rec_len: usize,
    inode: u32,
    file_type: u8,
    name: &[u8],
) {
    let header = DirEntryHeader {
        inode: U32::new(inode),
        rec_len: U16::new(encode_rec_len(rec_len, bytes.len())),
        name_len: name.len().to_le_bytes()[0],
        file_type: if f.has_file_type { file_type } else { 0 },
    };
    bytes[offset..offset + HEADER_LEN].copy_from_slice(header.as_bytes());
    bytes[offset + HEADER_LEN..offset + HEADER_LEN + name.len()].copy_from_slice(name);
}

fn set_rec_len(bytes: &mut [u8], offset: usize, rec_len: usize) {
    let encoded = encode_rec_len(rec_len, bytes.len());
    bytes[offset + 4..offset + 6].copy_from_slice(&encoded.to_le_bytes());
}

/// 16 bits cannot hold 65536: in blocks of that size both 65535 and 0 stand for the whole block, and bits 0 and 1
/// for bits 16 and 17.
pub(super) fn decode_rec_len(raw: u16, block_size: usize) -> usize {
    let raw = usize::from(raw);
    match raw {
        _ if block_size < 65536 => raw,
        0 | 65535 => block_size,
        _ => (raw & 65532) | ((raw & 3) << 16),
    }
}

fn encode_rec_len(rec_len: usize, block_size: usize) -> u16 {
    // Lengths stay below 65536 in smaller blocks, and 65536 is the largest block.
    u16::try_from(if block_size >= 65536 && rec_len >= 65536 { 65535 } else { rec_len }).unwrap_or(u16::MAX)
}

/// Checks the tail of a block of entries, where metadata has checksums.
pub(super) fn check_leaf(bytes: &[u8], f: &DirectoryFormat, seed: u32, place: Place) -> Result<()> {
    if !f.checksum {
        return Ok(());
    }
    let wrong = |rule: String| Error::corrupt("directory block", place, rule);
    let (body, tail) = bytes.split_at(entries_end(f));
    let Some(tail) = DirEntryTail::read_from_bytes(tail).ok().filter(|tail| {
        tail.det_reserved_zero1.get() == 0
            && usize::from(tail.det_rec_len.get()) == DirEntryTail::LEN
            && tail.det_reserved_zero2 == 0
            && tail.det_reserved_ft == DirEntryTail::FILE_TYPE
    }) else {
        return Err(wrong("must end with a checksum tail, found none".to_owned()));
    };
    let (expected, found) = (crc32c(seed, body), tail.det_checksum.get());
    if found != expected {
        return Err(wrong(format!("checksum must be {expected:#010x}, found {found:#010x}")));
    }
    Ok(())
}

/// Writes the tail of a block of entries, where metadata has checksums.
pub(super) fn set_leaf_checksum(bytes: &mut [u8], f: &DirectoryFormat, seed: u32) {
    if !f.checksum {
        return;
    }
    let (body, tail) = bytes.split_at_mut(entries_end(f));
    let new = DirEntryTail {
        det_reserved_zero1: U32::new(0),
        det_rec_len: U16::new(12),
        det_reserved_zero2: 0,
        det_reserved_ft: DirEntryTail::FILE_TYPE,
        det_checksum: U32::new(crc32c(seed, body)),
    };
    tail.copy_from_slice(new.as_bytes());
}
