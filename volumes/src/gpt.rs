//! GUID partition tables: UEFI specification 2.10, section 5.3; Linux `block/partitions/efi.c`.

use std::ops::Range;

use block::{ReadAt, read_vec};
use uuid::Uuid;
use zerocopy::FromBytes;

use crate::Volume;
use crate::error::{Corrupt, Result};
use crate::layout::{GptEntry, GptHeader};

/// The sizes of a sector that a table may be written for.
pub(crate) const SECTOR_SIZES: [u64; 2] = [512, 4096];

const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Limits on what a header may ask for. The specification has 128 entries of 128 bytes as the least and common case.
const MAX_ENTRY_SIZE: u32 = 4096;
const MAX_ENTRIES: u32 = 4096;
const MAX_ARRAY: u64 = 1 << 20;

/// A copy of the table whose checksums are right.
#[derive(Debug)]
pub(crate) struct Gpt {
    pub(crate) volumes: Vec<Volume>,
    /// Where partitions may lie, in bytes: nothing of the table itself is there. Empty where the two copies of the
    /// table do not say so with one voice.
    pub(crate) usable: Range<u64>,
    pub(crate) warnings: Vec<String>,
}

/// Whether there is a header, right or wrong, at sector 1 for this sector size.
pub(crate) fn has_signature(disk: &dyn ReadAt, sector: u64) -> Result<bool> {
    if disk.len() < sector * 2 {
        return Ok(false);
    }
    Ok(read_vec(disk, sector, 8)? == SIGNATURE)
}

/// Whether there is a header, right or wrong, in the last sector for this sector size.
pub(crate) fn has_backup_signature(disk: &dyn ReadAt, sector: u64) -> Result<bool> {
    match last_lba(disk, sector) {
        Some(lba) if lba > 1 => Ok(read_vec(disk, lba * sector, 8)? == SIGNATURE),
        _ => Ok(false),
    }
}

/// Reads the primary table.
pub(crate) fn read_primary(disk: &dyn ReadAt, sector: u64) -> Result<Result<Gpt, Corrupt>> {
    read_copy(disk, sector, 1)
}

/// Reads the backup table: where the primary header says it is, if that header is right, and else at the disk's end.
pub(crate) fn read_backup(disk: &dyn ReadAt, sector: u64) -> Result<Result<Gpt, Corrupt>> {
    let last = last_lba(disk, sector).unwrap_or(0);
    if let Ok(header) = read_header(disk, sector, 1)? {
        let lba = header.alternate_lba.get();
        if lba != last
            && let Ok(gpt) = read_copy(disk, sector, lba)?
        {
            return Ok(Ok(gpt));
        }
    }
    read_copy(disk, sector, last)
}

pub(crate) fn last_lba(disk: &dyn ReadAt, sector: u64) -> Option<u64> {
    (disk.len() / sector).checked_sub(1)
}

fn read_copy(disk: &dyn ReadAt, sector: u64, lba: u64) -> Result<Result<Gpt, Corrupt>> {
    let header = match read_header(disk, sector, lba)? {
        Ok(header) => header,
        Err(corrupt) => return Ok(Err(corrupt)),
    };
    let bytes = match read_entries(disk, sector, lba, &header)? {
        Ok(bytes) => bytes,
        Err(corrupt) => return Ok(Err(corrupt)),
    };
    let usable = usable(disk, sector, &header)?;
    let mut gpt = Gpt { volumes: Vec::new(), usable, warnings: Vec::new() };
    // The header was checked: the size is no less than an entry's.
    let size = header.size_of_partition_entry.get() as usize;
    for (number, entry) in (1..).zip(bytes.chunks_exact(size)) {
        let Ok((entry, _)) = GptEntry::ref_from_prefix(entry) else { continue };
        if entry.partition_type_guid != [0; 16] {
            match volume(number, entry, sector, disk.len()) {
                Some(volume) => gpt.volumes.push(volume),
                None => gpt.warnings.push(format!(
                    "GPT partition {number} covers sectors {} to {}, which are not on the disk: ignored",
                    entry.starting_lba, entry.ending_lba
                )),
            }
        }
    }
    Ok(Ok(gpt))
}

/// The sectors that a header calls usable, in bytes, where its twin agrees and both tables lie outside.
fn usable(disk: &dyn ReadAt, sector: u64, header: &GptHeader) -> Result<Range<u64>> {
    let Ok(twin) = read_header(disk, sector, header.alternate_lba.get())? else { return Ok(0..0) };
    let (first, last) = (header.first_usable_lba.get(), header.last_usable_lba.get());
    let agrees = twin.first_usable_lba.get() == first && twin.last_usable_lba.get() == last;
    let is_outside = |header: &GptHeader| {
        let bytes = u64::from(header.number_of_partition_entries.get())
            .saturating_mul(header.size_of_partition_entry.get().into());
        let start = header.partition_entry_lba.get();
        let end = start.saturating_add(bytes.div_ceil(sector));
        let own = header.my_lba.get();
        (end <= first || start > last) && (own < first || own > last)
    };
    let bytes = first.checked_mul(sector).zip(last.checked_add(1).and_then(|end| end.checked_mul(sector)));
    Ok(match bytes {
        Some((start, end)) if agrees && is_outside(header) && is_outside(&twin) && end <= disk.len() => start..end,
        _ => 0..0,
    })
}

