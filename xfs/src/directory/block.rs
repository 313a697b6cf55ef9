//! Blocks of directory entries. "Block Directories" and "Leaf Directories".

use super::{DirFormat, Entry, Listing, is_name, tail};
use crate::bytes::{be16, be32, be64};
use crate::zeros;

/// Reads the entries of a block, with `.` and `..` left out.
pub(super) fn decode(
    bytes: &[u8],
    format: DirFormat,
    is_block: bool,
    listing: &mut Listing,
) -> Result<(), &'static str> {
    let mut end = bytes.len();
    if is_block {
        let (count, stale) = tail(bytes);
        let leaves = count.checked_mul(8).and_then(|len| (bytes.len() - 8).checked_sub(len));
        end = leaves.ok_or("the tail counts what has room")?;
        listing.has_leftovers |= stale != 0;
    }
    let mut at = format.data_header();
    while at < end {
        if be16(bytes, at) == 0xffff {
            let len = usize::from(be16(bytes, at + 2));
            let free = bytes.get(at..(at + len).min(end)).filter(|free| free.len() == len && len >= 8 && len % 8 == 0);
            let free = free.ok_or("free space lies in the block, in units of 8 bytes")?;
            listing.has_leftovers |= !zeros::is_zero(&free[4..len - 2]);
            at += len;
            continue;
        }
        let name_len = usize::from(bytes.get(at + 8).copied().unwrap_or(0));
        let len = format.entry_len(name_len);
        if at + len > end {
            return Err("entries lie in the block");
        }
        let name = &bytes[at + 9..at + 9 + name_len];
        if usize::from(be16(bytes, at + len - 2)) != at {
            return Err("an entry's tag is its place");
        }
        let inode = be64(bytes, at);
        let type_at = at + 9 + name_len;
        let file_type = if format.has_ftype { bytes[type_at] } else { 0 };
        let padding = &bytes[type_at + usize::from(format.has_ftype)..at + len - 2];
        listing.has_leftovers |= !zeros::is_zero(padding);
        match name {
            b"." => {}
            b".." => listing.parent = inode,
            name if is_name(name) => listing.entries.push(Entry { name: name.to_vec(), inode, file_type }),
            _ => return Err("a name is 1 to 255 bytes without / and NUL"),
        }
        at += len;
    }
    debug_assert!(be32(bytes, 0) != 0);
    Ok(())
}
