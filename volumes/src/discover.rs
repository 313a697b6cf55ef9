//! Finding the volumes of a disk.

use std::ops::Range;

use block::ReadAt;

use crate::error::{Error, Result};
use crate::gpt::{self, Gpt, SECTOR_SIZES};
use crate::lvm2::{self, VolumeGroup};
use crate::mbr::Record;
use crate::probe::{ContentKind, probe};
use crate::volume::Volume;

/// How a disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// By a GUID partition table.
    Gpt,
    /// By a master boot record.
    Mbr,
    /// Not at all: the one volume is the disk.
    None,
}

/// The volumes of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How it is divided.
    pub table: Table,
    /// Its volumes: partitions in the order of their numbers, then the logical volumes that can be used.
    pub volumes: Vec<Volume>,
    /// The LVM2 volume groups that its physical volumes make.
    pub volume_groups: Vec<VolumeGroup>,
    /// The bytes of the disk that no partition and no table has, from the end of the first partition on: what lies before
    /// it is often the boot loader's. Empty where there is no table, and where anything about it is odd.
    pub unused: Vec<Range<u64>>,
    /// What is odd about the table, and did not stop the reading of it.
    pub warnings: Vec<String>,
}

/// Reads how a disk is divided. A disk without a partition table is one volume.
///
/// A GUID partition table counts where the MBR says that there is one, or where there is no MBR; its checksums are
/// verified, and the backup stands in for a damaged primary, with a warning. Partitions that do not lie on the disk are
/// left out, with a warning. So are LVM2 metadata that contradict themselves, and groups that need them.
///
/// # Errors
/// [`Error::Gpt`] where the MBR promises a GUID partition table and both copies are damaged; [`Error::Io`].
pub fn discover(disk: &dyn ReadAt) -> Result<Layout> {
    let mut warnings = Vec::new();
    let record = Record::read(disk)?;
    let promised = record.as_ref().is_some_and(Record::is_protective);
    let occupied = record.as_ref().is_some_and(|record| record.partition_count() > 0);

    if promised || !occupied {
        if let Some(gpt) = read_gpt(disk, promised, &mut warnings)? {
            if !promised {
                warnings.push("there is a GUID partition table, and no protective MBR".to_owned());
            } else if occupied {
                warnings.push("the MBR is a hybrid one: its partitions were not looked at, the GPT's were".to_owned());
            }
            warnings.extend(gpt.warnings);
            let unused = unused(disk, gpt.usable, Vec::new(), &gpt.volumes)?;
            return finish(disk, Table::Gpt, gpt.volumes, unused, warnings);
        }
    } else if SECTOR_SIZES.iter().any(|sector| matches!(gpt::has_signature(disk, *sector), Ok(true))) {
        warnings.push("there are remains of a GUID partition table; the MBR does not mention it".to_owned());
    }

    match record.filter(|record| record.partition_count() > 0) {
        Some(record) if !(record.covers_itself() && probe(disk)?.kind == ContentKind::Vfat) => {
            let volumes = record.volumes(disk, &mut warnings)?;
            // A boot sector's code may look like entries; what those then say is nonsense.
            if volumes.is_empty() && probe(disk)?.kind != ContentKind::Unknown {
                return finish(disk, Table::None, vec![whole(disk)], Vec::new(), warnings);
            }
            let unused = unused(disk, record.usable(disk), record.extended().collect(), &volumes)?;
            finish(disk, Table::Mbr, volumes, unused, warnings)
        }
        _ => finish(disk, Table::None, vec![whole(disk)], Vec::new(), warnings),
    }
}

/// Reads the GUID partition table for either size of a sector, if there is one.
fn read_gpt(disk: &dyn ReadAt, promised: bool, warnings: &mut Vec<String>) -> Result<Option<Gpt>> {
    let mut failure = None;
    for sector in SECTOR_SIZES {
        let primary = match gpt::read_primary(disk, sector)? {
            Ok(gpt) => return Ok(Some(gpt)),
            Err(corrupt) => corrupt,
        };
        // Without a word in the MBR it takes more than a backup, which may be all that is left of an old table.
        if !promised && !gpt::has_signature(disk, sector)? {
            continue;
        }
        match gpt::read_backup(disk, sector)? {
            Ok(gpt) => {
                warnings.push(format!("the primary GUID partition table is damaged ({primary}): its backup is used"));
                return Ok(Some(gpt));
            }
            Err(backup) => {
                // Of two sizes the one that has a signature tells more.
                let is_there = gpt::has_signature(disk, sector)? || gpt::has_backup_signature(disk, sector)?;
                if failure.is_none() || is_there {
                    failure = Some(Error::Gpt { primary, backup });
                }
            }
        }
    }
    match failure {
        Some(error) if promised => Err(error),
        Some(error) => {
            warnings.push(error.to_string());
            Ok(None)
        }
        None => Ok(None),
    }
}

/// What lies between the partitions and after them, within `usable`.
fn unused(
    disk: &dyn ReadAt,
    usable: Range<u64>,
    mut taken: Vec<Range<u64>>,
    volumes: &[Volume],
) -> Result<Vec<Range<u64>>> {
    // A RAID keeps what it knows at the end of the whole disk.
    if volumes.is_empty() || probe(disk)?.kind != ContentKind::Unknown {
        return Ok(Vec::new());
    }
    taken.extend(volumes.iter().map(|volume| volume.start..volume.start.saturating_add(volume.len)));
    taken.sort_by_key(|range| range.start);
    let mut unused = Vec::new();
    let mut end = taken.first().map_or(usable.end, |first| first.end).max(usable.start);
    for range in taken.into_iter().skip(1).chain(std::iter::once(usable.end..usable.end)) {
        let start = range.start.min(usable.end);
        if start > end {
            unused.push(end..start);
        }
        end = end.max(range.end);
    }
    Ok(unused)
}

fn finish(
    disk: &dyn ReadAt,
    table: Table,
    mut volumes: Vec<Volume>,
    mut unused: Vec<Range<u64>>,
    mut warnings: Vec<String>,
) -> Result<Layout> {
    let mut odd = !warnings.is_empty();
    let mut by_start: Vec<&Volume> = volumes.iter().collect();
    by_start.sort_by_key(|volume| volume.start);
    // The one that reaches furthest of those that start before.
    let mut furthest: Option<&Volume> = None;
    for volume in by_start {
        match furthest {
            Some(other) if volume.start < other.start + other.len => {
                warnings.push(format!("{} and {} overlap", other.name, volume.name));
                odd = true;
                if volume.start + volume.len > other.start + other.len {
                    furthest = Some(volume);
                }
            }
            _ => furthest = Some(volume),
        }
    }
    let found = lvm2::discover(disk, &volumes)?;
    volumes.extend(found.volumes);
    warnings.extend(found.warnings);
    if odd {
        unused.clear();
    }
    Ok(Layout { table, volumes, volume_groups: found.groups, unused, warnings })
}

fn whole(disk: &dyn ReadAt) -> Volume {
    Volume {
        name: "disk".to_owned(),
        number: None,
        start: 0,
        len: disk.len(),
        type_guid: None,
        type_byte: None,
        part_uuid: None,
        part_label: None,
        logical: None,
    }
}
