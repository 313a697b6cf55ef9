//! What one magic number at one place tells apart.

use super::{Content, ContentKind, Probe, text_utf16};
use crate::Result;

/// A magic number, and where its kind keeps UUID and label.
struct Magic {
    kind: ContentKind,
    offset: u64,
    bytes: &'static [u8],
    uuid: Option<u64>,
    /// Where, and how long.
    label: Option<(u64, u64)>,
}

const fn magic(
    kind: ContentKind,
    offset: u64,
    bytes: &'static [u8],
    uuid: Option<u64>,
    label: Option<(u64, u64)>,
) -> Magic {
    Magic { kind, offset, bytes, uuid, label }
}

use ContentKind as K;

/// The offsets are those of libblkid's `superblocks/*.c`.
const MAGICS: &[Magic] = &[
    magic(K::Xfs, 0, b"XFSB", Some(32), Some((108, 12))),
    magic(K::Btrfs, 0x10040, b"_BHRfS_M", Some(0x10020), Some((0x1012b, 256))),
    magic(K::Squashfs, 0, b"hsqs", None, None),
    magic(K::Squashfs, 0, b"sqsh", None, None),
    magic(K::Erofs, 1024, &[0xe2, 0xe1, 0xf5, 0xe0], Some(1024 + 48), Some((1024 + 64, 16))),
    magic(K::Iso9660, 32769, b"CD001", None, Some((32808, 32))),
    magic(K::Bcachefs, 4096 + 24, BCACHEFS, Some(4096 + 56), Some((4096 + 72, 32))),
    magic(K::Bcache, 4096 + 24, BCACHE, Some(4096 + 40), None),
    magic(K::Reiserfs, 65536 + 52, b"ReIsEr", Some(65536 + 84), Some((65536 + 100, 16))),
    magic(K::Jfs, 32768, b"JFS1", Some(32768 + 136), Some((32768 + 152, 16))),
    // Two bytes are a weak magic number: the revision before it helps.
    magic(K::Nilfs2, 1024, &[2, 0, 0, 0, 0, 0, 0x34, 0x34], Some(1024 + 152), Some((1024 + 168, 80))),
    magic(K::HfsPlus, 1024, b"H+\0\x04", None, None),
    magic(K::Apfs, 32, b"NXSB", Some(72), None),
];

const BCACHEFS: &[u8] =
    &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];
/// Also that of bcachefs before it had its own.
const BCACHE: &[u8] = &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];

/// Where UFS may have its superblock, and the magic number in it.
const UFS_OFFSETS: [u64; 4] = [8192, 65536, 0, 262_144];
const UFS_MAGIC_AT: u64 = 1372;
const UFS_MAGICS: [u32; 2] = [0x0001_1954, 0x1954_0119];

const F2FS_MAGIC: &[u8] = &[0x10, 0x20, 0xf5, 0xf2];

pub(super) fn by_magic(device: &Probe<'_>) -> Result<Option<Content>> {
    for magic in MAGICS {
        if device.has(magic.offset, magic.bytes)? {
            let uuid = magic.uuid.map_or(Ok(None), |offset| device.uuid(offset))?;
            let label = magic.label.map_or(Ok(None), |(offset, len)| device.label(offset, len))?;
            return Ok(Some(Content::new(magic.kind, uuid, label)));
        }
    }
    if device.has(1024, F2FS_MAGIC)? {
        let label = device.read::<1024>(1024 + 124)?.and_then(|bytes| text_utf16(&bytes));
        return Ok(Some(Content::new(K::F2fs, device.uuid(1024 + 108)?, label)));
    }
    for offset in UFS_OFFSETS {
        let Some(bytes) = device.read::<4>(offset + UFS_MAGIC_AT)? else { continue };
        if UFS_MAGICS.contains(&u32::from_le_bytes(bytes)) || UFS_MAGICS.contains(&u32::from_be_bytes(bytes)) {
            return Ok(Some(Content::plain(K::Ufs)));
        }
    }
    Ok(None)
}
