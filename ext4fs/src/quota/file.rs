//! The quota file: finding, adding and changing entries.
//!
//! Kernel `fs/quota/quota_tree.c`, `fs/quota/quota_v2.c`.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::{FromBytes, IntoBytes};

use super::{Kind, Usage};
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::layout::quota::{BLOCK_LEN, ENTRIES, EntriesHeader, LEVELS, QuotaEntry, QuotaHeader, ROOT_BLOCK, VERSION};
use crate::mapping::Place;
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

const ENTRY_LEN: usize = size_of::<QuotaEntry>();

/// Bytes of one block of a quota file.
type Bytes = [u8; BLOCK_LEN];

/// An open quota file.
struct QuotaFile {
    kind: Kind,
    inode: Inode,
    header: QuotaHeader,
}

impl FileSystem {
    /// Changes the entry of `id`, which is added where there is none.
    pub(super) fn add_usage(&mut self, kind: Kind, id: u32, usage: Usage) -> Result<()> {
        let mut file = self.quota_file(kind)?;
        let known = self.quota.places.get(&(kind, id)).copied();
        let place = match known {
            Some(place) => place,
            None => match self.find_quota_entry(&file, id)? {
                Some(place) => place,
                None => self.insert_quota_entry(&mut file, id)?,
            },
        };
        self.quota.places.insert((kind, id), place);
        let (number, at) = ((place / BLOCK_LEN as u64) as u32, (place % BLOCK_LEN as u64) as usize);
        let mut bytes = self.read_quota_block(&file, number)?;
        let Ok((entry, _)) = QuotaEntry::mut_from_prefix(&mut bytes[at..]) else {
            return Err(file.wrong(number, "holds an entry"));
        };
        // A file that was wrong before must not make us refuse: usage ends at 0, and e2fsck sees what it saw before.
        entry.dqb_curspace = entry.dqb_curspace.get().saturating_add_signed(usage.bytes).into();
        entry.dqb_curinodes = entry.dqb_curinodes.get().saturating_add_signed(usage.inodes).into();
        // An entry of zeros would count as free; 1 here stands for 0.
        if entry.as_bytes().iter().all(|byte| *byte == 0) {
            entry.dqb_itime = 1.into();
        }
        self.write_quota_block(&file, number, &bytes)
    }

