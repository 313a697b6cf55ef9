//! Directories small enough for their inode. "Short Form Directories".

use super::{Entry, Listing, is_name};
use crate::Result;
use crate::bytes::{be32, be64};
use crate::inode::{Fork, Inode};
use crate::zeros;

/// Reads the entries of a directory that lies in its inode.
pub(super) fn decode(inode: &Inode, has_ftype: bool) -> Result<Listing> {
    let all = inode.fork(Fork::Data);
    let bytes = usize::try_from(inode.size()).ok().and_then(|len| all.get(..len));
    let bytes = bytes.filter(|bytes| bytes.len() >= 6);
    let bytes = bytes.ok_or_else(|| inode.corrupt(format!("its {} bytes are in the inode", inode.size())))?;
    let (count, wide) = (usize::from(bytes[0]), bytes[1] != 0);
    let width = if wide { 8 } else { 4 };
    let number = |at: usize| if wide { be64(bytes, at) & ((1 << 56) - 1) } else { be32(bytes, at).into() };
    let mut listing = Listing { parent: number(2), ..Listing::default() };
    let mut at = 2 + width;
    for _ in 0..count {
        let len = bytes.get(at).copied().map_or(0, usize::from);
        let end = at + 3 + len;
        let name = bytes.get(at + 3..end).filter(|name| is_name(name));
        let tail = end + usize::from(has_ftype) + width;
        let (Some(name), true) = (name, tail <= bytes.len()) else {
            return Err(inode.corrupt(format!("entry at byte {at} of its directory lies in it and has a name")));
        };
        let file_type = if has_ftype { bytes[end] } else { 0 };
        listing.entries.push(Entry { name: name.to_vec(), inode: number(tail - width), file_type });
        at = tail;
    }
    if at != bytes.len() {
        return Err(inode.corrupt(format!("its entries fill {} bytes, found {at}", bytes.len())));
    }
    listing.has_leftovers = !zeros::is_zero(&all[bytes.len()..]);
    Ok(listing)
}
