//! Directories: "Directories" in all their forms. What is read is a list of entries; leaves and free indexes, which only
//! serve finding, are not needed for that.

mod block;
pub(crate) mod build;
mod short;
mod write;

use std::sync::Arc;

use crate::bytes::{be16, be32, be64, checksum, le32, uuid};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::MAX_NAME_LEN;
use crate::metadata::FileKind;
use crate::{Error, Result};

/// The byte of a directory at which its leaves begin.
pub(crate) const LEAF_OFFSET: u64 = 32 << 30;

/// An entry, as the directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    /// 0 where the directory does not tell.
    pub(crate) file_type: u8,
}

/// What a directory holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    pub(crate) parent: u64,
    /// Whether there is anything in it that no entry uses: deleted names.
    pub(crate) has_leftovers: bool,
}

/// The sizes that directories of a file system have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DirFormat {
    pub(crate) is_v5: bool,
    pub(crate) has_ftype: bool,
    pub(crate) block_size: usize,
}

impl DirFormat {
    /// The header of a block of entries.
    pub(crate) fn data_header(&self) -> usize {
        if self.is_v5 { 64 } else { 16 }
    }

    /// Bytes that an entry takes in a block: inode, length, name, type and tag, in units of 8.
    pub(crate) fn entry_len(&self, name_len: usize) -> usize {
        (8 + 1 + name_len + usize::from(self.has_ftype) + 2).next_multiple_of(8)
    }
}

impl FileSystem {
    pub(crate) fn dir_format(&self) -> DirFormat {
        DirFormat { is_v5: self.sb.is_v5, has_ftype: self.sb.has_ftype, block_size: self.sb.dir_block_size }
    }

    /// An inode that is a directory.
    pub(crate) fn directory_inode(&self, number: u64) -> Result<Inode> {
        let inode = self.inode(number)?;
        if inode.kind()? == FileKind::Directory { Ok(inode) } else { Err(Error::NotADirectory(number)) }
    }

    /// Reads a directory.
    pub(crate) fn read_listing(&self, inode: &Inode) -> Result<Listing> {
        if inode.format(Fork::Data) == Format::Local {
            return short::decode(inode, self.sb.has_ftype);
        }
        let mut listing = Listing::default();
        let format = self.dir_format();
        let extents = self.extents(inode, Fork::Data)?;
        let per_block = (self.sb.dir_block_size / self.sb.block_size) as u64;
        let leaf = LEAF_OFFSET / self.sb.block_size as u64;
        let is_block = extents.list.iter().all(|extent| extent.end() <= per_block);
        let mut next = 0;
        for extent in extents.list.iter().take_while(|extent| extent.offset < leaf) {
            while next < extent.end().min(leaf) {
                if next < extent.offset {
                    next = extent.offset / per_block * per_block;
                }
                let (bytes, first) = self.dir_block(inode, &extents, next, per_block)?;
                self.check_data_header(inode, &bytes, first, is_block)?;
                let place = |rule: &str| {
                    Error::corrupt("directory block", format_args!("block {first} of inode {}", inode.number), rule)
                };
                block::decode(&bytes, format, is_block, &mut listing).map_err(place)?;
                next += per_block;
            }
        }
        if listing.parent == 0 {
            return Err(inode.corrupt("a directory has an entry `..`"));
        }
        if !is_block && !listing.has_leftovers {
            listing.has_leftovers = self.has_stale_leaves(inode, &extents, leaf, per_block)?;
        }
        Ok(listing)
    }

    /// The bytes of a directory's block, which may lie in several pieces, and the device's block that it begins with.
    fn dir_block(
        &self,
        inode: &Inode,
        extents: &crate::extents::Extents,
        offset: u64,
        count: u64,
    ) -> Result<(Arc<Vec<u8>>, u64)> {
        let missing = || inode.corrupt(format!("directory block {offset} is there as a whole"));
        let first = extents.block(offset).ok_or_else(missing)?;
        if count == 1 {
            return Ok((self.store.block(first)?, first));
        }
        let mut bytes = Vec::with_capacity(self.sb.dir_block_size);
        for at in offset..offset + count {
            bytes.extend_from_slice(&self.store.block(extents.block(at).ok_or_else(missing)?)?);
        }
        Ok((Arc::new(bytes), first))
    }

    fn check_data_header(&self, inode: &Inode, bytes: &[u8], first: u64, is_block: bool) -> Result<()> {
        let wrong = |rule: &str| {
            Error::corrupt("directory block", format_args!("block {first} of inode {}", inode.number), rule)
        };
        let magic: &[u8] = match (self.sb.is_v5, is_block) {
            (true, true) => b"XDB3",
            (true, false) => b"XDD3",
            (false, true) => b"XD2B",
            (false, false) => b"XD2D",
        };
        if !bytes.starts_with(magic) {
            return Err(wrong("the magic number is right"));
        }
        if self.sb.is_v5 {
            if checksum(bytes, 4) != le32(bytes, 4) {
                return Err(wrong("the checksum is right"));
            }
            let place = (be64(bytes, 8), uuid(bytes, 24), be64(bytes, 40));
            if place != (self.sb.daddr(first), self.sb.meta_uuid, inode.number) {
                return Err(wrong("place, UUID and owner are its own"));
            }
        }
        Ok(())
    }

    /// Whether a leaf still holds the hash of a name that is gone.
    fn has_stale_leaves(
        &self,
        inode: &Inode,
        extents: &crate::extents::Extents,
        leaf: u64,
        per_block: u64,
    ) -> Result<bool> {
        let free = leaf * 2;
        let first = extents.list.partition_point(|extent| extent.end() <= leaf);
        for extent in extents.list[first..].iter().take_while(|extent| extent.offset < free) {
            let mut at = extent.offset / per_block * per_block;
            while at < extent.end() {
                let (bytes, _) = self.dir_block(inode, extents, at, per_block)?;
                let (magic, stale) = if self.sb.is_v5 {
                    (be16(&bytes, 8), be16(&bytes, 58))
                } else {
                    (be16(&bytes, 8), be16(&bytes, 14))
                };
                if matches!(magic, 0x3df1 | 0x3dff | 0xd2f1 | 0xd2ff) && stale != 0 {
                    return Ok(true);
                }
                at += per_block;
            }
        }
        Ok(false)
    }
}

/// Whether a name may be in a directory.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

/// The hash of a name. "Directory Leaf Entries".
pub(crate) fn hash(name: &[u8]) -> u32 {
    let (fours, rest) = name.as_chunks::<4>();
    let word = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 7 ^ u32::from(*byte));
    let sum = fours.iter().fold(0_u32, |sum, four| {
        // Each of the four moves 7 bits further, out of 28.
        (u32::from(four[0]) << 21 ^ u32::from(four[1]) << 14 ^ u32::from(four[2]) << 7 ^ u32::from(four[3]))
            ^ sum.rotate_left(28)
    });
    match rest.len() {
        0 => sum,
        len => word(rest) ^ sum.rotate_left(7 * len as u32),
    }
}

/// Where counts and stale entries of a block with both data and leaves are.
fn tail(bytes: &[u8]) -> (usize, usize) {
    let at = bytes.len().saturating_sub(8);
    (be32(bytes, at) as usize, be32(bytes, at + 4) as usize)
}
