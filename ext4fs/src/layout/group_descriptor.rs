//! Group descriptors: 32 bytes, or 64 and more with the `64bit` feature.
//!
//! <https://docs.kernel.org/filesystems/ext4/group_descr.html>

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 64-byte group descriptor as it is on the disk; a 32-byte one is its first half.
#[derive(Debug, Clone, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGroupDescriptor {
    pub bg_block_bitmap_lo: U32,
    pub bg_inode_bitmap_lo: U32,
    pub bg_inode_table_lo: U32,
    pub bg_free_blocks_count_lo: U16,
    pub bg_free_inodes_count_lo: U16,
    pub bg_used_dirs_count_lo: U16,
    pub bg_flags: U16,
    pub bg_exclude_bitmap_lo: U32,
    pub bg_block_bitmap_csum_lo: U16,
    pub bg_inode_bitmap_csum_lo: U16,
    pub bg_itable_unused_lo: U16,
    pub bg_checksum: U16,
    pub bg_block_bitmap_hi: U32,
    pub bg_inode_bitmap_hi: U32,
    pub bg_inode_table_hi: U32,
    pub bg_free_blocks_count_hi: U16,
    pub bg_free_inodes_count_hi: U16,
    pub bg_used_dirs_count_hi: U16,
    pub bg_itable_unused_hi: U16,
    pub bg_exclude_bitmap_hi: U32,
    pub bg_block_bitmap_csum_hi: U16,
    pub bg_inode_bitmap_csum_hi: U16,
    pub bg_reserved: U32,
}

/// Where `bg_checksum` is.
pub(crate) const CHECKSUM_OFFSET: usize = 30;

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<RawGroupDescriptor>() == 64);
    assert!(offset_of!(RawGroupDescriptor, bg_flags) == 18);
    assert!(offset_of!(RawGroupDescriptor, bg_checksum) == CHECKSUM_OFFSET);
    assert!(offset_of!(RawGroupDescriptor, bg_block_bitmap_hi) == 32);
    assert!(offset_of!(RawGroupDescriptor, bg_block_bitmap_csum_hi) == 56);
};
