//! Inline data, changed: small files and directories in their inode, until they outgrow it.
//!
//! <https://docs.kernel.org/filesystems/ext4/inlinedata.html>; `fs/ext4/inline.c`. The attribute `system.data` is there
//! whenever the inode has the flag, even with an empty value: kernels take the flag alone for damage.

use zerocopy::IntoBytes;

use crate::directory::{self, Entry};
use crate::directory_blocks::is_same_name;
use crate::extent_edit::init_root;
use crate::features::Incompat;
use crate::file_system::FileSystem;
use crate::inline_data::{ATTRIBUTE, PARENT_LEN};
use crate::inode::{Inode, InodeFlags};
use crate::layout::dir_entry::DirEntryHeader;
use crate::xattr::{self, Xattr};
use crate::{Error, Result};

/// Bytes of `i_block`.
const FIRST_LEN: usize = 60;
/// The shortest entry of a directory.
const MIN_ENTRY_LEN: usize = 12;

impl FileSystem {
    /// Whether an inode that has no data yet may keep it inline.
    pub(crate) fn may_be_inline(&self, inode: &Inode) -> bool {
        self.superblock.features.incompat.contains(Incompat::INLINE_DATA)
            && self.superblock.inode_size > 128
            && !inode.flags().intersects(InodeFlags::EA_INODE | InodeFlags::ENCRYPT | InodeFlags::VERITY)
    }

    /// How many bytes an inode can hold inline beside its attributes, if it can hold any.
    fn inline_capacity(&self, inode: &Inode) -> Result<Option<usize>> {
        let space = self.inode_attribute_bytes(inode.number)?;
        let others = xattr::decode_in_inode(&space, inode.number)?;
        let room = xattr::room_for_inline(&others, space.len())?;
        Ok(room.map(|room| FIRST_LEN + room))
    }

