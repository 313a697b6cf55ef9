//! Writing attributes: all of an inode's at once, in the inode where they fit, and else in one leaf.

use super::{Attribute, FLAG_ROOT, FLAG_SECURE, split_name};
use crate::bytes::{put, put_checksum, put16, put32, put64};
use crate::directory::build::Header;
use crate::directory::hash;
use crate::extents::{Extent, Extents};
use crate::file_system::FileSystem;
use crate::fork::arrange;
use crate::inode::{Fork, Format, Inode};
use crate::metadata::FileKind;
use crate::space::owner;
use crate::{Error, Result};

const LEAF_HEADER: usize = 80;
const VALUE_HEADER: usize = 56;
/// Room for three extents of attributes.
const LEAST_ROOM: usize = 48;

impl FileSystem {
    /// Sets an extended attribute by its full name; `None` removes it, and missing is fine.
    pub(crate) fn change_xattr(&mut self, number: u64, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let Some((flags, name)) = split_name(name) else {
            return Err(Error::Invalid("an attribute's name begins with user., trusted., security. or is an ACL's"));
        };
        if value.is_some_and(|value| value.len() > crate::limits::MAX_XATTR_LEN) {
            return Err(Error::NoSpace("an attribute has at most 64 KiB"));
        }
        let mut inode = self.inode(number)?;
        let mut attributes = self.attributes(&inode)?;
        let at = attributes.iter().position(|found| found.flags == flags && found.name == name);
        match (at, value) {
            (None, None) => return Ok(()),
            (Some(at), None) => drop(attributes.remove(at)),
            (Some(at), Some(value)) => attributes[at].value = value.to_vec(),
            (None, Some(value)) => attributes.push(Attribute { flags, name, value: value.to_vec() }),
        }
        let short = short(&attributes);
        if short.is_none() || short.as_ref().is_some_and(|bytes| bytes.len() > inode.literal_len() - 8) {
            // Whether one leaf holds all is known before anything is changed.
            self.leaf(&attributes)?;
        }
        let now = self.clock;
        self.change(|fs| {
            fs.touched.insert(number);
            fs.release_fork(&mut inode, Fork::Attr)?;
            fs.put_attributes(&mut inode, &attributes, short)?;
            inode.set_changed(now);
            fs.put_inode(&mut inode)
        })
    }

    fn put_attributes(&mut self, inode: &mut Inode, attributes: &[Attribute], short: Option<Vec<u8>>) -> Result<()> {
        // Nothing of the old fork may be moved along.
        if inode.forkoff() != 0 {
            let (from, end) = inode.fork_range(Fork::Attr);
            inode.raw[from..end].fill(0);
        }
        inode.set_format(Fork::Attr, Format::Extents);
        inode.set_extent_count(Fork::Attr, 0);
        if attributes.is_empty() {
            // Without attributes there is no fork for them: all of the area is the other's.
            // A tree's root would have to move; an empty fork is as good.
            if inode.format(Fork::Data) != Format::Btree {
                inode.set_forkoff(0);
            }
            return Ok(());
        }
        if let Some(bytes) = &short
            && Self::put_local(inode, Fork::Attr, bytes)
        {
            return Ok(());
        }
        if arrange(inode, Fork::Attr, LEAST_ROOM) {
            return self.put_leaf(inode, attributes);
        }
        // What the inode itself holds has to go into blocks.
        let evicted = self.evict(inode)?;
        let done = short.is_some_and(|bytes| Self::put_local(inode, Fork::Attr, &bytes));
        if !done {
            if !arrange(inode, Fork::Attr, LEAST_ROOM) {
                return Err(Error::NoSpace("the inode has no room for attributes"));
            }
            self.put_leaf(inode, attributes)?;
        }
        match evicted {
            Evicted::Extents(old) => self.put_extents(inode, Fork::Data, &old, &old.list),
            Evicted::Target(target) => self.put_target(inode, &target),
            Evicted::Directory => {
                let directory = self.listing(inode.number)?;
                self.write_as_blocks(inode, &directory)
            }
        }
    }

    /// Takes what the data fork holds out of the inode, to be put back in a smaller form.
    fn evict(&mut self, inode: &mut Inode) -> Result<Evicted> {
        let evicted = match (inode.format(Fork::Data), inode.kind()?) {
            (Format::Local, FileKind::Directory) => {
                self.listing(inode.number)?;
                Evicted::Directory
            }
            (Format::Local, _) => {
                let len = inode.size() as usize;
                Evicted::Target(inode.fork(Fork::Data).get(..len).unwrap_or_default().to_vec())
            }
            (Format::Device, _) => return Err(Error::NoSpace("the inode has no room for attributes")),
            _ => Evicted::Extents(self.extents(inode, Fork::Data)?),
        };
        let (from, end) = inode.fork_range(Fork::Data);
        inode.raw[from..end].fill(0);
        inode.set_format(Fork::Data, Format::Extents);
        inode.set_extent_count(Fork::Data, 0);
        Ok(evicted)
    }

