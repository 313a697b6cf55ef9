//! Extent trees, changed: insertion with splits, conversion of unwritten extents, removal.
//!
//! An index entry's key always equals the first key of the node that it leads to; e2fsck insists on it.

use std::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::clusters::Freeing;
use crate::extent_tree::{Extent, LOGICAL_END, Node, checksum_offset, root_node};
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::layout::extent::{ENTRY_LEN, MAGIC, MAX_WRITTEN_LEN, RawExtentHeader, RawExtentIndex};
use crate::limits::MAX_EXTENT_DEPTH;
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

/// Entries in a root: what fits the inode.
const ROOT_MAX: u16 = 4;
/// The block number that stands for the root, which is in the inode.
const ROOT: u64 = 0;

/// An entry's bytes, of whichever kind.
type Entry = [u8; ENTRY_LEN];

/// A node on the way from the root to a leaf.
#[derive(Debug, Clone, Copy)]
struct Step {
    block: u64,
    /// In an index node the entry that was followed; in the leaf where an entry of the key would be inserted.
    index: usize,
}

impl Extent {
    fn max_len(self) -> u32 {
        u32::from(if self.unwritten { MAX_WRITTEN_LEN - 1 } else { MAX_WRITTEN_LEN })
    }

    /// Both as one extent, if `next` continues this one.
    fn joined(self, next: Self) -> Option<Self> {
        let continues = self.end() == next.logical
            && self.physical + u64::from(self.len) == next.physical
            && self.unwritten == next.unwritten;
        (continues && self.len + next.len <= self.max_len()).then(|| Self { len: self.len + next.len, ..self })
    }

    fn entry(self) -> Entry {
        let mut entry = Entry::default();
        entry.copy_from_slice(self.encode().as_bytes());
        entry
    }
}

/// The first logical block of an entry.
fn key_of(entry: &Entry) -> u32 {
    u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]])
}

fn index_entry(key: u32, block: u64) -> Entry {
    let raw = RawExtentIndex {
        ei_block: key.into(),
        ei_leaf_lo: (block as u32).into(),
        ei_leaf_hi: ((block >> 32) as u16).into(),
        ei_unused: 0.into(),
    };
    let mut entry = Entry::default();
    entry.copy_from_slice(raw.as_bytes());
    entry
}

fn set_header(bytes: &mut [u8], entries: usize, max: u16, depth: u16) {
    let raw = RawExtentHeader {
        eh_magic: MAGIC.into(),
        eh_entries: (entries as u16).into(),
        eh_max: max.into(),
        eh_depth: depth.into(),
        eh_generation: 0.into(),
    };
    bytes[..ENTRY_LEN].copy_from_slice(raw.as_bytes());
}

/// Replaces the entries of a node, and leaves zeros after them.
fn set_entries(bytes: &mut [u8], entries: &[Entry]) {
    let Ok((header, _)) = RawExtentHeader::mut_from_prefix(bytes) else { return };
    header.eh_entries = (entries.len() as u16).into();
    let room = ENTRY_LEN * (usize::from(header.eh_max.get()) + 1);
    let Some(rest) = bytes.get_mut(ENTRY_LEN..room) else { return };
    let (used, free) = rest.split_at_mut((entries.len() * ENTRY_LEN).min(room - ENTRY_LEN));
    used.iter_mut().zip(entries.as_flattened()).for_each(|(to, from)| *to = *from);
    free.fill(0);
}

fn entries_of(bytes: &[u8]) -> Vec<Entry> {
    let count = Node::decode(bytes).map_or(0, |node| node.entries);
    let held = bytes.get(ENTRY_LEN..ENTRY_LEN * (count + 1)).unwrap_or_default();
    held.as_chunks().0.to_vec()
}

/// Makes the inode map nothing, by extents.
pub(crate) fn init_root(inode: &mut Inode) {
    inode.raw.i_block = [0; 60];
    set_header(&mut inode.raw.i_block, 0, ROOT_MAX, 0);
}

