//! The structures of LVM2 on the disk: lvm2 `lib/label/label.h` and `lib/format_text/layout.h`. All little-endian.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The label: at the start of one of the first four sectors.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LabelHeader {
    /// `LABELONE`.
    pub(crate) id: [u8; 8],
    /// The sector that it is in.
    pub(crate) sector: U64,
    /// Of what follows, to the sector's end.
    pub(crate) crc: U32,
    /// Where the physical volume's header is in the sector.
    pub(crate) offset: U32,
    /// `LVM2 001`.
    pub(crate) type_name: [u8; 8],
}

/// The header of a physical volume. Lists of [`DiskLocation`] follow: data areas and metadata areas.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PvHeader {
    /// 32 characters, without hyphens.
    pub(crate) uuid: [u8; 32],
    pub(crate) device_size: U64,
}

/// A range of a physical volume. A list of them is ended by one of zeros.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DiskLocation {
    pub(crate) offset: U64,
    pub(crate) size: U64,
}

/// The header of a metadata area: its first 512 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MdaHeader {
    /// Of what follows, to the end of the 512 bytes.
    pub(crate) checksum: U32,
    /// ` LVM2 x[5A%r0N*>`.
    pub(crate) magic: [u8; 16],
    /// 1.
    pub(crate) version: U32,
    /// Where the area is on the physical volume.
    pub(crate) start: U64,
    pub(crate) size: U64,
    /// Ended by one of zeros. The first is what counts.
    pub(crate) raw_locations: [RawLocation; 4],
}

/// Where in a metadata area one version of the text is.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawLocation {
    pub(crate) offset: U64,
    pub(crate) size: U64,
    pub(crate) checksum: U32,
    pub(crate) flags: U32,
}

const _: () = {
    assert!(size_of::<LabelHeader>() == 32);
    assert!(std::mem::offset_of!(LabelHeader, crc) == 16);
    assert!(size_of::<PvHeader>() == 40);
    assert!(size_of::<RawLocation>() == 24);
    assert!(std::mem::offset_of!(MdaHeader, raw_locations) == 40);
    assert!(size_of::<MdaHeader>() == 136);
};

/// CRC-32 with LVM2's own start, and without the inversion at the end.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    const INITIAL: u32 = 0xf597_a6cf;
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL);
    hasher.update(bytes);
    !hasher.finalize()
}
