//! Writing forks: what goes into the inode and how its literal area is divided, and the trees of extents.

use crate::bytes::{be16, put, put_checksum, put16, put64};
use crate::extents::{Extent, Extents, RECORD, header_len, root_capacity};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::space::{owner, tree_owner};
use crate::{Error, Result};

/// The least bytes that the kernel leaves for either fork.
const DATA_FLOOR: usize = 56;
const ATTR_FLOOR: usize = 40;
const NO_BLOCK: u64 = u64::MAX;

/// How many bytes of the literal area a fork uses.
fn used(inode: &Inode, fork: Fork) -> usize {
    let bytes = inode.fork(fork);
    match inode.format(fork) {
        Format::Device => 8,
        Format::Local if fork == Fork::Data => inode.size() as usize,
        Format::Local => usize::from(be16(bytes, 0)),
        Format::Extents => inode.extent_count(fork) as usize * RECORD,
        Format::Btree => 4 + usize::from(be16(bytes, 2)) * RECORD,
    }
}

/// Divides the literal area so that a fork has room for `needed` bytes. What the other fork holds moves along.
/// Returns whether that can be.
pub(crate) fn arrange(inode: &mut Inode, fork: Fork, needed: usize) -> bool {
    let (literal, forkoff) = (inode.literal_len(), inode.forkoff());
    let to = match fork {
        Fork::Data if forkoff == 0 => return needed <= literal,
        Fork::Data if needed <= forkoff => return true,
        Fork::Data => {
            let to = needed.next_multiple_of(8).max(DATA_FLOOR);
            if to > literal || literal - to < used(inode, Fork::Attr).max(8) {
                return false;
            }
            to
        }
        Fork::Attr if forkoff != 0 && needed <= literal - forkoff => return true,
        Fork::Attr if inode.format(Fork::Data) == Format::Device => {
            if literal - 8 < needed {
                return false;
            }
            8
        }
        Fork::Attr => {
            let room = needed.max(ATTR_FLOOR).next_multiple_of(8);
            let least = used(inode, Fork::Data).next_multiple_of(8).max(DATA_FLOOR);
            match literal.checked_sub(room) {
                Some(to) if to >= least => to,
                _ => return false,
            }
        }
    };
    let both = [Fork::Data, Fork::Attr].map(|fork| (inode.format(fork), inode.fork(fork).to_vec(), used(inode, fork)));
    let start = inode.literal();
    inode.raw[start..].fill(0);
    inode.set_forkoff(to);
    for (fork, (format, old, used)) in [Fork::Data, Fork::Attr].into_iter().zip(both) {
        let (from, end) = inode.fork_range(fork);
        let new = &mut inode.raw[from..end];
        if format == Format::Btree {
            // The pointers begin behind room for all keys.
            let count = usize::from(be16(&old, 2));
            put(new, 0, &old[..4 + count * 8]);
            let (was, is) = (4 + root_capacity(old.len()) * 8, 4 + root_capacity(end - from) * 8);
            put(new, is, &old[was..was + count * 8]);
        } else {
            let len = used.min(old.len()).min(new.len());
            new[..len].copy_from_slice(&old[..len]);
        }
    }
    true
}

impl FileSystem {
    /// Puts bytes into a fork of the inode itself, if there is room.
    pub(crate) fn put_local(inode: &mut Inode, fork: Fork, bytes: &[u8]) -> bool {
        if !arrange(inode, fork, bytes.len()) {
            return false;
        }
        inode.set_format(fork, Format::Local);
        inode.set_extent_count(fork, 0);
        let (from, end) = inode.fork_range(fork);
        inode.raw[from..end].fill(0);
        put(&mut inode.raw, from, bytes);
        true
    }

    /// Gives all blocks of a fork back; it has none then.
    pub(crate) fn release_fork(&mut self, inode: &mut Inode, fork: Fork) -> Result<()> {
        if !matches!(inode.format(fork), Format::Extents | Format::Btree)
            || (fork == Fork::Attr && inode.forkoff() == 0)
        {
            return Ok(());
        }
        let old = self.extents(inode, fork)?;
        for extent in &old.list {
            self.release(extent.block, extent.len, owner(inode.number, fork, extent.offset, extent.unwritten))?;
        }
        for block in &old.tree_blocks {
            self.release(*block, 1, tree_owner(inode.number, fork))?;
        }
        inode.set_blocks(inode.blocks().saturating_sub(old.blocks()));
        inode.set_format(fork, Format::Extents);
        inode.set_extent_count(fork, 0);
        let (from, end) = inode.fork_range(fork);
        inode.raw[from..end].fill(0);
        Ok(())
    }

