//! What a volume holds, by its magic numbers: those that libblkid knows of the kinds that guests have.

mod container;
mod ext;
mod fat;
mod magic;
mod raid;
mod swap;

use block::{ReadAt, read_vec};
use uuid::Uuid;

use crate::Result;

pub(crate) use container::hyphenate;

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its kind.
    pub kind: ContentKind,
    /// Its UUID, or what stands for one, spelt as blkid spells it.
    pub uuid: Option<String>,
    /// Its label, where it has one and it is cheap to find.
    pub label: Option<String>,
}

/// The kinds of content that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the formats' own; `name` spells each out")]
pub enum ContentKind {
    Ext2,
    Ext3,
    Ext4,
    ExtJournal,
    Xfs,
    Btrfs,
    Vfat,
    ExFat,
    Ntfs,
    F2fs,
    Squashfs,
    Erofs,
    Iso9660,
    Ufs,
    Bcachefs,
    Reiserfs,
    Jfs,
    Nilfs2,
    HfsPlus,
    Apfs,
    ZfsMember,
    Lvm2Member,
    Luks1,
    Luks2,
    BitLocker,
    LinuxRaid,
    Bcache,
    Swap,
    /// Swap space that holds the memory of a guest that was suspended to disk.
    SuspendedSwap,
    /// Nothing that is known.
    Unknown,
}

impl ContentKind {
    /// The name for people: `ext4`, `LVM2 physical volume`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "external ext4 journal",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Vfat => "vfat",
            Self::ExFat => "exfat",
            Self::Ntfs => "ntfs",
            Self::F2fs => "f2fs",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Iso9660 => "iso9660",
            Self::Ufs => "ufs",
            Self::Bcachefs => "bcachefs",
            Self::Reiserfs => "reiserfs",
            Self::Jfs => "jfs",
            Self::Nilfs2 => "nilfs2",
            Self::HfsPlus => "hfsplus",
            Self::Apfs => "apfs",
            Self::ZfsMember => "ZFS pool member",
            Self::Lvm2Member => "LVM2 physical volume",
            Self::Luks1 => "LUKS1 encrypted volume",
            Self::Luks2 => "LUKS2 encrypted volume",
            Self::BitLocker => "BitLocker encrypted volume",
            Self::LinuxRaid => "Linux RAID member",
            Self::Bcache => "bcache device",
            Self::Swap => "swap",
            Self::SuspendedSwap => "swap with a suspended system",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for ContentKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Recognises one family of contents.
type Recogniser = fn(&Probe<'_>) -> Result<Option<Content>>;

/// Recognises what a device holds. Members of arrays come before file systems, since a file system's magic number shows
/// through where the array's own is at the end.
///
/// # Errors
/// [`crate::Error::Io`] where the device fails. A device too short for a magic number does not have it.
pub fn probe(device: &dyn ReadAt) -> Result<Content> {
    let probes: [Recogniser; 8] = [
        raid::linux_raid,
        container::luks,
        container::lvm2,
        fat::fat_or_windows,
        swap::swap,
        ext::ext,
        magic::by_magic,
        container::zfs,
    ];
    let device = Probe { device };
    for probe in probes {
        if let Some(content) = probe(&device)? {
            return Ok(content);
        }
    }
    Ok(Content::plain(ContentKind::Unknown))
}

impl Content {
    fn plain(kind: ContentKind) -> Self {
        Self { kind, uuid: None, label: None }
    }

    fn new(kind: ContentKind, uuid: Option<String>, label: Option<String>) -> Self {
        Self { kind, uuid, label }
    }
}

/// A device that is looked at in small pieces.
struct Probe<'a> {
    device: &'a dyn ReadAt,
}

impl Probe<'_> {
    fn len(&self) -> u64 {
        self.device.len()
    }

    /// `N` bytes, if the device has them.
    fn read<const N: usize>(&self, offset: u64) -> Result<Option<[u8; N]>> {
        if block::Error::check_range(offset, N as u64, self.len()).is_err() {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.device.read_at(offset, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Some bytes, if the device has them.
    fn read_vec(&self, offset: u64, len: u64) -> Result<Option<Vec<u8>>> {
        if block::Error::check_range(offset, len, self.len()).is_err() {
            return Ok(None);
        }
        Ok(Some(read_vec(self.device, offset, len)?))
    }

    /// Whether the bytes are there.
    fn has(&self, offset: u64, magic: &[u8]) -> Result<bool> {
        Ok(self.read_vec(offset, magic.len() as u64)?.is_some_and(|found| found == magic))
    }

    /// A UUID of 16 bytes; all zeros is none.
    fn uuid(&self, offset: u64) -> Result<Option<String>> {
        Ok(self.read::<16>(offset)?.and_then(uuid_text))
    }

    /// A label in a field that is filled up with NULs.
    fn label(&self, offset: u64, len: u64) -> Result<Option<String>> {
        Ok(self.read_vec(offset, len)?.and_then(|bytes| text(&bytes)))
    }
}

fn uuid_text(bytes: [u8; 16]) -> Option<String> {
    (bytes != [0; 16]).then(|| Uuid::from_bytes(bytes).to_string())
}

/// The text up to the first NUL, without blanks at its end; empty is none.
fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(text).trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// As [`text`], for UTF-16.
fn text_utf16(bytes: &[u8]) -> Option<String> {
    let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(String::from_utf16_lossy(&units).trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
