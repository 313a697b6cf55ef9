//! Whether an index leads to every block of its directory once, and to each name where its hash says.

use std::ops::RangeInclusive;

use super::fold::Wanted;
use super::hash::{HashKind, hash_name};
use super::index::{BlockKind, Index, kind_of};
use super::{DirectoryBlocks, DirectoryFormat, Place, block, read_block};
use crate::bitmap;
use crate::error::{Error, Result};

/// The walk over an index.
struct Walk<'a, D: ?Sized> {
    dir: &'a D,
    format: &'a DirectoryFormat,
    hash: HashKind,
    /// Which blocks were met: a bit each.
    met: Vec<u8>,
}

/// Checks a directory that has an index.
///
/// # Errors
/// [`Error::Corrupt`] where a block is led to twice or not at all, or holds a name whose hash is not its own.
pub(crate) fn check_index(dir: &dyn DirectoryBlocks, f: &DirectoryFormat) -> Result<()> {
    // Without the key there are no hashes of encrypted names that are folded.
    if !dir.has_known_hashes() {
        return Ok(());
    }
    let root = Index::read(dir, f, 0, BlockKind::Root)?;
    let version = root.hash_version();
    let hash = HashKind::from_version(version)
        .ok_or_else(|| Error::Unsupported(format!("inode {}: htree hash version {version}", dir.inode())))?;
    let mut walk = Walk { dir, format: f, hash, met: vec![0; dir.block_count() as usize / 8 + 1] };
    let levels = root.levels();
    walk.node(&root, levels, 0..=u32::MAX)?;
    match bitmap::find_clear(&walk.met, 1..dir.block_count()) {
        Some(block) => Err(wrong(dir, block, "must be led to by the index".to_owned())),
        None => Ok(()),
    }
}

fn wrong(dir: &(impl DirectoryBlocks + ?Sized), block: u32, rule: String) -> Error {
    Error::corrupt("htree", Place { inode: dir.inode(), block }, rule)
}

impl<D: DirectoryBlocks + ?Sized> Walk<'_, D> {
    /// One index block with `levels` below it, whose names have hashes in `hashes`. There are at most two levels.
    fn node(&mut self, index: &Index, levels: usize, hashes: RangeInclusive<u32>) -> Result<()> {
        for at in 0..index.count() {
            let child = index.child(at);
            if child == 0 || child >= self.dir.block_count() || bitmap::is_set(&self.met, child) {
                let rule = format!("entry {at} must lead to a block that nothing else does, found {child}");
                return Err(wrong(self.dir, index.block, rule));
            }
            bitmap::set(&mut self.met, child..child + 1);
            let start = if at == 0 { *hashes.start() } else { index.hash(at) };
            // Names of one hash may go on in the next block, which says so by the lowest bit.
            let end = if at + 1 < index.count() { index.hash(at + 1) & !1 } else { *hashes.end() };
            if start & !1 > end || start < *hashes.start() & !1 {
                return Err(wrong(
                    self.dir,
                    index.block,
                    format!("entry {at} must follow the one before, found {start:#x}"),
                ));
            }
            if levels > 0 {
                let below = Index::read(self.dir, self.format, child, BlockKind::Node)?;
                self.node(&below, levels - 1, start..=end)?;
            } else {
                self.leaf(child, start & !1..=end)?;
            }
        }
        Ok(())
    }

    fn leaf(&self, number: u32, hashes: RangeInclusive<u32>) -> Result<()> {
        let bytes = read_block(self.dir, self.format, number)?;
        if kind_of(self.format, true, number, &bytes) != BlockKind::Leaf {
            return Err(wrong(self.dir, number, "must be a block of entries".to_owned()));
        }
        let place = Place { inode: self.dir.inode(), block: number };
        for slot in block::slots(&bytes, block::entries_end(self.format), place) {
            let slot = slot?;
            if slot.inode == 0 {
                continue;
            }
            let wanted = Wanted::new(self.dir, slot.name(&bytes));
            let hash = hash_name(self.hash, self.format.unsigned_hash, self.format.hash_seed, wanted.hashed());
            if !hashes.contains(&hash) {
                let (start, end) = (hashes.start(), hashes.end());
                let rule = format!("names must have hashes from {start:#x} to {end:#x}, found {hash:#x}");
                return Err(wrong(self.dir, number, rule));
            }
        }
        Ok(())
    }
}
