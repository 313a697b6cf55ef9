//! Removing a file from a FAT file system, which is what an EFI system partition has. Microsoft, "FAT: General Overview of
//! On-Disk Format", version 1.03; UEFI specification 2.10, section 13.3.

use block::{ReadAt, WriteAt, read_vec};

use crate::error::{Error, Result};

/// The longest table that is read: FAT32 with clusters of 4 KiB on a volume of 64 GiB.
const MAX_TABLE: u64 = 64 << 20;
/// A directory has at most this many entries.
const MAX_ENTRIES: usize = 65536;
const ENTRY: usize = 32;
const DELETED: u8 = 0xe5;
const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
/// Units of UTF-16 in one entry of a long name, by their places in it.
const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// Removes a regular file, given by the names that lead to it from the root directory, which are compared without regard
/// to case: its entry goes, its clusters are free and read as zeros. Says how long it was; `None` if there is none.
///
/// The caller's device has to make the writes one change.
///
/// # Errors
/// [`Error::Fat`], before anything is written, where the file system contradicts itself; what the device says.
pub fn remove_fat_file(device: &dyn WriteAt, path: &[&str]) -> Result<Option<u64>> {
    let fat = Fat::read(device)?;
    let mut directory = fat.root.clone();
    let Some((name, parents)) = path.split_last() else { return Ok(None) };
    for parent in parents {
        match fat.find(device, &directory, parent)? {
            Some(found) if found.attributes & DIRECTORY != 0 => directory = fat.chain(found.cluster)?,
            _ => return Ok(None),
        }
    }
    let Some(found) = fat.find(device, &directory, name)? else { return Ok(None) };
    if found.attributes & (DIRECTORY | VOLUME_LABEL) != 0 {
        return Ok(None);
    }
    let clusters = if found.cluster == 0 { Vec::new() } else { fat.chain(found.cluster)? };
    fat.remove(device, &found, &clusters)?;
    Ok(Some(found.len))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A part of a directory: where on the device it is.
type Piece = std::ops::Range<u64>;

struct Fat {
    width: Width,
    cluster_len: u64,
    /// Where cluster 2 is.
    data: u64,
    clusters: u32,
    /// Where each copy of the table is, and the first one's bytes.
    tables: Vec<u64>,
    table: Vec<u8>,
    root: Vec<Piece>,
    /// Where FAT32 keeps the count of free clusters.
    info: Option<u64>,
}

/// A file's entry, and what belongs to it.
#[derive(Debug)]
struct Found {
    /// Where on the device its entries are: those of the long name, then its own.
    places: Vec<u64>,
    attributes: u8,
    cluster: u32,
    len: u64,
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::Fat(what.into())
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes).into())
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
}

impl Fat {
    fn read(device: &dyn ReadAt) -> Result<Self> {
        let boot = read_vec(device, 0, 512.min(device.len()))?;
        let sector = le16(&boot, 11);
        let per_cluster = u64::from(boot.get(13).copied().unwrap_or(0));
        let copies = u64::from(boot.get(16).copied().unwrap_or(0));
        if ![512, 1024, 2048, 4096].contains(&sector) || !per_cluster.is_power_of_two() || !(1..=2).contains(&copies) {
            return Err(corrupt("the boot sector makes no sense"));
        }
        let either = |short: u64, long: u64| if short == 0 { long } else { short };
        let (reserved, root_entries) = (le16(&boot, 14), le16(&boot, 17));
        let total = either(le16(&boot, 19), le32(&boot, 32));
        let table_len = either(le16(&boot, 22), le32(&boot, 36)) * sector;
        let root_len = (root_entries * ENTRY as u64).next_multiple_of(sector);
        let tables: Vec<u64> = (0..copies).map(|copy| reserved * sector + copy * table_len).collect();
        let root_start = reserved * sector + copies * table_len;
        let data = root_start + root_len;
        let cluster_len = sector * per_cluster;
        let end = total * sector;
        if end > device.len() || data >= end || table_len > MAX_TABLE || table_len == 0 {
            return Err(corrupt(format!("{total} sectors with tables of {table_len} bytes do not fit")));
        }
        // What tells the widths apart is the number of clusters alone.
        let clusters = (end - data) / cluster_len;
        let width = match clusters {
            0..=4084 => Width::Fat12,
            4085..=65524 => Width::Fat16,
            _ => Width::Fat32,
        };
        let bits = match width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        if (clusters + 2) * bits > table_len * 8 || (width == Width::Fat32) != (root_entries == 0) {
            return Err(corrupt(format!("{clusters} clusters and a table of {table_len} bytes do not go together")));
        }
        let table = read_vec(device, tables[0], table_len)?;
        let info = (width == Width::Fat32)
            .then(|| le16(&boot, 48) * sector)
            .filter(|info| *info > 0 && *info < reserved * sector);
        let mut fat = Self {
            width,
            cluster_len,
            data,
            // At most the bits of a table of 64 MiB by 12.
            clusters: clusters as u32,
            tables,
            table,
            root: std::iter::once(root_start..data).collect(),
            info,
        };
        if width == Width::Fat32 {
            fat.root = fat.chain(le32(&boot, 44) as u32)?;
        }
        Ok(fat)
    }

    /// The entry of a cluster in the table.
    fn next(&self, cluster: u32) -> u32 {
        let at = cluster as usize;
        match self.width {
            Width::Fat12 => {
                let pair = le16(&self.table, at + at / 2) as u32;
                if at.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
            }
            Width::Fat16 => le16(&self.table, at * 2) as u32,
            Width::Fat32 => le32(&self.table, at * 4) as u32 & 0x0fff_ffff,
        }
    }

