//! Wiping what a block of a directory no longer says: names of entries that were removed, and what lies behind names.

use super::block::{self, slots};
use super::index::{self, BlockKind, kind_of};
use super::{DirectoryFormat, Place};
use crate::error::Result;

/// Makes all bytes zeros that no reader of this block looks at: unused entries, the space behind names, index entries
/// beyond the count. The checksum follows. Returns how many bytes changed, 0 where the block was left untouched.
///
/// # Errors
/// [`crate::Error::Corrupt`] where the block is malformed or its checksum is wrong; it is then left as it was.
pub(crate) fn scrub_block(f: &DirectoryFormat, seed: u32, indexed: bool, block: u32, bytes: &mut [u8]) -> Result<u64> {
    let place = Place { inode: 0, block };
    let kind = kind_of(f, indexed, block, bytes);
    let end = if kind == BlockKind::Leaf { block::entries_end(f) } else { f.block_size };
    // Blank ranges first: a block that turns out malformed stays as it is.
    let mut blanks = Vec::new();
    for slot in slots(bytes, end, place) {
        let slot = slot?;
        let slot_end = slot.offset + slot.rec_len;
        match (kind, slot.inode) {
            // The last entry of an index block covers the index.
            (BlockKind::Root, _) if slot.offset > 0 => blanks.push(slot.name_end()..slot.offset + 12),
            (BlockKind::Node, _) => {}
            // All but rec_len, which stays.
            (_, 0) => blanks.push(slot.offset + 6..slot_end),
            _ => blanks.push(slot.name_end()..slot_end),
        }
    }
    let dirty = |range: &std::ops::Range<usize>| bytes[range.clone()].iter().any(|&byte| byte != 0);
    if kind != BlockKind::Leaf {
        index::check(bytes, f, kind, seed, place)?;
        blanks.push(index::unused(bytes, f, kind));
    }
    blanks.retain(dirty);
    if blanks.is_empty() {
        return Ok(0);
    }
    if kind == BlockKind::Leaf {
        block::check_leaf(bytes, f, seed, place)?;
    }
    let mut changed = 0_u64;
    for blank in blanks {
        for byte in &mut bytes[blank] {
            changed += u64::from(*byte != 0);
            *byte = 0;
        }
    }
    match kind {
        BlockKind::Leaf => block::set_leaf_checksum(bytes, f, seed),
        _ => index::set_checksum(bytes, f, kind, seed),
    }
    Ok(changed)
}
