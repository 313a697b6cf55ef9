//! Wiping what a block of a directory no longer says: names of entries that were removed, and what lies behind names.

use std::ops::Range;

use super::block::{self, slots};
use super::index::{self, BlockKind, kind_of};
use super::{DirectoryFormat, Place};
use crate::error::Result;
use crate::zeros;

/// The directory that a block belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockOwner {
    /// Its inode, for messages.
    pub inode: u32,
    /// See [`super::DirectoryBlocks::checksum_seed`].
    pub checksum_seed: u32,
    /// Whether the inode has `EXT4_INDEX_FL`.
    pub indexed: bool,
}

/// Makes all bytes zeros that no reader of this block looks at: unused entries, the space behind names, index entries
/// beyond the count. The checksum follows. Calls `visit` with the inode of every entry. Returns how many bytes changed,
/// 0 where the block was left untouched.
///
/// # Errors
/// [`crate::Error::Corrupt`] where the block is malformed or its checksum is wrong, and what `visit` returns; the block
/// is then left as it was.
pub(crate) fn scrub_block(
    f: &DirectoryFormat,
    owner: BlockOwner,
    block: u32,
    bytes: &mut [u8],
    visit: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<u64> {
    let place = Place { inode: owner.inode, block };
    let seed = owner.checksum_seed;
    let kind = kind_of(f, owner.indexed, block, bytes);
    let end = if kind == BlockKind::Leaf { block::entries_end(f) } else { f.block_size };
    // What is to be blank first: a block that turns out malformed stays as it is.
    let mut blanks: Vec<Range<usize>> = Vec::new();
    let mut blank = |bytes: &[u8], range: Range<usize>| {
        if bytes.get(range.clone()).is_some_and(|bytes| !zeros::is_zero(bytes)) {
            blanks.push(range);
        }
    };
    for slot in slots(bytes, end, place) {
        let slot = slot?;
        let slot_end = slot.offset + slot.rec_len;
        if slot.inode != 0 {
            visit(slot.inode)?;
        }
        match (kind, slot.inode) {
            // The last entry of an index block covers the index.
            (BlockKind::Root, _) if slot.offset > 0 => blank(bytes, slot.name_end()..slot.offset + 12),
            (BlockKind::Node, _) => {}
            // All but rec_len, which stays.
            (_, 0) => blank(bytes, slot.offset + 6..slot_end),
            _ => blank(bytes, slot.name_end()..slot_end),
        }
    }
    if kind == BlockKind::Leaf {
        block::check_leaf(bytes, f, seed, place)?;
    } else {
        index::check(bytes, f, kind, seed, place)?;
        blank(bytes, index::unused(bytes, f, kind));
    }
    let changed = blanks.into_iter().map(|range| zeros::clear(&mut bytes[range])).sum();
    if changed > 0 {
        match kind {
            BlockKind::Leaf => block::set_leaf_checksum(bytes, f, seed),
            _ => index::set_checksum(bytes, f, kind, seed),
        }
    }
    Ok(changed)
}
