//! Extended attributes in the inode and in a block of their own.
//!
//! <https://docs.kernel.org/filesystems/ext4/attributes.html>, kernel `fs/ext4/xattr.h`.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic` of both headers.
pub(crate) const XATTR_MAGIC: u32 = 0xea02_0000;

/// The header of a block of attributes (`ext4_xattr_header`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct XattrHeader {
    /// [`XATTR_MAGIC`].
    pub h_magic: U32,
    /// How many inodes share the block.
    pub h_refcount: U32,
    /// How many blocks: 1.
    pub h_blocks: U32,
    /// Hash of all entries' hashes, 0 where one has none.
    pub h_hash: U32,
    /// crc32c of the block's number (64 bits) and the block with 0 here.
    pub h_checksum: U32,
    /// 0.
    pub h_reserved: [U32; 3],
}

/// What comes before the name of an attribute (`ext4_xattr_entry`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct XattrEntry {
    /// Bytes of the name, its prefix not counted.
    pub e_name_len: u8,
    /// Which prefix the name has.
    pub e_name_index: u8,
    /// Where the value lies: from the block's start, or from the first entry in an inode.
    pub e_value_offs: U16,
    /// The inode that holds the value, or 0.
    pub e_value_inum: U32,
    /// Bytes of the value.
    pub e_value_size: U32,
    /// Hash of name and value.
    pub e_hash: U32,
}

const _: () = assert!(size_of::<XattrHeader>() == 32);
const _: () = assert!(offset_of!(XattrHeader, h_hash) == 12);
const _: () = assert!(offset_of!(XattrHeader, h_checksum) == 16);
const _: () = assert!(size_of::<XattrEntry>() == 16);
const _: () = assert!(offset_of!(XattrEntry, e_value_inum) == 4);
const _: () = assert!(offset_of!(XattrEntry, e_hash) == 12);
