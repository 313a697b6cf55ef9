//! Directory entries and the tail that holds a directory block's checksum.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html>, kernel `fs/ext4/ext4.h` (`ext4_dir_entry_2`,
//! `ext4_dir_entry_tail`).

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What comes before the name of an entry (`ext4_dir_entry_2`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DirEntryHeader {
    /// The inode, or 0 where the entry is unused.
    pub inode: U32,
    /// Bytes to the next entry; see [`crate::directory`] for blocks of 64 KiB.
    pub rec_len: U16,
    /// Bytes of the name.
    pub name_len: u8,
    /// The kind of the inode; the high byte of the name's length without `INCOMPAT_FILETYPE`.
    pub file_type: u8,
}

/// An entry that no reader takes for one, in the last 12 bytes of a block (`ext4_dir_entry_tail`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct DirEntryTail {
    /// 0, where an entry has its inode.
    pub det_reserved_zero1: U32,
    /// 12.
    pub det_rec_len: U16,
    /// 0, where an entry has its name's length.
    pub det_reserved_zero2: u8,
    /// 0xDE, where an entry has its file type.
    pub det_reserved_ft: u8,
    /// crc32c of the block up to the tail, seeded for the inode.
    pub det_checksum: U32,
}

impl DirEntryTail {
    /// The value of `det_reserved_ft`.
    pub(crate) const FILE_TYPE: u8 = 0xde;
    /// Bytes of a tail, which is also its `det_rec_len`.
    pub(crate) const LEN: usize = 12;
}

const _: () = assert!(size_of::<DirEntryHeader>() == 8);
const _: () = assert!(offset_of!(DirEntryHeader, rec_len) == 4);
const _: () = assert!(offset_of!(DirEntryHeader, name_len) == 6);
const _: () = assert!(size_of::<DirEntryTail>() == DirEntryTail::LEN);
const _: () = assert!(offset_of!(DirEntryTail, det_checksum) == 8);
