//! A list of entries and their values, as an inode and a block both hold it.
//!
//! <https://docs.kernel.org/filesystems/ext4/attributes.html>, kernel `fs/ext4/xattr.c` (`check_xattrs`,
//! `ext4_xattr_hash_entry`).

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::{Xattr, acl, name};
use crate::error::{Error, Result};
use crate::layout::xattr::XattrEntry;
use crate::zeros;

/// Bytes of an entry before its name.
const HEADER_LEN: usize = size_of::<XattrEntry>();
/// Bytes of the zeros that end a list.
pub(super) const END_LEN: usize = 4;
/// The largest value that an inode can hold, as in the kernel.
const MAX_VALUE_IN_INODE: u32 = 1 << 24;

/// An attribute in the form of the disk.
pub(super) struct Raw<'a> {
    pub(super) index: u8,
    pub(super) name: &'a [u8],
    value: Cow<'a, [u8]>,
    value_inode: u32,
    value_size: u32,
    hash: u32,
}

impl<'a> Raw<'a> {
    pub(super) fn from_xattr(attribute: &'a Xattr) -> Result<Self> {
        let (index, name) = name::split(&attribute.name)?;
        if attribute.value_inode != 0 {
            let Xattr { value_inode, value_size, hash, .. } = *attribute;
            return Ok(Self { index, name, value: Cow::Borrowed(&[]), value_inode, value_size, hash });
        }
        let value = match index {
            name::ACL_ACCESS | name::ACL_DEFAULT => Cow::Owned(acl::to_disk(&attribute.value)?),
            _ => Cow::Borrowed(attribute.value.as_slice()),
        };
        // Longer ones fit no block, let alone an inode.
        let value_size = u32::try_from(value.len()).map_err(|_| Error::NoSpace("an extended attribute"))?;
        let hash = hash_entry(name, &value);
        Ok(Self { index, name, value, value_inode: 0, value_size, hash })
    }

    /// Whether this is the data of a file that lies in its inode.
    pub(super) fn is_inline_data(&self) -> bool {
        (self.index, self.name) == name::INLINE_DATA
    }

    /// Bytes of entry and value.
    pub(super) fn len(&self) -> usize {
        self.entry_len() + self.value.len().next_multiple_of(4)
    }

    /// The value as it goes to disk; empty where an inode holds it.
    pub(super) fn value(&self) -> &[u8] {
        &self.value
    }

    /// `e_hash`.
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// The order that kernels keep, and search by, in a block.
    pub(super) fn key(&self) -> (u8, usize, &'a [u8]) {
        (self.index, self.name.len(), self.name)
    }

    fn entry_len(&self) -> usize {
        (HEADER_LEN + self.name.len()).next_multiple_of(4)
    }
}

/// Whether values beside their entries have hashes: those in blocks do, those in inodes have 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hashes {
    Stored,
    Zero,
}

