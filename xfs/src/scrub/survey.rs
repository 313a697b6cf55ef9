//! Looking at every inode: what it owns, and what is in it that nothing uses.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ScrubReport;
use crate::Result;
use crate::bytes::{be16, be32, put, put_checksum};
use crate::extents::Extents;
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::metadata::FileKind;
use crate::zeros;

/// What is to be wiped.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) report: ScrubReport,
    /// Directories that hold deleted names.
    directories: Vec<u64>,
    /// Inodes with something beside what they hold.
    inodes: Vec<Inode>,
    /// Blocks with something beside what they hold, as they are to be.
    blocks: Vec<(u64, Vec<u8>)>,
    /// Bytes behind the ends of files.
    file_slack: Vec<Range<u64>>,
    /// Blocks that are set aside, and hold nothing.
    pub(super) unused: Vec<Range<u64>>,
}

impl FileSystem {
    pub(super) fn survey(&mut self) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut owned: BTreeMap<u32, Vec<(u32, u32)>> = BTreeMap::new();
        for number in 0..self.sb.ag_count {
            let chunks: Vec<_> = self.group_mut(number)?.chunks.iter().map(|(start, chunk)| (*start, *chunk)).collect();
            for (start, chunk) in chunks {
                for index in (0..64).filter(|index| chunk.exists(*index)) {
                    let inode = self.inode_slot(self.sb.inode_number(number, start + index))?;
                    let in_use = chunk.free >> index & 1 == 0;
                    if in_use != (inode.mode() != 0) {
                        return Err(inode.corrupt("an inode is in use, or marked as free"));
                    }
                    if in_use {
                        self.survey_inode(&inode, &mut plan, &mut owned)?;
                    } else {
                        survey_free_inode(inode, &self.sb, &mut plan);
                    }
                }
            }
        }
        for number in 0..self.sb.ag_count {
            let more = owned.remove(&number).unwrap_or_default();
            self.group_mut(number)?;
            let group = &self.groups[&number];
            group.check_disjoint(&self.sb, &more).map_err(|rule| group.corrupt(rule))?;
        }
        Ok(plan)
    }

    fn survey_inode(
        &mut self,
        inode: &Inode,
        plan: &mut Plan,
        owned: &mut BTreeMap<u32, Vec<(u32, u32)>>,
    ) -> Result<()> {
        let mut wiped = inode.clone();
        let mut blocks = 0;
        for fork in [Fork::Data, Fork::Attr] {
            if fork == Fork::Attr && inode.forkoff() == 0 {
                continue;
            }
            plan.report.inodes += wipe_fork(&mut wiped, fork);
            let extents = self.extents(inode, fork)?;
            blocks += extents.blocks();
            let tree = extents.tree_blocks.iter().map(|block| (*block, 1));
            for (first, len) in extents.list.iter().map(|extent| (extent.block, extent.len)).chain(tree) {
                let (number, start) = self.sb.split(first);
                if !self.group_mut(number)?.is_shared(start, len as u32) {
                    owned.entry(number).or_default().push((start, len as u32));
                }
            }
            match (fork, inode.kind()?) {
                (Fork::Data, FileKind::File) => self.survey_file(inode, &extents, plan)?,
                (Fork::Data, FileKind::Symlink) => self.survey_target(inode, &extents, plan)?,
                (Fork::Data, _) => {}
                (Fork::Attr, _) => self.survey_attributes(&extents, plan)?,
            }
        }
        if blocks != inode.blocks() {
            return Err(inode.corrupt(format!("it counts its {blocks} blocks, found {}", inode.blocks())));
        }
        if wiped.raw != inode.raw {
            plan.inodes.push(wiped);
        }
        if inode.kind()? == FileKind::Directory && self.listing(inode.number)?.has_leftovers {
            plan.directories.push(inode.number);
        }
        Ok(())
    }

    fn survey_file(&mut self, inode: &Inode, extents: &Extents, plan: &mut Plan) -> Result<()> {
        let unit = self.sb.block_size as u64;
        let end = inode.size().div_ceil(unit);
        for extent in &extents.list {
            let unused = if extent.unwritten { extent.offset } else { extent.offset.max(end) };
            if unused < extent.end() && !self.is_shared(extent.block, extent.len)? {
                let first = extent.block + (unused - extent.offset);
                plan.unused.push(first..extent.block + extent.len);
            }
        }
        // The last block, behind the file's end.
        if !inode.size().is_multiple_of(unit)
            && let Some(block) = extents.block(end - 1)
        {
            let range = block * unit + inode.size() % unit..(block + 1) * unit;
            let mut bytes = vec![0; (range.end - range.start) as usize];
            self.store.read(range.start, &mut bytes)?;
            if !zeros::is_zero(&bytes) && !self.is_shared(block, 1)? {
                plan.report.file_slack += bytes.iter().filter(|byte| **byte != 0).count() as u64;
                plan.file_slack.push(range);
            }
        }
        Ok(())
    }

    fn survey_target(&self, inode: &Inode, extents: &Extents, plan: &mut Plan) -> Result<()> {
        let mut done = 0;
        for extent in &extents.list {
            let mut bytes = self.store.run(extent.block, extent.len)?;
            let here = (inode.size() as usize).saturating_sub(done).min(bytes.len() - 56);
            let count = wipe(&mut bytes, 56 + here, usize::MAX);
            if count > 0 {
                put_checksum(&mut bytes, 12);
                for (block, part) in (extent.block..).zip(bytes.chunks_exact(self.sb.block_size)) {
                    plan.blocks.push((block, part.to_vec()));
                }
                plan.report.slack += count;
            }
            done += here;
        }
        Ok(())
    }

    /// What lies beside names and values in leaves, and behind values in blocks of their own.
    fn survey_attributes(&self, extents: &Extents, plan: &mut Plan) -> Result<()> {
        for extent in &extents.list {
            for block in extent.block..extent.block + extent.len {
                let mut bytes = self.store.block(block)?.to_vec();
                let count = if bytes.starts_with(b"XARM") {
                    let end = 56 + be32(&bytes, 8) as usize;
                    wipe(&mut bytes, end, usize::MAX)
                } else {
                    match be16(&bytes, 8) {
                        0x3bee => wipe_leaf(&mut bytes),
                        0x3ebe => {
                            let end = 64 + usize::from(be16(&bytes, 56)) * 8;
                            wipe(&mut bytes, end, usize::MAX)
                        }
                        // Blocks that no entry leads to any more, if there are any, are left to xfs_repair.
                        _ => 0,
                    }
                };
                if count > 0 {
                    put_checksum(&mut bytes, 12);
                    plan.blocks.push((block, bytes));
                    plan.report.slack += count;
                }
            }
        }
        Ok(())
    }

    /// Wipes what the survey found in metadata and behind files' ends.
    pub(super) fn wipe_metadata(&mut self, plan: &mut Plan) -> Result<()> {
        for mut inode in std::mem::take(&mut plan.inodes) {
            self.put_inode(&mut inode)?;
        }
        for (block, bytes) in std::mem::take(&mut plan.blocks) {
            self.store.put(block, bytes)?;
        }
        for range in std::mem::take(&mut plan.file_slack) {
            self.store.write(range.start, &vec![0; (range.end - range.start) as usize])?;
        }
        for number in std::mem::take(&mut plan.directories) {
            plan.report.directories += self.inode(number)?.size();
            self.listing_mut(number)?.has_leftovers = false;
        }
        Ok(())
    }
}

