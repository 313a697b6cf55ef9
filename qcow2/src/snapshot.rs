//! The table of internal snapshots: which there are, and what they hold on to.
//!
//! Specification: "Snapshots".

use std::time::Duration;

use block::Storage;
use byteorder::{BigEndian, ByteOrder};

use crate::geometry::Geometry;
use crate::header::Roots;
use crate::read::read_structure;
use crate::{Error, Result, limits};

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Its number, as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Seconds since the epoch at which it was made.
    #[serde(rename = "date-sec")]
    pub date_sec: u32,
    /// Nanoseconds to be added to that.
    #[serde(rename = "date-nsec")]
    pub date_nsec: u32,
    /// The guest's clock: whole seconds since it was started.
    #[serde(rename = "vm-clock-sec")]
    pub vm_clock_sec: u64,
    /// Nanoseconds to be added to that.
    #[serde(rename = "vm-clock-nsec")]
    pub vm_clock_nsec: u64,
    /// Instructions that the guest had run, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icount: Option<u64>,
    /// Bytes of virtual machine state that it holds.
    #[serde(rename = "vm-state-size")]
    pub vm_state_size: u64,
    /// Length of the disk that it holds, where it says so: version 2 need not.
    #[serde(skip)]
    pub disk_size: Option<u64>,
    #[serde(skip)]
    pub(crate) l1_offset: u64,
    #[serde(skip)]
    pub(crate) l1_entries: u32,
    /// Where its entry in the table starts and ends, padding left out.
    #[serde(skip)]
    pub(crate) entry: (u64, u64),
}

impl Snapshot {
    /// Whether the L1 table is where one can be, and no longer than one can be.
    pub(crate) fn check_l1_place(&self, geometry: &Geometry) -> Result<()> {
        let (offset, entries) = (self.l1_offset, self.l1_entries);
        if u64::from(entries) * 8 <= limits::L1_BYTES && geometry.is_aligned(offset) {
            return Ok(());
        }
        let found = format!("found {entries} entries at {offset:#x}");
        let expected = format!("a snapshot's L1 table must be aligned and at most 32 MiB, {found}");
        Err(Error::corrupt("snapshot table entry", self.entry.0, expected))
    }

    pub(crate) fn read_l1(&self, storage: &dyn Storage) -> Result<Vec<u64>> {
        let bytes = read_structure(storage, self.l1_offset, u64::from(self.l1_entries) * 8)?;
        let mut l1 = vec![0; bytes.len() / 8];
        BigEndian::read_u64_into(&bytes, &mut l1);
        Ok(l1)
    }
}

/// An entry of a snapshot table that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    bytes: Vec<u8>,
    /// Whether it is of a snapshot that is being made, and has no L1 table yet.
    pub(crate) is_new: bool,
}

impl Entry {
    /// The entry of a snapshot as it is in the file, every byte of it.
    pub(crate) fn of(snapshot: &Snapshot, storage: &dyn Storage) -> Result<Self> {
        let (start, end) = snapshot.entry;
        Ok(Self { bytes: block::read_vec(storage, start, end - start)?, is_new: false })
    }

    /// The entry of a snapshot that is to be made now.
    pub(crate) fn new(id: &str, name: &str, since_epoch: Duration, disk_len: u64) -> Result<Self> {
        let (Ok(id_len), Ok(name_len @ 0..=NAME_MAX)) = (u16::try_from(id.len()), u16::try_from(name.len())) else {
            return Err(Error::Invalid(format!("a snapshot's name must have at most {NAME_MAX} bytes")));
        };
        let seconds = u32::try_from(since_epoch.as_secs())
            .map_err(|_| Error::Invalid("a snapshot's time must lie before the year 2106".to_owned()))?;
        let mut bytes = vec![0; FIXED_LEN as usize];
        BigEndian::write_u16(&mut bytes[12..], id_len);
        BigEndian::write_u16(&mut bytes[14..], name_len);
        BigEndian::write_u32(&mut bytes[16..], seconds);
        BigEndian::write_u32(&mut bytes[20..], since_epoch.subsec_nanos());
        // Extra data: no machine's state, and the length of the disk.
        BigEndian::write_u32(&mut bytes[36..], 16);
        bytes.extend([0; 8]);
        bytes.extend(disk_len.to_be_bytes());
        bytes.extend(id.bytes().chain(name.bytes()));
        Ok(Self { bytes, is_new: true })
    }

