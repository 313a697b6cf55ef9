//! The redo log's structures, little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0–63 | [`Header`]; in a log that is not complete only magic and version |
//! | from 4096 | contents, one slot of 4096 bytes for each chunk, in any order |
//! | `index_offset` | the index: `entries` times an [`Entry`], ascending, none overlapping |

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) const MAGIC: [u8; 8] = *b"GSREDO\r\n";
pub(crate) const VERSION: u32 = 1;
/// The unit in which changes are kept, and that of the log's slots.
pub(crate) const CHUNK: u64 = 4096;
/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 512;
pub(crate) const SECTORS: usize = CHUNK as usize / SECTOR;
/// Where the first slot may be.
pub(crate) const FIRST_SLOT: u64 = CHUNK;
pub(crate) const HEADER_LEN: usize = size_of::<Header>();
pub(crate) const ENTRY_LEN: usize = size_of::<Entry>();

/// The log's first sector. One write of it makes the log complete.
#[derive(Debug, Clone, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub magic: [u8; 8],
    pub version: U32,
    /// crc32c of these 64 bytes, with zeros here.
    pub checksum: U32,
    /// The length of the device that the log is for.
    pub target_len: U64,
    /// Which device that is.
    pub identity: [u8; 16],
    /// 0 while the log is not complete.
    pub index_offset: U64,
    pub entries: U64,
    /// crc32c of the whole index.
    pub index_checksum: U32,
    pub reserved: U32,
}
const _: () = assert!(HEADER_LEN == 64);

/// One change.
#[derive(Debug, Clone, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Entry {
    /// [`DATA`] or [`ZERO`].
    pub kind: U32,
    /// crc32c of the contents; 0 for zeros.
    pub checksum: U32,
    /// Where on the device; a multiple of [`CHUNK`].
    pub offset: U64,
    /// How many bytes; of data one chunk, or what is left of the device.
    pub len: U64,
    /// The slot in the log that holds the contents; 0 for zeros.
    pub slot: U64,
    /// For each sector of the chunk, crc32c of what the device held before.
    pub before: [U32; SECTORS],
}
const _: () = assert!(ENTRY_LEN == 64);

pub(crate) const DATA: u32 = 1;
pub(crate) const ZERO: u32 = 2;

impl Header {
    pub(crate) fn computed_checksum(&self) -> u32 {
        let mut copy = self.clone();
        copy.checksum = 0.into();
        crc32c::crc32c(copy.as_bytes())
    }
}
