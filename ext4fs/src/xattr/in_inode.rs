//! Attributes in the inode itself, behind its last field.

use std::ops::Range;

use super::Xattr;
use super::entries::{self, END_LEN, Hashes, Raw};
use crate::error::Result;
use crate::layout::xattr::XATTR_MAGIC;
use crate::zeros;

/// Bytes of the header: its magic alone.
const HEADER_LEN: usize = 4;

/// The attributes in an inode. `bytes` reaches from the end of the inode's fields (`i_extra_isize`) to its own end;
/// without the magic number there are none.
///
/// # Errors
/// [`crate::Error::Corrupt`] where an entry or a value does not lie inside.
pub(crate) fn decode_in_inode(bytes: &[u8], inode: u32) -> Result<Vec<Xattr>> {
    if bytes.get(..HEADER_LEN) != Some(XATTR_MAGIC.to_le_bytes().as_slice()) {
        return Ok(Vec::new());
    }
    entries::decode(bytes, HEADER_LEN, HEADER_LEN, &format_args!("inode {inode}"))
}

/// Makes all bytes zeros behind an inode's fields that no attribute has. Returns how many changed.
///
/// # Errors
/// As [`decode_in_inode`]; nothing is changed then.
pub(crate) fn scrub_in_inode(bytes: &mut [u8], inode: u32) -> Result<u64> {
    if bytes.get(..HEADER_LEN) != Some(XATTR_MAGIC.to_le_bytes().as_slice()) {
        return Ok(zeros::clear(bytes));
    }
    entries::scrub(bytes, HEADER_LEN, HEADER_LEN, &format_args!("inode {inode}"))
}

/// Where the inline data lies among the bytes behind an inode's fields; empty where there is none.
///
/// # Errors
/// As [`decode_in_inode`].
pub(crate) fn inline_value(bytes: &[u8], inode: u32) -> Result<Range<usize>> {
    if bytes.get(..HEADER_LEN) != Some(XATTR_MAGIC.to_le_bytes().as_slice()) {
        return Ok(0..0);
    }
    entries::inline_value(bytes, HEADER_LEN, HEADER_LEN, &format_args!("inode {inode}"))
}

/// How many bytes of entries and values there is room for.
pub(super) fn room(space: usize) -> usize {
    // Values keep their alignment to the entries.
    (space / 4 * 4).saturating_sub(HEADER_LEN + END_LEN)
}

/// The bytes behind an inode's fields; all zeros where there are no attributes.
pub(super) fn encode(raws: &[&Raw<'_>], space: usize) -> Vec<u8> {
    let mut bytes = vec![0; space];
    if !raws.is_empty() {
        bytes[..HEADER_LEN].copy_from_slice(&XATTR_MAGIC.to_le_bytes());
        entries::encode(raws, &mut bytes, HEADER_LEN, HEADER_LEN, Hashes::Zero);
    }
    bytes
}
