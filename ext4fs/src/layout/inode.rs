//! The inode: 128 bytes, and more that `i_extra_isize` counts.
//!
//! <https://docs.kernel.org/filesystems/ext4/inodes.html>

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fields of an inode as they are on the disk; what follows them in its slot is for extended attributes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size_lo: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    pub i_blocks_lo: U32,
    pub i_flags: U32,
    pub i_version: U32,
    pub i_block: [u8; 60],
    pub i_generation: U32,
    pub i_file_acl_lo: U32,
    pub i_size_high: U32,
    pub i_obso_faddr: U32,
    pub i_blocks_high: U16,
    pub i_file_acl_high: U16,
    pub i_uid_high: U16,
    pub i_gid_high: U16,
    pub i_checksum_lo: U16,
    pub i_reserved: U16,
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
}

/// Length of the part that all inodes have.
pub(crate) const BASE_LEN: usize = 128;
/// Length of all fields known here.
pub(crate) const FULL_LEN: usize = 160;
/// Where `i_checksum_lo` is.
pub(crate) const CHECKSUM_LO_OFFSET: usize = 124;
/// Where `i_extra_isize` is.
pub(crate) const EXTRA_ISIZE_OFFSET: usize = 128;
/// Where `i_checksum_hi` is.
pub(crate) const CHECKSUM_HI_OFFSET: usize = 130;

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<RawInode>() == FULL_LEN);
    assert!(offset_of!(RawInode, i_block) == 40);
    assert!(offset_of!(RawInode, i_generation) == 100);
    assert!(offset_of!(RawInode, i_blocks_high) == 116);
    assert!(offset_of!(RawInode, i_checksum_lo) == CHECKSUM_LO_OFFSET);
    assert!(offset_of!(RawInode, i_extra_isize) == EXTRA_ISIZE_OFFSET);
    assert!(offset_of!(RawInode, i_checksum_hi) == CHECKSUM_HI_OFFSET);
    assert!(offset_of!(RawInode, i_projid) == 156);
};
