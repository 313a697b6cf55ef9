//! The first cluster rewritten: header, extensions and the backing file's name, switched by one sector.
//!
//! All that matters of the new header and its extensions goes to the first 512 bytes, which a commit writes at once. The
//! backing file's name may lie behind them, where nothing was: it is written before. The table of feature names, which
//! only serves messages, and is long, is put behind the other extensions once the switch is made.
//!
//! Specification: "Header", "Header extensions".

use block::{ReadAt, Storage};

use crate::backing::BackingName;
use crate::features::Compatible;
use crate::header::{self, Header};
use crate::header_extension::{self, BitmapsExtension, Extensions};
use crate::image::Image;
use crate::{Error, Result, limits};

const SECTOR: usize = 512;
/// What ends the extensions: type and length 0.
const END_LEN: u64 = 8;

/// What the first cluster is to say, beside what every commit writes.
#[derive(Debug, Clone)]
pub(crate) struct HeaderArea {
    pub(crate) version: u32,
    pub(crate) compatible: Compatible,
    /// Type and data of each extension, in order; without the table of feature names.
    pub(crate) extensions: Vec<(u32, Vec<u8>)>,
    pub(crate) backing: Option<BackingName>,
    /// The first sector as it is.
    sector: [u8; SECTOR],
    feature_names: Option<Vec<u8>>,
}

impl HeaderArea {
    /// What the image says now.
    pub(crate) fn read(image: &Image) -> Result<Self> {
        let state = image.state();
        let header = &state.header;
        let mut sector = [0; SECTOR];
        let len = image.storage.len().min(SECTOR as u64) as usize;
        image.storage.read_at(0, &mut sector[..len])?;
        let cluster = image.geometry.cluster_size().min(image.storage.len());
        let first = block::read_vec(&*image.storage, 0, cluster)?;
        let end = header.backing_name.map_or(first.len(), |(offset, _)| offset as usize);
        let area = first.get(header.header_len as usize..end).unwrap_or_default();
        let mut extensions = header_extension::split(area, u64::from(header.header_len))?;
        let names = extensions.iter().position(|(kind, _)| *kind == header_extension::FEATURE_NAMES);
        let feature_names = names.map(|index| extensions.remove(index).1);
        Ok(Self {
            version: header.version,
            compatible: header.compatible,
            extensions,
            backing: image.backing_name.clone(),
            sector,
            feature_names,
        })
    }

    /// Sets the data of the extension of a type, which is added where there is none, or removes it.
    pub(crate) fn set_extension(&mut self, kind: u32, data: Option<Vec<u8>>) {
        match (self.extensions.iter().position(|(found, _)| *found == kind), data) {
            (Some(index), Some(data)) => self.extensions[index].1 = data,
            (Some(index), None) => {
                self.extensions.remove(index);
            }
            (None, Some(data)) => self.extensions.push((kind, data)),
            (None, None) => {}
        }
    }

    /// Names another backing file, or none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that the format cannot hold.
    pub(crate) fn set_backing(&mut self, backing: Option<BackingName>) -> Result<()> {
        if let Some(BackingName { name, .. }) = &backing {
            check_backing_name(name)?;
        }
        let format = backing.as_ref().and_then(|backing| backing.format.clone());
        self.set_extension(header_extension::BACKING_FORMAT, format.map(String::into_bytes));
        self.backing = backing;
        Ok(())
    }

    /// Sets the byte that says how clusters are compressed; the feature bit that it needs is the caller's to set.
    pub(crate) fn set_compression_type(&mut self, byte: u8) {
        self.sector[104] = byte;
    }

    pub(crate) fn set_bitmaps(&mut self, bitmaps: Option<&BitmapsExtension>) {
        let data = bitmaps.map(|bitmaps| bitmaps.encode()[8..].to_vec());
        self.set_extension(header_extension::BITMAPS, data);
    }

    /// Lays the new first cluster out around what is there now.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the first sector, or the first cluster, has no room.
    pub(crate) fn plan(&self, image: &Image) -> Result<HeaderRewrite> {
        let no_room = || Error::Unsupported("a header with so many extensions, or such long names".to_owned());
        let cluster = image.geometry.cluster_size();
        let old = Old::of(image);
        let mut sector = self.sector;
        let header_len = match (self.version, old.version) {
            (2, _) => u64::from(header::V2_LEN),
            (_, 2) => header::RAW_LEN as u64,
            _ => old.header_len,
        };
        if self.version >= 3 && old.version < 3 {
            sector[header::V2_LEN as usize..header::RAW_LEN].fill(0);
            sector[96..100].copy_from_slice(&image.geometry.refcount_order.to_be_bytes());
            sector[100..104].copy_from_slice(&(header::RAW_LEN as u32).to_be_bytes());
        }
        let mut extensions = Vec::new();
        for (kind, data) in &self.extensions {
            extensions.extend(header_extension::encode(*kind, data));
        }
        let end = header_len + extensions.len() as u64;
        if end + END_LEN > SECTOR as u64 {
            return Err(no_room());
        }
        sector[header_len as usize..].fill(0);
        sector[header_len as usize..end as usize].copy_from_slice(&extensions);

        sector[4..8].copy_from_slice(&self.version.to_be_bytes());
        if self.version >= 3 {
            sector[80..88].copy_from_slice(&self.compatible.bits().to_be_bytes());
        }
        let name = self.backing.as_ref().map(|backing| backing.name.as_bytes());
        sector[16..20].copy_from_slice(&(name.map_or(0, <[u8]>::len) as u32).to_be_bytes());
        let mut rewrite = HeaderRewrite { sector, version: self.version, name: None, feature_names: None };
        let table = self.feature_names.as_ref().filter(|_| self.version >= 3).map(|names| {
            let mut bytes = header_extension::encode(header_extension::FEATURE_NAMES, names);
            bytes.extend([0; END_LEN as usize]);
            bytes
        });
        let with_table = |table: &Vec<u8>| end + table.len() as u64;
        let Some(name) = name else {
            rewrite.sector[8..16].fill(0);
            rewrite.feature_names =
                table.filter(|table| with_table(table) <= cluster.min(image.storage.len())).map(|table| (end, table));
            return Ok(rewrite);
        };
        // First with room for the table of feature names; without it where there is none.
        for table in [table, None] {
            let from = table.as_ref().map_or(end + END_LEN, with_table);
            let Some(at) = old.place(from, name.len() as u64, cluster) else { continue };
            rewrite.sector[8..16].copy_from_slice(&at.to_be_bytes());
            let within = at as usize;
            if within + name.len() <= SECTOR {
                rewrite.sector[within..within + name.len()].copy_from_slice(name);
            } else {
                rewrite.name = Some((at, name.to_vec()));
            }
            rewrite.feature_names = table.map(|table| (end, table));
            return Ok(rewrite);
        }
        Err(no_room())
    }
}