    /// All that a quota file says is used.
    pub(super) fn usages_in_file(&self, kind: Kind) -> Result<BTreeMap<u32, Usage>> {
        let file = self.quota_file(kind)?;
        let mut usages = BTreeMap::new();
        // A block of references is referred to once, so more of them than there are blocks would be a loop. Ids from
        // anywhere may share a block of entries.
        let mut pending = vec![(ROOT_BLOCK, 0)];
        let mut left = file.header.dqi_blocks.get();
        let mut of_entries = BTreeSet::new();
        while let Some((number, level)) = pending.pop() {
            left = left.checked_sub(1).ok_or_else(|| file.wrong(number, "is referred to once"))?;
            let bytes = self.read_quota_block(&file, number)?;
            for reference in bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)) {
                if reference == 0 {
                    continue;
                }
                file.check(reference)?;
                if level + 1 == LEVELS {
                    of_entries.insert(reference);
                } else {
                    pending.push((reference, level + 1));
                }
            }
        }
        for number in of_entries {
            let bytes = self.read_quota_block(&file, number)?;
            for (_, entry, _) in entries(&bytes).filter(|(_, _, used)| *used) {
                let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                let usage = Usage { bytes: count(entry.dqb_curspace.get()), inodes: count(entry.dqb_curinodes.get()) };
                usages.insert(entry.dqb_id.get(), usage);
            }
        }
        Ok(usages)
    }

    fn quota_file(&self, kind: Kind) -> Result<QuotaFile> {
        let inode = self.file_inode(kind.inode(&self.superblock))?;
        let mut file = QuotaFile { kind, inode, header: QuotaHeader::read_from_bytes(&[0; 32]).map_err(|_| no_len())? };
        let bytes = self.read_quota_block(&file, 0)?;
        let (header, _) = QuotaHeader::read_from_prefix(&bytes).map_err(|_| no_len())?;
        file.header = header;
        if header.dqh_magic.get() != kind.magic() || header.dqh_version.get() != VERSION {
            let expected = format!(
                "has magic {:#x} and version {VERSION}, found {:#x} and {}",
                kind.magic(),
                header.dqh_magic,
                header.dqh_version
            );
            return Err(file.wrong(0, &expected));
        }
        Ok(file)
    }

    /// Where the entry of an id is in the file.
    fn find_quota_entry(&self, file: &QuotaFile, id: u32) -> Result<Option<u64>> {
        let mut number = ROOT_BLOCK;
        for level in 0..LEVELS {
            let bytes = self.read_quota_block(file, number)?;
            number = reference(&bytes, id, level);
            if number == 0 {
                return Ok(None);
            }
            file.check(number)?;
        }
        let bytes = self.read_quota_block(file, number)?;
        let found = entries(&bytes).position(|(_, entry, used)| used && entry.dqb_id.get() == id);
        match found {
            Some(index) => Ok(Some(entry_place(number, index))),
            None => Err(file.wrong(number, &format!("holds the entry of id {id}"))),
        }
    }

    /// Adds an entry for an id that has none, with nothing used and no limits.
    fn insert_quota_entry(&mut self, file: &mut QuotaFile, id: u32) -> Result<u64> {
        let place = self.take_quota_entry(file, id)?;
        let data = (place / BLOCK_LEN as u64) as u32;
        let mut number = ROOT_BLOCK;
        for level in 0..LEVELS {
            let mut bytes = self.read_quota_block(file, number)?;
            let mut next = reference(&bytes, id, level);
            if next == 0 {
                next = if level + 1 == LEVELS { data } else { self.take_quota_block(file)? };
                let at = reference_offset(id, level);
                bytes[at..at + 4].copy_from_slice(&next.to_le_bytes());
                self.write_quota_block(file, number, &bytes)?;
            }
            file.check(next)?;
            number = next;
        }
        self.write_quota_header(file)?;
        Ok(place)
    }

    /// Takes a free place for an entry, and gives it the id.
    fn take_quota_entry(&mut self, file: &mut QuotaFile, id: u32) -> Result<u64> {
        let mut number = file.header.dqi_free_entry.get();
        if number == 0 {
            number = self.take_quota_block(file)?;
            file.header.dqi_free_entry = number.into();
        }
        file.check(number)?;
        let mut bytes = self.read_quota_block(file, number)?;
        let free = entries(&bytes).position(|(_, _, used)| !used);
        let Some(index) = free else { return Err(file.wrong(number, "has room for an entry")) };
        let at = size_of::<EntriesHeader>() + index * ENTRY_LEN;
        bytes[at..at + 4].copy_from_slice(&id.to_le_bytes());
        if id == 0 {
            bytes[at + ENTRY_LEN - 8] = 1;
        }
        let full = entries(&bytes).all(|(_, _, used)| used);
        let Ok((header, _)) = EntriesHeader::mut_from_prefix(&mut bytes) else { return Err(no_len()) };
        header.dqdh_entries = header.dqdh_entries.get().saturating_add(1).into();
        let next = header.dqdh_next_free.get();
        if full {
            // It is the first of the list of those with room.
            header.dqdh_next_free = 0.into();
            header.dqdh_prev_free = 0.into();
            file.header.dqi_free_entry = next.into();
        }
        self.write_quota_block(file, number, &bytes)?;
        if full && next != 0 {
            file.check(next)?;
            let mut bytes = self.read_quota_block(file, next)?;
            bytes[4..8].fill(0);
            self.write_quota_block(file, next, &bytes)?;
        }
        Ok(entry_place(number, index))
    }

    /// Takes a block of zeros, from the list of free ones or at the file's end.
    fn take_quota_block(&mut self, file: &mut QuotaFile) -> Result<u32> {
        let number = file.header.dqi_free_blk.get();
        if number != 0 {
            file.check(number)?;
            let bytes = self.read_quota_block(file, number)?;
            file.header.dqi_free_blk = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into();
        } else {
            self.extend_quota_file(file)?;
            let end = file.header.dqi_blocks.get();
            file.header.dqi_blocks = (end + 1).into();
            self.write_quota_block(file, end, &[0; BLOCK_LEN])?;
            self.write_quota_header(file)?;
            return Ok(end);
        }
        self.write_quota_block(file, number, &[0; BLOCK_LEN])?;
        self.write_quota_header(file)?;
        Ok(number)
    }

    /// Makes the file as long as one block more needs.
    fn extend_quota_file(&mut self, file: &mut QuotaFile) -> Result<()> {
        let start = u64::from(file.header.dqi_blocks.get()) * BLOCK_LEN as u64;
        let logical = (start >> self.superblock.block_bits) as u32;
        if self.map(&file.inode, logical)?.place == Place::Hole {
            let (block, _) = self.place_data(&mut file.inode, logical, 1)?;
            self.add_mapping(&mut file.inode, logical, block, 1)?;
            self.cache.put(block, BlockKind::Quota, vec![0; self.superblock.block_size])?;
        }
        let end = start + BLOCK_LEN as u64;
        if file.inode.size(&self.superblock) < end {
            file.inode.set_size(end);
        }
        self.write_inode(&file.inode)
    }

    fn write_quota_header(&mut self, file: &QuotaFile) -> Result<()> {
        let mut bytes = self.read_quota_block(file, 0)?;
        bytes[..size_of::<QuotaHeader>()].copy_from_slice(file.header.as_bytes());
        self.write_quota_block(file, 0, &bytes)
    }

    /// The block of the file system that holds a block of a quota file, and where in it.
    fn quota_block(&self, file: &QuotaFile, number: u32) -> Result<(u64, usize)> {
        let offset = u64::from(number) * BLOCK_LEN as u64;
        let logical = (offset >> self.superblock.block_bits) as u32;
        match self.map(&file.inode, logical)?.place {
            Place::Written(block) => Ok((block, offset as usize % self.superblock.block_size)),
            _ => Err(file.wrong(number, "has no holes")),
        }
    }

    fn read_quota_block(&self, file: &QuotaFile, number: u32) -> Result<Bytes> {
        let (block, at) = self.quota_block(file, number)?;
        let bytes = self.cache.get(block, BlockKind::Quota, |_| Ok(()))?;
        let mut part = [0; BLOCK_LEN];
        part.copy_from_slice(&bytes[at..at + BLOCK_LEN]);
        Ok(part)
    }

    fn write_quota_block(&mut self, file: &QuotaFile, number: u32, bytes: &Bytes) -> Result<()> {
        let (block, at) = self.quota_block(file, number)?;
        let cached = self.cache.modify(block, BlockKind::Quota, |_| Ok(()))?;
        cached[at..at + BLOCK_LEN].copy_from_slice(bytes);
        Ok(())
    }
}

