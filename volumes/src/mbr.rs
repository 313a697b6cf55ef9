//! Master boot records and the chain of extended ones: UEFI specification 2.10, section 5.2; Linux
//! `block/partitions/msdos.c`.

use std::ops::Range;

use block::{ReadAt, read_vec};
use zerocopy::FromBytes;

use crate::Volume;
use crate::error::Result;
use crate::layout::{Mbr, MbrEntry};

/// Sectors of an MBR are counted in this many bytes.
const SECTOR: u64 = 512;
/// Logical partitions that are looked for; also what ends a chain that turns back on itself.
const MAX_LOGICAL: usize = 256;
const PROTECTIVE: u8 = 0xee;
const DYNAMIC: u8 = 0x42;
const FIRST_LOGICAL: u32 = 5;

/// What the first sector says.
#[derive(Debug)]
pub(crate) struct Record {
    entries: [MbrEntry; 4],
    disk_signature: u32,
}

impl Record {
    /// Reads the first sector; `None` where there is no boot record, or one whose entries are code or text.
    pub(crate) fn read(disk: &dyn ReadAt) -> Result<Option<Self>> {
        Ok(read_record(disk, 0)?
            .filter(is_table)
            .map(|mbr| Self { entries: mbr.partition_record, disk_signature: mbr.unique_mbr_disk_signature.get() }))
    }

    /// Whether it says that there is a GUID partition table.
    pub(crate) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.os_type == PROTECTIVE)
    }

    /// How many partitions it has beside the one that stands for a GUID partition table.
    pub(crate) fn partition_count(&self) -> usize {
        self.entries.iter().filter(|entry| is_used(entry) && entry.os_type != PROTECTIVE).count()
    }

    /// Whether its first partition starts at sector 0: then it is a pretence that some tools write into the first
    /// sector of a FAT file system that covers the whole disk.
    pub(crate) fn covers_itself(&self) -> bool {
        is_used(&self.entries[0]) && self.entries[0].starting_lba.get() == 0
    }

    /// Where the disk may be divided, in bytes, if nothing but its partitions is on it: a dynamic disk of Windows keeps
    /// its database at the end.
    pub(crate) fn usable(&self, disk: &dyn ReadAt) -> Range<u64> {
        if self.entries.iter().any(|entry| is_used(entry) && entry.os_type == DYNAMIC) {
            0..0
        } else {
            SECTOR..disk.len()
        }
    }

    /// The extended partitions, in bytes: between the logical ones there are records.
    pub(crate) fn extended(&self) -> impl Iterator<Item = Range<u64>> {
        let extended = self.entries.iter().filter(|entry| is_used(entry) && is_extended(entry.os_type));
        extended.map(|entry| {
            let (start, len) = (u64::from(entry.starting_lba.get()), u64::from(entry.size_in_lba.get()));
            start * SECTOR..(start + len) * SECTOR
        })
    }

    /// All partitions, the logical ones last.
    pub(crate) fn volumes(&self, disk: &dyn ReadAt, warnings: &mut Vec<String>) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        let mut logical = Vec::new();
        for (number, entry) in (1..).zip(&self.entries) {
            if !is_used(entry) || entry.os_type == PROTECTIVE {
                continue;
            }
            if is_extended(entry.os_type) {
                self.read_chain(disk, entry, &mut logical, warnings)?;
            } else {
                let first = u64::from(entry.starting_lba.get());
                volumes.extend(self.volume(disk, number, first, entry, warnings));
            }
        }
        volumes.append(&mut logical);
        Ok(volumes)
    }

    /// Follows the chain of an extended partition: each record has one partition, relative to the record, and the next
    /// record, relative to the extended partition.
    fn read_chain(
        &self,
        disk: &dyn ReadAt,
        extended: &MbrEntry,
        volumes: &mut Vec<Volume>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let base = u64::from(extended.starting_lba.get());
        let end = base + u64::from(extended.size_in_lba.get());
        let mut at = base;
        let mut seen = Vec::new();
        loop {
            if seen.contains(&at) || seen.len() >= MAX_LOGICAL {
                warnings.push(format!("the chain of logical partitions turns back to sector {at}, or has no end"));
                return Ok(());
            }
            seen.push(at);
            let Some(record) = read_record(disk, at)? else {
                warnings.push(format!("no extended boot record at sector {at}: the chain of partitions ends there"));
                return Ok(());
            };
            let mut next = None;
            for entry in record.partition_record.iter().filter(|entry| is_used(entry)) {
                let relative = u64::from(entry.starting_lba.get());
                if is_extended(entry.os_type) {
                    next = next.or(Some(base + relative));
                } else if volumes.len() < MAX_LOGICAL {
                    let number = FIRST_LOGICAL + volumes.len() as u32;
                    volumes.extend(self.volume(disk, number, at + relative, entry, warnings));
                }
            }
            match next {
                Some(next) if (base..end).contains(&next) => at = next,
                Some(next) => {
                    warnings.push(format!("the chain of logical partitions leads to sector {next}, out of its bounds"));
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    fn volume(
        &self,
        disk: &dyn ReadAt,
        number: u32,
        first: u64,
        entry: &MbrEntry,
        warnings: &mut Vec<String>,
    ) -> Option<Volume> {
        // Both fit: a sector's number has 34 bits at most.
        let (start, mut len) = (first * SECTOR, u64::from(entry.size_in_lba.get()) * SECTOR);
        if start == 0 || start >= disk.len() {
            warnings.push(format!("MBR partition {number} starts at sector {first}, which is not its own: ignored"));
            return None;
        }
        if len > disk.len() - start {
            warnings.push(format!("MBR partition {number} is longer than the disk: cut short"));
            len = disk.len() - start;
        }
        Some(Volume {
            name: format!("mbr:{number}"),
            number: Some(number),
            start,
            len,
            type_guid: None,
            type_byte: Some(entry.os_type),
            part_uuid: (self.disk_signature != 0).then(|| format!("{:08x}-{number:02x}", self.disk_signature)),
            part_label: None,
            logical: None,
        })
    }
}

fn read_record(disk: &dyn ReadAt, lba: u64) -> Result<Option<Mbr>> {
    let Some(offset) = lba.checked_mul(SECTOR) else { return Ok(None) };
    if block::Error::check_range(offset, SECTOR, disk.len()).is_err() {
        return Ok(None);
    }
    let bytes = read_vec(disk, offset, SECTOR)?;
    Ok(Mbr::read_from_bytes(&bytes).ok().filter(|mbr| mbr.signature.get() == 0xaa55))
}

/// Whether the place of the entries holds entries, and not a boot loader's code, as in a FAT boot sector.
fn is_table(mbr: &Mbr) -> bool {
    mbr.partition_record.iter().all(|entry| matches!(entry.boot_indicator, 0 | 0x80))
}

fn is_used(entry: &MbrEntry) -> bool {
    entry.os_type != 0 && entry.size_in_lba.get() != 0
}

fn is_extended(os_type: u8) -> bool {
    matches!(os_type, 0x05 | 0x0f | 0x85)
}
