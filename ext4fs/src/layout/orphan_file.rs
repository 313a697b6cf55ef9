//! A block of the orphan file: inode numbers, and at its end this tail.
//!
//! <https://docs.kernel.org/filesystems/ext4/orphan.html>

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The magic number of a block of the orphan file.
pub(crate) const MAGIC: u32 = 0x0B10_CA04;

/// The last bytes of a block of the orphan file.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawOrphanTail {
    pub ob_magic: U32,
    pub ob_checksum: U32,
}

const _: () = assert!(size_of::<RawOrphanTail>() == 8);
