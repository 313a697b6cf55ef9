//! What is left to do when a file system was not unmounted: its log, its counters, files that were deleted while they
//! were open, and copies that were set aside and never put in place.

use super::{Found, LogState};
use crate::bytes::be32;
use crate::file_system::FileSystem;
use crate::inode::NULL_AGINO;
use crate::listing::Known;
use crate::rmap::{OWN_COW, Owner};
use crate::{Error, Result};

/// What helps where we cannot.
const ADVICE: &str = "boot the guest once and shut it down, or mount it once and unmount it";
/// Where a group's inodes have their lists of unlinked ones: 64 first inodes.
const UNLINKED: std::ops::Range<usize> = 40..296;

impl FileSystem {
    /// Replays the log, if it has to be. What cannot be replayed is read as it is, and not written.
    ///
    /// # Errors
    /// [`Error::Io`] alone.
    pub(crate) fn replay_log(&mut self) -> Result<()> {
        // Version 4 has no LSNs in its blocks, and is only read.
        if !self.sb.is_v5 || self.sb.log_start == 0 {
            return Ok(());
        }
        let (ring, log) = match self.find_log() {
            Ok(Found::Clean(_)) => return Ok(()),
            Ok(Found::Dirty(ring, log)) => (ring, log),
            Err(Error::Io(error)) => return Err(Error::Io(error)),
            Err(error) => {
                self.log = LogState::NotReplayed(format!("its log cannot be read: {error}; {ADVICE}"));
                return Ok(());
            }
        };
        let sb = self.sb.clone();
        self.store.set_blocks(self.store.device().reader().len() / sb.block_size as u64);
        let replayed = self.replay(ring, &log).and_then(|replayed| {
            self.end_log(ring, &log)?;
            Ok(replayed)
        });
        match replayed {
            Ok(replayed) => {
                self.log = LogState::Replayed { transactions: replayed.transactions, finished: 0, orphans: 0 };
                self.unfinished = replayed.work;
                if !replayed.refused.is_empty() {
                    let work = replayed.refused.join(", ");
                    self.refused =
                        Some(format!("it was not unmounted, and its log holds unfinished work ({work}); {ADVICE}"));
                }
            }
            Err(Error::Io(error)) => return Err(Error::Io(error)),
            Err(error) => {
                self.store.restore(std::collections::BTreeMap::new());
                self.sb = sb;
                self.log = LogState::NotReplayed(format!(
                    "it was not unmounted, and its log cannot be replayed: {error}; {ADVICE}"
                ));
            }
        }
        self.store.set_blocks(self.sb.blocks);
        Ok(())
    }

    /// Does what the kernel does once a log is replayed: sums the counters up, frees what was deleted while it was
    /// open, and copies that were never put in place. All groups are looked at, and have to hold together.
    ///
    /// Where that cannot be done, all is as it was before, and the reason is returned.
    ///
    /// # Errors
    /// [`Error::Io`] alone.
    pub(crate) fn recover(&mut self) -> Result<Option<String>> {
        let before = (self.store.changed_blocks(), self.sb.clone());
        match self.recover_groups() {
            Ok((done, gone)) => {
                if let LogState::Replayed { finished, orphans, .. } = &mut self.log {
                    (*finished, *orphans) = (done, gone);
                }
                Ok(None)
            }
            Err(Error::Io(error)) => Err(Error::Io(error)),
            Err(error) => {
                let (blocks, sb) = before;
                self.store.restore(blocks);
                self.sb = sb;
                self.groups.clear();
                self.counted_before.clear();
                self.touched.clear();
                self.known = Known::default();
                Ok(Some(format!("it was not unmounted, and cannot be put right: {error}; {ADVICE}")))
            }
        }
    }

    fn recover_groups(&mut self) -> Result<(u64, u64)> {
        let was_replayed = matches!(self.log, LogState::Replayed { .. });
        let (mut inodes, mut unused, mut free) = (0, 0, 0);
        let mut pending = Vec::new();
        for number in 0..self.sb.ag_count {
            if !was_replayed && !self.has_unlinked(number)? {
                continue;
            }
            let group = self.load_group(number)?;
            let counts = group.inode_counts();
            inodes += u64::from(counts.0);
            unused += u64::from(counts.1);
            free += group.counted_free();
            if group.has_copies() || group.agi[UNLINKED].iter().any(|byte| *byte != 0xff) {
                pending.push(number);
            }
        }
        if was_replayed && (inodes, unused, free) != self.sb.counters() {
            self.sb.set_counters(inodes, unused, free);
            let raw = self.sb.raw.clone();
            self.put_header_sector(0, 0, &raw)?;
        }
        let work = std::mem::take(&mut self.unfinished);
        let done = work.len() as u64;
        self.finish(work)?;
        // Copies that were announced alone may have been set aside just now.
        let more: Vec<u32> =
            self.groups.values().filter(|group| group.has_copies()).map(|group| group.number).collect();
        pending.extend(more.into_iter().filter(|number| !pending.contains(number)).collect::<Vec<_>>());
        let mut gone = 0;
        for number in pending {
            if was_replayed {
                self.free_copies(number)?;
            }
            gone += self.free_unlinked(number)?;
        }
        Ok((done, gone))
    }

    /// Whether a group has inodes that were deleted while they were open.
    pub(crate) fn has_unlinked(&self, number: u32) -> Result<bool> {
        let inodes = self.header_sector(number, 2)?;
        let lists = inodes.get(UNLINKED).unwrap_or_default();
        Ok(!inodes.starts_with(b"XAGI") || lists.iter().any(|byte| *byte != 0xff))
    }

    /// Frees the inodes that a group's lists of unlinked ones name, and all that they have.
    fn free_unlinked(&mut self, number: u32) -> Result<u64> {
        let lists = self.group_mut(number)?.agi[UNLINKED].to_vec();
        let mut gone = 0;
        for bucket in 0..lists.len() / 4 {
            let mut next = be32(&lists, bucket * 4);
            while next != NULL_AGINO {
                // One that was freed already is not in use, which ends every list that leads back into itself.
                let inode = self.inode(self.sb.inode_number(number, next))?;
                if inode.links() != 0 || next as usize % (lists.len() / 4) != bucket {
                    return Err(inode.corrupt(format!(
                        "an inode on a list of unlinked ones has no name, found {} of list {bucket}",
                        inode.links()
                    )));
                }
                next = be32(&inode.raw, 96);
                self.drop_inode(inode)?;
                gone += 1;
            }
        }
        let group = self.group_mut(number)?;
        if gone > 0 {
            group.agi[UNLINKED].fill(0xff);
            group.changed = true;
        }
        Ok(gone)
    }

    /// Frees blocks that were set aside for copies of shared ones.
    fn free_copies(&mut self, number: u32) -> Result<()> {
        for (start, len) in self.group_mut(number)?.take_copies() {
            if let Some(rmap) = &mut self.group_mut(number)?.rmap {
                rmap.remove(Owner::special(OWN_COW), start, len)?;
            }
            self.free_space(number, start, len)?;
        }
        Ok(())
    }
}