impl FileSystem {
    /// Adds an extent where the inode has a hole, joined with its neighbours where it continues them.
    pub(crate) fn insert_extent(&mut self, inode: &mut Inode, extent: Extent) -> Result<()> {
        let mut path = self.extent_path(inode, extent.logical)?;
        let Some(leaf) = path.last().copied() else { return Ok(()) };
        let (before, after) = {
            let bytes = self.node_bytes(inode, leaf.block)?;
            let node = Node::decode(&bytes);
            let get = |index: Option<usize>| node.zip(index).and_then(|(node, index)| node.extent(index));
            (get(leaf.index.checked_sub(1)), get(Some(leaf.index)))
        };
        if let Some(joined) = before.and_then(|before| before.joined(extent)) {
            // The new extent may have closed the gap between two.
            let both = after.and_then(|after| joined.joined(after));
            return self.change_entries(inode, leaf.block, |entries| {
                if both.is_some() {
                    entries.remove(leaf.index);
                }
                entries[leaf.index - 1] = both.unwrap_or(joined).entry();
            });
        }
        if let Some(joined) = after.and_then(|after| extent.joined(after)) {
            self.change_entries(inode, leaf.block, |entries| entries[leaf.index] = joined.entry())?;
            return if leaf.index == 0 { self.lower_keys(inode, &path, joined.logical) } else { Ok(()) };
        }
        if leaf.index == 0 {
            self.lower_keys(inode, &path, extent.logical)?;
        }
        let level = path.len() - 1;
        self.insert_entry(inode, &mut path, level, leaf.index, extent.entry())
    }

    /// Says that blocks of an unwritten extent now hold data. All of them must be in one such extent.
    pub(crate) fn mark_written(&mut self, inode: &mut Inode, logical: u32, len: u32) -> Result<()> {
        let path = self.extent_path(inode, logical)?;
        let Some(leaf) = path.last().copied() else { return Ok(()) };
        let Some(index) = leaf.index.checked_sub(1) else { return Ok(()) };
        let (before, old) = {
            let bytes = self.node_bytes(inode, leaf.block)?;
            let node = Node::decode(&bytes);
            let get = |index: Option<usize>| node.zip(index).and_then(|(node, index)| node.extent(index));
            (get(index.checked_sub(1)), get(Some(index)))
        };
        let Some(old) = old.filter(|old| old.unwritten && logical + len <= old.end()) else { return Ok(()) };
        let skip = logical - old.logical;
        let written = Extent { logical, len, physical: old.physical + u64::from(skip), unwritten: false };
        let rest = Extent {
            logical: written.end(),
            len: old.end() - written.end(),
            physical: written.physical + u64::from(len),
            unwritten: true,
        };
        if skip > 0 {
            self.change_entries(inode, leaf.block, |entries| entries[index] = Extent { len: skip, ..old }.entry())?;
            self.insert_extent(inode, written)?;
        } else if let Some(joined) = before.and_then(|before| before.joined(written)) {
            // What is written in order grows the extent before, not the number of extents.
            return self.change_entries(inode, leaf.block, |entries| {
                entries[index - 1] = joined.entry();
                if rest.len > 0 {
                    entries[index] = rest.entry();
                } else {
                    entries.remove(index);
                }
            });
        } else {
            self.change_entries(inode, leaf.block, |entries| entries[index] = written.entry())?;
        }
        if rest.len > 0 { self.insert_extent(inode, rest) } else { Ok(()) }
    }

    /// Frees the blocks in a range of logical blocks, and the nodes that are then empty.
    pub(crate) fn remove_extents(&mut self, inode: &mut Inode, range: Range<u32>) -> Result<()> {
        let depth = root_node(inode, &self.superblock)?.depth;
        let mut rest = None;
        let mut freeing = self.freeing(inode, range)?;
        if self.remove_from_node(inode, ROOT, depth, 0..LOGICAL_END, &mut freeing, &mut rest)?.is_none() {
            init_root(inode);
        }
        self.collapse_root(inode)?;
        rest.map_or(Ok(()), |rest| self.insert_extent(inode, rest))
    }

    /// The nodes from the root to the leaf for `logical`.
    fn extent_path(&self, inode: &Inode, logical: u32) -> Result<Vec<Step>> {
        let mut path = Vec::with_capacity(4);
        let mut depth = root_node(inode, &self.superblock)?.depth;
        let mut block = ROOT;
        let mut keys = 0..LOGICAL_END;
        loop {
            let bytes = if block == ROOT {
                inode.raw.i_block.to_vec().into()
            } else {
                self.extent_node(inode, block, depth, keys.clone())?
            };
            let Some(node) = Node::decode(&bytes) else { return Ok(path) };
            let after = node.partition(logical);
            if depth == 0 {
                path.push(Step { block, index: after });
                return Ok(path);
            }
            let index = after.saturating_sub(1);
            path.push(Step { block, index });
            let Some((key, child)) = node.child(index) else { return Ok(path) };
            keys = key..node.key(index + 1).unwrap_or(keys.end);
            block = child;
            depth -= 1;
        }
    }