/// Writes entries from `start` on and their values from the end of `bytes` down, which is all zeros there and has
/// room. Values are placed relative to `base`.
pub(super) fn encode(raws: &[&Raw<'_>], bytes: &mut [u8], start: usize, base: usize, hashes: Hashes) {
    // The end of a space that is no multiple of 4 long is of no use.
    let (mut entry_at, mut value_at) = (start, base + (bytes.len() - base) / 4 * 4);
    for raw in raws {
        let mut offset = 0;
        if raw.value_inode == 0 && !raw.value.is_empty() {
            value_at -= raw.value.len().next_multiple_of(4);
            bytes[value_at..value_at + raw.value.len()].copy_from_slice(&raw.value);
            offset = value_at - base;
        }
        let keep_hash = hashes == Hashes::Stored || raw.value_inode != 0;
        let header = XattrEntry {
            e_name_len: raw.name.len().to_le_bytes()[0],
            e_name_index: raw.index,
            // Blocks have at most 65536 bytes, and a value does not begin at their end.
            e_value_offs: U16::new(u16::try_from(offset).unwrap_or(0)),
            e_value_inum: U32::new(raw.value_inode),
            e_value_size: U32::new(raw.value_size),
            e_hash: U32::new(if keep_hash { raw.hash } else { 0 }),
        };
        bytes[entry_at..entry_at + HEADER_LEN].copy_from_slice(header.as_bytes());
        bytes[entry_at + HEADER_LEN..entry_at + HEADER_LEN + raw.name.len()].copy_from_slice(raw.name);
        entry_at += raw.entry_len();
    }
}

/// Reads the entries from `start` on. Values are relative to `base`. `place` says where this is, for messages.
pub(super) fn decode(bytes: &[u8], start: usize, base: usize, place: &dyn Display) -> Result<Vec<Xattr>> {
    let mut found = Vec::new();
    for entry in (Entries { bytes, at: Some(start), base, place }) {
        let Entry { header, name, value, .. } = entry?;
        let mut attribute = Xattr::new(name::join(header.e_name_index, &bytes[name]), Vec::new());
        let inode = header.e_value_inum.get();
        if inode != 0 {
            let (size, hash) = (header.e_value_size.get(), header.e_hash.get());
            (attribute.value_inode, attribute.value_size, attribute.hash) = (inode, size, hash);
        } else if !value.is_empty() {
            attribute.value = match header.e_name_index {
                name::ACL_ACCESS | name::ACL_DEFAULT => acl::from_disk(&bytes[value], place)?,
                _ => bytes[value].to_vec(),
            };
        }
        found.push(attribute);
    }
    Ok(found)
}

/// Where the value of `system.data` lies; empty where there is none.
pub(super) fn inline_value(bytes: &[u8], start: usize, base: usize, place: &dyn Display) -> Result<Range<usize>> {
    for entry in (Entries { bytes, at: Some(start), base, place }) {
        let Entry { header, name, value, .. } = entry?;
        if (header.e_name_index, &bytes[name]) == name::INLINE_DATA {
            return Ok(value);
        }
    }
    Ok(0..0)
}

/// Makes all bytes from `start` on zeros that neither an entry nor a value has, and returns how many changed.
pub(super) fn scrub(bytes: &mut [u8], start: usize, base: usize, place: &dyn Display) -> Result<u64> {
    let mut kept = Vec::new();
    for entry in (Entries { bytes, at: Some(start), base, place }) {
        let entry = entry?;
        kept.extend([entry.start..entry.name.end, entry.value]);
    }
    kept.sort_unstable_by_key(|range| range.start);
    let (mut changed, mut from) = (0, start);
    for range in kept {
        // Values of damaged lists may overlap; an empty one is nowhere.
        if range.start > from {
            changed += zeros::clear(&mut bytes[from..range.start]);
        }
        from = from.max(range.end);
    }
    Ok(changed + zeros::clear(&mut bytes[from..]))
}

/// An entry of a list, which lies inside with its name and its value.
struct Entry {
    start: usize,
    header: XattrEntry,
    name: Range<usize>,
    /// Empty where there is none, or an inode has it.
    value: Range<usize>,
}

/// Walks over a list to the zeros that end it. The first entry that is malformed is an error, and the last item.
struct Entries<'a> {
    bytes: &'a [u8],
    at: Option<usize>,
    base: usize,
    place: &'a dyn Display,
}

impl Entries<'_> {
    fn entry(&self, at: usize) -> Result<Option<Entry>> {
        let (bytes, base) = (self.bytes, self.base);
        let wrong = |rule: String| Error::corrupt("extended attribute", self.place, rule);
        let Some((end, _)) = bytes.get(at..).and_then(|rest| U32::read_from_prefix(rest).ok()) else {
            return Err(wrong(format!("the list of entries must end before byte {at}")));
        };
        if end.get() == 0 {
            return Ok(None);
        }
        let Some((header, _)) = bytes.get(at..).and_then(|rest| XattrEntry::read_from_prefix(rest).ok()) else {
            return Err(wrong(format!("the entry at byte {at} must lie inside")));
        };
        let start = at + HEADER_LEN;
        let name = start..start + usize::from(header.e_name_len);
        let Some(short) = bytes.get(name.clone()) else {
            return Err(wrong(format!("the name at byte {start} must lie inside, found length {}", name.len())));
        };
        if short.contains(&0) {
            return Err(wrong(format!("the name at byte {start} must not hold a NUL")));
        }
        let size = header.e_value_size.get();
        if header.e_value_inum.get() != 0 {
            if size > MAX_VALUE_IN_INODE {
                return Err(wrong(format!("a value must have at most {MAX_VALUE_IN_INODE} bytes, found {size}")));
            }
            return Ok(Some(Entry { start: at, header, value: name.end..name.end, name }));
        }
        if size == 0 {
            return Ok(Some(Entry { start: at, header, value: name.end..name.end, name }));
        }
        let offset = base + usize::from(header.e_value_offs.get());
        let value = usize::try_from(size)
            .ok()
            .and_then(|size| Some(offset..offset.checked_add(size)?))
            // A value that overlaps the entries before it has been written over.
            .filter(|range| range.start >= name.end + END_LEN && range.end <= bytes.len());
        match value {
            Some(value) => Ok(Some(Entry { start: at, header, name, value })),
            None => Err(wrong(format!("a value must lie between entries and end, found {size} bytes at {offset}"))),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        let entry = self.entry(at).transpose()?;
        // Names are filled up so that the next entry begins at a multiple of 4 from the first.
        self.at = entry.as_ref().ok().map(|entry| at + (entry.name.end - at).next_multiple_of(4));
        Some(entry)
    }
}

/// The hash of a name without its prefix and a value, whose end is filled up with zeros.
pub(super) fn hash_entry(name: &[u8], value: &[u8]) -> u32 {
    let named = name.iter().fold(0_u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks(4).fold(named, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}
