//! Taking space and giving it back.

use crate::file_system::FileSystem;
use crate::group::{Chunk, Group};
use crate::inode::{Fork, Inode};
use crate::rmap::{OWN_INODES, Owner};
use crate::{Error, Result};

/// Blocks that every group keeps, for what its trees may need.
const RESERVE: u64 = 24;
const INODES_PER_CHUNK: u32 = 64;

/// Whose blocks they are: what a fork holds, or the tree of its extents.
pub(crate) fn owner(inode: u64, fork: Fork, offset: u64, unwritten: bool) -> Owner {
    Owner { owner: inode, attr_fork: fork == Fork::Attr, tree: false, unwritten, offset }
}

pub(crate) fn tree_owner(inode: u64, fork: Fork) -> Owner {
    Owner { owner: inode, attr_fork: fork == Fork::Attr, tree: true, unwritten: false, offset: 0 }
}

impl FileSystem {
    /// A group, read where it was not yet.
    pub(crate) fn group_mut(&mut self, number: u32) -> Result<&mut Group> {
        if !self.groups.contains_key(&number) {
            let group = self.load_group(number)?;
            self.counted_before.insert(number, (group.inode_counts(), group.counted_free()));
            self.groups.insert(number, group);
        }
        self.groups.get_mut(&number).ok_or(Error::Poisoned)
    }

    fn group_of(&self, inode: u64) -> u32 {
        (self.sb.split_inode(inode).0 as u32).min(self.sb.ag_count - 1)
    }

    /// Takes up to `want` blocks that lie together, as near to an inode as can be. Returns the first and how many.
    pub(crate) fn allocate(&mut self, want: u64, owner: Owner) -> Result<(u64, u64)> {
        let near = self.group_of(owner.owner);
        let mut best: Option<(u64, u32, u32)> = None;
        for step in 0..self.sb.ag_count {
            let number = (near + step) % self.sb.ag_count;
            let group = self.group_mut(number)?;
            let all: u64 = group.free.values().map(|len| u64::from(*len)).sum();
            let usable = all.saturating_sub(RESERVE);
            if usable == 0 {
                continue;
            }
            // The shortest run that is long enough, or the longest.
            let fits = group.free.iter().filter(|(_, len)| u64::from(**len) >= want).min_by_key(|(_, len)| **len);
            let longest = group.free.iter().max_by_key(|(_, len)| **len);
            if let Some((start, len)) = fits.or(longest) {
                let len = u64::from(*len).min(want).min(usable);
                if best.is_none_or(|(most, _, _)| len > most) {
                    best = Some((len, number, *start));
                }
                if len == want {
                    break;
                }
            }
        }
        let (len, number, start) = best.ok_or(Error::NoSpace("no block is free"))?;
        self.take(number, start, len as u32, owner)?;
        Ok((self.linear(number, start), len))
    }

    /// Takes blocks out of free space and notes their owner.
    fn take(&mut self, number: u32, start: u32, len: u32, owner: Owner) -> Result<()> {
        let first = self.linear(number, start);
        let group = self.group_mut(number)?;
        group.take_free(start, len)?;
        if let Some(rmap) = &mut group.rmap {
            rmap.add(owner, start, len);
        }
        self.store.forget(first..first + u64::from(len));
        Ok(())
    }

    pub(crate) fn linear(&self, group: u32, block: u32) -> u64 {
        u64::from(group) * u64::from(self.sb.ag_blocks) + u64::from(block)
    }

    /// Takes blocks from their owner. Those that have no other are free then.
    pub(crate) fn release(&mut self, first: u64, len: u64, owner: Owner) -> Result<()> {
        let (number, start) = self.sb.split(first);
        let len = len as u32;
        let base = self.linear(number, 0);
        let group = self.group_mut(number)?;
        if let Some(rmap) = &mut group.rmap {
            rmap.remove(owner, start, len)?;
        }
        let freed = group.drop_reference(start, len)?;
        for (start, len) in &freed {
            group.give_free(*start, *len)?;
        }
        for (start, len) in freed {
            let first = base + u64::from(start);
            self.store.forget(first..first + u64::from(len));
        }
        Ok(())
    }

    pub(crate) fn is_shared(&mut self, first: u64, len: u64) -> Result<bool> {
        let (number, start) = self.sb.split(first);
        Ok(self.group_mut(number)?.is_shared(start, len as u32))
    }