/// A slot that is free keeps what makes it one, and no more.
fn survey_free_inode(inode: Inode, sb: &crate::superblock::Superblock, plan: &mut Plan) {
    let holds = |range: Range<usize>| !zeros::is_zero(&inode.raw[range]);
    let literal = inode.literal();
    if holds(6..83) || holds(84..92) || holds(104..112) || holds(128..152) || holds(literal..inode.raw.len()) {
        let mut empty = Inode::new(inode.number, inode.generation(), sb);
        put(&mut empty.raw, 112, &inode.raw[112..120]);
        plan.report.inodes +=
            inode.raw.iter().zip(&empty.raw).filter(|(old, new)| **old != 0 && **new == 0).count() as u64;
        plan.inodes.push(empty);
    }
}

/// Wipes what a fork does not use of its part of the inode.
fn wipe_fork(inode: &mut Inode, fork: Fork) -> u64 {
    let (from, end) = inode.fork_range(fork);
    let used = match inode.format(fork) {
        Format::Device => 8,
        Format::Local if fork == Fork::Data => inode.size() as usize,
        Format::Local => usize::from(be16(&inode.raw, from)),
        Format::Extents => inode.extent_count(fork) as usize * 16,
        // Keys, and pointers behind room for all keys: what is between is not worth the risk.
        Format::Btree => return 0,
    };
    wipe(&mut inode.raw[from..end], used, usize::MAX)
}

/// Wipes bytes of a leaf that no entry uses.
fn wipe_leaf(bytes: &mut [u8]) -> u64 {
    let count = usize::from(be16(bytes, 56));
    let entries_end = 80 + count * 8;
    let mut used: Vec<(usize, usize)> = vec![(0, entries_end)];
    for slot in 0..count {
        let entry = 80 + slot * 8;
        let at = usize::from(be16(bytes, entry + 4));
        let is_local = bytes.get(entry + 6).is_some_and(|flags| flags & 1 != 0);
        let len = if is_local {
            3 + usize::from(be16(bytes, at)) + usize::from(bytes.get(at + 2).copied().unwrap_or(0))
        } else {
            9 + usize::from(bytes.get(at + 8).copied().unwrap_or(0))
        };
        used.push((at, at + len));
    }
    used.sort_unstable();
    let mut wiped = 0;
    let mut end = 0;
    for (from, to) in used {
        if from > end {
            wiped += wipe(bytes, end, from);
        }
        end = end.max(to);
    }
    wiped + wipe(bytes, end, usize::MAX)
}

/// Makes bytes from `from` up to `to` or the end zeros, and returns how many were not.
fn wipe(bytes: &mut [u8], from: usize, to: usize) -> u64 {
    let to = to.min(bytes.len());
    bytes.get_mut(from..to).map_or(0, zeros::clear)
}
