//! Directories: linear blocks, the hashes, and the htree.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html>, kernel `fs/ext4/namei.c`, `fs/ext4/dir.c`.
//!
//! All here works on a directory's blocks by their logical number, through [`DirectoryBlocks`], and knows neither
//! device nor inode.

mod block;
mod check;
mod fold;
mod hash;
mod htree;
mod index;
mod linear;
mod scrub;
#[cfg(test)]
mod tests;
mod unicode_12_1;

use std::fmt;
use std::sync::Arc;

use self::fold::Wanted;
use crate::error::{Error, Result};
use crate::metadata_cache::Block;

pub(crate) use check::check_index;
pub(crate) use fold::fold;
pub(crate) use scrub::{BlockOwner, scrub_block};

/// What all directories of a file system share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectoryFormat {
    /// Bytes of a block.
    pub block_size: usize,
    /// `INCOMPAT_FILETYPE`: entries hold the kind of their inode.
    pub has_file_type: bool,
    /// `RO_COMPAT_METADATA_CSUM`: blocks end with a checksum.
    pub checksum: bool,
    /// `s_hash_seed`.
    pub hash_seed: [u32; 4],
    /// `s_def_hash_version`, the hash of new trees.
    pub default_hash: u8,
    /// Whether `s_flags` says that names are hashed as unsigned bytes.
    pub unsigned_hash: bool,
    /// `COMPAT_DIR_INDEX`: trees may be made and are to be believed.
    pub indexed: bool,
    /// `INCOMPAT_LARGEDIR`: trees may have one level more.
    pub large: bool,
}

/// What judges a block.
pub(crate) type Check<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// One directory's blocks, by logical number.
pub(crate) trait DirectoryBlocks {
    /// The directory's inode, for messages.
    fn inode(&self) -> u32;
    /// The seed of its checksums: crc32c of the file system's seed, the inode's number and its generation.
    fn checksum_seed(&self) -> u32;
    /// `i_size` in blocks.
    fn block_count(&self) -> u32;
    /// Whether the inode has `EXT4_INDEX_FL`.
    fn is_indexed(&self) -> bool;
    /// Whether names that differ in case are the same.
    fn folds_names(&self) -> bool {
        false
    }
    /// Whether the hashes of an index can be computed. Where they cannot, since they need a key, all blocks are searched.
    fn has_known_hashes(&self) -> bool {
        true
    }
    /// Whether names are ciphertext, in which any byte may be.
    fn has_encrypted_names(&self) -> bool {
        false
    }
    /// The block's bytes, as long as a block. A hole is an error. `check` judges them, but need not be called for a block
    /// that it has judged before.
    fn read(&self, block: u32, check: Check<'_>) -> Result<Block>;
}

/// One directory's blocks, to be changed.
pub(crate) trait DirectoryBlocksMut: DirectoryBlocks {
    /// Replaces a block.
    fn write(&mut self, block: u32, bytes: Block) -> Result<()>;
    /// Adds a block at the end and returns its logical number.
    fn append(&mut self, bytes: Vec<u8>) -> Result<u32>;
    /// Sets or clears `EXT4_INDEX_FL`.
    fn set_indexed(&mut self, indexed: bool) -> Result<()>;
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The inode it names.
    pub inode: u32,
    /// 0 unknown, 1 regular file, 2 directory, 3 character device, 4 block device, 5 FIFO, 6 socket, 7 symbolic link.
    pub file_type: u8,
    /// 1 to 255 bytes.
    pub name: Vec<u8>,
}

/// More names than this in one directory are taken for an attack on memory: an image of little size can map the same
/// blocks many times over.
const MAX_LISTED: usize = 1 << 24;

/// Where a block is, for messages.
#[derive(Debug, Clone, Copy)]
struct Place {
    inode: u32,
    block: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.inode == 0 {
            write!(f, "directory block {}", self.block)
        } else {
            write!(f, "inode {}, directory block {}", self.inode, self.block)
        }
    }
}

/// Where an entry was found.
struct Found {
    block: u32,
    bytes: Block,
    slot: block::Slot,
    /// The offset of the entry before it in the block.
    previous: Option<usize>,
}

/// The entry of this name, by way of the htree where there is one. `.` and `..` are found as well.
///
/// # Errors
/// [`Error::Corrupt`] where a block on the way is malformed or its checksum wrong.
pub(crate) fn lookup(dir: &dyn DirectoryBlocks, f: &DirectoryFormat, name: &[u8]) -> Result<Option<Entry>> {
    Ok(find(dir, f, name)?.map(|found| found.slot.to_entry(f, &found.bytes)))
}

