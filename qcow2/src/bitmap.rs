//! The directory of persistent bitmaps: which there are, and where their bits are.
//!
//! Specification: "Bitmaps".

use block::Storage;
use byteorder::{BigEndian, ByteOrder};

use crate::geometry::Geometry;
use crate::header_extension::BitmapsExtension;
use crate::read::read_structure;
use crate::{Error, Result, limits};

/// A persistent bitmap: it tells which parts of the disk were written since it was made or cleared.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bitmap {
    /// Its name, unique in the image.
    pub name: String,
    /// Bytes of the disk that each bit stands for: a power of two.
    pub granularity: u64,
    /// Whoever used it last did not store it, so its bits mean nothing.
    #[serde(skip)]
    pub in_use: bool,
    /// Whether whoever writes the disk has to set its bits.
    #[serde(skip)]
    pub enabled: bool,
    #[serde(skip)]
    pub(crate) table_offset: u64,
    #[serde(skip)]
    pub(crate) table_entries: u64,
    /// Its entry in the directory, every byte of it but the padding.
    #[serde(skip)]
    pub(crate) entry: Vec<u8>,
}

const FIXED_LEN: usize = 24;
const IN_USE: u32 = 1 << 0;
const AUTO: u32 = 1 << 1;
/// The extra data may be ignored by who does not know it.
const EXTRA_COMPATIBLE: u32 = 1 << 2;
const DIRTY_TRACKING: u8 = 1;
/// log2 of the least and the greatest granularity.
pub(crate) const GRANULARITY_BITS: std::ops::RangeInclusive<u32> = 9..=31;
pub(crate) const NAME_MAX: usize = 1023;

impl Bitmap {
    /// A new one, enabled, whose table is nowhere yet.
    pub(crate) fn new(name: &str, granularity_bits: u32) -> Self {
        let mut entry = vec![0; FIXED_LEN];
        entry[16] = DIRTY_TRACKING;
        entry[17] = granularity_bits as u8;
        BigEndian::write_u16(&mut entry[18..], name.len() as u16);
        entry.extend(name.bytes());
        let mut bitmap = Self {
            name: name.to_owned(),
            granularity: 1 << granularity_bits,
            in_use: false,
            enabled: true,
            table_offset: 0,
            table_entries: 0,
            entry,
        };
        bitmap.set_enabled(true);
        bitmap
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        let flags = BigEndian::read_u32(&self.entry[12..]);
        BigEndian::write_u32(&mut self.entry[12..], if enabled { flags | AUTO } else { flags & !AUTO });
    }

    pub(crate) fn set_table(&mut self, offset: u64, entries: u64) {
        (self.table_offset, self.table_entries) = (offset, entries);
        BigEndian::write_u64(&mut self.entry[0..], offset);
        // At most `limits::BITMAP_TABLE_BYTES`, so it fits.
        BigEndian::write_u32(&mut self.entry[8..], entries as u32);
    }

    pub(crate) fn read_table(&self, storage: &dyn Storage) -> Result<Vec<u64>> {
        let bytes = read_structure(storage, self.table_offset, self.table_entries * 8)?;
        let mut table = vec![0; bytes.len() / 8];
        BigEndian::read_u64_into(&bytes, &mut table);
        Ok(table)
    }
}

/// Reads the directory that the header's extension leads to.
pub(crate) fn read_directory(
    storage: &dyn Storage,
    geometry: &Geometry,
    extension: &BitmapsExtension,
) -> Result<Vec<Bitmap>> {
    let (start, len) = (extension.directory_offset, extension.directory_len);
    if extension.count > limits::BITMAPS || len > limits::BITMAP_DIRECTORY_BYTES || !geometry.is_aligned(start) {
        let found = format!(
            "it must be aligned and hold at most 65535 bitmaps in 64 MiB, found {} in {len} bytes",
            extension.count
        );
        return Err(Error::corrupt("bitmap directory", start, found));
    }
    if extension.count == 0 || extension.reserved != 0 {
        let found = format!("found {} bitmaps, and {:#x} where 0 is reserved", extension.count, extension.reserved);
        return Err(Error::corrupt("bitmaps extension", start, format!("it must name at least one bitmap: {found}")));
    }
    let directory = read_structure(storage, start, len)?;
    let mut rest = &directory[..];
    let mut bitmaps = Vec::new();
    for _ in 0..extension.count {
        let at = start + (directory.len() - rest.len()) as u64;
        let corrupt = |expected: &str| Error::corrupt("bitmap directory entry", at, expected);
        let fixed = rest.get(..FIXED_LEN).ok_or_else(|| corrupt("must lie within the directory"))?;
        let table_offset = BigEndian::read_u64(&fixed[0..]);
        let table_entries = u64::from(BigEndian::read_u32(&fixed[8..]));
        let flags = BigEndian::read_u32(&fixed[12..]);
        let granularity_bits = u32::from(fixed[17]);
        let name_len = usize::from(BigEndian::read_u16(&fixed[18..]));
        let extra_len = u64::from(BigEndian::read_u32(&fixed[20..]));
        if table_entries * 8 > limits::BITMAP_TABLE_BYTES || !geometry.is_aligned(table_offset) {
            return Err(corrupt("the bitmap's table must be aligned and take at most 16 MiB"));
        }
        if !GRANULARITY_BITS.contains(&granularity_bits) {
            return Err(corrupt("a bit must stand for 2^9 to 2^31 bytes"));
        }
        if flags & !(IN_USE | AUTO | EXTRA_COMPATIBLE) != 0 || fixed[16] != DIRTY_TRACKING || name_len == 0 {
            return Err(corrupt("there must be a name, no reserved flag, and the type 1"));
        }
        let names_at = (FIXED_LEN as u64).saturating_add(extra_len).min(len) as usize;
        let entry_len = names_at + name_len;
        let entry = rest.get(..entry_len).ok_or_else(|| corrupt("must lie within the directory"))?;
        bitmaps.push(Bitmap {
            name: String::from_utf8_lossy(&entry[names_at..]).into_owned(),
            granularity: 1 << granularity_bits,
            in_use: flags & IN_USE != 0,
            enabled: flags & AUTO != 0,
            table_offset,
            table_entries,
            entry: entry.to_vec(),
        });
        rest = rest.get(entry_len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(bitmaps)
}

/// The directory with these entries.
pub(crate) fn encode_directory(bitmaps: &[Bitmap]) -> Vec<u8> {
    let mut directory = Vec::new();
    for bitmap in bitmaps {
        directory.extend(&bitmap.entry);
        directory.resize(directory.len().next_multiple_of(8), 0);
    }
    directory
}