    fn set_free(&mut self, cluster: u32) {
        let at = cluster as usize;
        let mut put = |at: usize, mask: u8| {
            if let Some(byte) = self.table.get_mut(at) {
                *byte &= mask;
            }
        };
        match self.width {
            // Two entries share the byte in the middle.
            Width::Fat12 => {
                let masks = if at.is_multiple_of(2) { [0x00, 0xf0] } else { [0x0f, 0x00] };
                (0..).zip(masks).for_each(|(n, mask)| put(at + at / 2 + n, mask));
            }
            Width::Fat16 => (0..2).for_each(|n| put(at * 2 + n, 0)),
            // The uppermost four bits are reserved, and kept.
            Width::Fat32 => (0..4).for_each(|n| put(at * 4 + n, if n == 3 { 0xf0 } else { 0 })),
        }
    }

    /// Where on the device the clusters of a chain are.
    fn chain(&self, first: u32) -> Result<Vec<Piece>> {
        let last = match self.width {
            Width::Fat12 => 0xff8,
            Width::Fat16 => 0xfff8,
            Width::Fat32 => 0x0fff_fff8,
        };
        let mut chain = Vec::new();
        let mut cluster = first;
        while cluster < last {
            if cluster < 2 || cluster - 2 >= self.clusters {
                return Err(corrupt(format!("the chain of cluster {first} leads to cluster {cluster}")));
            }
            if chain.len() >= self.clusters as usize {
                return Err(corrupt(format!("the chain of cluster {first} does not end")));
            }
            let start = self.data + u64::from(cluster - 2) * self.cluster_len;
            chain.push(start..start + self.cluster_len);
            cluster = self.next(cluster);
        }
        Ok(chain)
    }

    fn cluster_at(&self, place: &Piece) -> u32 {
        ((place.start - self.data) / self.cluster_len) as u32 + 2
    }

    fn find(&self, device: &dyn ReadAt, directory: &[Piece], name: &str) -> Result<Option<Found>> {
        let mut long: Vec<(u64, [u8; ENTRY])> = Vec::new();
        let mut seen = 0;
        for piece in directory {
            let bytes = read_vec(device, piece.start, piece.end - piece.start)?;
            for (entry, place) in bytes.as_chunks::<ENTRY>().0.iter().zip((piece.start..).step_by(ENTRY)) {
                seen += 1;
                if entry[0] == 0 || seen > MAX_ENTRIES {
                    return Ok(None);
                }
                if entry[0] == DELETED {
                    long.clear();
                } else if entry[11] & LONG_NAME == LONG_NAME {
                    // The last part comes first.
                    if entry[0] & 0x40 != 0 {
                        long.clear();
                    }
                    long.push((place, *entry));
                } else {
                    let is_it = long_name(&long, entry).is_some_and(|long| long.eq_ignore_ascii_case(name))
                        || short_name(entry).eq_ignore_ascii_case(name);
                    if is_it && entry[11] & VOLUME_LABEL == 0 {
                        let places = long.iter().map(|(place, _)| *place).chain([place]).collect();
                        // The upper half is of FAT32; elsewhere it may hold something else.
                        let high = if self.width == Width::Fat32 { le16(entry, 20) << 16 } else { 0 };
                        let cluster = (high | le16(entry, 26)) as u32;
                        return Ok(Some(Found { places, attributes: entry[11], cluster, len: le32(entry, 28) }));
                    }
                    long.clear();
                }
            }
        }
        Ok(None)
    }

    fn remove(mut self, device: &dyn WriteAt, found: &Found, clusters: &[Piece]) -> Result<()> {
        for piece in clusters {
            self.set_free(self.cluster_at(piece));
            device.write_zeroes(piece.start, piece.end - piece.start)?;
        }
        for table in &self.tables {
            device.write_at(*table, &self.table)?;
        }
        for place in &found.places {
            // Only the first byte counts; the rest of the name need not be told to anybody.
            let mut entry = [0; ENTRY];
            entry[0] = DELETED;
            device.write_at(*place, &entry)?;
        }
        if let Some(info) = self.info {
            let mut sector = read_vec(device, info, 512)?;
            let free = le32(&sector, 488);
            let is_info = sector.starts_with(b"RRaA") && sector.get(484..488) == Some(b"rrAa");
            if is_info && free != u64::from(u32::MAX) {
                let free = (free + clusters.len() as u64).min(self.clusters.into()) as u32;
                sector[488..492].copy_from_slice(&free.to_le_bytes());
                device.write_at(info, &sector)?;
            }
        }
        Ok(())
    }
}

/// The name that the entries before a file's own spell, if they belong to it.
fn long_name(long: &[(u64, [u8; ENTRY])], own: &[u8; ENTRY]) -> Option<String> {
    let sum = own[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let belongs = |(position, (_, entry)): (usize, &(u64, [u8; ENTRY]))| {
        entry[13] == sum && usize::from(entry[0] & 0x3f) == long.len() - position
    };
    if long.is_empty() || !long.iter().enumerate().all(belongs) {
        return None;
    }
    let units = long.iter().rev().flat_map(|(_, entry)| UNITS.map(|at| le16(entry, at) as u16));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(String::from_utf16_lossy(&units))
}

/// `NAME.EXT`, without the blanks that fill it up.
fn short_name(entry: &[u8; ENTRY]) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (name, extension) = (part(&entry[..8]), part(&entry[8..11]));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}
