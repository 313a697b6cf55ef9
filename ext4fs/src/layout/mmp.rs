//! The block of multiple mount protection.
//!
//! <https://docs.kernel.org/filesystems/ext4/mmp.html>

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `mmp_magic`.
pub(crate) const MAGIC: u32 = 0x004D_4D50;
/// `mmp_seq` of a file system that nobody uses.
pub(crate) const SEQ_CLEAN: u32 = 0xFF4D_4D50;
/// `mmp_seq` while e2fsck runs.
pub(crate) const SEQ_FSCK: u32 = 0xE24D_4D50;

/// The block's first 1024 bytes (`mmp_struct`).
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawMmp {
    pub mmp_magic: U32,
    /// [`SEQ_CLEAN`], [`SEQ_FSCK`], or a number that whoever has it mounted keeps changing.
    pub mmp_seq: U32,
    /// When it was last changed, in seconds.
    pub mmp_time: U64,
    /// The host that changed it last.
    pub mmp_nodename: [u8; 64],
    pub mmp_bdevname: [u8; 32],
    pub mmp_check_interval: U16,
    pub mmp_pad1: U16,
    pub mmp_pad2: [U32; 226],
    /// crc32c of all before it.
    pub mmp_checksum: U32,
}

const _: () = assert!(size_of::<RawMmp>() == 1024);
const _: () = assert!(std::mem::offset_of!(RawMmp, mmp_checksum) == 1020);