    fn node_bytes(&self, inode: &Inode, block: u64) -> Result<std::sync::Arc<Vec<u8>>> {
        if block == ROOT {
            return Ok(inode.raw.i_block.to_vec().into());
        }
        // Only blocks that `extent_path` has led through are asked for, so they were checked.
        self.cache.get(block, BlockKind::ExtentNode { inode: inode.number }, |_| Ok(()))
    }

    /// Changes a node's bytes and sets its checksum.
    fn change_node(&mut self, inode: &mut Inode, block: u64, change: impl FnOnce(&mut [u8])) -> Result<()> {
        if block == ROOT {
            change(&mut inode.raw.i_block);
            return Ok(());
        }
        let kind = BlockKind::ExtentNode { inode: inode.number };
        let bytes = self.cache.modify(block, kind, |_| Ok(()))?;
        change(bytes);
        if self.superblock.features.metadata_csum()
            && let Some(offset) = Node::decode(bytes).map(|node| checksum_offset(node.max))
            && offset + 4 <= bytes.len()
        {
            let sum = crc32c(inode.checksum_seed(&self.superblock), &bytes[..offset]);
            bytes[offset..offset + 4].copy_from_slice(&sum.to_le_bytes());
        }
        Ok(())
    }

    fn change_entries(&mut self, inode: &mut Inode, block: u64, change: impl FnOnce(&mut Vec<Entry>)) -> Result<()> {
        self.change_node(inode, block, |bytes| {
            let mut entries = entries_of(bytes);
            change(&mut entries);
            set_entries(bytes, &entries);
        })
    }