    pub(crate) fn set_l1(&mut self, offset: u64, entries: u32) {
        BigEndian::write_u64(&mut self.bytes[0..], offset);
        BigEndian::write_u32(&mut self.bytes[8..], entries);
    }
}

/// The snapshot table with these entries.
pub(crate) fn encode_table(entries: &[Entry]) -> Vec<u8> {
    let mut table = Vec::new();
    for entry in entries {
        table.extend(&entry.bytes);
        table.resize(table.len().next_multiple_of(8), 0);
    }
    table
}

/// QEMU reads no more of a name.
const NAME_MAX: u16 = 255;

const FIXED_LEN: u64 = 40;

/// Reads the snapshot table; also tells its length in bytes.
pub(crate) fn read_table(storage: &dyn Storage, roots: &Roots, geometry: &Geometry) -> Result<(Vec<Snapshot>, u64)> {
    let (snapshots, len) = read_entries(storage, roots)?;
    snapshots.iter().try_for_each(|snapshot| snapshot.check_l1_place(geometry))?;
    Ok((snapshots, len))
}

/// Reads the snapshot table as [`read_table`] does, wherever its entries lead.
pub(crate) fn read_entries(storage: &dyn Storage, roots: &Roots) -> Result<(Vec<Snapshot>, u64)> {
    let mut snapshots = Vec::new();
    let mut at = roots.snapshots_offset;
    for _ in 0..roots.snapshots {
        let corrupt = |expected: String| Error::corrupt("snapshot table entry", at, expected);
        let mut fixed = [0; FIXED_LEN as usize];
        storage.read_at(at, &mut fixed)?;
        let l1_offset = BigEndian::read_u64(&fixed[0..]);
        let l1_entries = BigEndian::read_u32(&fixed[8..]);
        let (id_len, name_len) = (BigEndian::read_u16(&fixed[12..]), BigEndian::read_u16(&fixed[14..]));
        let extra_len = BigEndian::read_u32(&fixed[36..]);
        if extra_len > 1024 {
            return Err(corrupt(format!("there must be at most 1024 bytes of extra data, found {extra_len}")));
        }
        let extra = block::read_vec(storage, at + FIXED_LEN, u64::from(extra_len))?;
        let names_at = at + FIXED_LEN + u64::from(extra_len);
        let names = block::read_vec(storage, names_at, u64::from(id_len) + u64::from(name_len))?;
        let (id, name) = names.split_at(usize::from(id_len));
        snapshots.push(Snapshot {
            id: String::from_utf8_lossy(id).into_owned(),
            name: String::from_utf8_lossy(name).into_owned(),
            date_sec: BigEndian::read_u32(&fixed[16..]),
            date_nsec: BigEndian::read_u32(&fixed[20..]),
            vm_clock_sec: BigEndian::read_u64(&fixed[24..]) / 1_000_000_000,
            vm_clock_nsec: BigEndian::read_u64(&fixed[24..]) % 1_000_000_000,
            icount: extra.get(16..24).map(BigEndian::read_u64).filter(|&count| count != u64::MAX),
            // The first 8 bytes of extra data, where present, are the state's length in full.
            vm_state_size: match extra.first_chunk::<8>() {
                Some(size) => u64::from_be_bytes(*size),
                None => u64::from(BigEndian::read_u32(&fixed[32..])),
            },
            disk_size: extra.get(8..16).map(BigEndian::read_u64),
            l1_offset,
            l1_entries,
            entry: (at, names_at + names.len() as u64),
        });
        let end = (names_at + names.len() as u64).next_multiple_of(8);
        if end - roots.snapshots_offset > limits::SNAPSHOT_TABLE_BYTES {
            return Err(corrupt("the snapshot table must take at most 64 MiB".to_owned()));
        }
        at = end;
    }
    Ok((snapshots, at - roots.snapshots_offset))
}
