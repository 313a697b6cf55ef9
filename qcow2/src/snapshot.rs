//! Internal snapshots, as far as they are read: which there are, and what they hold on to.
//!
//! Specification: "Snapshots".

use block::Storage;
use byteorder::{BigEndian, ByteOrder};

use crate::geometry::Geometry;
use crate::header::Roots;
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
    /// Bytes of virtual machine state that it holds.
    #[serde(rename = "vm-state-size")]
    pub vm_state_size: u64,
    #[serde(skip)]
    pub(crate) l1_offset: u64,
    #[serde(skip)]
    pub(crate) l1_entries: u32,
}

const FIXED_LEN: u64 = 40;

/// Reads the snapshot table; also tells its length in bytes.
pub(crate) fn read_table(storage: &dyn Storage, roots: &Roots, geometry: &Geometry) -> Result<(Vec<Snapshot>, u64)> {
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
        if u64::from(l1_entries) * 8 > limits::L1_BYTES || !geometry.is_aligned(l1_offset) {
            return Err(corrupt(format!(
                "a snapshot's L1 table must be aligned and at most 32 MiB, found {l1_entries} entries at {l1_offset:#x}"
            )));
        }
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
            // The first 8 bytes of extra data, where present, are the state's length in full.
            vm_state_size: match extra.first_chunk::<8>() {
                Some(size) => u64::from_be_bytes(*size),
                None => u64::from(BigEndian::read_u32(&fixed[32..])),
            },
            l1_offset,
            l1_entries,
        });
        let end = (names_at + names.len() as u64).next_multiple_of(8);
        if end - roots.snapshots_offset > limits::SNAPSHOT_TABLE_BYTES {
            return Err(corrupt("the snapshot table must take at most 64 MiB".to_owned()));
        }
        at = end;
    }
    Ok((snapshots, at - roots.snapshots_offset))
}
