//! Extent trees, read.
//!
//! <https://docs.kernel.org/filesystems/ext4/ifork.html#extent-tree>; checks as in `fs/ext4/extents.c`, `__ext4_ext_check`.

use std::ops::Range;

use zerocopy::FromBytes;

use crate::checksum::crc32c;
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::layout::extent::{ENTRY_LEN, MAGIC, MAX_WRITTEN_LEN, RawExtent, RawExtentHeader, RawExtentIndex};
use crate::limits::MAX_EXTENT_DEPTH;
use crate::mapping::{Mapping, Place};
use crate::metadata_cache::{Block, BlockKind};
use crate::superblock::Superblock;
use crate::{Error, Result};

/// Logical blocks end here: the last number is never used.
pub(crate) const LOGICAL_END: u32 = u32::MAX;

/// One entry of a leaf, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub logical: u32,
    pub len: u32,
    pub physical: u64,
    pub unwritten: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> u32 {
        self.logical + self.len
    }

    pub(crate) fn mapping(&self) -> Mapping {
        let place = if self.unwritten { Place::Unwritten(self.physical) } else { Place::Written(self.physical) };
        Mapping { logical: self.logical, len: self.len, place }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (raw, _) = RawExtent::read_from_prefix(bytes).ok()?;
        let unwritten = raw.ee_len.get() > MAX_WRITTEN_LEN;
        let len = if unwritten { raw.ee_len.get() - MAX_WRITTEN_LEN } else { raw.ee_len.get() };
        Some(Self {
            logical: raw.ee_block.get(),
            len: u32::from(len),
            physical: u64::from(raw.ee_start_hi.get()) << 32 | u64::from(raw.ee_start_lo.get()),
            unwritten,
        })
    }

    pub(crate) fn encode(&self) -> RawExtent {
        let len = self.len as u16 + if self.unwritten { MAX_WRITTEN_LEN } else { 0 };
        RawExtent {
            ee_block: self.logical.into(),
            ee_len: len.into(),
            ee_start_hi: ((self.physical >> 32) as u16).into(),
            ee_start_lo: (self.physical as u32).into(),
        }
    }
}

/// One node, seen through its bytes. Entries past what the bytes hold do not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    bytes: &'a [u8],
    pub entries: usize,
    pub max: usize,
    pub depth: u16,
}

impl<'a> Node<'a> {
    /// The node that `bytes` begin with, if it has the magic number and no more entries than there is room for.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = RawExtentHeader::read_from_prefix(bytes).ok()?;
        let entries = usize::from(header.eh_entries.get());
        let max = usize::from(header.eh_max.get());
        let room = (bytes.len() - ENTRY_LEN) / ENTRY_LEN;
        (header.eh_magic.get() == MAGIC && entries <= max && max <= room).then_some(Self {
            bytes,
            entries,
            max,
            depth: header.eh_depth.get(),
        })
    }

    fn entry(&self, index: usize) -> &'a [u8] {
        let start = ENTRY_LEN * (index + 1);
        self.bytes.get(start..start + ENTRY_LEN).unwrap_or_default()
    }

    pub(crate) fn extent(&self, index: usize) -> Option<Extent> {
        (index < self.entries).then(|| Extent::decode(self.entry(index))).flatten()
    }

    /// The first logical block and the block of a child.
    pub(crate) fn child(&self, index: usize) -> Option<(u32, u64)> {
        let (raw, _) = RawExtentIndex::read_from_prefix(self.entry(index)).ok().filter(|_| index < self.entries)?;
        Some((raw.ei_block.get(), u64::from(raw.ei_leaf_hi.get()) << 32 | u64::from(raw.ei_leaf_lo.get())))
    }

    /// The first logical block of any entry: extents and indexes both begin with it.
    pub(crate) fn key(&self, index: usize) -> Option<u32> {
        let bytes = self.entry(index).get(..4).filter(|_| index < self.entries)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// How many entries have a key that is at most `logical`.
    pub(crate) fn partition(&self, logical: u32) -> usize {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle).is_some_and(|key| key <= logical) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Why the node is not valid, if it is not.
    fn problem(&self, superblock: &Superblock) -> Option<String> {
        if self.depth > MAX_EXTENT_DEPTH {
            return Some(format!("eh_depth is at most {MAX_EXTENT_DEPTH}, found {}", self.depth));
        }
        let mut from = 0u64;
        for index in 0..self.entries {
            let (key, len, start, blocks) = if self.depth == 0 {
                let extent = self.extent(index)?;
                (extent.logical, u64::from(extent.len), extent.physical, u64::from(extent.len))
            } else {
                let (key, block) = self.child(index)?;
                (key, 1, block, 1)
            };
            if u64::from(key) < from || len == 0 || u64::from(key) + len > u64::from(LOGICAL_END) {
                return Some(format!(
                    "entries are in order and not empty, entry {index} starts at {key} with length {len}"
                ));
            }
            if start <= superblock.first_data_block || start + blocks > superblock.blocks_count {
                return Some(format!("blocks lie inside the file system, entry {index} has {blocks} from {start}"));
            }
            from = u64::from(key) + len;
        }
        None
    }
}

/// Where in a node's block its checksum is.
pub(crate) fn checksum_offset(max: usize) -> usize {
    ENTRY_LEN * (max + 1)
}

