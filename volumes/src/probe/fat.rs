//! What starts with a boot sector of DOS: FAT, exFAT, NTFS, BitLocker. Microsoft, "FAT: General Overview of On-Disk
//! Format", and "exFAT file system specification".

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Content, ContentKind, Probe, le32, le64, text};
use crate::Result;

/// The boot sector of FAT, as far as FAT12, FAT16 and FAT32 have it in common.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BootSector {
    jump: [u8; 3],
    oem_name: [u8; 8],
    bytes_per_sector: U16,
    sectors_per_cluster: u8,
    reserved_sectors: U16,
    fats: u8,
    root_entries: U16,
    total_sectors_16: U16,
    media: u8,
    sectors_per_fat_16: U16,
    sectors_per_track: U16,
    heads: U16,
    hidden_sectors: U32,
    total_sectors_32: U32,
    /// FAT32 only.
    sectors_per_fat_32: U32,
    flags: U16,
    version: U16,
    /// FAT32 only.
    root_cluster: U32,
}

const _: () = {
    assert!(size_of::<BootSector>() == 48);
    assert!(std::mem::offset_of!(BootSector, sectors_per_fat_32) == 36);
};

/// How much of the root directory is searched for the label.
const MAX_ROOT: u64 = 16 << 10;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;

pub(super) fn fat_or_windows(device: &Probe<'_>) -> Result<Option<Content>> {
    let Some(sector) = device.read::<512>(0)? else { return Ok(None) };
    match &sector[3..11] {
        b"-FVE-FS-" => return Ok(Some(Content::plain(ContentKind::BitLocker))),
        b"EXFAT   " => return Ok(Some(Content::new(ContentKind::ExFat, serial(le32(&sector, 100)), None))),
        b"NTFS    " => {
            let serial = format!("{:016X}", le64(&sector, 72));
            return Ok(Some(Content::new(ContentKind::Ntfs, Some(serial), None)));
        }
        _ => {}
    }
    let Ok((boot, _)) = BootSector::ref_from_prefix(&sector) else { return Ok(None) };
    if sector[510..] != [0x55, 0xaa] || !is_fat(boot) {
        return Ok(None);
    }
    // FAT32 has no entries set aside for the root directory, and more fields before the serial number and the label.
    let at = if boot.root_entries == 0 { 67 } else { 39 };
    let label = match root_label(device, boot)? {
        Some(label) => Some(label),
        None => text(&sector[at + 4..at + 15]).filter(|label| label != "NO NAME"),
    };
    Ok(Some(Content::new(ContentKind::Vfat, serial(le32(&sector, at)), label)))
}

fn serial(number: u32) -> Option<String> {
    (number != 0).then(|| format!("{:04X}-{:04X}", number >> 16, number & 0xffff))
}

/// FAT has no magic number to rely on: all fields have to make sense.
fn is_fat(boot: &BootSector) -> bool {
    let fat_sectors = u32::from(boot.sectors_per_fat_16.get()).max(boot.sectors_per_fat_32.get());
    matches!(boot.jump[0], 0xeb | 0xe9)
        && matches!(boot.bytes_per_sector.get(), 512 | 1024 | 2048 | 4096)
        && boot.sectors_per_cluster.is_power_of_two()
        && boot.reserved_sectors != 0
        && matches!(boot.fats, 1 | 2)
        && boot.media >= 0xf0
        && fat_sectors != 0
        && (boot.total_sectors_16 != 0 || boot.total_sectors_32 != 0)
        && (boot.root_entries != 0 || boot.root_cluster >= 2)
}

/// The label in the root directory, which tools change, unlike the one in the boot sector.
fn root_label(device: &Probe<'_>, boot: &BootSector) -> Result<Option<String>> {
    let sector = u64::from(boot.bytes_per_sector.get());
    let cluster = sector * u64::from(boot.sectors_per_cluster);
    let sectors_per_fat = match boot.sectors_per_fat_16.get() {
        0 => u64::from(boot.sectors_per_fat_32.get()),
        sectors => sectors.into(),
    };
    let after_fats = (u64::from(boot.reserved_sectors.get()) + u64::from(boot.fats) * sectors_per_fat) * sector;
    let (start, len) = if boot.root_entries == 0 {
        (after_fats + u64::from(boot.root_cluster.get()).saturating_sub(2) * cluster, cluster)
    } else {
        (after_fats, u64::from(boot.root_entries.get()) * 32)
    };
    let Some(entries) = device.read_vec(start, len.min(MAX_ROOT))? else { return Ok(None) };
    for entry in entries.chunks_exact(32).take_while(|entry| entry[0] != 0) {
        if entry[0] != 0xe5 && entry[11] != LONG_NAME && entry[11] & VOLUME_LABEL != 0 {
            return Ok(text(&entry[..11]).filter(|label| label != "NO NAME"));
        }
    }
    Ok(None)
}
