//! A leaf of attributes: entries from the front, names and values from the back. "Leaf Attributes".

use crate::bytes::{be16, be32};

const FLAG_LOCAL: u8 = 1;

/// An entry of a leaf.
pub(super) struct LeafEntry {
    pub(super) flags: u8,
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The first block and the length of a value that lies elsewhere.
    pub(super) remote: Option<(u32, u32)>,
}

/// Reads a leaf's entries.
pub(super) fn decode(bytes: &[u8], is_v5: bool) -> Result<Vec<LeafEntry>, &'static str> {
    let (counts, header) = if is_v5 { (56, 80) } else { (12, 32) };
    let magic = if is_v5 { 0x3bee } else { 0xfbee };
    if be16(bytes, 8) != magic {
        return Err("a leaf of attributes is where it is expected");
    }
    let count = usize::from(be16(bytes, counts));
    let entries = bytes.get(header..header + count * 8).ok_or("a leaf's entries lie in it")?;
    let mut found = Vec::with_capacity(count);
    for entry in entries.as_chunks::<8>().0 {
        let (at, flags) = (usize::from(be16(entry, 4)), entry[6]);
        let wrong = "attributes lie in their leaf and have a name";
        if flags & FLAG_LOCAL != 0 {
            let (value_len, name_len) =
                (usize::from(be16(bytes, at)), usize::from(bytes.get(at + 2).copied().unwrap_or(0)));
            let both = bytes.get(at + 3..at + 3 + name_len + value_len).filter(|_| name_len > 0).ok_or(wrong)?;
            let (name, value) = both.split_at(name_len);
            found.push(LeafEntry { flags, name: name.to_vec(), value: value.to_vec(), remote: None });
        } else {
            let name_len = usize::from(bytes.get(at + 8).copied().unwrap_or(0));
            let name = bytes.get(at + 9..at + 9 + name_len).filter(|_| name_len > 0).ok_or(wrong)?;
            let remote = Some((be32(bytes, at), be32(bytes, at + 4)));
            found.push(LeafEntry { flags, name: name.to_vec(), value: Vec::new(), remote });
        }
    }
    Ok(found)
}
