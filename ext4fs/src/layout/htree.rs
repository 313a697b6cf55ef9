//! The index blocks of a hashed directory.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html#hash-tree-directories>, kernel `fs/ext4/namei.c`
//! (`dx_root`, `dx_node`, `dx_countlimit`, `dx_entry`, `dx_tail`).

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What follows `.` and `..` in the root of the tree (`dx_root_info`), at byte 24 of block 0.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxRootInfo {
    /// 0.
    pub reserved_zero: U32,
    /// Which hash: 0 legacy, 1 half MD4, 2 TEA, 6 SipHash.
    pub hash_version: u8,
    /// Bytes of this structure: 8.
    pub info_length: u8,
    /// Levels of index blocks below the root.
    pub indirect_levels: u8,
    /// Bit 0 would mean a feature that nobody implements.
    pub unused_flags: u8,
}

/// Lies over the hash of an index block's first entry (`dx_countlimit`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxCountLimit {
    /// How many entries there is room for.
    pub limit: U16,
    /// How many there are, this one counted.
    pub count: U16,
}

/// An entry of an index block (`dx_entry`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxEntry {
    /// The lowest hash below it; bit 0 is set where names with this hash begin in the block before.
    pub hash: U32,
    /// The directory's block.
    pub block: U32,
}

/// Follows the room for entries where metadata has checksums (`dx_tail`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DxTail {
    /// Part of what is summed.
    pub dt_reserved: U32,
    /// crc32c of the block to its last entry in use, then of this tail with 0 here.
    pub dt_checksum: U32,
}

/// Where [`DxRootInfo`] lies: behind two entries of 12 bytes each.
pub(crate) const ROOT_INFO_OFFSET: usize = 24;
/// Where the entries of the root begin.
pub(crate) const ROOT_ENTRIES_OFFSET: usize = ROOT_INFO_OFFSET + size_of::<DxRootInfo>();
/// Where the entries of any other index block begin: behind the header of one unused directory entry.
pub(crate) const NODE_ENTRIES_OFFSET: usize = 8;

const _: () = assert!(size_of::<DxRootInfo>() == 8);
const _: () = assert!(offset_of!(DxRootInfo, hash_version) == 4);
const _: () = assert!(offset_of!(DxRootInfo, indirect_levels) == 6);
const _: () = assert!(size_of::<DxCountLimit>() == 4);
const _: () = assert!(size_of::<DxEntry>() == 8);
const _: () = assert!(size_of::<DxTail>() == 8);
const _: () = assert!(ROOT_ENTRIES_OFFSET == 32);
