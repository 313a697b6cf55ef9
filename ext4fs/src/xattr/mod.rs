//! Extended attributes, in the inode and in a block of their own.
//!
//! <https://docs.kernel.org/filesystems/ext4/attributes.html>, kernel `fs/ext4/xattr.c`.

mod acl;
mod block;
mod entries;
mod in_inode;
mod name;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};

pub(crate) use acl::inherit as inherit_acl;
pub(crate) use block::{block_refcount, decode_block, finish_block, scrub_block, set_block_refcount};
pub(crate) use in_inode::{decode_in_inode, inline_value, scrub_in_inode};

/// The name, as it shows, of the attribute that says how an inode is encrypted.
pub(crate) const ENCRYPTION_CONTEXT: &[u8] = b"index9.c";

/// An attribute of an inode. ACLs have the form that the kernel shows (that of `xattr(7)`), not that of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xattr {
    /// The name with its prefix. An index that has no prefix shows as `index9.`.
    pub name: Vec<u8>,
    /// The value; empty where an inode holds it.
    pub value: Vec<u8>,
    /// The inode that holds the value (`INCOMPAT_EA_INODE`), or 0.
    pub value_inode: u32,
    /// Where an inode holds the value: its size.
    pub value_size: u32,
    /// Where an inode holds the value: `e_hash`, which is made of the name and that inode's hash of the value.
    pub hash: u32,
    /// Whether it lies in a block that other inodes have, too.
    pub shared: bool,
}

impl Xattr {
    /// An attribute with its value beside it.
    pub(crate) fn new(name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), value: value.into(), value_inode: 0, value_size: 0, hash: 0, shared: false }
    }
}

/// All attributes of an inode as they go to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What follows `i_extra_isize`, exactly as long as the space given.
    pub in_inode: Vec<u8>,
    /// The block for what does not fit there. Its refcount is 1; [`finish_block`] gives it its checksum once its
    /// number is known.
    pub block: Option<Vec<u8>>,
}

/// Lays out attributes: in the inode as long as they fit, in their order, and the others in a block.
///
/// # Errors
/// [`Error::NoSpace`] where they do not fit, [`Error::Invalid`] for a name without a known prefix, of no or more than
/// 255 bytes, or given twice, and for an ACL that is none.
pub(crate) fn encode(attributes: &[Xattr], in_inode_space: usize, block_size: usize) -> Result<Layout> {
    let mut raws = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        raws.push(entries::Raw::from_xattr(attribute)?);
    }
    for (at, raw) in raws.iter().enumerate() {
        if raws[..at].iter().any(|other| (other.index, other.name) == (raw.index, raw.name)) {
            return Err(Error::Invalid("an attribute is given twice"));
        }
    }
    // The data of a small file can be nowhere but in the inode.
    raws.sort_by_key(|raw| !raw.is_inline_data());
    if let Some(layout) = place(&raws, in_inode_space, block_size) {
        return Ok(layout);
    }
    // The largest first leave the least room unused.
    raws.sort_by_key(|raw| (!raw.is_inline_data(), std::cmp::Reverse(raw.len())));
    place(&raws, in_inode_space, block_size).ok_or(Error::NoSpace("extended attributes"))
}

/// An attribute's value as it goes to disk.
///
/// # Errors
/// As [`encode`].
pub(crate) fn disk_value(attribute: &Xattr) -> Result<Vec<u8>> {
    Ok(entries::Raw::from_xattr(attribute)?.value().to_vec())
}

/// `e_hash` of an attribute whose value lies in an inode and has this hash there.
///
/// # Errors
/// As [`encode`].
pub(crate) fn hash_of_value_inode(attribute: &Xattr, hash: u32) -> Result<u32> {
    Ok(entries::hash_entry(name::split(&attribute.name)?.1, &hash.to_le_bytes()))
}

/// How many bytes of inline data an inode has room for beside these attributes, if it has room for the entry at all.
///
/// # Errors
/// As [`encode`].
pub(crate) fn room_for_inline(others: &[Xattr], in_inode_space: usize) -> Result<Option<usize>> {
    let mut taken = 0;
    for attribute in others {
        let raw = entries::Raw::from_xattr(attribute)?;
        taken += if raw.is_inline_data() { 0 } else { raw.len() };
    }
    let entry = Xattr::new([b"system.".as_slice(), name::INLINE_DATA.1].concat(), Vec::new());
    taken += entries::Raw::from_xattr(&entry)?.len();
    Ok(in_inode::room(in_inode_space).checked_sub(taken).map(|room| room / 4 * 4))
}

/// Gives each attribute in turn to the inode if it fits, else to the block.
fn place(raws: &[entries::Raw<'_>], in_inode_space: usize, block_size: usize) -> Option<Layout> {
    let mut left = in_inode::room(in_inode_space);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for raw in raws {
        if raw.len() <= left {
            left -= raw.len();
            inside.push(raw);
        } else if raw.is_inline_data() {
            return None;
        } else {
            outside.push(raw);
        }
    }
    let block = if outside.is_empty() { None } else { Some(block::encode(outside, block_size)?) };
    Some(Layout { in_inode: in_inode::encode(&inside, in_inode_space), block })
}
