//! Attributes in a block of their own, which inodes with the same attributes may share.
//!
//! Kernel `fs/ext4/xattr.c` (`ext4_xattr_block_csum`, `ext4_xattr_rehash`).

use std::fmt::Display;

use zerocopy::{FromBytes, IntoBytes};

use super::Xattr;
use super::entries::{self, END_LEN, Hashes, Raw};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::layout::xattr::{XATTR_MAGIC, XattrHeader};

/// Bytes of the header.
const HEADER_LEN: usize = size_of::<XattrHeader>();
/// Where `h_checksum` lies.
const CHECKSUM_OFFSET: usize = 16;

/// The attributes in the block at number `block`. `checksum_seed` is the file system's, where metadata has checksums.
///
/// # Errors
/// [`Error::Corrupt`] where header, checksum, an entry or a value is not as it must be.
pub(crate) fn decode_block(bytes: &[u8], inode: u32, block: u64, checksum_seed: Option<u32>) -> Result<Vec<Xattr>> {
    let place = format_args!("inode {inode}, block {block}");
    check_block(bytes, &place, block, checksum_seed)?;
    entries::decode(bytes, HEADER_LEN, 0, &place)
}

/// Makes all bytes zeros of the block at number `block` that no attribute has, and sets its checksum. Returns how many
/// changed.
///
/// # Errors
/// As [`decode_block`]; nothing is changed then.
pub(crate) fn scrub_block(bytes: &mut [u8], block: u64, checksum_seed: Option<u32>) -> Result<u64> {
    let place = format_args!("block {block}");
    check_block(bytes, &place, block, checksum_seed)?;
    let changed = entries::scrub(bytes, HEADER_LEN, 0, &place)?;
    if changed > 0 {
        finish_block(bytes, block, checksum_seed);
    }
    Ok(changed)
}

/// Checks the header of a block, and its checksum where metadata has checksums.
fn check_block(bytes: &[u8], place: &dyn Display, block: u64, checksum_seed: Option<u32>) -> Result<()> {
    let wrong = |rule: String| Error::corrupt("extended attribute block", place, rule);
    let Ok((header, _)) = XattrHeader::read_from_prefix(bytes) else {
        return Err(wrong(format!("must have a header, found {} bytes", bytes.len())));
    };
    if header.h_magic.get() != XATTR_MAGIC {
        return Err(wrong(format!("magic must be {XATTR_MAGIC:#010x}, found {:#010x}", header.h_magic)));
    }
    if header.h_blocks.get() != 1 {
        return Err(wrong(format!("h_blocks must be 1, found {}", header.h_blocks)));
    }
    if let Some(seed) = checksum_seed {
        let (expected, found) = (checksum(bytes, block, seed), header.h_checksum.get());
        if found != expected {
            return Err(wrong(format!("checksum must be {expected:#010x}, found {found:#010x}")));
        }
    }
    Ok(())
}

/// How many inodes share a block.
pub(crate) fn block_refcount(bytes: &[u8]) -> u32 {
    XattrHeader::ref_from_prefix(bytes).map_or(0, |(header, _)| header.h_refcount.get())
}

/// Sets how many inodes share the block at number `block`, and its checksum.
pub(crate) fn set_block_refcount(bytes: &mut [u8], n: u32, block: u64, checksum_seed: Option<u32>) {
    if let Ok((header, _)) = XattrHeader::mut_from_prefix(bytes) {
        header.h_refcount.set(n);
    }
    finish_block(bytes, block, checksum_seed);
}

/// Sets the checksum of the block that goes to number `block`, where metadata has checksums.
pub(crate) fn finish_block(bytes: &mut [u8], block: u64, checksum_seed: Option<u32>) {
    let sum = checksum_seed.map_or(0, |seed| checksum(bytes, block, seed));
    if let Ok((header, _)) = XattrHeader::mut_from_prefix(bytes) {
        header.h_checksum.set(sum);
    }
}

/// A block with these attributes, used by one inode and without its checksum, or `None` where they do not fit.
pub(super) fn encode(mut raws: Vec<&Raw<'_>>, block_size: usize) -> Option<Vec<u8>> {
    let needed = HEADER_LEN + raws.iter().map(|raw| raw.len()).sum::<usize>() + END_LEN;
    if needed > block_size {
        return None;
    }
    raws.sort_by_key(|raw| raw.key());
    let mut bytes = vec![0; block_size];
    entries::encode(&raws, &mut bytes, HEADER_LEN, 0, Hashes::Stored);
    // An entry without a hash keeps the block from being shared, which 0 says.
    let hash = match raws.iter().any(|raw| raw.hash() == 0) {
        true => 0,
        false => raws.iter().fold(0_u32, |hash, raw| hash.rotate_left(16) ^ raw.hash()),
    };
    let header = XattrHeader {
        h_magic: XATTR_MAGIC.into(),
        h_refcount: 1.into(),
        h_blocks: 1.into(),
        h_hash: hash.into(),
        h_checksum: 0.into(),
        h_reserved: [0.into(); 3],
    };
    bytes[..HEADER_LEN].copy_from_slice(header.as_bytes());
    Some(bytes)
}

/// crc32c of the block's number and its bytes, with 0 for the checksum.
fn checksum(bytes: &[u8], block: u64, seed: u32) -> u32 {
    let numbered = crc32c(seed, &block.to_le_bytes());
    let (head, rest) = bytes.split_at(CHECKSUM_OFFSET.min(bytes.len()));
    crc32c(crc32c(crc32c(numbered, head), &[0; 4]), rest.get(4..).unwrap_or_default())
}