/// All entries in the order of the blocks, `.` and `..` among them.
///
/// # Errors
/// [`Error::Corrupt`] where a block is malformed, its checksum wrong, or a name one that no path can hold.
pub(crate) fn list(dir: &dyn DirectoryBlocks, f: &DirectoryFormat) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for block in 0..dir.block_count() {
        let place = Place { inode: dir.inode(), block };
        let bytes = read_block(dir, f, block)?;
        let end = match index::kind_of(f, dir.is_indexed(), block, &bytes) {
            index::BlockKind::Node => continue,
            index::BlockKind::Root => f.block_size,
            index::BlockKind::Leaf => block::entries_end(f),
        };
        for slot in block::slots(&bytes, end, place) {
            let slot = slot?;
            if slot.inode == 0 {
                continue;
            }
            let entry = slot.to_entry(f, &bytes);
            let any_byte = dir.has_encrypted_names();
            if entry.name.is_empty() || (!any_byte && entry.name.iter().any(|byte| matches!(byte, b'/' | 0))) {
                return Err(Error::corrupt(
                    "directory entry",
                    place,
                    format!("the name at offset {} must be one of a path", slot.offset),
                ));
            }
            if entries.len() == MAX_LISTED {
                return Err(Error::Unsupported(format!(
                    "inode {} is a directory with more than {MAX_LISTED} entries",
                    dir.inode()
                )));
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Adds an entry; the caller has made sure that the name is not there yet. Splits and grows the htree, and makes one
/// where the directory outgrows its first block.
///
/// # Errors
/// [`Error::InvalidName`] for a name that is empty or longer than 255 bytes, [`Error::NoSpace`] where the htree is
/// full, [`Error::Unsupported`] where hashes need a key, [`Error::Corrupt`] where a block on the way is malformed.
pub(crate) fn insert(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, e: &Entry) -> Result<()> {
    if e.name.is_empty() || e.name.len() > 255 {
        return Err(Error::InvalidName);
    }
    if dir.is_indexed() && !dir.has_known_hashes() {
        return Err(Error::Unsupported(format!("inode {}: hashes of encrypted names", dir.inode())));
    }
    if dir.is_indexed() && !f.indexed {
        index::unindex(dir, f)?;
    }
    if dir.is_indexed() { htree::insert(dir, f, e) } else { linear::insert(dir, f, e) }
}

/// Fails where [`insert`] would find no room for a name, and where a block that it would change is malformed.
///
/// # Errors
/// As [`insert`].
pub(crate) fn check_room(dir: &dyn DirectoryBlocks, f: &DirectoryFormat, name: &[u8]) -> Result<()> {
    if dir.is_indexed() && !dir.has_known_hashes() {
        return Err(Error::Unsupported(format!("inode {}: hashes of encrypted names", dir.inode())));
    }
    if dir.is_indexed() && f.indexed { htree::check_room(dir, f, name) } else { Ok(()) }
}

/// Removes the entry of this name and wipes its bytes, and returns what it was.
///
/// # Errors
/// [`Error::Invalid`] for `.` and `..`; [`Error::Corrupt`] where a block on the way is malformed.
pub(crate) fn remove(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, name: &[u8]) -> Result<Option<Entry>> {
    if name == b"." || name == b".." {
        return Err(Error::Invalid("`.` and `..` cannot be removed"));
    }
    let Some(mut found) = find(dir, f, name)? else { return Ok(None) };
    let entry = found.slot.to_entry(f, &found.bytes);
    block::remove(Arc::make_mut(&mut found.bytes).as_mut_slice(), &found.slot, found.previous, f);
    write_block(dir, f, found.block, found.bytes)?;
    Ok(Some(entry))
}

/// Lets the entry of this name, which may be `..`, name another inode. Returns whether there was one.
///
/// # Errors
/// [`Error::Corrupt`] where a block on the way is malformed.
pub(crate) fn replace_inode(
    dir: &mut dyn DirectoryBlocksMut,
    f: &DirectoryFormat,
    name: &[u8],
    inode: u32,
    file_type: u8,
) -> Result<bool> {
    let Some(mut found) = find(dir, f, name)? else { return Ok(false) };
    let file_type = if f.has_file_type { file_type } else { 0 };
    block::set_target(Arc::make_mut(&mut found.bytes).as_mut_slice(), &found.slot, inode, file_type);
    write_block(dir, f, found.block, found.bytes)?;
    Ok(true)
}

/// The first block of a new directory: `.` and `..`, and the tail. `seed` is the new directory's
/// [`DirectoryBlocks::checksum_seed`].
pub(crate) fn first_block(f: &DirectoryFormat, seed: u32, inode: u32, parent: u32) -> Vec<u8> {
    let mut bytes = vec![0; f.block_size];
    block::write_dots(&mut bytes, f, inode, parent, block::entries_end(f));
    block::set_leaf_checksum(&mut bytes, f, seed);
    bytes
}

/// Finds an entry with its place in its block.
fn find(dir: &(impl DirectoryBlocks + ?Sized), f: &DirectoryFormat, name: &[u8]) -> Result<Option<Found>> {
    if name.is_empty() || name.len() > 255 {
        return Ok(None);
    }
    let by_tree = f.indexed && dir.is_indexed() && dir.has_known_hashes();
    let wanted = Wanted::new(dir, name);
    if by_tree { htree::find(dir, f, &wanted) } else { linear::find(dir, f, &wanted) }
}

/// A block of a directory, with its checksum checked.
fn read_block(dir: &(impl DirectoryBlocks + ?Sized), f: &DirectoryFormat, block: u32) -> Result<Block> {
    dir.read(block, &mut |bytes| {
        let place = Place { inode: dir.inode(), block };
        if bytes.len() != f.block_size {
            let rule = format!("must be {} bytes, found {}", f.block_size, bytes.len());
            return Err(Error::corrupt("directory block", place, rule));
        }
        match index::kind_of(f, dir.is_indexed(), block, bytes) {
            index::BlockKind::Leaf => block::check_leaf(bytes, f, dir.checksum_seed(), place),
            kind => index::check(bytes, f, kind, dir.checksum_seed(), place),
        }
    })
}

/// Puts back a block that [`read_block`] gave, with its checksum made anew.
fn write_block(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, block: u32, mut bytes: Block) -> Result<()> {
    let kind = index::kind_of(f, dir.is_indexed(), block, &bytes);
    let changed = Arc::make_mut(&mut bytes);
    match kind {
        index::BlockKind::Leaf => block::set_leaf_checksum(changed, f, dir.checksum_seed()),
        kind => index::set_checksum(changed, f, kind, dir.checksum_seed()),
    }
    dir.write(block, bytes)
}
