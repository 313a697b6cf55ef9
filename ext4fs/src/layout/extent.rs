//! Extent tree nodes: a header, then entries of 12 bytes, and in a block a checksum after the last possible entry.
//!
//! <https://docs.kernel.org/filesystems/ext4/ifork.html#extent-tree>

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The magic number of an extent node.
pub(crate) const MAGIC: u16 = 0xF30A;
/// Length of the header and of each entry.
pub(crate) const ENTRY_LEN: usize = 12;
/// The longest extent whose blocks are written; longer `ee_len` say unwritten.
pub(crate) const MAX_WRITTEN_LEN: u16 = 32768;

/// The header of a node.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtentHeader {
    pub eh_magic: U16,
    pub eh_entries: U16,
    pub eh_max: U16,
    pub eh_depth: U16,
    pub eh_generation: U32,
}

/// An entry of an index node.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtentIndex {
    pub ei_block: U32,
    pub ei_leaf_lo: U32,
    pub ei_leaf_hi: U16,
    pub ei_unused: U16,
}

/// An entry of a leaf.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtent {
    pub ee_block: U32,
    pub ee_len: U16,
    pub ee_start_hi: U16,
    pub ee_start_lo: U32,
}

const _: () = {
    use std::mem::size_of;
    assert!(size_of::<RawExtentHeader>() == ENTRY_LEN);
    assert!(size_of::<RawExtentIndex>() == ENTRY_LEN);
    assert!(size_of::<RawExtent>() == ENTRY_LEN);
};
