//! The structures of partition tables on the disk: UEFI specification 2.10, sections 5.2 (MBR) and 5.3 (GPT).

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One of the four entries of a master boot record, or of an extended boot record.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MbrEntry {
    /// 0x80 for the one to boot from, otherwise 0.
    pub(crate) boot_indicator: u8,
    pub(crate) starting_chs: [u8; 3],
    pub(crate) os_type: u8,
    pub(crate) ending_chs: [u8; 3],
    pub(crate) starting_lba: U32,
    pub(crate) size_in_lba: U32,
}

/// A master boot record, or an extended boot record.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Mbr {
    pub(crate) boot_code: [u8; 440],
    pub(crate) unique_mbr_disk_signature: U32,
    pub(crate) unknown: U16,
    pub(crate) partition_record: [MbrEntry; 4],
    /// 0xaa55.
    pub(crate) signature: U16,
}

/// The header of a GUID partition table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GptHeader {
    /// `EFI PART`.
    pub(crate) signature: [u8; 8],
    pub(crate) revision: U32,
    pub(crate) header_size: U32,
    pub(crate) header_crc32: U32,
    pub(crate) reserved: U32,
    pub(crate) my_lba: U64,
    pub(crate) alternate_lba: U64,
    pub(crate) first_usable_lba: U64,
    pub(crate) last_usable_lba: U64,
    pub(crate) disk_guid: [u8; 16],
    pub(crate) partition_entry_lba: U64,
    pub(crate) number_of_partition_entries: U32,
    pub(crate) size_of_partition_entry: U32,
    pub(crate) partition_entry_array_crc32: U32,
}

/// An entry of a GUID partition table.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GptEntry {
    /// All zeros: the entry is not used.
    pub(crate) partition_type_guid: [u8; 16],
    pub(crate) unique_partition_guid: [u8; 16],
    pub(crate) starting_lba: U64,
    /// Inclusive.
    pub(crate) ending_lba: U64,
    pub(crate) attributes: U64,
    /// UTF-16, ended by a NUL where it is shorter.
    pub(crate) partition_name: [U16; 36],
}

const _: () = {
    assert!(size_of::<MbrEntry>() == 16);
    assert!(size_of::<Mbr>() == 512);
    assert!(std::mem::offset_of!(Mbr, partition_record) == 446);
    assert!(size_of::<GptHeader>() == 92);
    assert!(std::mem::offset_of!(GptHeader, partition_entry_lba) == 72);
    assert!(size_of::<GptEntry>() == 128);
    assert!(std::mem::offset_of!(GptEntry, partition_name) == 56);
};
