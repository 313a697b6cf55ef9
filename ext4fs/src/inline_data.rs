//! Inline data: what small files and directories keep in `i_block` and in the attribute `system.data`. Read only.
//!
//! <https://docs.kernel.org/filesystems/ext4/inlinedata.html>

use zerocopy::FromBytes;

use crate::directory::Entry;
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::layout::dir_entry::DirEntryHeader;
use crate::{Error, Result};

/// The attribute that holds what does not fit `i_block`.
pub(crate) const ATTRIBUTE: &[u8] = b"system.data";
/// Bytes at the start of an inline directory that hold the parent's inode number, in place of `.` and `..`.
const PARENT_LEN: usize = 4;

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

    /// What `i_block` holds, and what the attribute holds.
    fn inline_data(&self, inode: &Inode) -> Result<(Vec<u8>, Vec<u8>)> {
        let rest = self.attributes(inode)?.into_iter().find(|attribute| attribute.name == ATTRIBUTE);
        Ok((inode.raw.i_block.to_vec(), rest.map(|attribute| attribute.value).unwrap_or_default()))
    }

    fn decode_entries(&self, inode: &Inode, mut bytes: &[u8], entries: &mut Vec<Entry>) -> Result<()> {
        let wrong = || {
            let expected = "entries fill the inline data";
            Error::corrupt("inline directory", format_args!("inode {}", inode.number), expected)
        };
        while !bytes.is_empty() {
            let (header, names) = DirEntryHeader::read_from_prefix(bytes).map_err(|_| wrong())?;
            let name = names.get(..usize::from(header.name_len)).ok_or_else(wrong)?;
            let len = usize::from(header.rec_len.get());
            if len < size_of::<DirEntryHeader>() + name.len() || len > bytes.len() {
                return Err(wrong());
            }
            if header.inode.get() != 0 {
                if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                    return Err(wrong());
                }
                let file_type = if self.directory_format.has_file_type { header.file_type } else { 0 };
                entries.push(Entry { inode: header.inode.get(), file_type, name: name.to_vec() });
            }
            bytes = &bytes[len..];
        }
        Ok(())
    }
}
