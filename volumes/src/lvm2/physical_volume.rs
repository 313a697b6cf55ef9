//! A physical volume: its label, its header, and the metadata that it keeps of its group.

use block::{ReadAt, read_vec};
use zerocopy::FromBytes;

use super::config::{self, Section};
use super::layout::{DiskLocation, LabelHeader, MdaHeader, PvHeader, crc};
use crate::Volume;
use crate::error::Result;

/// Where the label may be.
const LABEL_SECTORS: u64 = 4;
pub(super) const SECTOR: u64 = 512;
/// The header of a metadata area; the ring of texts follows.
pub(super) const MDA_HEADER: u64 = 512;
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// The largest metadata that is read: real ones have some KiB.
const MAX_TEXT: u64 = 4 << 20;
/// LVM2 keeps up to two areas on a physical volume.
const MAX_AREAS: usize = 4;
/// Set on an area whose text is not kept up to date.
const IGNORED: u32 = 1;

/// What is wrong with a structure of LVM2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Corrupt(String);

impl Corrupt {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A physical volume of this disk.
#[derive(Debug)]
pub(crate) struct PhysicalVolume {
    /// 32 characters, without hyphens.
    pub(crate) id: String,
    /// The volume that it is on.
    pub(crate) volume: String,
    /// Where that starts on the disk, and how long it is.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// The sector on it that the label is in, and where in that the header is.
    pub(super) label_sector: u64,
    pub(super) header_offset: usize,
    /// Where on it the metadata areas are, and how long each is.
    pub(super) areas: Vec<(u64, u64)>,
    texts: Vec<Text>,
}

/// The metadata of a group, as one area has it.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) name: String,
    /// 32 characters, without hyphens.
    pub(crate) id: String,
    pub(crate) seqno: u64,
    /// Which command wrote it.
    pub(crate) description: String,
    pub(crate) section: Section,
}

impl PhysicalVolume {
    /// Reads label, header and metadata areas. A damaged area gives a warning: there may be another.
    pub(crate) fn read(device: &dyn ReadAt, volume: &Volume) -> Result<Result<(Self, Vec<String>), Corrupt>> {
        let mut complaint = Corrupt::new("there is no label");
        for sector in 0..LABEL_SECTORS {
            if device.len() < (sector + 1) * SECTOR {
                break;
            }
            let bytes = read_vec(device, sector * SECTOR, SECTOR)?;
            let label = match decode_label(&bytes, sector) {
                Ok(Some(label)) => label,
                Ok(None) => continue,
                Err(corrupt) => {
                    complaint = corrupt;
                    continue;
                }
            };
            let mut physical = Self {
                id: label.id,
                volume: volume.name.clone(),
                start: volume.start,
                len: volume.len,
                label_sector: sector,
                header_offset: label.header_offset,
                areas: label.metadata_areas,
                texts: Vec::new(),
            };
            let mut warnings = Vec::new();
            for &(offset, size) in &physical.areas {
                let text = match read_area(device, offset, size)? {
                    Ok(Some(text)) => decode_text(&text).map(Some),
                    Ok(None) => Ok(None),
                    Err(corrupt) => Err(corrupt),
                };
                match text {
                    Ok(text) => physical.texts.extend(text),
                    Err(corrupt) => {
                        warnings.push(format!("corrupt LVM2 metadata area at byte {offset}: {corrupt}"));
                    }
                }
            }
            return Ok(Ok((physical, warnings)));
        }
        Ok(Err(complaint))
    }

    /// What finds its extents, under another UUID.
    pub(super) fn with_id(&self, id: String) -> Self {
        Self { id, volume: self.volume.clone(), areas: Vec::new(), texts: Vec::new(), ..*self }
    }
}

struct Label {
    id: String,
    header_offset: usize,
    metadata_areas: Vec<(u64, u64)>,
}

fn decode_label(bytes: &[u8], sector: u64) -> Result<Option<Label>, Corrupt> {
    let Ok((label, _)) = LabelHeader::ref_from_prefix(bytes) else { return Ok(None) };
    if &label.id != b"LABELONE" || &label.type_name != b"LVM2 001" {
        return Ok(None);
    }
    if label.sector.get() != sector {
        return Err(Corrupt::new(format!("the label in sector {sector} says sector {}", label.sector)));
    }
    let sum = bytes.get(20..).map_or(0, crc);
    if sum != label.crc.get() {
        return Err(Corrupt::new(format!("the label's checksum is {:#x}, expected {sum:#x}", label.crc)));
    }
    let header_offset = usize::try_from(label.offset.get()).unwrap_or(usize::MAX);
    let header = bytes.get(header_offset..).unwrap_or_default();
    let Ok((header, mut rest)) = PvHeader::ref_from_prefix(header) else {
        return Err(Corrupt::new(format!("the header is at byte {} of the label's sector", label.offset)));
    };
    let Some(id) = id(&header.uuid) else { return Err(Corrupt::new("the UUID is not one of LVM2")) };
    // First the data areas, then those of metadata. What the group says of its data is what counts.
    let mut lists = [Vec::new(), Vec::new()];
    for list in &mut lists {
        loop {
            let Ok((location, after)) = DiskLocation::ref_from_prefix(rest) else {
                return Err(Corrupt::new("the list of areas does not end"));
            };
            rest = after;
            if location.offset.get() == 0 {
                break;
            }
            list.push((location.offset.get(), location.size.get()));
        }
    }
    let [_, mut metadata_areas] = lists;
    metadata_areas.truncate(MAX_AREAS);
    Ok(Some(Label { id, header_offset, metadata_areas }))
}

