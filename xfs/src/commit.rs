//! Writing what changed: directories, then the groups' trees and counters, all in memory; then a check of it; and only
//! then the device.

use std::collections::HashMap;

use crate::file_system::FileSystem;
use crate::inode::Fork;
use crate::{Error, Result};

impl FileSystem {
    /// Writes all that is still in memory to the device and makes it safe. Where nothing was changed, nothing is written.
    ///
    /// Before anything of the metadata is written, all groups that changed are read again as they will be and compared
    /// with what is meant: no block is free and used, or used twice.
    ///
    /// # Errors
    /// [`Error::Io`] where the device fails, [`Error::Corrupt`] where the check finds something, [`Error::NoSpace`];
    /// after each the file system is poisoned. [`Error::Poisoned`] where it was before.
    pub fn flush(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let changed = !self.known.changed.is_empty() || self.groups.values().any(|group| group.changed);
        if self.read_only.is_some() || !(changed || self.store.needs_flush()) {
            return Ok(());
        }
        let flushed = self.write_everything();
        self.poisoned = flushed.is_err();
        flushed
    }

    fn write_everything(&mut self) -> Result<()> {
        self.settle()?;
        self.store.write_back()?;
        self.store.sync()
    }

    /// Puts all that is known into blocks, and checks them.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for (number, directory) in std::mem::take(&mut self.known.changed) {
            self.known.forget(number);
            self.write_directory(number, &directory)?;
        }
        let changed: Vec<u32> = self.groups.values().filter(|group| group.changed).map(|group| group.number).collect();
        for number in &changed {
            if let Some(mut group) = self.groups.remove(number) {
                let written = self.write_group(&mut group);
                self.groups.insert(*number, group);
                written?;
            }
        }
        self.write_counters()?;
        self.check_changes(&changed)?;
        self.touched.clear();
        Ok(())
    }

    fn write_counters(&mut self) -> Result<()> {
        let (mut inodes, mut unused, mut free) = self.sb.counters();
        for (number, group) in &self.groups {
            let Some(((inodes_before, unused_before), free_before)) = self.counted_before.get_mut(number) else {
                continue;
            };
            let ((inodes_now, unused_now), free_now) = (group.inode_counts(), group.counted_free());
            inodes = inodes.wrapping_add(inodes_now.into()).wrapping_sub((*inodes_before).into());
            unused = unused.wrapping_add(unused_now.into()).wrapping_sub((*unused_before).into());
            free = free.wrapping_add(free_now).wrapping_sub(*free_before);
            (*inodes_before, *unused_before, *free_before) = (inodes_now, unused_now, free_now);
        }
        if (inodes, unused, free) != self.sb.counters() {
            self.sb.set_counters(inodes, unused, free);
            let raw = self.sb.raw.clone();
            self.put_header_sector(0, 0, &raw)?;
        }
        Ok(())
    }

    /// Reads what changed as it will be on the disk, and compares.
    fn check_changes(&self, changed: &[u32]) -> Result<()> {
        // What the inodes that changed own, by group.
        let mut owned: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
        for number in &self.touched {
            let inode = self.inode(*number)?;
            let mut blocks = 0;
            for fork in [Fork::Data, Fork::Attr] {
                if fork == Fork::Attr && inode.forkoff() == 0 {
                    continue;
                }
                let extents = self.extents(&inode, fork)?;
                blocks += extents.blocks();
                let tree = extents.tree_blocks.iter().map(|block| (*block, 1));
                for (first, len) in extents.list.iter().map(|extent| (extent.block, extent.len)).chain(tree) {
                    let (group, start) = self.sb.split(first);
                    let shared = self.groups.get(&group).is_some_and(|group| group.is_shared(start, len as u32));
                    if !shared {
                        owned.entry(group).or_default().push((start, len as u32));
                    }
                }
            }
            if blocks != inode.blocks() {
                return Err(inode.corrupt(format!("it counts its {blocks} blocks, found {}", inode.blocks())));
            }
        }
        for number in changed {
            let Some(meant) = self.groups.get(number) else { continue };
            let found = self.load_group(*number)?;
            let same = found.free == meant.free
                && found.chunks == meant.chunks
                && found.rmap == meant.rmap
                && found.shared == meant.shared
                && found.free_list == meant.free_list;
            if !same {
                return Err(meant.corrupt("the trees that are to be written hold what is meant"));
            }
            let more = owned.remove(number).unwrap_or_default();
            found.check_disjoint(&self.sb, &more).map_err(|rule| meant.corrupt(rule))?;
        }
        Ok(())
    }
}