    /// Makes the keys above a leaf follow a first key that became smaller.
    fn lower_keys(&mut self, inode: &mut Inode, path: &[Step], key: u32) -> Result<()> {
        for step in path.iter().rev().skip(1) {
            self.change_entries(inode, step.block, |entries| {
                if let Some(entry) = entries.get_mut(step.index) {
                    entry[..4].copy_from_slice(&key.to_le_bytes());
                }
            })?;
            if step.index > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Inserts an entry into the node at `level` of the path, which is split, and its parents in turn, where it is full.
    fn insert_entry(
        &mut self,
        inode: &mut Inode,
        path: &mut Vec<Step>,
        level: usize,
        index: usize,
        entry: Entry,
    ) -> Result<()> {
        let block = path[level].block;
        let bytes = self.node_bytes(inode, block)?;
        let Some(node) = Node::decode(&bytes) else { return Ok(()) };
        if node.entries < node.max {
            return self.change_entries(inode, block, |entries| entries.insert(index, entry));
        }
        if block == ROOT {
            let below = self.grow_root(inode, key_of(&entry))?;
            path[0].block = below;
            path.insert(0, Step { block: ROOT, index: 0 });
            return self.insert_entry(inode, path, level + 1, index, entry);
        }
        let depth = node.depth;
        let mut left = entries_of(&bytes);
        left.insert(index, entry);
        // What is added at the end leaves a full node behind it; what is added within, two half full ones.
        let middle = if index + 1 == left.len() { index } else { left.len() / 2 };
        let right = left.split_off(middle);
        let key = key_of(&right[0]);
        let new = self.new_node(inode, depth, block)?;
        self.change_node(inode, new, |bytes| set_entries(bytes, &right))?;
        self.change_node(inode, block, |bytes| set_entries(bytes, &left))?;
        let above = path[level - 1].index + 1;
        self.insert_entry(inode, path, level - 1, above, index_entry(key, new))
    }

    /// Moves the root's entries into a new node below it, where `added` will be a key, too; returns that node's block.
    fn grow_root(&mut self, inode: &mut Inode, added: u32) -> Result<u64> {
        let (entries, depth) = {
            let root = root_node(inode, &self.superblock)?;
            (entries_of(&inode.raw.i_block), root.depth)
        };
        if depth >= MAX_EXTENT_DEPTH {
            return Err(Error::NoSpace("extent tree depth"));
        }
        let goal = self.inode_goal(inode.number)?;
        let block = self.new_node(inode, depth, goal)?;
        self.change_node(inode, block, |bytes| set_entries(bytes, &entries))?;
        let key = entries.first().map_or(added, |entry| key_of(entry).min(added));
        inode.raw.i_block = [0; 60];
        set_header(&mut inode.raw.i_block, 0, ROOT_MAX, depth + 1);
        set_entries(&mut inode.raw.i_block, &[index_entry(key, block)]);
        Ok(block)
    }

    /// An empty node in a new block, whose checksum is set with its entries.
    fn new_node(&mut self, inode: &mut Inode, depth: u16, goal: u64) -> Result<u64> {
        let block = self.allocate_blocks(goal, 1)?.start;
        self.count_clusters(inode, 1)?;
        let mut bytes = vec![0; self.superblock.block_size];
        // Four bytes are left for the checksum, with or without one.
        let max = (self.superblock.block_size - ENTRY_LEN - 4) / ENTRY_LEN;
        set_header(&mut bytes, 0, max as u16, depth);
        self.cache.put(block, BlockKind::ExtentNode { inode: inode.number }, bytes)?;
        Ok(block)
    }

    /// Frees what `freeing` covers in a node and below it, and returns the first key that is left. Where an extent is cut
    /// in two, the second part goes to `rest`: the node may have no room for it.
    fn remove_from_node(
        &mut self,
        inode: &mut Inode,
        block: u64,
        depth: u16,
        keys: Range<u32>,
        freeing: &mut Freeing,
        rest: &mut Option<Extent>,
    ) -> Result<Option<u32>> {
        let range = freeing.blocks.clone();
        let bytes = if block == ROOT {
            self.node_bytes(inode, ROOT)?
        } else {
            self.extent_node(inode, block, depth, keys.clone())?
        };
        let Some(node) = Node::decode(&bytes) else { return Ok(None) };
        let mut entries = entries_of(&bytes);
        let mut changed = false;
        // Backwards, so that an entry that goes moves none that is still to be looked at.
        for index in (0..node.partition(range.end.saturating_sub(1))).rev() {
            if depth == 0 {
                let Some(extent) = node.extent(index).filter(|extent| extent.end() > range.start) else { break };
                let (start, end) = (extent.logical.max(range.start), extent.end().min(range.end));
                let freed = extent.physical + u64::from(start - extent.logical);
                self.free_extent(inode, extent.logical, extent.physical, extent.len, freeing)?;
                changed = true;
                let before = Extent { len: start - extent.logical, ..extent };
                let physical = freed + u64::from(end - start);
                let after = Extent { logical: end, len: extent.end() - end, physical, unwritten: extent.unwritten };
                match (before.len, after.len) {
                    (0, 0) => drop(entries.remove(index)),
                    (0, _) => entries[index] = after.entry(),
                    (_, after_len) => {
                        entries[index] = before.entry();
                        *rest = (after_len > 0).then_some(after);
                    }
                }
            } else {
                let Some((key, child)) = node.child(index) else { break };
                let child_keys = key..node.key(index + 1).unwrap_or(keys.end);
                if child_keys.end <= range.start {
                    break;
                }
                match self.remove_from_node(inode, child, depth - 1, child_keys, freeing, rest)? {
                    Some(first) if first == key => {}
                    Some(first) => {
                        entries[index][..4].copy_from_slice(&first.to_le_bytes());
                        changed = true;
                    }
                    None => {
                        self.free_blocks_run(child, 1)?;
                        self.discount_clusters(inode, 1)?;
                        entries.remove(index);
                        changed = true;
                    }
                }
            }
        }
        // A node that goes need not be written.
        if changed && (block == ROOT || !entries.is_empty()) {
            self.change_node(inode, block, |bytes| set_entries(bytes, &entries))?;
        }
        Ok(entries.first().map(key_of))
    }

    /// Takes nodes away from between the root and what fits it.
    fn collapse_root(&mut self, inode: &mut Inode) -> Result<()> {
        loop {
            let (depth, child, keys) = {
                let root = root_node(inode, &self.superblock)?;
                let Some((key, child)) = root.child(0).filter(|_| root.depth > 0 && root.entries == 1) else {
                    return Ok(());
                };
                (root.depth - 1, child, key..LOGICAL_END)
            };
            let bytes = self.extent_node(inode, child, depth, keys)?;
            let entries = entries_of(&bytes);
            if entries.len() > usize::from(ROOT_MAX) {
                return Ok(());
            }
            inode.raw.i_block = [0; 60];
            set_header(&mut inode.raw.i_block, 0, ROOT_MAX, depth);
            set_entries(&mut inode.raw.i_block, &entries);
            self.free_blocks_run(child, 1)?;
            self.discount_clusters(inode, 1)?;
        }
    }
}
