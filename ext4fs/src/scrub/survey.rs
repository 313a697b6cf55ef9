//! The walk over all inodes: what they own, what of it holds nothing, and where there may be slack.

use std::ops::Range;

use super::claims::Claims;
use super::clusters::Clusters;
use super::{ScrubOptions, ScrubReport};
use crate::block_group::GroupFlags;
use crate::block_map::pointer;
use crate::directory::{self, BlockOwner};
use crate::extent_tree::Node;
use crate::features::Incompat;
use crate::file_system::{FileSystem, ROOT_INODE};
use crate::inline_data::PARENT_LEN;
use crate::inode::{self, Inode, InodeFlags, extra_isize};
use crate::journal::scrubbed_superblock;
use crate::layout::extent::ENTRY_LEN;
use crate::layout::inode::BASE_LEN;
use crate::mapping::Place;
use crate::metadata_cache::{Block, BlockKind};
use crate::{Error, Result, bitmap, xattr, zeros};

/// The inode that lists bad blocks, which belong to nobody.
pub(crate) const BAD_BLOCKS_INODE: u32 = 1;
/// The inode of the blocks kept for more group descriptors, which the groups' headers own, too.
const RESIZE_INODE: u32 = 7;
/// Which number in `i_block` is that of the double indirect block.
const DOUBLE_INDIRECT: usize = 13;
/// Where `i_block` lies in an inode.
const I_BLOCK: Range<usize> = 40..100;

/// What a scrub is going to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) claims: Claims,
    /// Runs that hold nothing though they are not free. In the end sorted.
    pub(super) unused: Vec<Range<u64>>,
    /// Runs of blocks whose slack is to be looked at.
    pub(super) suspects: Vec<Suspect>,
    /// Slots of inodes, as they are to be.
    pub(super) slots: Vec<(u32, Vec<u8>)>,
    /// Blocks of metadata, as they are to be.
    pub(super) blocks: Vec<(u64, BlockKind, Vec<u8>)>,
    /// Bytes behind the ends of contents: a block and an offset in it.
    pub(super) tails: Vec<(u64, usize)>,
    pub(super) report: ScrubReport,
}

/// A run of blocks that may hold slack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    pub(super) start: u64,
    pub(super) len: u32,
    pub(super) what: What,
}

/// What a block holds that may hold slack, too.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    /// Entries of a directory. The run begins with this logical block.
    Directory {
        owner: BlockOwner,
        logical: u32,
    },
    /// A node of an extent tree.
    ExtentNode {
        inode: u32,
        checksum_seed: u32,
    },
    /// Extended attributes.
    Xattr,
    /// A copy of the superblock, which is shorter than most blocks.
    SuperblockCopy,
    /// The end of a symbolic link's target, or of a file: what follows that many bytes is slack.
    Target {
        end: u32,
    },
    File {
        end: u32,
    },
}

