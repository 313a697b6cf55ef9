//! Writing contents of files, and setting their lengths.

use crate::extents::{Extent, Extents};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Inode};
use crate::space::owner;
use crate::{Error, Result};

/// Zeros are written in pieces of this many bytes.
const CHUNK: u64 = 1 << 20;

impl FileSystem {
    /// Writes all of `data` at `offset` of a regular file, growing it where needed.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::NoSpace`], and what the image or the device has against it.
    pub fn write_at(&mut self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(Error::FileTooLarge(u64::MAX))?;
        let mut inode = self.file_inode(inode)?;
        if data.is_empty() {
            return Ok(());
        }
        self.change(|fs| {
            let size = inode.size();
            if offset > size {
                fs.clear_written(&mut inode, size, offset)?;
            }
            fs.write_blocks_of(&mut inode, offset, data)?;
            inode.set_size(size.max(end));
            fs.stamp_contents(&mut inode);
            fs.put_inode(&mut inode)
        })
    }

    /// Sets a regular file's length. What lies after the end reads as zeros on the disk, too.
    ///
    /// # Errors
    /// As [`FileSystem::write_at`].
    pub fn set_len(&mut self, inode: u64, len: u64) -> Result<()> {
        if len > i64::MAX as u64 {
            return Err(Error::FileTooLarge(len));
        }
        let mut inode = self.file_inode(inode)?;
        self.change(|fs| {
            let (size, unit) = (inode.size(), fs.sb.block_size as u64);
            if len < size {
                let end = len.next_multiple_of(unit);
                fs.clear_written(&mut inode, len, end.min(size.next_multiple_of(unit)))?;
                fs.unmap_from(&mut inode, end / unit)?;
            } else {
                fs.clear_written(&mut inode, size, len)?;
            }
            inode.set_size(len);
            fs.stamp_contents(&mut inode);
            fs.put_inode(&mut inode)
        })
    }

    fn stamp_contents(&self, inode: &mut Inode) {
        inode.set_modified(self.clock);
        inode.set_changed(self.clock);
    }

    /// Takes all blocks from a file's block `first` on away.
    pub(crate) fn unmap_from(&mut self, inode: &mut Inode, first: u64) -> Result<()> {
        let old = self.extents(inode, Fork::Data)?;
        if old.list.last().is_none_or(|extent| extent.end() <= first) {
            return Ok(());
        }
        let list = self.without(inode.number, &old.list, first, u64::MAX)?;
        self.put_extents(inode, Fork::Data, &old, &list)
    }

    /// The extents without those blocks of the file, which are given back.
    fn without(&mut self, inode: u64, list: &[Extent], first: u64, end: u64) -> Result<Vec<Extent>> {
        let mut kept = Vec::with_capacity(list.len() + 1);
        for extent in list {
            let (from, to) = (extent.offset.max(first), extent.end().min(end));
            if from >= to {
                kept.push(*extent);
                continue;
            }
            let into = from - extent.offset;
            self.release(extent.block + into, to - from, owner(inode, Fork::Data, from, extent.unwritten))?;
            if into > 0 {
                kept.push(Extent { len: into, ..*extent });
            }
            if to < extent.end() {
                let into = to - extent.offset;
                kept.push(Extent { offset: to, block: extent.block + into, len: extent.end() - to, ..*extent });
            }
        }
        Ok(kept)
    }

    /// Makes bytes of a file zeros where blocks hold them; holes stay holes.
    fn clear_written(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let unit = self.sb.block_size as u64;
        let list = self.extents(inode, Fork::Data)?.list;
        for extent in list.iter().filter(|extent| !extent.unwritten) {
            let (mut at, end) = ((extent.offset * unit).max(from), (extent.end() * unit).min(to));
            while at < end {
                let zeros = vec![0; (end - at).min(CHUNK) as usize];
                self.write_blocks_of(inode, at, &zeros)?;
                at += zeros.len() as u64;
            }
        }
        Ok(())
    }

    /// Writes bytes of a file: in place where its own blocks were written, and else into new blocks.
    fn write_blocks_of(&mut self, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<()> {
        let unit = self.sb.block_size as u64;
        let end = offset + data.len() as u64;
        let mut at = offset / unit;
        while at * unit < end {
            let extents = self.extents(inode, Fork::Data)?;
            let last = end.div_ceil(unit);
            let (stop, place) = self.run_at(&extents, at, last)?;
            let (from, to) = ((at * unit).max(offset), (stop * unit).min(end));
            let part = &data[(from - offset) as usize..(to - offset) as usize];
            match place {
                Some(place) => self.store.write(place * unit + (from - at * unit), part)?,
                None => {
                    // Whole blocks, with what they held around the new bytes.
                    let mut bytes = vec![0; ((stop - at) * unit) as usize];
                    self.read_extents(&extents.list, at * unit, &mut bytes)?;
                    let into = (from - at * unit) as usize;
                    bytes[into..into + part.len()].copy_from_slice(part);
                    self.replace(inode, &extents, at, &bytes)?;
                }
            }
            at = stop;
        }
        Ok(())
    }

    /// How far blocks from `at` on are of one kind: with their place where they can be overwritten.
    fn run_at(&mut self, extents: &Extents, at: u64, last: u64) -> Result<(u64, Option<u64>)> {
        let mut stop = at;
        while stop < last {
            let next = extents.list[extents.find(stop).unwrap_or_else(|next| next)..].first().copied();
            let (end, place) = match next {
                Some(extent) if extent.offset <= stop => {
                    let place = extent.block + (stop - extent.offset);
                    let end = extent.end().min(last);
                    let own = !extent.unwritten && !self.is_shared(place, end - stop)?;
                    (end, own.then_some(place))
                }
                Some(extent) => (extent.offset.min(last), None),
                None => (last, None),
            };
            if place.is_some() {
                return Ok(if stop == at { (end, place) } else { (stop, None) });
            }
            stop = end;
        }
        Ok((stop, None))
    }

    /// Puts bytes into new blocks, in the place of those that the file has there.
    fn replace(&mut self, inode: &mut Inode, old: &Extents, first: u64, bytes: &[u8]) -> Result<()> {
        let unit = self.sb.block_size as u64;
        let count = bytes.len() as u64 / unit;
        let mut new = Vec::new();
        let mut done = 0;
        while done < count {
            let (block, len) = self.allocate(count - done, owner(inode.number, Fork::Data, first + done, false))?;
            self.store.write(block * unit, &bytes[(done * unit) as usize..((done + len) * unit) as usize])?;
            new.push(Extent { offset: first + done, block, len, unwritten: false });
            done += len;
        }
        let mut list = self.without(inode.number, &old.list, first, first + count)?;
        list.extend(new);
        list.sort_unstable_by_key(|extent| extent.offset);
        let list = self.coalesce(list.into_iter());
        self.put_extents(inode, Fork::Data, old, &list)
    }
}
