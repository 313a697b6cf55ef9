//! Extended attributes. "Extended Attributes": in the inode, in leaf blocks, and values in blocks of their own.

mod leaf;
mod write;

use crate::bytes::{be16, be32, be64, checksum, le32, uuid};
use crate::extents::Extents;
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::MAX_XATTR_LEN;
use crate::{Error, Result};

/// An attribute is one of root's own (`trusted.`).
pub(crate) const FLAG_ROOT: u8 = 2;
/// An attribute is one of `security.`.
pub(crate) const FLAG_SECURE: u8 = 4;
/// A parent pointer: no attribute for users.
pub(crate) const FLAG_PARENT: u8 = 8;
/// An attribute that is being changed.
pub(crate) const FLAG_INCOMPLETE: u8 = 0x80;

/// An attribute: its namespace, its name without it, and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) flags: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Attribute {
    /// The name with its namespace, as users know it.
    pub(crate) fn full_name(&self) -> Vec<u8> {
        match (self.flags & (FLAG_ROOT | FLAG_SECURE), self.name.as_slice()) {
            (FLAG_ROOT, b"SGI_ACL_FILE") => b"system.posix_acl_access".to_vec(),
            (FLAG_ROOT, b"SGI_ACL_DEFAULT") => b"system.posix_acl_default".to_vec(),
            (FLAG_ROOT, name) => [b"trusted.", name].concat(),
            (FLAG_SECURE, name) => [b"security.", name].concat(),
            (_, name) => [b"user.", name].concat(),
        }
    }
}

/// The namespace and the name in it of a name as users know it.
pub(crate) fn split_name(name: &[u8]) -> Option<(u8, Vec<u8>)> {
    let found = match name {
        b"system.posix_acl_access" => (FLAG_ROOT, b"SGI_ACL_FILE".to_vec()),
        b"system.posix_acl_default" => (FLAG_ROOT, b"SGI_ACL_DEFAULT".to_vec()),
        name => {
            let namespaces: [(&[u8], u8); 3] = [(b"user.", 0), (b"trusted.", FLAG_ROOT), (b"security.", FLAG_SECURE)];
            let split = |(prefix, flags): (&[u8], u8)| Some((flags, name.strip_prefix(prefix)?.to_vec()));
            namespaces.into_iter().find_map(split)?
        }
    };
    (!found.1.is_empty() && found.1.len() <= 255).then_some(found)
}

impl FileSystem {
    /// All attributes of an inode.
    pub(crate) fn attributes(&self, inode: &Inode) -> Result<Vec<Attribute>> {
        if inode.forkoff() == 0 {
            return Ok(Vec::new());
        }
        match inode.format(Fork::Attr) {
            Format::Local => short(inode),
            Format::Extents if inode.extent_count(Fork::Attr) == 0 => Ok(Vec::new()),
            _ => {
                let extents = self.extents(inode, Fork::Attr)?;
                self.leaf_attributes(inode, &extents)
            }
        }
    }

    /// Reads all leaves, from the leftmost on.
    fn leaf_attributes(&self, inode: &Inode, extents: &Extents) -> Result<Vec<Attribute>> {
        let mut attributes = Vec::new();
        let mut at = 0;
        let mut leaves = 0;
        // Down the tree's left edge, if there is one.
        for _ in 0..=5 {
            let bytes = self.attr_block(inode, extents, at)?;
            let header = if self.sb.is_v5 { 64 } else { 16 };
            match be16(&bytes, 8) {
                0x3ebe | 0xfebe if be16(&bytes, header - 8) > 0 || !self.sb.is_v5 => at = be32(&bytes, header + 4),
                _ => break,
            }
        }
        loop {
            let bytes = self.attr_block(inode, extents, at)?;
            leaves += 1;
            if leaves > extents.blocks() {
                return Err(inode.corrupt("leaves of attributes do not lead in a circle"));
            }
            for local in leaf::decode(&bytes, self.sb.is_v5).map_err(|rule| inode.corrupt(rule))? {
                let value = match local.remote {
                    None => local.value,
                    Some((block, len)) => self.remote_value(inode, extents, block, len)?,
                };
                if local.flags & (FLAG_INCOMPLETE | FLAG_PARENT) == 0 {
                    attributes.push(Attribute {
                        flags: local.flags & (FLAG_ROOT | FLAG_SECURE),
                        name: local.name,
                        value,
                    });
                }
            }
            at = be32(&bytes, 0);
            if at == 0 {
                return Ok(attributes);
            }
        }
    }

