//! What holds volumes of its own, or one in another shape: LUKS, LVM2 physical volumes, members of ZFS pools.

use super::{Content, ContentKind, Probe, le32, le64, text};
use crate::Result;

/// LUKS: cryptsetup `docs/on-disk-format.pdf` and LUKS2's.
pub(super) fn luks(device: &Probe<'_>) -> Result<Option<Content>> {
    if !device.has(0, b"LUKS\xba\xbe")? {
        return Ok(None);
    }
    let uuid = device.label(168, 40)?;
    match device.read::<2>(6)?.map(u16::from_be_bytes) {
        Some(1) => Ok(Some(Content::new(ContentKind::Luks1, uuid, None))),
        _ => Ok(Some(Content::new(ContentKind::Luks2, uuid, device.label(24, 48)?))),
    }
}

/// LVM2: the label is in one of the first four sectors; `lib/format_text/layout.h` has the structures.
pub(super) fn lvm2(device: &Probe<'_>) -> Result<Option<Content>> {
    for sector in 0..4 {
        let Some(bytes) = device.read::<512>(sector * 512)? else { break };
        if !bytes.starts_with(b"LABELONE") || &bytes[24..32] != b"LVM2 001" {
            continue;
        }
        let header = le32(&bytes, 20) as usize;
        let uuid = bytes.get(header..).and_then(|rest| rest.get(..32)).and_then(text);
        return Ok(Some(Content::new(ContentKind::Lvm2Member, uuid.map(|uuid| hyphenate(&uuid)), None)));
    }
    Ok(None)
}

/// LVM's own spelling: 6-4-4-4-4-4-6.
pub(crate) fn hyphenate(uuid: &str) -> String {
    let mut spelt = String::new();
    for (at, c) in uuid.chars().enumerate() {
        if (6..=26).contains(&at) && (at - 6) % 4 == 0 {
            spelt.push('-');
        }
        spelt.push(c);
    }
    spelt
}

/// ZFS: an array of uberblocks in the second half of each label of 256 KiB.
pub(super) fn zfs(device: &Probe<'_>) -> Result<Option<Content>> {
    const MAGIC: u64 = 0x00ba_b10c;
    const LABEL: u64 = 256 << 10;
    const ARRAY: u64 = 128 << 10;
    for label in 0..2 {
        let Some(bytes) = device.read_vec(label * LABEL + ARRAY, ARRAY)? else { break };
        let is_uberblock = |block: &[u8]| {
            let magic = le64(block, 0);
            magic == MAGIC || magic.swap_bytes() == MAGIC
        };
        if bytes.chunks_exact(1024).any(is_uberblock) {
            return Ok(Some(Content::plain(ContentKind::ZfsMember)));
        }
    }
    Ok(None)
}