impl FileSystem {
    /// Walks over all inodes.
    pub(super) fn survey(&self, options: &ScrubOptions) -> Result<Plan> {
        self.check_root()?;
        let mut plan = Plan::default();
        let mut xattr_blocks = Vec::new();
        for run in self.system_blocks() {
            plan.claims.add(run.clone())?;
        }
        if self.superblock.features.incompat.contains(Incompat::MMP) {
            let block = self.superblock.raw.s_mmp_block.get();
            plan.claims.add(block..block.saturating_add(1))?;
        }
        for group in 0..self.superblock.group_count {
            self.survey_unused_metadata(group, &mut plan)?;
            let inode_bitmap = self.inode_bitmap(group)?;
            self.check_free_inodes(group, &inode_bitmap)?;
            let first = group * self.superblock.inodes_per_group + 1;
            self.for_each_slot(group, |number, slot| {
                if !bitmap::is_set(&inode_bitmap, number - first) {
                    if !zeros::is_zero(slot) {
                        plan.report.inodes += slot.len() as u64;
                        plan.slots.push((number, vec![0; slot.len()]));
                    }
                    return Ok(());
                }
                inode::check_checksum(slot, &self.superblock, number)?;
                let inode = Inode::decode(slot, number)?;
                if number == RESIZE_INODE {
                    // Its one block that is no group's header.
                    let top = self.checked_pointer(&inode, pointer(&inode.raw.i_block, DOUBLE_INDIRECT))?;
                    if top != 0 {
                        Clusters::lone(&self.superblock).add_lone(top, &mut plan)?;
                    }
                }
                // Reserved inodes may be marked as in use and be blank.
                if [BAD_BLOCKS_INODE, RESIZE_INODE].contains(&number) || inode.kind().is_err() {
                    return Ok(());
                }
                self.survey_blocks(&inode, options, &mut plan)?;
                if inode.xattr_block() != 0 {
                    xattr_blocks.push(inode.xattr_block());
                }
                self.survey_slot(&inode, slot, &mut plan)
            })?;
        }
        // Attributes may be shared between inodes.
        xattr_blocks.sort_unstable();
        xattr_blocks.dedup();
        for start in xattr_blocks {
            Clusters::lone(&self.superblock).add_lone(start, &mut plan)?;
            plan.suspects.push(Suspect { start, len: 1, what: What::Xattr });
        }
        self.survey_journal(&mut plan)?;
        plan.claims.merge()?;
        self.survey_shared_clusters(&mut plan)?;
        plan.unused.sort_unstable_by_key(|run| run.start);
        Ok(plan)
    }

    /// Checks that the root is where it is to be: a wrong size of inodes, say, would make everything seem unused.
    fn check_root(&self) -> Result<()> {
        let root = self.directory_inode(ROOT_INODE)?;
        if root.flags().contains(InodeFlags::INLINE_DATA) {
            return self.inline_entries(&root).map(|_| ());
        }
        let dot = directory::lookup(&self.directory(&root)?, &self.directory_format, b".")?;
        if dot.is_none_or(|entry| entry.inode != ROOT_INODE) {
            return Err(Error::corrupt("root directory", format_args!("inode {ROOT_INODE}"), "its `.` is itself"));
        }
        Ok(())
    }

    fn check_free_inodes(&self, number: u32, inode_bitmap: &[u8]) -> Result<()> {
        let runs = bitmap::clear_runs(inode_bitmap, 0..self.superblock.inodes_per_group);
        let clear: u32 = runs.map(|run| run.end - run.start).sum();
        let counted = self.group(number)?.free_inodes;
        if clear != counted {
            let expected = format!("{clear} inodes are counted as free, found {counted}");
            return Err(Error::corrupt("group descriptor", format_args!("group {number}"), expected));
        }
        Ok(())
    }

    /// The parts of a group's bitmaps and inode table that were never used, and the room that copies of the group
    /// descriptors have to grow. In group 0 that room is in use: it holds where the copies have theirs.
    fn survey_unused_metadata(&self, number: u32, plan: &mut Plan) -> Result<()> {
        let group = self.group(number)?;
        if number > 0 && self.superblock.has_superblock(number) {
            let header = self.superblock.group_header_blocks(number);
            plan.suspects.push(Suspect { start: header.start, len: 1, what: What::SuperblockCopy });
            let used = header.start + 1 + u64::from(self.superblock.descriptor_blocks());
            if !self.superblock.features.incompat.contains(Incompat::META_BG) && used < header.end {
                plan.unused.push(used..header.end);
            }
        }
        let per_block = (self.superblock.block_size / self.superblock.inode_size) as u32;
        let used = group.inodes_ever_used(&self.superblock);
        let table = group.inode_table + u64::from(used.div_ceil(per_block))
            ..group.inode_table + u64::from(self.superblock.inode_table_blocks);
        if !table.is_empty() {
            plan.unused.push(table);
        }
        for (flag, block) in
            [(GroupFlags::BLOCK_UNINIT, group.block_bitmap), (GroupFlags::INODE_UNINIT, group.inode_bitmap)]
        {
            if group.flags.contains(flag) {
                plan.unused.push(block..block + 1);
            }
        }
        // The block that both parts share.
        if !used.is_multiple_of(per_block) {
            let block = group.inode_table + u64::from(used / per_block);
            let start = (used % per_block) as usize * self.superblock.inode_size;
            let mut bytes = vec![0; self.superblock.block_size];
            self.cache.read_run(block, 0, &mut bytes)?;
            let first = number * self.superblock.inodes_per_group + used + 1;
            for (slot, number) in bytes[start..].chunks_exact(self.superblock.inode_size).zip(first..) {
                if self.superblock.locate_inode(number).is_ok() && !zeros::is_zero(slot) {
                    plan.report.inodes += slot.len() as u64;
                    plan.slots.push((number, vec![0; slot.len()]));
                }
            }
        }
        Ok(())
    }