impl QuotaFile {
    /// Fails for a number that no block with references or entries can have.
    fn check(&self, number: u32) -> Result<()> {
        if number <= ROOT_BLOCK || number >= self.header.dqi_blocks.get() {
            let expected = format!("lies between the root and block {}", self.header.dqi_blocks);
            return Err(self.wrong(number, &expected));
        }
        Ok(())
    }

    fn wrong(&self, number: u32, expected: &str) -> Error {
        let place = format_args!("inode {}, quota block {number}", self.inode.number);
        Error::corrupt("quota file", place, format!("{expected} ({:?})", self.kind))
    }
}

fn no_len() -> Error {
    Error::corrupt("quota file", "block 0", "has 1024 bytes")
}

fn entry_place(number: u32, index: usize) -> u64 {
    u64::from(number) * BLOCK_LEN as u64 + (size_of::<EntriesHeader>() + index * ENTRY_LEN) as u64
}

/// Where in a block of references that of an id is.
fn reference_offset(id: u32, level: u32) -> usize {
    ((id >> ((LEVELS - 1 - level) * 8)) & 0xFF) as usize * 4
}

fn reference(bytes: &Bytes, id: u32, level: u32) -> u32 {
    let at = reference_offset(id, level);
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The entries of a block: index, entry, and whether it is in use.
fn entries(bytes: &Bytes) -> impl Iterator<Item = (usize, QuotaEntry, bool)> + '_ {
    let slots = bytes[size_of::<EntriesHeader>()..].chunks_exact(ENTRY_LEN).take(ENTRIES);
    slots.enumerate().filter_map(|(index, slot)| {
        let entry = QuotaEntry::read_from_bytes(slot).ok()?;
        Some((index, entry, slot.iter().any(|byte| *byte != 0)))
    })
}