/// Reads and checks the header at a sector. The outer error is the device's.
pub(crate) fn read_header(disk: &dyn ReadAt, sector: u64, lba: u64) -> Result<Result<GptHeader, Corrupt>> {
    let end = disk.len() / sector;
    let Some(offset) = lba.checked_mul(sector).filter(|_| lba > 0 && lba < end) else {
        let expected = format!("a sector from 1 to {}", end.saturating_sub(1));
        return Ok(Err(Corrupt { offset: 0, field: "the header's sector", found: lba, expected }));
    };
    let bytes = read_vec(disk, offset, sector)?;
    Ok(check_header(&bytes, offset, lba))
}

fn check_header(bytes: &[u8], offset: u64, lba: u64) -> Result<GptHeader, Corrupt> {
    let wrong =
        |field, found: u64, expected: &str| Err(Corrupt { offset, field, found, expected: expected.to_owned() });
    let Ok((header, _)) = GptHeader::read_from_prefix(bytes) else {
        return wrong("the sector's length", bytes.len() as u64, "92 or more");
    };
    if header.signature != *SIGNATURE {
        return wrong("Signature", u64::from_le_bytes(header.signature), "EFI PART");
    }
    let size = header.header_size.get();
    let Some(covered) = usize::try_from(size).ok().filter(|size| *size >= 92).and_then(|size| bytes.get(..size)) else {
        return wrong("HeaderSize", size.into(), "92 to a sector's length");
    };
    // The checksum is over the header with the checksum itself as zeros.
    let mut covered = covered.to_vec();
    covered[16..20].fill(0);
    let crc = crc32fast::hash(&covered);
    if header.header_crc32.get() != crc {
        return wrong("HeaderCRC32", header.header_crc32.get().into(), &crc.to_string());
    }
    if header.my_lba.get() != lba {
        return wrong("MyLBA", header.my_lba.get(), &lba.to_string());
    }
    Ok(header)
}

/// Reads and checks the array of entries.
pub(crate) fn read_entries(
    disk: &dyn ReadAt,
    sector: u64,
    lba: u64,
    header: &GptHeader,
) -> Result<Result<Vec<u8>, Corrupt>> {
    let offset = lba.saturating_mul(sector);
    let wrong = |field, found: u64, expected: String| Ok(Err(Corrupt { offset, field, found, expected }));
    let size = header.size_of_partition_entry.get();
    if !(128..=MAX_ENTRY_SIZE).contains(&size) || !size.is_power_of_two() {
        return wrong("SizeOfPartitionEntry", size.into(), format!("a power of two from 128 to {MAX_ENTRY_SIZE}"));
    }
    let count = header.number_of_partition_entries.get();
    let len = u64::from(count) * u64::from(size);
    if count > MAX_ENTRIES || len > MAX_ARRAY {
        return wrong("NumberOfPartitionEntries", count.into(), format!("at most {MAX_ENTRIES}, in {MAX_ARRAY} bytes"));
    }
    let first = header.partition_entry_lba.get();
    let Some(start) = first
        .checked_mul(sector)
        .filter(|start| first > 1 && start.checked_add(len).is_some_and(|end| end <= disk.len()))
    else {
        return wrong("PartitionEntryLBA", first, "a sector from 2 on, with the array inside the disk".to_owned());
    };
    let bytes = read_vec(disk, start, len)?;
    let (found, crc) = (header.partition_entry_array_crc32.get(), crc32fast::hash(&bytes));
    if found != crc {
        return wrong("PartitionEntryArrayCRC32", found.into(), crc.to_string());
    }
    Ok(Ok(bytes))
}

/// The volume that an entry describes, if it is on the disk.
fn volume(number: u32, entry: &GptEntry, sector: u64, disk_len: u64) -> Option<Volume> {
    let (first, last) = (entry.starting_lba.get(), entry.ending_lba.get());
    let start = first.checked_mul(sector)?;
    let len = last.checked_sub(first)?.checked_add(1)?.checked_mul(sector)?;
    start.checked_add(len).filter(|end| start > 0 && *end <= disk_len)?;
    let name: Vec<u16> = entry.partition_name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
    Some(Volume {
        name: format!("gpt:{number}"),
        number: Some(number),
        start,
        len,
        type_guid: Some(Uuid::from_bytes_le(entry.partition_type_guid)),
        type_byte: None,
        part_uuid: Some(Uuid::from_bytes_le(entry.unique_partition_guid).to_string()),
        part_label: Some(String::from_utf16_lossy(&name)).filter(|name| !name.is_empty()),
        logical: None,
    })
}