    /// The blocks that an inode has.
    fn survey_blocks(&self, inode: &Inode, options: &ScrubOptions, plan: &mut Plan) -> Result<()> {
        let size = inode.size(&self.superblock);
        let block_size = self.superblock.block_size as u64;
        let owner = BlockOwner {
            inode: inode.number,
            checksum_seed: inode.checksum_seed(&self.superblock),
            indexed: inode.flags().contains(InodeFlags::INDEX),
        };
        // Verity keeps a tree behind the end, and a folded directory of encrypted names a hash behind each.
        let opaque = inode.flags().intersects(InodeFlags::VERITY | InodeFlags::ENCRYPT);
        let end = (size % block_size) as u32;
        let file_slack = options.file_slack && inode.is_file();
        let mut clusters = Clusters::new(&self.superblock, inode);
        self.for_each_mapping(inode, |mapping| {
            clusters.add(mapping, plan)?;
            let start = match mapping.place {
                Place::Written(start) => start,
                Place::Unwritten(start) => {
                    plan.unused.push(start..start + u64::from(mapping.len));
                    start
                }
                Place::Hole => return Ok(()),
            };
            if opaque || matches!(mapping.place, Place::Unwritten(_)) {
                return Ok(());
            }
            let logical = u64::from(mapping.logical);
            if inode.is_directory() {
                let len = (size / block_size).saturating_sub(logical).min(u64::from(mapping.len)) as u32;
                if len > 0 {
                    let what = What::Directory { owner, logical: mapping.logical };
                    plan.suspects.push(Suspect { start, len, what });
                }
            } else if end > 0 && (file_slack || inode.is_symlink()) {
                let last = (size / block_size).checked_sub(logical).filter(|last| *last < u64::from(mapping.len));
                if let Some(last) = last {
                    let what = if inode.is_file() { What::File { end } } else { What::Target { end } };
                    plan.suspects.push(Suspect { start: start + last, len: 1, what });
                }
            }
            Ok(())
        })?;
        clusters.finish(plan);
        let in_extents = inode.flags().contains(InodeFlags::EXTENTS);
        self.for_each_map_block(inode, &mut |start| {
            clusters.add_lone(start, plan)?;
            if in_extents {
                let what = What::ExtentNode { inode: inode.number, checksum_seed: owner.checksum_seed };
                plan.suspects.push(Suspect { start, len: 1, what });
            }
            Ok(())
        })
    }