    /// Takes an inode that is not in use, as near to its directory as can be.
    pub(crate) fn allocate_inode(&mut self, directory: u64) -> Result<Inode> {
        let near = self.group_of(directory);
        for step in 0..self.sb.ag_count {
            let number = (near + step) % self.sb.ag_count;
            let group = self.group_mut(number)?;
            let found = group.chunks.iter().find_map(|(start, chunk)| Some((*start, chunk.first_free()?)));
            if let Some((start, index)) = found {
                return self.use_inode(number, start, index);
            }
        }
        for step in 0..self.sb.ag_count {
            let number = (near + step) % self.sb.ag_count;
            if let Some(start) = self.add_chunks(number)? {
                return self.use_inode(number, start, 0);
            }
        }
        Err(Error::NoSpace("no inode is free, and there is no room for more"))
    }

    fn use_inode(&mut self, number: u32, start: u32, index: u32) -> Result<Inode> {
        let group = self.group_mut(number)?;
        group.changed = true;
        if let Some(chunk) = group.chunks.get_mut(&start) {
            chunk.free &= !(1 << index);
            chunk.free_count -= 1;
        }
        let inode = self.inode_slot(self.sb.inode_number(number, start + index))?;
        if inode.mode() != 0 {
            return Err(inode.corrupt("an inode that is marked as free is not in use"));
        }
        Ok(Inode::new(inode.number, inode.generation(), &self.sb))
    }

    /// Makes a block or more into inodes. Returns the first inode.
    fn add_chunks(&mut self, number: u32) -> Result<Option<u32>> {
        let per_block = self.sb.inodes_per_block;
        let blocks = (INODES_PER_CHUNK / per_block).max(1);
        let align = self.sb.inode_align.max(1);
        let group = self.group_mut(number)?;
        let fits = |(start, len): (&u32, &u32)| {
            let aligned = start.checked_next_multiple_of(align)?;
            (u64::from(aligned) + u64::from(blocks) <= u64::from(*start) + u64::from(*len)).then_some(aligned)
        };
        let all: u64 = group.free.values().map(|len| u64::from(*len)).sum();
        let Some(start) = group.free.iter().find_map(fits).filter(|_| all > RESERVE + u64::from(blocks)) else {
            return Ok(None);
        };
        self.take(number, start, blocks, Owner::special(OWN_INODES))?;
        let first = start * per_block;
        for chunk in 0..(blocks * per_block / INODES_PER_CHUNK) {
            let chunk_start = first + chunk * INODES_PER_CHUNK;
            let chunk =
                Chunk { holes: 0, count: INODES_PER_CHUNK as u8, free_count: INODES_PER_CHUNK as u8, free: u64::MAX };
            self.group_mut(number)?.chunks.insert(chunk_start, chunk);
        }
        for block in 0..blocks {
            let mut bytes = Vec::with_capacity(self.sb.block_size);
            for slot in 0..per_block {
                let inode = self.sb.inode_number(number, (start + block) * per_block + slot);
                let generation = crc32c::crc32c(&[&self.sb.uuid[..], &inode.to_be_bytes()].concat());
                bytes.extend(Inode::new(inode, generation, &self.sb).raw);
            }
            self.store.put(self.linear(number, start + block), bytes)?;
        }
        Ok(Some(first))
    }

    /// Makes an inode free that holds no blocks any more.
    pub(crate) fn free_inode(&mut self, inode: &Inode) -> Result<()> {
        let (number, agino) = (self.group_of(inode.number), self.sb.split_inode(inode.number).1 as u32);
        let group = self.group_mut(number)?;
        let chunk =
            group.chunks.range_mut(..=agino).next_back().filter(|(start, _)| agino - **start < INODES_PER_CHUNK);
        match chunk {
            Some((start, chunk)) if chunk.free >> (agino - start) & 1 == 0 => {
                chunk.free |= 1 << (agino - start);
                chunk.free_count += 1;
            }
            _ => return Err(inode.corrupt("an inode that is freed was in use")),
        }
        group.changed = true;
        let mut empty = Inode::new(inode.number, inode.generation().wrapping_add(1), &self.sb);
        crate::bytes::put(&mut empty.raw, 112, &inode.raw[112..120]);
        self.put_inode(&mut empty)
    }
}
