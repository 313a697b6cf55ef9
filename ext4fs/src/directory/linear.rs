//! Directories without an index: every block is searched.
//!
//! Kernel `fs/ext4/namei.c` (`__ext4_find_entry`, `ext4_add_entry`).

use super::fold::Wanted;
use super::{
    DirectoryBlocks, DirectoryBlocksMut, DirectoryFormat, Entry, Found, Place, block, htree, read_block, write_block,
};
use crate::error::{Error, Result};

/// Searches the blocks in order.
pub(super) fn find(
    dir: &(impl DirectoryBlocks + ?Sized),
    f: &DirectoryFormat,
    wanted: &Wanted<'_>,
) -> Result<Option<Found>> {
    for number in 0..dir.block_count() {
        if let Some(found) = find_in(dir, f, number, wanted)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Searches one block.
pub(super) fn find_in(
    dir: &(impl DirectoryBlocks + ?Sized),
    f: &DirectoryFormat,
    number: u32,
    wanted: &Wanted<'_>,
) -> Result<Option<Found>> {
    let bytes = read_block(dir, f, number)?;
    let place = Place { inode: dir.inode(), block: number };
    // An index block holds only entries that take the whole block, so its end is the block's.
    let end = match super::index::kind_of(f, dir.is_indexed(), number, &bytes) {
        super::index::BlockKind::Leaf => block::entries_end(f),
        super::index::BlockKind::Root | super::index::BlockKind::Node => f.block_size,
    };
    let found = block::find(&bytes, end, place, |name| wanted.is(name))?;
    Ok(found.map(|(slot, previous)| Found { block: number, bytes, slot, previous }))
}

/// Puts the entry into the first gap; without one the directory becomes an htree if it may, or a block longer.
pub(super) fn insert(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, e: &Entry) -> Result<()> {
    let count = dir.block_count();
    for number in 0..count {
        let mut bytes = read_block(dir, f, number)?;
        if block::insert(&mut bytes, f, Place { inode: dir.inode(), block: number }, e)? {
            return write_block(dir, f, number, bytes);
        }
    }
    if count == 1 && f.indexed {
        return htree::convert_and_insert(dir, f, e);
    }
    let bytes = block::build(f, dir.checksum_seed(), std::iter::once(e)).ok_or(Error::InvalidName)?;
    dir.append(bytes)?;
    Ok(())
}