    /// The slack in the slot of an inode that is in use.
    fn survey_slot(&self, inode: &Inode, slot: &[u8], plan: &mut Plan) -> Result<()> {
        let map = &slot[I_BLOCK];
        let mut used = map.len();
        if inode.maps_blocks(&self.superblock) && inode.flags().contains(InodeFlags::EXTENTS) {
            used = Node::decode(map).map_or(used, |root| (root.entries + 1) * ENTRY_LEN);
        } else if inode.is_fast_symlink(&self.superblock) {
            used = inode.size(&self.superblock) as usize;
        } else if inode.flags().contains(InodeFlags::INLINE_DATA) && !inode.is_directory() {
            used = used.min(inode.size(&self.superblock) as usize);
        }
        let attributes = BASE_LEN + extra_isize(slot)..slot.len();
        let mut changed = 0;
        let mut copy = Vec::new();
        if map.get(used..).is_some_and(|slack| !zeros::is_zero(slack)) {
            copy = slot.to_vec();
            changed += zeros::clear(&mut copy[I_BLOCK.start + used..I_BLOCK.end]);
        }
        // Without a size of its fields an inode has no attributes, and what lies there may mean something yet.
        if attributes.start > BASE_LEN && !zeros::is_zero(&slot[attributes.clone()]) {
            if copy.is_empty() {
                copy = slot.to_vec();
            }
            changed += xattr::scrub_in_inode(&mut copy[attributes], inode.number)?;
        }
        if inode.flags().contains(InodeFlags::INLINE_DATA) && inode.is_directory() {
            if copy.is_empty() {
                copy = slot.to_vec();
            }
            let names = self.scrub_inline_directory(inode, &mut copy)?;
            plan.report.directories += names;
            plan.report.slack += changed;
            changed += names;
        } else {
            plan.report.slack += changed;
        }
        if changed > 0 {
            plan.slots.push((inode.number, copy));
        }
        Ok(())
    }

    /// Wipes what an inline directory no longer says, in the inode's slot.
    fn scrub_inline_directory(&self, inode: &Inode, slot: &mut [u8]) -> Result<u64> {
        let attributes = BASE_LEN + extra_isize(slot);
        let value = xattr::inline_value(&slot[attributes..], inode.number)?;
        let (seed, mut last) = (inode.checksum_seed(&self.superblock), None);
        let owner = BlockOwner { inode: inode.number, checksum_seed: seed, indexed: false };
        let mut changed = 0;
        for part in [I_BLOCK.start + PARENT_LEN..I_BLOCK.end, attributes + value.start..attributes + value.end] {
            let mut check = |number| self.check_entry(owner, number, &mut last);
            for blank in self.inline_blanks(inode, &slot[part.clone()], &mut check)? {
                changed += zeros::clear(&mut slot[part.start + blank.start..part.start + blank.end]);
            }
        }
        Ok(changed)
    }

    /// The journal: all of a clean one holds nothing but its superblock.
    fn survey_journal(&self, plan: &mut Plan) -> Result<()> {
        // What is only looked at is not wiped, and what was replayed in memory alone is in the log still.
        if self.read_only_reason().is_some() {
            return Ok(());
        }
        let Some(journal) = self.journal()? else { return Ok(()) };
        let start = journal.place(0)?;
        let mut bytes = vec![0; self.superblock.block_size];
        self.cache.read_run(start, 0, &mut bytes)?;
        let scrubbed = scrubbed_superblock(&bytes)?;
        if scrubbed != bytes {
            plan.report.slack += bytes.iter().zip(&scrubbed).filter(|(before, after)| before != after).count() as u64;
            plan.blocks.push((start, BlockKind::Unchecked, scrubbed));
        }
        let inode = self.inode(self.superblock.raw.s_journal_inum.get())?;
        self.for_each_mapping(&inode, |mapping| {
            if let Place::Written(start) = mapping.place {
                let skip = u64::from(mapping.logical == 0);
                if skip < u64::from(mapping.len) {
                    plan.unused.push(start + skip..start + u64::from(mapping.len));
                }
            }
            Ok(())
        })
    }

    /// Checks that an entry's inode is one in use. `last` keeps the bitmap last looked at.
    pub(super) fn check_entry(&self, owner: BlockOwner, number: u32, last: &mut Option<(u32, Block)>) -> Result<()> {
        let (group, index) = self.superblock.locate_inode(number)?;
        if last.as_ref().is_none_or(|(known, _)| *known != group) {
            *last = Some((group, self.inode_bitmap(group)?));
        }
        match last {
            Some((_, inode_bitmap)) if bitmap::is_set(inode_bitmap, index) => Ok(()),
            _ => Err(Error::corrupt(
                "inode bitmap",
                format_args!("inode {number}"),
                format!("an inode that a name in inode {} has is in use", owner.inode),
            )),
        }
    }
}
