//! Applying fast commits: what the kernel noted of its last changes is done again, by meaning.
//!
//! Kernel `fs/ext4/fast_commit.c` (`ext4_fc_replay`). A fast commit says which blocks files have, but not what became of
//! the bitmaps. So blocks that are freed stay marked until the end, where no new block can take their place; then they are
//! cleared, and what the inodes have that were changed is marked again.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::extent_edit::init_root;
use crate::extent_tree::{Extent, LOGICAL_END};
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags, extra_isize};
use crate::journal::FastCommit;
use crate::layout::inode::BASE_LEN;
use crate::metadata::FileKind;
use crate::{Error, Result, bitmap};

/// Where `i_block` lies in an inode.
const I_BLOCK: Range<usize> = 40..100;

impl FileSystem {
    /// Does all changes of fast commits, in memory.
    pub(crate) fn apply_fast_commits(&mut self, changes: &[FastCommit]) -> Result<()> {
        let mut marked = Vec::new();
        for change in changes {
            if let FastCommit::AddRange { extent, .. } = change {
                let extent = self.fast_commit_extent(extent)?;
                marked.extend(self.mark_blocks(extent.physical..extent.physical + u64::from(extent.len), true)?);
            }
        }
        self.deferred_frees = Some(Vec::new());
        let mut changed = BTreeSet::new();
        let mut done = Ok(());
        for change in changes {
            done = self.apply_fast_commit(change, &mut changed);
            if done.is_err() {
                break;
            }
        }
        // Inodes that lost their last name and were not made anew.
        let gone = changed.iter().copied().filter(|number| *number >= self.superblock.first_inode).collect::<Vec<_>>();
        let gone = done.and_then(|()| gone.into_iter().try_for_each(|number| self.delete_nameless(number)));
        let freed = self.deferred_frees.take().unwrap_or_default();
        gone?;
        for run in marked.into_iter().chain(freed) {
            self.mark_blocks(run, false)?;
        }
        for number in changed {
            self.recount_inode(number)?;
        }
        self.apply_usage()
    }

    fn apply_fast_commit(&mut self, change: &FastCommit, changed: &mut BTreeSet<u32>) -> Result<()> {
        match change {
            FastCommit::Inode { inode, bytes } => {
                changed.insert(*inode);
                self.restore_inode(*inode, bytes)
            }
            FastCommit::AddRange { inode, extent } => {
                changed.insert(*inode);
                let extent = self.fast_commit_extent(extent)?;
                let mut inode = self.mapped_inode(*inode)?;
                self.remove_blocks(&mut inode, extent.logical..extent.end())?;
                self.insert_extent(&mut inode, extent)?;
                self.write_inode(&inode)
            }
            FastCommit::RemoveRange { inode, logical, len } => {
                changed.insert(*inode);
                let mut inode = self.mapped_inode(*inode)?;
                let end = logical.saturating_add(*len);
                if *logical < end {
                    self.remove_blocks(&mut inode, *logical..end)?;
                }
                self.write_inode(&inode)
            }
            FastCommit::Create { parent, inode, name } => {
                changed.extend([*parent, *inode]);
                let mut new = self.read_inode(*inode)?;
                if new.kind()? == FileKind::Directory {
                    new.set_links(2);
                    if !self.fill_inline_directory(&mut new, *parent)? {
                        self.truncate_blocks(&mut new, 0)?;
                        self.fill_directory(&mut new, *parent)?;
                    }
                } else {
                    new.set_links(0);
                }
                self.write_inode(&new)?;
                self.add_fast_commit_name(*parent, *inode, name)
            }
            FastCommit::Link { parent, inode, name } => {
                changed.extend([*parent, *inode]);
                self.add_fast_commit_name(*parent, *inode, name)
            }
            FastCommit::Unlink { parent, inode, name } => {
                changed.extend([*parent, *inode]);
                self.remove_fast_commit_name(*parent, *inode, name)
            }
        }
    }

    /// Puts back an inode's fields. What it maps stays, and is told by other changes.
    fn restore_inode(&mut self, number: u32, bytes: &[u8]) -> Result<()> {
        let (group, index) = self.superblock.locate_inode(number)?;
        if number < self.superblock.first_inode || bytes.len() < BASE_LEN || bytes.len() > self.superblock.inode_size {
            let expected = format!("is a usual inode of {} bytes, found {}", self.superblock.inode_size, bytes.len());
            return Err(Error::corrupt("fast commit", format_args!("inode {number}"), expected));
        }
        let (map, generation) = (&bytes[I_BLOCK], &bytes[I_BLOCK.end..]);
        let used = bitmap::is_set(&self.inode_bitmap(group)?, index);
        if used {
            // Its number was given to another once the one that was there had lost its names.
            self.delete_nameless(number)?;
        }
        let mut fresh = Inode::decode(bytes, number)?;
        let kind = fresh.kind()?;
        if !bitmap::is_set(&self.inode_bitmap(group)?, index) {
            self.take_inode(group, index, kind == FileKind::Directory)?;
            self.zero_inode(number)?;
        }
        let old = self.read_inode(number)?;
        let size = self.superblock.inode_size;
        let (block, offset) = self.inode_block(number)?;
        let mut slot = block[offset..offset + size].to_vec();
        drop(block);
        let had_map = old.mode() != 0 && old.flags().contains(InodeFlags::EXTENTS);
        slot[..I_BLOCK.start].copy_from_slice(&bytes[..I_BLOCK.start]);
        slot[I_BLOCK.end..I_BLOCK.end + generation.len()].copy_from_slice(generation);
        if fresh.flags().contains(InodeFlags::EXTENTS) {
            if !had_map {
                init_root(&mut fresh);
                slot[I_BLOCK].copy_from_slice(&fresh.raw.i_block);
            }
        } else if fresh.flags().contains(InodeFlags::INLINE_DATA)
            || !matches!(kind, FileKind::File | FileKind::Directory)
        {
            // Inline data, targets of short symbolic links, numbers of devices.
            slot[I_BLOCK].copy_from_slice(map);
        }
        if extra_isize(&slot) + BASE_LEN > size {
            return Err(Error::corrupt("fast commit", format_args!("inode {number}"), "i_extra_isize fits"));
        }
        self.write_slot(number, &slot)?;
        if kind == FileKind::Directory && old.is_directory() && old.links() > 0 {
            // Names come one by one, and with them the directory's length and links.
            let mut inode = self.read_inode(number)?;
            inode.set_size(old.size(&self.superblock));
            inode.set_links(old.links());
            self.write_inode(&inode)?;
        }
        Ok(())
    }

