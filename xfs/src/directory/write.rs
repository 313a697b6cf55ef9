//! Writing a directory anew, in the blocks that it has as far as they go.

use std::collections::BTreeMap;

use super::build::{self, Built, Header};
use crate::Result;
use crate::bytes::{put, put_checksum, put64};
use crate::extents::Extent;
use crate::file_system::FileSystem;
use crate::inode::{Fork, Inode};
use crate::listing::Directory;
use crate::space::owner;

impl FileSystem {
    /// Writes a directory as it is in memory.
    pub(crate) fn write_directory(&mut self, number: u64, directory: &Directory) -> Result<()> {
        let mut inode = self.directory_inode(number)?;
        let entries: Vec<_> = directory.entries().collect();
        if let Some(bytes) = build::short(&entries, directory.parent, self.sb.has_ftype)
            && bytes.len() <= inode.literal_len()
        {
            let mut emptied = inode.clone();
            self.release_fork_into(&inode, &mut emptied)?;
            // The size tells how long the fork is.
            if Self::put_local(&mut emptied, Fork::Data, &bytes) {
                emptied.set_size(bytes.len() as u64);
                return self.put_inode(&mut emptied);
            }
            inode = emptied;
        }
        self.write_as_blocks(&mut inode, directory)?;
        self.put_inode(&mut inode)
    }

    /// Writes a directory into blocks, however small it is.
    pub(crate) fn write_as_blocks(&mut self, inode: &mut Inode, directory: &Directory) -> Result<()> {
        let entries: Vec<_> = directory.entries().collect();
        let (unit, format) = (self.sb.block_size, self.dir_format());
        let (built, len) = build::blocks(&entries, inode.number, directory.parent, format, unit);
        self.write_blocks(inode, built)?;
        inode.set_size(len);
        Ok(())
    }

    /// An inode without its data fork: its blocks are given back.
    fn release_fork_into(&mut self, inode: &Inode, emptied: &mut Inode) -> Result<()> {
        debug_assert_eq!(inode, emptied);
        self.release_fork(emptied, Fork::Data)?;
        emptied.set_size(0);
        Ok(())
    }

    fn write_blocks(&mut self, inode: &mut Inode, built: Vec<Built>) -> Result<()> {
        let old = self.extents(inode, Fork::Data)?;
        let unit = self.sb.block_size as u64;
        let per_block = (self.sb.dir_block_size / self.sb.block_size) as u64;
        let mut kept: BTreeMap<u64, u64> = BTreeMap::new();
        let mut wanted = built.iter().map(|block| block.offset / unit).peekable();
        // Both ascend: what is not wanted any more is given back.
        for extent in &old.list {
            for at in 0..extent.len {
                let offset = extent.offset + at;
                while wanted.peek().is_some_and(|first| first + per_block <= offset) {
                    wanted.next();
                }
                if wanted.peek().is_some_and(|first| *first <= offset) && !extent.unwritten {
                    kept.insert(offset, extent.block + at);
                } else {
                    self.release(extent.block + at, 1, owner(inode.number, Fork::Data, offset, extent.unwritten))?;
                }
            }
        }
        for block in built {
            let first = block.offset / unit;
            let mut at = first;
            while at < first + per_block {
                if kept.contains_key(&at) {
                    at += 1;
                    continue;
                }
                let missing = (at..first + per_block).take_while(|at| !kept.contains_key(at)).count() as u64;
                let (place, len) = self.allocate(missing, owner(inode.number, Fork::Data, at, false))?;
                kept.extend((0..len).map(|step| (at + step, place + step)));
                at += len;
            }
            let mut bytes = block.bytes;
            let places: Vec<u64> = (first..first + per_block).filter_map(|at| kept.get(&at).copied()).collect();
            self.stamp(&mut bytes, block.header, places.first().copied().unwrap_or(0), inode.number);
            for (place, part) in places.iter().zip(bytes.chunks_exact(self.sb.block_size)) {
                self.store.put(*place, part.to_vec())?;
            }
        }
        let list =
            self.coalesce(kept.into_iter().map(|(offset, block)| Extent { offset, block, len: 1, unwritten: false }));
        self.put_extents(inode, Fork::Data, &old, &list)
    }

    /// Fills in place, UUID, owner and checksum of a block.
    pub(crate) fn stamp(&self, bytes: &mut [u8], header: Header, place: u64, inode: u64) {
        let (crc, at) = match header {
            Header::Data => (4, 8),
            Header::Leaf => (12, 16),
        };
        put64(bytes, at, self.sb.daddr(place));
        put(bytes, at + 16, &self.sb.meta_uuid);
        put64(bytes, at + 32, inode);
        put_checksum(bytes, crc);
    }

    /// Joins extents that lie together.
    pub(crate) fn coalesce(&self, extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
        const MAX_LEN: u64 = (1 << 21) - 1;
        let mut list: Vec<Extent> = Vec::new();
        for extent in extents {
            match list.last_mut() {
                Some(last)
                    if last.end() == extent.offset
                        && last.block + last.len == extent.block
                        && self.sb.split(extent.block).1 != 0
                        && last.unwritten == extent.unwritten
                        && last.len + extent.len <= MAX_LEN =>
                {
                    last.len += extent.len;
                }
                _ => list.push(extent),
            }
        }
        list
    }
}