    /// Puts attributes into a leaf, and their values into blocks of their own where they are long.
    fn put_leaf(&mut self, inode: &mut Inode, attributes: &[Attribute]) -> Result<()> {
        let (mut leaf, values) = self.leaf(attributes)?;
        let payload = self.sb.block_size - VALUE_HEADER;
        let wanted: u64 = 1 + values.iter().map(|value| value.bytes.len().div_ceil(payload) as u64).sum::<u64>();
        let mut list = Vec::new();
        let mut at = 0;
        while at < wanted {
            let (block, len) = self.allocate(wanted - at, owner(inode.number, Fork::Attr, at, false))?;
            list.push(Extent { offset: at, block, len, unwritten: false });
            at += len;
        }
        let list = self.coalesce(list.into_iter());
        let extents = Extents { list, tree_blocks: Vec::new() };
        let place = |at: u64| extents.block(at).ok_or(Error::Poisoned);
        let mut next = 1_u64;
        for value in values {
            put32(&mut leaf, value.place, next as u32);
            let mut offset = 0;
            for part in value.bytes.chunks(payload) {
                let block = place(next)?;
                let mut bytes = vec![0; self.sb.block_size];
                put(&mut bytes, 0, b"XARM");
                put32(&mut bytes, 4, offset);
                put32(&mut bytes, 8, part.len() as u32);
                put(&mut bytes, 16, &self.sb.meta_uuid);
                put64(&mut bytes, 32, inode.number);
                put64(&mut bytes, 40, self.sb.daddr(block));
                put(&mut bytes, VALUE_HEADER, part);
                put_checksum(&mut bytes, 12);
                self.store.put(block, bytes)?;
                offset += part.len() as u32;
                next += 1;
            }
        }
        let first = place(0)?;
        self.stamp(&mut leaf, Header::Leaf, first, inode.number);
        self.store.put(first, leaf)?;
        self.put_extents(inode, Fork::Attr, &Extents::default(), &extents.list)
    }

    /// A leaf of all attributes, and the values that need blocks of their own.
    fn leaf<'a>(&self, attributes: &'a [Attribute]) -> Result<(Vec<u8>, Vec<Remote<'a>>)> {
        let size = self.sb.block_size;
        let mut bytes = vec![0; size];
        let mut sorted: Vec<&Attribute> = attributes.iter().collect();
        sorted.sort_by_key(|attribute| hash(&attribute.name));
        let mut end = size;
        let mut remote = Vec::new();
        let entries_end = LEAF_HEADER + sorted.len() * 8;
        for (slot, attribute) in sorted.iter().enumerate() {
            let local_len = (3 + attribute.name.len() + attribute.value.len()).next_multiple_of(4);
            let is_local = local_len < size / 2 + size / 4;
            let len = if is_local { local_len } else { (9 + attribute.name.len()).next_multiple_of(4) };
            end = end
                .checked_sub(len)
                .filter(|end| *end >= entries_end)
                .ok_or(Error::NoSpace("attributes that need more than one leaf are not written"))?;
            if is_local {
                put16(&mut bytes, end, attribute.value.len() as u16);
                put(&mut bytes, end + 2, &[attribute.name.len() as u8]);
                put(&mut bytes, end + 3, &attribute.name);
                put(&mut bytes, end + 3 + attribute.name.len(), &attribute.value);
            } else {
                put32(&mut bytes, end + 4, attribute.value.len() as u32);
                put(&mut bytes, end + 8, &[attribute.name.len() as u8]);
                put(&mut bytes, end + 9, &attribute.name);
                remote.push(Remote { place: end, bytes: &attribute.value });
            }
            let entry = LEAF_HEADER + slot * 8;
            put32(&mut bytes, entry, hash(&attribute.name));
            put16(&mut bytes, entry + 4, end as u16);
            let flags = attribute.flags & (FLAG_ROOT | FLAG_SECURE) | u8::from(is_local);
            put(&mut bytes, entry + 6, &[flags]);
        }
        put16(&mut bytes, 8, 0x3bee);
        put16(&mut bytes, 56, sorted.len() as u16);
        put16(&mut bytes, 58, (size - end) as u16);
        put16(&mut bytes, 60, end as u16);
        put16(&mut bytes, 64, entries_end as u16);
        put16(&mut bytes, 66, (end - entries_end) as u16);
        Ok((bytes, remote))
    }
}

/// What a data fork held.
enum Evicted {
    Extents(Extents),
    Target(Vec<u8>),
    Directory,
}

/// A value in blocks of its own, and where in the leaf the first one's number belongs.
struct Remote<'a> {
    place: usize,
    bytes: &'a [u8],
}

/// All attributes as bytes for the inode, where names and values are short enough for that.
fn short(attributes: &[Attribute]) -> Option<Vec<u8>> {
    let mut bytes = vec![0, 0, u8::try_from(attributes.len()).ok()?, 0];
    for attribute in attributes {
        bytes.push(u8::try_from(attribute.name.len()).ok()?);
        bytes.push(u8::try_from(attribute.value.len()).ok()?);
        bytes.push(attribute.flags);
        bytes.extend_from_slice(&attribute.name);
        bytes.extend_from_slice(&attribute.value);
    }
    let len = u16::try_from(bytes.len()).ok()?;
    put16(&mut bytes, 0, len);
    Some(bytes)
}