/// Checks a node that fills a block, its checksum included.
fn check_node_block(bytes: &[u8], superblock: &Superblock, inode: &Inode, block: u64) -> Result<()> {
    let wrong = |expected: String| {
        Error::corrupt("extent node", format_args!("inode {}, block {block}", inode.number), expected)
    };
    let Some(node) = Node::decode(bytes) else {
        return Err(wrong("has the magic number and entries that fit".to_owned()));
    };
    if node.entries == 0 {
        return Err(wrong("has entries".to_owned()));
    }
    if superblock.features.metadata_csum() {
        let offset = checksum_offset(node.max);
        let Some(found) = bytes.get(offset..offset + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])) else {
            return Err(wrong(format!("eh_max leaves room for the checksum, found {}", node.max)));
        };
        let computed = crc32c(inode.checksum_seed(superblock), &bytes[..offset]);
        if computed != found {
            return Err(wrong(format!("the checksum is {computed:#x}, found {found:#x}")));
        }
    }
    node.problem(superblock).map_or(Ok(()), |problem| Err(wrong(problem)))
}

/// The root node, in the inode, checked.
pub(crate) fn root_node<'a>(inode: &'a Inode, superblock: &Superblock) -> Result<Node<'a>> {
    let wrong = |expected: String| Error::corrupt("extent root", format_args!("inode {}", inode.number), expected);
    let Some(node) = Node::decode(&inode.raw.i_block) else {
        return Err(wrong("has the magic number and at most 4 entries".to_owned()));
    };
    if node.entries == 0 && node.depth > 0 {
        return Err(wrong(format!("has entries, since its depth is {}", node.depth)));
    }
    match node.problem(superblock) {
        Some(problem) => Err(wrong(problem)),
        None => Ok(node),
    }
}

impl FileSystem {
    /// The block of a child node, checked to have this depth and to have its keys in `keys`.
    pub(crate) fn extent_node(&self, inode: &Inode, block: u64, depth: u16, keys: Range<u32>) -> Result<Block> {
        let kind = BlockKind::ExtentNode { inode: inode.number };
        let bytes = self.cache.get(block, kind, |bytes| check_node_block(bytes, &self.superblock, inode, block))?;
        let fits = Node::decode(&bytes).is_some_and(|node| {
            let first = node.key(0).is_some_and(|key| key >= keys.start);
            let last = node.entries.checked_sub(1).and_then(|last| node.key(last)).is_some_and(|key| key < keys.end);
            node.depth == depth && first && last
        });
        if !fits {
            let place = format_args!("inode {}, block {block}", inode.number);
            let expected = format!("has depth {depth} and keys from {} to {}", keys.start, keys.end);
            return Err(Error::corrupt("extent node", place, expected));
        }
        Ok(bytes)
    }

    pub(crate) fn map_extent(&self, inode: &Inode, logical: u32) -> Result<Mapping> {
        let root = root_node(inode, &self.superblock)?;
        let mut keys = 0..LOGICAL_END;
        let mut step = look(&root, logical, &mut keys);
        let mut depth = root.depth;
        while let Step::Down(block) = step {
            depth = depth.saturating_sub(1);
            let bytes = self.extent_node(inode, block, depth, keys.clone())?;
            let Some(node) = Node::decode(&bytes) else { break };
            step = look(&node, logical, &mut keys);
        }
        Ok(match step {
            Step::Found(extent) => extent.mapping().starting_at(logical),
            // A hole up to the next key that was seen on the way down.
            _ => Mapping { logical, len: keys.end.saturating_sub(logical).max(1), place: Place::Hole },
        })
    }

    pub(crate) fn for_each_extent_node(&self, inode: &Inode, visit: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let root = root_node(inode, &self.superblock)?;
        self.visit_children(inode, &root, 0..LOGICAL_END, visit)
    }

    fn visit_children(
        &self,
        inode: &Inode,
        node: &Node<'_>,
        keys: Range<u32>,
        visit: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if node.depth == 0 {
            return Ok(());
        }
        for index in 0..node.entries {
            let Some((key, block)) = node.child(index) else { break };
            let keys = key..node.key(index + 1).unwrap_or(keys.end);
            // The child's depth is one less, so the recursion ends; its keys are its own, so no block is met twice.
            let bytes = self.extent_node(inode, block, node.depth - 1, keys.clone())?;
            visit(block)?;
            if let Some(child) = Node::decode(&bytes) {
                self.visit_children(inode, &child, keys, visit)?;
            }
        }
        Ok(())
    }
}

/// What a node says of a logical block.
enum Step {
    Found(Extent),
    Down(u64),
    Hole,
}

/// Looks `logical` up in one node, and narrows `keys` to what lies between the keys beside it.
fn look(node: &Node<'_>, logical: u32, keys: &mut Range<u32>) -> Step {
    let after = node.partition(logical);
    if let Some(next) = node.key(after) {
        keys.end = keys.end.min(next);
    }
    let Some(index) = after.checked_sub(1) else { return Step::Hole };
    if node.depth == 0 {
        return match node.extent(index) {
            Some(extent) if logical < extent.end() => Step::Found(extent),
            _ => Step::Hole,
        };
    }
    match node.child(index) {
        Some((key, block)) => {
            keys.start = keys.start.max(key);
            Step::Down(block)
        }
        None => Step::Hole,
    }
}