    /// A block of leaves or of nodes.
    pub(crate) fn attr_block(&self, inode: &Inode, extents: &Extents, at: u32) -> Result<crate::store::Block> {
        let wrong =
            |rule: &str| Error::corrupt("attribute block", format_args!("block {at} of inode {}", inode.number), rule);
        let number = extents.block(at.into()).ok_or_else(|| wrong("it is there"))?;
        let bytes = self.store.block(number)?;
        let magics = if self.sb.is_v5 { [0x3bee, 0x3ebe] } else { [0xfbee, 0xfebe] };
        if !magics.contains(&be16(&bytes, 8)) {
            return Err(wrong("the magic number is right"));
        }
        if self.sb.is_v5 {
            if checksum(&bytes, 12) != le32(&bytes, 12) {
                return Err(wrong("the checksum is right"));
            }
            if (be64(&bytes, 16), uuid(&bytes, 32), be64(&bytes, 48))
                != (self.sb.daddr(number), self.sb.meta_uuid, inode.number)
            {
                return Err(wrong("place, UUID and owner are its own"));
            }
        }
        Ok(bytes)
    }

    /// A value in blocks of its own, each with a header in version 5.
    fn remote_value(&self, inode: &Inode, extents: &Extents, first: u32, len: u32) -> Result<Vec<u8>> {
        let len = len as usize;
        if len > MAX_XATTR_LEN {
            return Err(inode.corrupt(format!("a value has at most {MAX_XATTR_LEN} bytes, found {len}")));
        }
        let mut value = Vec::new();
        let mut at = u64::from(first);
        while value.len() < len {
            let wrong = |rule: &str| {
                Error::corrupt("attribute value", format_args!("block {at} of inode {}", inode.number), rule)
            };
            let number = extents.block(at).ok_or_else(|| wrong("it is there"))?;
            let bytes = self.store.block(number)?;
            let mut start = 0;
            let mut here = bytes.len();
            if self.sb.is_v5 {
                start = 56;
                here -= start;
                let sound = bytes.starts_with(b"XARM")
                    && be32(&bytes, 4) as usize == value.len()
                    && be32(&bytes, 8) as usize == here.min(len - value.len())
                    && checksum(&bytes, 12) == le32(&bytes, 12)
                    && (uuid(&bytes, 16), be64(&bytes, 32), be64(&bytes, 40))
                        == (self.sb.meta_uuid, inode.number, self.sb.daddr(number));
                if !sound {
                    return Err(wrong("magic number, checksum, place and owner are its own"));
                }
            }
            let here = here.min(len - value.len());
            value.extend_from_slice(&bytes[start..start + here]);
            at += 1;
        }
        Ok(value)
    }
}

/// Attributes in the inode itself.
fn short(inode: &Inode) -> Result<Vec<Attribute>> {
    let all = inode.fork(Fork::Attr);
    let bytes = all.get(..usize::from(be16(all, 0))).filter(|bytes| bytes.len() >= 4);
    let bytes = bytes.ok_or_else(|| inode.corrupt("its attributes lie in the inode"))?;
    let mut attributes = Vec::new();
    let mut at = 4;
    for _ in 0..bytes[2] {
        let entry = bytes.get(at..at + 3).map(|head| (usize::from(head[0]), usize::from(head[1]), head[2]));
        let parts = entry.and_then(|(name, value, flags)| {
            let rest = bytes.get(at + 3..at + 3 + name + value)?;
            (name > 0).then(|| (rest.split_at(name), flags))
        });
        let Some(((name, value), flags)) = parts else {
            return Err(inode.corrupt(format!("attribute at byte {at} lies in the inode and has a name")));
        };
        at += 3 + name.len() + value.len();
        if flags & (FLAG_INCOMPLETE | FLAG_PARENT) == 0 {
            let flags = flags & (FLAG_ROOT | FLAG_SECURE);
            attributes.push(Attribute { flags, name: name.to_vec(), value: value.to_vec() });
        }
    }
    Ok(attributes)
}
