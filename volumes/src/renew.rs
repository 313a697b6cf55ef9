//! New identities for a partition table: the disk's and the partitions' GUIDs, or the MBR's disk signature.

use std::collections::HashMap;

use block::{WriteAt, read_vec};
use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::layout::{GptEntry, GptHeader};
use crate::{Layout, RenewedId, Table, gpt};

/// Where the disk signature is in the MBR: UEFI specification 2.10, section 5.2.1.
const SIGNATURE: u64 = 440;
/// Where the unique GUID is in an entry.
const UNIQUE_GUID: std::ops::Range<usize> = 16..32;

/// Gives a disk's partition table new identities: every GUID of a GUID partition table, both copies of it, or the
/// signature of an MBR. Types, names and places of partitions stay. A disk without a table has none.
///
/// `random` fills a slice with random bytes. The caller's device has to make the writes one change.
///
/// # Errors
/// [`Error::Table`], before anything is written, where the two copies of a GUID partition table are not both whole and
/// alike. What the device says.
pub fn renew_table_ids(
    disk: &dyn WriteAt,
    layout: &Layout,
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<RenewedId>> {
    match layout.table {
        Table::None => Ok(Vec::new()),
        Table::Mbr => renew_signature(disk, layout, random),
        Table::Gpt => {
            for sector in gpt::SECTOR_SIZES {
                if gpt::has_signature(disk, sector)? {
                    return renew_guids(disk, sector, random);
                }
            }
            Err(Error::Table("its primary copy is damaged".to_owned()))
        }
    }
}

fn renew_signature(disk: &dyn WriteAt, layout: &Layout, random: &mut dyn FnMut(&mut [u8])) -> Result<Vec<RenewedId>> {
    let mut old = [0; 4];
    disk.read_at(SIGNATURE, &mut old)?;
    let mut new = old;
    // A signature of zeros says that there is none.
    while new == old || new == [0; 4] {
        random(&mut new);
    }
    disk.write_at(SIGNATURE, &new)?;
    let spell = |signature: [u8; 4]| format!("{:08x}", u32::from_le_bytes(signature));
    let (old, new) = (spell(old), spell(new));
    let mut renewed = vec![RenewedId::new("table".to_owned(), &old, &new)];
    for volume in layout.volumes.iter().filter(|volume| volume.logical.is_none()) {
        if let Some(rest) = volume.part_uuid.as_deref().and_then(|id| id.strip_prefix(&old)) {
            renewed.push(RenewedId::new(volume.name.clone(), &format!("{old}{rest}"), &format!("{new}{rest}")));
        }
    }
    Ok(renewed)
}

fn renew_guids(disk: &dyn WriteAt, sector: u64, random: &mut dyn FnMut(&mut [u8])) -> Result<Vec<RenewedId>> {
    let damaged = |copy: &str, corrupt| Error::Table(format!("its {copy} copy is damaged: {corrupt}"));
    let read = |copy: &str, lba: u64| -> Result<(GptHeader, Vec<u8>)> {
        let header = gpt::read_header(disk, sector, lba)?.map_err(|corrupt| damaged(copy, corrupt))?;
        let entries = gpt::read_entries(disk, sector, lba, &header)?.map_err(|corrupt| damaged(copy, corrupt))?;
        Ok((header, entries))
    };
    let (primary, entries) = read("primary", 1)?;
    let (backup, backup_entries) = read("backup", primary.alternate_lba.get())?;
    if entries != backup_entries || primary.disk_guid != backup.disk_guid {
        return Err(Error::Table("its two copies differ".to_owned()));
    }

    let mut new_guid = || {
        let mut bytes = [0; 16];
        random(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    };
    let old_disk = Uuid::from_bytes_le(primary.disk_guid);
    let new_disk = new_guid();
    let mut renewed = vec![RenewedId::new("table".to_owned(), &old_disk.to_string(), &new_disk.to_string())];
    // The header was checked: the size is no less than an entry's.
    let size = primary.size_of_partition_entry.get() as usize;
    let mut entries = entries;
    let mut known: HashMap<[u8; 16], Uuid> = HashMap::new();
    for (number, entry) in (1..).zip(entries.chunks_exact_mut(size)) {
        let Ok((found, _)) = GptEntry::read_from_prefix(entry) else { continue };
        if found.partition_type_guid == [0; 16] {
            continue;
        }
        // Two partitions of one GUID are wrong, but a configuration that names it goes on meaning both.
        let new = *known.entry(found.unique_partition_guid).or_insert_with(&mut new_guid);
        entry[UNIQUE_GUID].copy_from_slice(&new.to_bytes_le());
        let old = Uuid::from_bytes_le(found.unique_partition_guid).to_string();
        renewed.push(RenewedId::new(format!("gpt:{number}"), &old, &new.to_string()));
    }
    for mut header in [backup, primary] {
        header.disk_guid = new_disk.to_bytes_le();
        header.partition_entry_array_crc32 = crc32fast::hash(&entries).into();
        header.header_crc32 = 0.into();
        let at = header.my_lba.get() * sector;
        let mut bytes = read_vec(disk, at, sector)?;
        bytes[..size_of::<GptHeader>()].copy_from_slice(header.as_bytes());
        // Checked when it was read: from 92 to a sector's length.
        let sum = crc32fast::hash(&bytes[..header.header_size.get() as usize]);
        header.header_crc32 = sum.into();
        bytes[..size_of::<GptHeader>()].copy_from_slice(header.as_bytes());
        disk.write_at(header.partition_entry_lba.get() * sector, &entries)?;
        disk.write_at(at, &bytes)?;
    }
    Ok(renewed)
}