    /// Writes a fork's list of extents: into the inode where there is room, and else as a tree. `old` is what the fork
    /// has had; the blocks that the lists name have been taken and given back by the caller.
    pub(crate) fn put_extents(&mut self, inode: &mut Inode, fork: Fork, old: &Extents, list: &[Extent]) -> Result<()> {
        self.touched.insert(inode.number);
        for block in &old.tree_blocks {
            self.release(*block, 1, tree_owner(inode.number, fork))?;
        }
        // Nothing of the old fork may be moved along.
        inode.set_format(fork, Format::Extents);
        inode.set_extent_count(fork, 0);
        let mut tree = Vec::new();
        let needed = list.len() * RECORD;
        let records = |list: &[Extent]| {
            let mut bytes = vec![0; list.len() * RECORD];
            for (extent, record) in list.iter().zip(bytes.chunks_exact_mut(RECORD)) {
                extent.encode(self.sb.fsb(extent.block), record);
            }
            bytes
        };
        if arrange(inode, fork, needed) {
            let (from, end) = inode.fork_range(fork);
            inode.raw[from..end].fill(0);
            put(&mut inode.raw, from, &records(list));
        } else {
            let bytes = records(list);
            tree = self.build_extent_tree(inode, fork, &bytes)?;
            inode.set_format(fork, Format::Btree);
        }
        inode.set_extent_count(fork, list.len() as u64);
        let blocks = list.iter().map(|extent| extent.len).sum::<u64>() + tree.len() as u64;
        inode.set_blocks((inode.blocks() + blocks).saturating_sub(old.blocks()));
        Ok(())
    }

    /// Builds the tree of a fork's extents, and its root in the inode. Returns the blocks that it takes.
    fn build_extent_tree(&mut self, inode: &mut Inode, fork: Fork, records: &[u8]) -> Result<Vec<u64>> {
        let header = header_len(true);
        let capacity = (self.sb.block_size - header) / RECORD;
        let (from, end) = inode.fork_range(fork);
        let roots = root_capacity(end - from);
        if roots == 0 {
            return Err(Error::NoSpace("the inode has no room for the root of its extents"));
        }
        let mut tree = Vec::new();
        // First leaves of records, then nodes of keys and pointers.
        let mut items: Vec<(u64, u64)> = Vec::new();
        let mut level = 0_u16;
        loop {
            let count = if level == 0 { records.len() / RECORD } else { items.len() };
            let blocks = count.div_ceil(capacity);
            let mut places = Vec::new();
            for _ in 0..blocks {
                places.push(self.allocate(1, tree_owner(inode.number, fork))?.0);
            }
            let mut above = Vec::new();
            for (at, place) in places.iter().enumerate() {
                let range = at * count / blocks..(at + 1) * count / blocks;
                let mut bytes = vec![0; self.sb.block_size];
                put(&mut bytes, 0, b"BMA3");
                put16(&mut bytes, 4, level);
                put16(&mut bytes, 6, range.len() as u16);
                let sibling =
                    |at: Option<usize>| at.and_then(|at| places.get(at)).map_or(NO_BLOCK, |place| self.sb.fsb(*place));
                put64(&mut bytes, 8, sibling(at.checked_sub(1)));
                put64(&mut bytes, 16, sibling(Some(at + 1)));
                put64(&mut bytes, 24, self.sb.daddr(*place));
                put(&mut bytes, 40, &self.sb.meta_uuid);
                put64(&mut bytes, 56, inode.number);
                let first = if level == 0 {
                    let mine = &records[range.start * RECORD..range.end * RECORD];
                    put(&mut bytes, header, mine);
                    crate::bytes::be64(mine, 0) >> 9 & ((1 << 54) - 1)
                } else {
                    for (slot, (key, block)) in items[range.clone()].iter().enumerate() {
                        put64(&mut bytes, header + slot * 8, *key);
                        put64(&mut bytes, header + capacity * 8 + slot * 8, *block);
                    }
                    items[range.start].0
                };
                put_checksum(&mut bytes, 64);
                self.store.put(*place, bytes)?;
                above.push((first, self.sb.fsb(*place)));
            }
            tree.extend(places);
            items = above;
            level += 1;
            if items.len() <= roots {
                break;
            }
        }
        let root = &mut inode.raw[from..end];
        root.fill(0);
        put16(root, 0, level);
        put16(root, 2, items.len() as u16);
        for (slot, (key, block)) in items.iter().enumerate() {
            put64(root, 4 + slot * 8, *key);
            put64(root, 4 + roots * 8 + slot * 8, *block);
        }
        Ok(tree)
    }
}