pub(crate) fn check_backing_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > limits::BACKING_NAME as usize {
        let most = limits::BACKING_NAME;
        return Err(Error::Invalid(format!("a backing file's name must have 1 to {most} bytes")));
    }
    Ok(())
}

/// What of the first cluster must stay until the switch.
struct Old {
    version: u32,
    header_len: u64,
    /// The end of the extensions, their end marker included.
    end: u64,
    name: Option<(u64, u64)>,
}

impl Old {
    fn of(image: &Image) -> Self {
        let state = image.state();
        let Header { version, header_len, backing_name, .. } = &state.header;
        Self {
            version: *version,
            header_len: u64::from(*header_len),
            end: image.extensions.end + END_LEN,
            name: backing_name.map(|(offset, len)| (offset, u64::from(len))),
        }
    }

    /// Where `len` bytes can be written, from `from` on: within the first sector, which is switched as a whole, or behind it
    /// where nothing is.
    fn place(&self, from: u64, len: u64, cluster: u64) -> Option<u64> {
        if from + len <= SECTOR as u64 {
            return Some(from);
        }
        let free = |at: u64| {
            let touches_name = self.name.is_some_and(|(name, name_len)| at < name + name_len && name < at + len);
            at + len <= cluster && !touches_name
        };
        let first = from.max(self.end).max(SECTOR as u64).next_multiple_of(8);
        let behind_name = self.name.map(|(name, len)| (name + len).max(first).next_multiple_of(8));
        [Some(first), behind_name].into_iter().flatten().find(|&at| free(at))
    }
}

/// The new first cluster: what is written before the switch, with it, and after it.
#[derive(Debug, Clone)]
pub(crate) struct HeaderRewrite {
    /// The first sector, but for what every commit writes into it.
    pub(crate) sector: [u8; SECTOR],
    pub(crate) version: u32,
    name: Option<(u64, Vec<u8>)>,
    /// The extension that follows the others, with a new end marker, and where the old one is.
    feature_names: Option<(u64, Vec<u8>)>,
}

impl HeaderRewrite {
    /// Writes what the new first sector will lead to. Nothing leads there so far.
    pub(crate) fn write_before(&self, storage: &dyn Storage) -> Result<()> {
        if let Some((at, name)) = &self.name {
            let end = at + name.len() as u64;
            if storage.len() < end {
                storage.set_len(end)?;
            }
            storage.write_at(*at, name)?;
        }
        Ok(())
    }

    /// Writes the table of feature names, behind the end marker first, then over it.
    pub(crate) fn write_after(&self, storage: &dyn Storage) -> Result<()> {
        if let Some((at, table)) = &self.feature_names {
            let (head, rest) = table.split_at(END_LEN as usize);
            let end = at + table.len() as u64;
            if storage.len() < end {
                storage.set_len(end)?;
            }
            storage.write_at(at + END_LEN, rest)?;
            storage.flush()?;
            storage.write_at(*at, head)?;
            storage.flush()?;
        }
        Ok(())
    }
}

impl Image {
    /// Reads the header again, after the first cluster was rewritten.
    pub(crate) fn reload_header(&mut self) -> Result<()> {
        let first = block::read_vec(&*self.storage, 0, self.geometry.cluster_size().min(self.storage.len()))?;
        let header = Header::decode(first.get(..SECTOR).unwrap_or(&first))?;
        let end = header.backing_name.map_or(first.len(), |(offset, _)| offset as usize);
        let area = first.get(header.header_len as usize..end).unwrap_or_default();
        self.extensions = Extensions::decode(area, u64::from(header.header_len))?;
        let name = header.backing_name.and_then(|(offset, len)| {
            let bytes = first.get(offset as usize..offset as usize + len as usize)?;
            String::from_utf8(bytes.to_vec()).ok()
        });
        let format = self.extensions.backing_format.clone();
        self.backing_name = name.map(|name| BackingName { name, format });
        (self.version, self.geometry) = (header.version, header.geometry);
        self.state_mut().header = header;
        Ok(())
    }
}
