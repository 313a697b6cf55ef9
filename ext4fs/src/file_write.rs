//! Writing contents of files, and setting their length.

use crate::block_map::map_path;
use crate::features::{Incompat, RoCompat};
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::mapping::Place;
use crate::zeros::is_zero;
use crate::{Error, Result};

/// The longest file that needs no feature `large_file`.
const SMALL_FILE_MAX: u64 = i32::MAX as u64;

impl FileSystem {
    /// Writes all of `data` at `offset` of a regular file, growing it where needed. Contents go to the device at once.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::NotPermitted`], [`Error::NoSpace`], [`Error::FileTooLarge`], all before anything
    /// is changed; and what the image or the device has against it.
    pub fn write_at(&mut self, inode: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.writable_file(inode)?;
            if data.is_empty() {
                return Ok(());
            }
            if !fs.write_inline(&mut inode, offset, data)? {
                fs.write_inode_at(&mut inode, offset, data)?;
            }
            inode.set_modified(fs.clock);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    /// Sets a regular file's length. What lies after the end in the last block reads as zeros on the disk, too.
    ///
    /// # Errors
    /// As [`FileSystem::write_at`].
    pub fn set_len(&mut self, inode: u32, len: u64) -> Result<()> {
        self.change(|fs| {
            let mut inode = fs.writable_file(inode)?;
            fs.check_file_len(&inode, len)?;
            if !fs.set_inline_len(&mut inode, len)? {
                let old = inode.size(&fs.superblock);
                if len < old {
                    let from = len.div_ceil(fs.superblock.block_size as u64);
                    fs.truncate_blocks(&mut inode, from as u32)?;
                }
                fs.zero_tail(&inode, len.min(old))?;
                fs.set_file_len(&mut inode, len)?;
            }
            inode.set_modified(fs.clock);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    pub(crate) fn writable_file(&self, number: u32) -> Result<Inode> {
        let inode = self.file_inode(number)?;
        check_changeable(&inode)?;
        let flags = inode.flags();
        if flags.contains(InodeFlags::ENCRYPT) {
            return Err(Error::Unsupported(format!("inode {number} is encrypted")));
        }
        if flags.contains(InodeFlags::VERITY) {
            return Err(Error::Unsupported(format!("inode {number} is sealed by verity")));
        }
        Ok(inode)
    }

    /// Writes contents, with the map and the size that they need. The inode is the caller's to write.
    pub(crate) fn write_inode_at(&mut self, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).ok_or(Error::FileTooLarge(u64::MAX))?;
        self.check_file_len(inode, end)?;
        let bits = self.superblock.block_bits;
        let (first, last) = ((offset >> bits) as u32, ((end - 1) >> bits) as u32);
        self.require_room(inode, first, last)?;
        let old = inode.size(&self.superblock);
        if offset > old {
            self.zero_tail(inode, old)?;
        }
        let mut logical = first;
        while logical <= last {
            let mapping = self.map(inode, logical)?;
            let mut len = mapping.len.min(last - logical + 1);
            let (block, fresh) = match mapping.place {
                Place::Written(block) => (block, false),
                Place::Unwritten(block) => (block, true),
                Place::Hole => {
                    let block;
                    (block, len) = self.place_data(inode, logical, len)?;
                    (block, true)
                }
            };
            let from = (u64::from(logical) << bits).max(offset);
            let to = ((u64::from(logical) + u64::from(len)) << bits).min(end);
            let part = &data[(from - offset) as usize..(to - offset) as usize];
            let within = from - (u64::from(logical) << bits);
            self.write_blocks(block, within, part, fresh, to >= old)?;
            match mapping.place {
                Place::Written(_) => {}
                Place::Unwritten(_) => self.mark_written(inode, logical, len)?,
                Place::Hole => self.add_mapping(inode, logical, block, len)?,
            }
            logical += len;
        }
        if end > old { self.set_file_len(inode, end) } else { Ok(()) }
    }

    /// Writes `part` at `within` of the run that starts with `block`. The rest of the first and the last block becomes
    /// zeros where the blocks are fresh, and the rest of the last one where the file ends in it.
    fn write_blocks(&mut self, block: u64, within: u64, part: &[u8], fresh: bool, ends_file: bool) -> Result<()> {
        let size = self.superblock.block_size;
        let head = if fresh { within as usize } else { 0 };
        let tail = if fresh || ends_file { (size - (within as usize + part.len()) % size) % size } else { 0 };
        if head == 0 && tail == 0 {
            return self.cache.write_run(block, within, part);
        }
        // Whole blocks in the middle go as they are; what is padded is copied.
        let start = within - head as u64;
        let total = head + part.len() + tail;
        if total <= 16 * size {
            let mut padded = vec![0; total];
            padded[head..head + part.len()].copy_from_slice(part);
            return self.cache.write_run(block, start, &padded);
        }
        let head_len = if head == 0 { 0 } else { size - head };
        let tail_len = if tail == 0 { 0 } else { (within as usize + part.len()) % size };
        let (head_part, rest) = part.split_at(head_len);
        let (middle, tail_part) = rest.split_at(rest.len() - tail_len);
        if head > 0 {
            let mut padded = vec![0; head];
            padded.extend_from_slice(head_part);
            self.cache.write_run(block, start, &padded)?;
        }
        let at = within + head_len as u64;
        self.cache.write_run(block, at, middle)?;
        if tail > 0 {
            let mut padded = tail_part.to_vec();
            padded.resize(tail_len + tail, 0);
            self.cache.write_run(block, at + middle.len() as u64, &padded)?;
        }
        Ok(())
    }

    /// Makes the bytes from `end` to the end of its block zeros on the disk, if they are not.
    pub(crate) fn zero_tail(&mut self, inode: &Inode, end: u64) -> Result<()> {
        let size = self.superblock.block_size;
        let within = end % size as u64;
        if within == 0 {
            return Ok(());
        }
        let logical = (end >> self.superblock.block_bits) as u32;
        if let Place::Written(block) = self.map(inode, logical)?.place {
            let mut tail = vec![0; size - within as usize];
            self.cache.read_run(block, within, &mut tail)?;
            if !is_zero(&tail) {
                tail.fill(0);
                self.cache.write_run(block, within, &tail)?;
            }
        }
        Ok(())
    }

    /// Fails, before anything is changed, where there are not enough blocks for the holes from `first` to `last`.
    fn require_room(&self, inode: &Inode, first: u32, last: u32) -> Result<()> {
        let mut holes = 0;
        let mut unwritten = 0;
        let mut logical = first;
        while logical <= last {
            let mapping = self.map(inode, logical)?;
            let len = mapping.len.min(last - logical + 1);
            match mapping.place {
                Place::Hole => holes += self.clusters_for_hole(u64::from(len)),
                Place::Unwritten(_) => unwritten += 2,
                Place::Written(_) => {}
            }
            logical += len;
        }
        if holes + unwritten > 0 { self.require_blocks(holes + self.map_growth(holes + unwritten)) } else { Ok(()) }
    }

    fn check_file_len(&self, inode: &Inode, len: u64) -> Result<()> {
        let Some(last) = len.checked_sub(1).map(|last| last >> self.superblock.block_bits) else { return Ok(()) };
        let inline = inode.flags().contains(InodeFlags::INLINE_DATA);
        let extents = self.superblock.features.incompat.contains(Incompat::EXTENTS);
        let reachable = if inode.flags().contains(InodeFlags::EXTENTS) || (inline && extents) {
            last < u64::from(u32::MAX)
        } else {
            u32::try_from(last)
                .is_ok_and(|last| last < u32::MAX && map_path(last, self.superblock.block_size).is_some())
        };
        if reachable { Ok(()) } else { Err(Error::FileTooLarge(len)) }
    }

    fn set_file_len(&mut self, inode: &mut Inode, len: u64) -> Result<()> {
        inode.set_size(len);
        inode.set_flags(inode.flags().difference(InodeFlags::EOFBLOCKS));
        let mut features = self.superblock.features;
        if len > SMALL_FILE_MAX && !features.ro_compat.contains(RoCompat::LARGE_FILE) {
            features.ro_compat |= RoCompat::LARGE_FILE;
            self.superblock.set_features(features);
            self.mark_superblock_changed();
        }
        Ok(())
    }
}

/// Fails where an inode is marked as one that must stay as it is.
pub(crate) fn check_changeable(inode: &Inode) -> Result<()> {
    if inode.flags().intersects(InodeFlags::IMMUTABLE | InodeFlags::APPEND) {
        return Err(Error::NotPermitted(inode.number));
    }
    Ok(())
}