    fn fast_commit_extent(&self, bytes: &[u8]) -> Result<Extent> {
        let wrong = |expected: &str| Error::corrupt("fast commit", "added range", expected);
        let extent = Extent::decode(bytes).ok_or_else(|| wrong("is an extent"))?;
        let end = extent.physical.saturating_add(u64::from(extent.len));
        let fits = extent.logical.checked_add(extent.len).is_some_and(|end| end < LOGICAL_END);
        if extent.len == 0 || !fits || extent.physical <= self.superblock.first_data_block {
            return Err(wrong("has blocks"));
        }
        if end > self.superblock.blocks_count {
            return Err(wrong("lies inside the file system"));
        }
        Ok(extent)
    }

    /// An inode that maps blocks by extents.
    fn mapped_inode(&self, number: u32) -> Result<Inode> {
        let inode = self.read_inode(number)?;
        if number < self.superblock.first_inode || !inode.flags().contains(InodeFlags::EXTENTS) || inode.is_directory()
        {
            let expected = "is a file that maps blocks by extents";
            return Err(Error::corrupt("fast commit", format_args!("inode {number}"), expected));
        }
        Ok(inode)
    }

    fn add_fast_commit_name(&mut self, parent: u32, number: u32, name: &[u8]) -> Result<()> {
        let mut inode = self.read_inode(number)?;
        let kind = inode.kind()?;
        let directory = self.directory_inode(parent)?;
        match self.find_entry(&directory, name)? {
            Some(entry) if entry.inode == number => {
                if inode.links() == 0 {
                    inode.set_links(1);
                    self.write_inode(&inode)?;
                }
                return Ok(());
            }
            Some(_) => self.remove_name(parent, name)?,
            None => {}
        }
        let directory = self.directory_inode(parent)?;
        let mut directory = self.insert_name(directory, name, number, kind)?;
        if kind == FileKind::Directory {
            self.add_subdirectory(&mut directory);
            return self.write_inode(&directory);
        }
        inode.set_links(inode.links().saturating_add(1));
        self.write_inode(&inode)
    }

    fn remove_fast_commit_name(&mut self, parent: u32, number: u32, name: &[u8]) -> Result<()> {
        let directory = self.directory_inode(parent)?;
        if self.find_entry(&directory, name)?.is_none_or(|entry| entry.inode != number) {
            return Ok(());
        }
        self.remove_name(parent, name)?;
        let mut inode = self.read_inode(number)?;
        if inode.is_directory() {
            self.drop_subdirectory(parent)?;
            inode.set_links(0);
        } else {
            inode.set_links(inode.links().saturating_sub(1));
        }
        self.write_inode(&inode)
    }

    /// Frees an inode that is marked as in use and has no name.
    fn delete_nameless(&mut self, number: u32) -> Result<()> {
        let (group, index) = self.superblock.locate_inode(number)?;
        let inode = self.read_inode(number)?;
        if inode.links() > 0 || inode.mode() == 0 || !bitmap::is_set(&self.inode_bitmap(group)?, index) {
            return Ok(());
        }
        // Its slot said so already, so quotas have noticed.
        self.free_inode_and_blocks(inode)
    }

    /// Marks all blocks of an inode as in use, and counts them.
    fn recount_inode(&mut self, number: u32) -> Result<()> {
        let mut inode = self.read_inode(number)?;
        if inode.mode() == 0 || inode.links() == 0 {
            return Ok(());
        }
        let ratio = self.superblock.cluster_ratio;
        let mut runs = Vec::new();
        let (mut clusters, mut last) = (0_u64, None);
        self.for_each_mapping(&inode, |mapping| {
            if let Some(start) = mapping.physical() {
                let (first, end) = (mapping.logical / ratio, (mapping.logical + mapping.len - 1) / ratio);
                clusters += u64::from(end - first) + u64::from(last != Some(first));
                last = Some(end);
                runs.push(start..start + u64::from(mapping.len));
            }
            Ok(())
        })?;
        self.for_each_map_block(&inode, &mut |block| {
            clusters += 1;
            runs.push(block..block + 1);
            Ok(())
        })?;
        if inode.xattr_block() != 0 {
            clusters += 1;
        }
        for run in runs {
            self.mark_blocks(run, true)?;
        }
        inode.set_sectors(0, &self.superblock)?;
        self.count_clusters(&mut inode, clusters)?;
        if self.has_value_inodes() {
            let values =
                self.attributes(&inode)?.into_iter().filter(|value| value.value_inode != 0).collect::<Vec<_>>();
            self.count_values(&mut inode, &values, &[])?;
            self.note_usage(&inode, 0, -(values.len() as i64));
        }
        self.write_inode(&inode)
    }
}