/// The 32 letters and digits of an UUID, with its hyphens or without.
pub(crate) fn id(text: &[u8]) -> Option<String> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'-').collect();
    let fits =
        text.len() == 32 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'!' || *byte == b'#');
    fits.then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The text that is current in a metadata area; none in one that is not used.
pub(super) fn read_area(device: &dyn ReadAt, offset: u64, size: u64) -> Result<Result<Option<Vec<u8>>, Corrupt>> {
    if size <= MDA_HEADER || block::Error::check_range(offset, size, device.len()).is_err() {
        return Ok(Err(Corrupt::new(format!("its {size} bytes do not lie on the volume"))));
    }
    let bytes = read_vec(device, offset, MDA_HEADER)?;
    let Ok((header, _)) = MdaHeader::ref_from_prefix(&bytes) else { return Ok(Ok(None)) };
    let sum = crc(&bytes[4..]);
    let wrong = if &header.magic != MAGIC {
        Some("it has no magic number".to_owned())
    } else if header.checksum.get() != sum {
        Some(format!("the header's checksum is {:#x}, expected {sum:#x}", header.checksum))
    } else if header.version.get() != 1 {
        Some(format!("version is {}, expected 1", header.version))
    } else if (header.start.get(), header.size.get()) != (offset, size) {
        Some(format!("the header says {} bytes at byte {}", header.size, header.start))
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Ok(Err(Corrupt::new(wrong)));
    }
    let location = header.raw_locations[0];
    let (at, len) = (location.offset.get(), location.size.get());
    if at == 0 || len == 0 || location.flags.get() & IGNORED != 0 {
        return Ok(Ok(None));
    }
    let inside = at >= MDA_HEADER && at < size && len <= (size - MDA_HEADER).min(MAX_TEXT);
    if !inside {
        return Ok(Err(Corrupt::new(format!("the text of {len} bytes at byte {at} does not lie in the area"))));
    }
    // The texts are written around in a ring that begins behind the header.
    let first = len.min(size - at);
    let mut text = read_vec(device, offset + at, first)?;
    text.extend(read_vec(device, offset + MDA_HEADER, len - first)?);
    let sum = crc(&text);
    if sum != location.checksum.get() {
        let found = location.checksum.get();
        return Ok(Err(Corrupt::new(format!("the text's checksum is {found:#x}, expected {sum:#x}"))));
    }
    Ok(Ok(Some(text)))
}

/// The text has one section, which is the group, and some lines on how it was written.
pub(super) fn decode_text(text: &[u8]) -> Result<Text, Corrupt> {
    let parsed = config::parse(text)?;
    let mut groups = parsed.sections();
    let Some((name, section)) = groups.next() else { return Err(Corrupt::new("the text holds no group")) };
    if groups.next().is_some() {
        return Err(Corrupt::new("the text holds several groups"));
    }
    let (name, section) = (name.to_owned(), section.clone());
    if !is_name(&name) {
        return Err(Corrupt::new(format!("{name:?} is no name of a group")));
    }
    if parsed.text("contents") != Some("Text Format Volume Group") || parsed.number("version")? != 1 {
        return Err(Corrupt::new("the text is not metadata of version 1"));
    }
    let id = section.text("id").and_then(|text| id(text.as_bytes()));
    let id = id.ok_or_else(|| Corrupt::new("the group's id is not one of LVM2"))?;
    let description = parsed.text("description").unwrap_or_default().to_owned();
    Ok(Text { seqno: section.number("seqno")?, name, id, description, section })
}

/// Whether a group or a logical volume may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    !name.is_empty()
        && name.len() <= 127
        && !name.starts_with('-')
        && name != "."
        && name != ".."
        && name.bytes().all(fits)
}

/// The newest text of each group.
pub(crate) fn newest<'a>(physical: &'a [PhysicalVolume], warnings: &mut Vec<String>) -> Vec<&'a Text> {
    let mut newest: Vec<&Text> = Vec::new();
    for text in physical.iter().flat_map(|physical| &physical.texts) {
        match newest.iter_mut().find(|other| other.id == text.id) {
            None => newest.push(text),
            Some(other) => {
                if other.seqno != text.seqno {
                    let (older, newer) = (other.seqno.min(text.seqno), other.seqno.max(text.seqno));
                    let name = &text.name;
                    warnings.push(format!("LVM2 volume group {name}: metadata {older} is left behind by {newer}"));
                } else if other.section != text.section {
                    warnings.push(format!("LVM2 volume group {}: copies of metadata {} differ", text.name, text.seqno));
                }
                if text.seqno > other.seqno {
                    *other = text;
                }
            }
        }
    }
    newest
}
