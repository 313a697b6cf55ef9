//! ext2, ext3 and ext4: Linux `Documentation/filesystems/ext4/super.rst`.

use super::{Content, ContentKind, Probe, le16, le32, text, uuid_text};
use crate::Result;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const HAS_JOURNAL: u32 = 0x4;
const JOURNAL_DEVICE: u32 = 0x8;
/// What the kernel's ext3 could mount: filetype, recover, meta_bg; and sparse_super, large_file, btree_dir.
const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x10;
const EXT3_READ_ONLY: u32 = 0x1 | 0x2 | 0x4;

pub(super) fn ext(device: &Probe<'_>) -> Result<Option<Content>> {
    let Some(superblock) = device.read::<136>(SUPERBLOCK)? else { return Ok(None) };
    if le16(&superblock, 56) != MAGIC {
        return Ok(None);
    }
    let (compatible, incompatible, read_only) = (le32(&superblock, 92), le32(&superblock, 96), le32(&superblock, 100));
    let kind = if incompatible & JOURNAL_DEVICE != 0 {
        ContentKind::ExtJournal
    } else if incompatible & !EXT3_INCOMPATIBLE != 0 || read_only & !EXT3_READ_ONLY != 0 {
        ContentKind::Ext4
    } else if compatible & HAS_JOURNAL != 0 {
        ContentKind::Ext3
    } else {
        ContentKind::Ext2
    };
    let uuid = superblock[104..].first_chunk().copied().and_then(uuid_text);
    Ok(Some(Content::new(kind, uuid, text(&superblock[120..]))))
}
