//! Inline data: what small files and directories keep in `i_block` and in the attribute `system.data`. Read.
//!
//! <https://docs.kernel.org/filesystems/ext4/inlinedata.html>

use std::ops::Range;

use zerocopy::FromBytes;

use crate::directory::Entry;
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::layout::dir_entry::DirEntryHeader;
use crate::{Error, Result};

const HEADER_LEN: usize = size_of::<DirEntryHeader>();
/// The attribute that holds what does not fit `i_block`.
pub(crate) const ATTRIBUTE: &[u8] = b"system.data";
/// Bytes at the start of an inline directory that hold the parent's inode number, in place of `.` and `..`.
pub(crate) const PARENT_LEN: usize = 4;

impl FileSystem {
    /// Reads a file's inline data. What it does not have reads as zeros.
    pub(crate) fn read_inline(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<()> {
        let (mut bytes, rest) = self.inline_data(inode)?;
        bytes.extend_from_slice(&rest);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let held = &bytes[start..bytes.len().min(start + buf.len())];
        buf[..held.len()].copy_from_slice(held);
        buf[held.len()..].fill(0);
        Ok(())
    }

    /// The entries of an inline directory, which has neither `.` nor `..`.
    pub(crate) fn inline_entries(&self, inode: &Inode) -> Result<Vec<Entry>> {
        let (first, rest) = self.inline_data(inode)?;
        let mut entries = Vec::new();
        // Each part is filled by its own entries.
        for part in [&first[PARENT_LEN..], rest.as_slice()] {
            self.decode_entries(inode, part, &mut entries)?;
        }
        Ok(entries)
    }

    /// The bytes of a part of an inline directory that say nothing: unused entries and what lies behind names. Calls
    /// `visit` with the inode of every entry.
    pub(crate) fn inline_blanks(
        &self,
        inode: &Inode,
        part: &[u8],
        visit: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Vec<Range<usize>>> {
        let mut blanks = Vec::new();
        self.for_each_inline(inode, part, |at, header, name, len| {
            if header.inode.get() == 0 {
                // Its length stays.
                blanks.push(at + 6..at + len);
                return Ok(());
            }
            blanks.push(at + HEADER_LEN + name.len()..at + len);
            visit(header.inode.get())
        })?;
        Ok(blanks)
    }

    /// What `i_block` holds, and what the attribute holds.
    fn inline_data(&self, inode: &Inode) -> Result<(Vec<u8>, Vec<u8>)> {
        let rest = self.attributes(inode)?.into_iter().find(|attribute| attribute.name == ATTRIBUTE);
        Ok((inode.raw.i_block.to_vec(), rest.map(|attribute| attribute.value).unwrap_or_default()))
    }

    fn decode_entries(&self, inode: &Inode, bytes: &[u8], entries: &mut Vec<Entry>) -> Result<()> {
        self.for_each_inline(inode, bytes, |_, header, name, _| {
            if header.inode.get() != 0 {
                let file_type = if self.directory_format.has_file_type { header.file_type } else { 0 };
                entries.push(Entry { inode: header.inode.get(), file_type, name: name.to_vec() });
            }
            Ok(())
        })
    }

    /// Calls `visit` with the entries of a part of an inline directory: offset, header, name, length.
    fn for_each_inline(
        &self,
        inode: &Inode,
        bytes: &[u8],
        mut visit: impl FnMut(usize, DirEntryHeader, &[u8], usize) -> Result<()>,
    ) -> Result<()> {
        let wrong = || {
            let expected = "entries fill the inline data";
            Error::corrupt("inline directory", format_args!("inode {}", inode.number), expected)
        };
        let any_byte = inode.flags().contains(InodeFlags::ENCRYPT);
        let mut at = 0;
        while at < bytes.len() {
            let (header, names) = DirEntryHeader::read_from_prefix(&bytes[at..]).map_err(|_| wrong())?;
            let name = names.get(..usize::from(header.name_len)).ok_or_else(wrong)?;
            let len = usize::from(header.rec_len.get());
            if len < HEADER_LEN + name.len() || len > bytes.len() - at || !len.is_multiple_of(4) {
                return Err(wrong());
            }
            let bad = name.is_empty() || (!any_byte && name.iter().any(|byte| matches!(byte, b'/' | 0)));
            if header.inode.get() != 0 && bad {
                return Err(wrong());
            }
            visit(at, header, name, len)?;
            at += len;
        }
        Ok(())
    }
}