    /// Writes contents inline, if they may be there and fit. A file that outgrows its inode gets blocks.
    pub(crate) fn write_inline(&mut self, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<bool> {
        let size = inode.size(&self.superblock);
        let inline = inode.flags().contains(InodeFlags::INLINE_DATA);
        let blank = size == 0 && inode.sectors(&self.superblock) == 0 && self.may_be_inline(inode);
        if !inline && !blank {
            return Ok(false);
        }
        let end = offset.checked_add(data.len() as u64).ok_or(Error::FileTooLarge(u64::MAX))?;
        let fits = self.inline_capacity(inode)?.is_some_and(|capacity| size.max(end) <= capacity as u64);
        if !fits {
            if inline {
                self.leave_inline(inode)?;
            }
            return Ok(false);
        }
        let mut contents = vec![0; size.max(end) as usize];
        if inline {
            self.read_inline(inode, 0, &mut contents[..size as usize])?;
        }
        contents[offset as usize..end as usize].copy_from_slice(data);
        self.store_inline(inode, &contents)?;
        inode.set_size(contents.len() as u64);
        Ok(true)
    }

    /// Sets the length of a file that is inline, if it then still fits. A file that outgrows its inode gets blocks.
    pub(crate) fn set_inline_len(&mut self, inode: &mut Inode, len: u64) -> Result<bool> {
        if !inode.flags().contains(InodeFlags::INLINE_DATA) {
            return Ok(false);
        }
        if self.inline_capacity(inode)?.is_none_or(|capacity| len > capacity as u64) {
            self.leave_inline(inode)?;
            return Ok(false);
        }
        let size = inode.size(&self.superblock).min(len);
        let mut contents = vec![0; len as usize];
        self.read_inline(inode, 0, &mut contents[..size as usize])?;
        self.store_inline(inode, &contents)?;
        inode.set_size(len);
        Ok(true)
    }

    /// Moves a file's inline data into blocks.
    fn leave_inline(&mut self, inode: &mut Inode) -> Result<()> {
        self.require_blocks(2 + self.map_growth(1))?;
        let size = inode.size(&self.superblock);
        let capacity = self.inline_capacity(inode)?.unwrap_or(FIRST_LEN);
        let mut contents = vec![0; size.min(capacity as u64) as usize];
        self.read_inline(inode, 0, &mut contents)?;
        self.forget_inline(inode)?;
        if contents.is_empty() { Ok(()) } else { self.write_inode_at(inode, 0, &contents) }
    }

    /// Makes an inode one that maps blocks, none so far.
    fn forget_inline(&mut self, inode: &mut Inode) -> Result<()> {
        let mut flags = inode.flags().difference(InodeFlags::INLINE_DATA);
        inode.raw.i_block = [0; FIRST_LEN];
        if self.superblock.features.incompat.contains(Incompat::EXTENTS) {
            flags |= InodeFlags::EXTENTS;
            init_root(inode);
        }
        inode.set_flags(flags);
        self.replace_inline_value(inode, None)
    }

    /// Puts these bytes, which fit, into the inode.
    fn store_inline(&mut self, inode: &mut Inode, bytes: &[u8]) -> Result<()> {
        let (first, rest) = bytes.split_at(bytes.len().min(FIRST_LEN));
        inode.raw.i_block = [0; FIRST_LEN];
        inode.raw.i_block[..first.len()].copy_from_slice(first);
        inode.set_flags(inode.flags().difference(InodeFlags::EXTENTS) | InodeFlags::INLINE_DATA);
        self.replace_inline_value(inode, Some(rest))
    }

    /// Writes the inode with this value of `system.data`, or without the attribute.
    fn replace_inline_value(&mut self, inode: &mut Inode, value: Option<&[u8]>) -> Result<()> {
        let space = self.inode_attribute_bytes(inode.number)?;
        let mut attributes = xattr::decode_in_inode(&space, inode.number)?;
        attributes.retain(|attribute| attribute.name != ATTRIBUTE);
        if let Some(value) = value {
            attributes.insert(0, Xattr::new(ATTRIBUTE, value));
        }
        let layout = xattr::encode(&attributes, space.len(), self.superblock.block_size)?;
        if layout.block.is_some() {
            return Err(Error::NoSpace("the inode"));
        }
        self.write_inode_with_attributes(inode, &layout.in_inode)
    }

    /// Makes a new directory inline, if there may be such.
    pub(crate) fn fill_inline_directory(&mut self, inode: &mut Inode, parent: u32) -> Result<bool> {
        if !self.may_be_inline(inode) {
            return Ok(false);
        }
        self.write_inode(inode)?;
        if self.inline_capacity(inode)?.is_none() {
            return Ok(false);
        }
        self.store_inline_entries(inode, parent, &[], FIRST_LEN)
    }

    /// Adds a name to an inline directory, which gets blocks where it has no more room. Returns whether it is still
    /// inline; if not, the name is not yet added.
    pub(crate) fn insert_inline(&mut self, inode: &mut Inode, entry: &Entry) -> Result<bool> {
        let mut entries = self.inline_entries(inode)?;
        let parent = self.inline_parent(inode);
        entries.push(entry.clone());
        if let Some(capacity) = self.inline_capacity(inode)?
            && self.store_inline_entries(inode, parent, &entries, capacity)?
        {
            return Ok(true);
        }
        entries.pop();
        self.forget_inline(inode)?;
        self.fill_directory(inode, parent)?;
        self.write_inode(inode)?;
        let format = self.directory_format.clone();
        let mut blocks = self.directory_mut(inode.clone())?;
        for entry in &entries {
            directory::insert(&mut blocks, &format, entry)?;
        }
        *inode = blocks.inode;
        Ok(false)
    }

    /// Takes a name out of an inline directory.
    pub(crate) fn remove_inline(&mut self, inode: &mut Inode, name: &[u8]) -> Result<()> {
        let mut entries = self.inline_entries(inode)?;
        entries.retain(|entry| !is_same_name(inode, &entry.name, name));
        self.put_back_inline(inode, self.inline_parent(inode), &entries)
    }

    /// Lets a name of an inline directory name another inode.
    pub(crate) fn replace_inline(&mut self, inode: &mut Inode, name: &[u8], new: u32, file_type: u8) -> Result<()> {
        let mut entries = self.inline_entries(inode)?;
        for entry in entries.iter_mut().filter(|entry| is_same_name(inode, &entry.name, name)) {
            (entry.inode, entry.file_type) = (new, file_type);
        }
        self.put_back_inline(inode, self.inline_parent(inode), &entries)
    }

    /// Gives an inline directory another parent.
    pub(crate) fn set_inline_parent(&mut self, inode: &mut Inode, parent: u32) -> Result<()> {
        inode.raw.i_block[..PARENT_LEN].copy_from_slice(&parent.to_le_bytes());
        self.write_inode(inode)
    }

    /// The parent of an inline directory.
    pub(crate) fn inline_parent(&self, inode: &Inode) -> u32 {
        let bytes = inode.raw.i_block;
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn put_back_inline(&mut self, inode: &mut Inode, parent: u32, entries: &[Entry]) -> Result<()> {
        let capacity = self.inline_capacity(inode)?.unwrap_or(FIRST_LEN);
        // Names that were there before fit again, but perhaps not in the same order.
        if self.store_inline_entries(inode, parent, entries, capacity)? {
            return Ok(());
        }
        let place = format_args!("inode {}", inode.number);
        Err(Error::corrupt("inline directory", place, "has room for the names that it holds"))
    }

    /// Lays out the entries in at most `capacity` bytes. Returns whether they fit.
    fn store_inline_entries(
        &mut self,
        inode: &mut Inode,
        parent: u32,
        entries: &[Entry],
        capacity: usize,
    ) -> Result<bool> {
        let needed = |entry: &Entry| (size_of::<DirEntryHeader>() + entry.name.len()).next_multiple_of(4);
        // The longest first leave the least room unused.
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        if entries.iter().map(needed).sum::<usize>() > FIRST_LEN - PARENT_LEN {
            sorted.sort_by_key(|entry| std::cmp::Reverse(entry.name.len()));
        }
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        let (mut left, mut rest_len) = (FIRST_LEN - PARENT_LEN, 0);
        for entry in sorted {
            if needed(entry) <= left {
                left -= needed(entry);
                first.push(entry);
            } else {
                rest_len += needed(entry);
                rest.push(entry);
            }
        }
        if FIRST_LEN + rest_len > capacity {
            return Ok(false);
        }
        let mut bytes = vec![0; FIRST_LEN + rest_len];
        bytes[..PARENT_LEN].copy_from_slice(&parent.to_le_bytes());
        self.write_inline_entries(&mut bytes[PARENT_LEN..FIRST_LEN], &first);
        self.write_inline_entries(&mut bytes[FIRST_LEN..], &rest);
        self.store_inline(inode, &bytes)?;
        inode.set_size(bytes.len() as u64);
        self.write_inode(inode)?;
        Ok(true)
    }

    /// Writes entries over a part of an inline directory, which they fill.
    fn write_inline_entries(&self, part: &mut [u8], entries: &[&Entry]) {
        const HEADER_LEN: usize = size_of::<DirEntryHeader>();
        let mut at = 0;
        for (index, entry) in entries.iter().enumerate() {
            let needed = (HEADER_LEN + entry.name.len()).next_multiple_of(4);
            let len = if index + 1 == entries.len() { part.len() - at } else { needed };
            let header = DirEntryHeader {
                inode: entry.inode.into(),
                rec_len: (len as u16).into(),
                name_len: entry.name.len() as u8,
                file_type: if self.directory_format.has_file_type { entry.file_type } else { 0 },
            };
            part[at..at + HEADER_LEN].copy_from_slice(header.as_bytes());
            part[at + HEADER_LEN..at + HEADER_LEN + entry.name.len()].copy_from_slice(&entry.name);
            at += needed;
        }
        if entries.is_empty() && part.len() >= MIN_ENTRY_LEN {
            let len = part.len() as u16;
            part[4..6].copy_from_slice(&len.to_le_bytes());
        }
    }
}
