//! Metadata blocks in memory: changed ones until they are flushed, clean ones as long as there is room.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use block::{ReadAt, WriteAt};

use crate::block_hash::BlockMap;
use crate::limits::{CLEAN_CACHE_BYTES, MAX_RUN_BYTES};
use crate::{Error, Result};

/// One block's bytes.
pub(crate) type Block = Arc<Vec<u8>>;

/// What a cached block was checked to be. A block that is asked for as something else is checked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    GroupDescriptors,
    BlockBitmap,
    InodeBitmap,
    InodeTable,
    ExtentNode {
        inode: u32,
    },
    Indirect,
    Directory {
        inode: u32,
        logical: u32,
        indexed: bool,
    },
    Xattr,
    OrphanFile,
    Quota,
    /// Comes from the journal or from a caller that knows; checked whenever it is used as something.
    Unchecked,
}

/// The cache, and all access to the device below.
#[derive(Debug)]
pub(crate) struct MetadataCache {
    device: Device,
    block_size: usize,
    blocks_count: u64,
    /// Blocks that differ from the device: changed, or (where nothing may be written) replayed from the journal.
    dirty: BTreeMap<u64, (BlockKind, Block)>,
    clean: Mutex<CleanBlocks>,
    /// Counts changes to anything, so that a failed call can tell whether it had begun to change things.
    changes: u64,
    /// Whether the device was written since its last flush.
    unsynced: bool,
}

/// What the file system lies on.
#[derive(Clone)]
pub(crate) enum Device {
    ReadOnly(Arc<dyn ReadAt>),
    Writable(Arc<dyn WriteAt>),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::ReadOnly(device) => device.len(),
            Self::Writable(device) => device.len(),
        }
    }

    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        match self {
            Self::ReadOnly(device) => device.read_at(offset, buf),
            Self::Writable(device) => device.read_at(offset, buf),
        }
    }

    pub(crate) fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<block::Extent> {
        match self {
            Self::ReadOnly(device) => device.extent_at(offset, max_len),
            Self::Writable(device) => device.extent_at(offset, max_len),
        }
    }

    pub(crate) fn allocation_unit(&self) -> Option<block::AllocationUnit> {
        match self {
            Self::ReadOnly(device) => device.allocation_unit(),
            Self::Writable(device) => device.allocation_unit(),
        }
    }

    fn writable(&self) -> block::Result<&dyn WriteAt> {
        match self {
            Self::ReadOnly(_) => Err(block::Error::ReadOnly),
            Self::Writable(device) => Ok(device.as_ref()),
        }
    }
}

/// Clean blocks in two generations: when the young one is full it becomes the old one, and the old one is dropped.
/// A block found in the old one moves to the young one, so what is used stays.
#[derive(Debug, Default)]
struct CleanBlocks {
    young: BlockMap<(BlockKind, Block)>,
    old: BlockMap<(BlockKind, Block)>,
    generation_len: usize,
}

impl CleanBlocks {
    fn get(&mut self, number: u64) -> Option<(BlockKind, Block)> {
        if let Some((kind, block)) = self.young.get(&number) {
            return Some((*kind, block.clone()));
        }
        let (kind, block) = self.old.remove(&number)?;
        self.insert(number, kind, block.clone());
        Some((kind, block))
    }

    fn insert(&mut self, number: u64, kind: BlockKind, block: Block) {
        if self.young.len() >= self.generation_len {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, (kind, block));
    }

    fn remove(&mut self, number: u64) {
        self.young.remove(&number);
        self.old.remove(&number);
    }
}

impl MetadataCache {
    pub(crate) fn new(device: Device, block_size: usize, blocks_count: u64) -> Self {
        let generation_len = (CLEAN_CACHE_BYTES / 2 / block_size).max(1);
        Self {
            device,
            block_size,
            blocks_count,
            dirty: BTreeMap::new(),
            clean: Mutex::new(CleanBlocks { generation_len, ..CleanBlocks::default() }),
            changes: 0,
            unsynced: false,
        }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// How many changes there were so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether something was changed that the device does not have, or may lose.
    pub(crate) fn needs_flush(&self) -> bool {
        !self.dirty.is_empty() || self.unsynced
    }

    /// A metadata block. `check` judges it when it comes from the device, and when it was last used as another kind.
    pub(crate) fn get(&self, number: u64, kind: BlockKind, check: impl FnOnce(&[u8]) -> Result<()>) -> Result<Block> {
        self.get_ahead(number, kind, 1, check)
    }

    /// As [`Self::get`], and where the device has to be read, `ahead` blocks from `number` on are read at once.
    /// Those read ahead are not checked here: this is for inode tables, whose checksums are each inode's own.
    pub(crate) fn get_ahead(
        &self,
        number: u64,
        kind: BlockKind,
        ahead: u64,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<Block> {
        if let Some((dirty_kind, block)) = self.dirty.get(&number) {
            if *dirty_kind != kind {
                check(block)?;
            }
            return Ok(block.clone());
        }
        let found = self.clean.lock().unwrap_or_else(PoisonError::into_inner).get(number);
        if let Some((found_kind, block)) = found {
            if found_kind != kind {
                check(&block)?;
                self.clean.lock().unwrap_or_else(PoisonError::into_inner).insert(number, kind, block.clone());
            }
            return Ok(block);
        }
        let count =
            ahead.clamp(1, (MAX_RUN_BYTES / self.block_size) as u64).min(self.blocks_count.saturating_sub(number));
        let mut bytes = vec![0; self.block_size * count.max(1) as usize];
        self.device.read_at(self.offset(number, count.max(1))?, &mut bytes)?;
        if count <= 1 {
            check(&bytes)?;
            let block = Arc::new(bytes);
            self.clean.lock().unwrap_or_else(PoisonError::into_inner).insert(number, kind, block.clone());
            return Ok(block);
        }
        let mut blocks = bytes.chunks_exact(self.block_size).map(|bytes| Arc::new(bytes.to_vec()));
        let Some(first) = blocks.next() else { return Err(self.outside(number)) };
        check(&first)?;
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        clean.insert(number, kind, first.clone());
        for (number, block) in (number + 1..).zip(blocks) {
            if !self.dirty.contains_key(&number) && clean.get(number).is_none() {
                clean.insert(number, kind, block);
            }
        }
        Ok(first)
    }

    /// A metadata block's bytes for changing.
    pub(crate) fn modify(
        &mut self,
        number: u64,
        kind: BlockKind,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<&mut Vec<u8>> {
        let known = self.dirty.get(&number).is_some_and(|(found, _)| *found == kind);
        let fresh = if known { None } else { Some(self.get(number, kind, check)?) };
        self.changes += 1;
        let entry = self.dirty.entry(number).or_insert_with(|| (kind, Block::default()));
        if let Some(block) = fresh {
            self.clean.get_mut().unwrap_or_else(PoisonError::into_inner).remove(number);
            *entry = (kind, block);
        }
        Ok(Arc::make_mut(&mut entry.1))
    }

    /// Replaces a metadata block's bytes, whatever they were.
    pub(crate) fn put(&mut self, number: u64, kind: BlockKind, bytes: impl Into<Block>) -> Result<()> {
        let bytes = bytes.into();
        debug_assert_eq!(bytes.len(), self.block_size);
        self.offset(number, 1)?;
        self.changes += 1;
        self.clean.get_mut().unwrap_or_else(PoisonError::into_inner).remove(number);
        self.dirty.insert(number, (kind, bytes));
        Ok(())
    }

    /// Drops what is known of blocks that no longer hold metadata; changes to them are not written.
    pub(crate) fn forget(&mut self, start: u64, count: u64) {
        self.changes += 1;
        let clean = self.clean.get_mut().unwrap_or_else(PoisonError::into_inner);
        if count > (clean.young.len() + clean.old.len()) as u64 {
            let kept = |number: &u64| *number < start || *number - start >= count;
            clean.young.retain(|number, _| kept(number));
            clean.old.retain(|number, _| kept(number));
        } else {
            (start..start.saturating_add(count)).for_each(|number| clean.remove(number));
        }
        while let Some(number) = self.dirty.range(start..start.saturating_add(count)).next().map(|(number, _)| *number)
        {
            self.dirty.remove(&number);
        }
    }

    /// Reads bytes at `offset` within the run of blocks from `start` on, as they would be after a flush.
    pub(crate) fn read_run(&self, start: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
        let size = self.block_size as u64;
        let Some(last) = (offset + buf.len() as u64).checked_sub(1) else { return Ok(()) };
        let base = self.offset(start, last / size + 1)?;
        self.device.read_at(base + offset, buf)?;
        let (first, last) = (start + offset / size, start + last / size);
        for (number, (_, block)) in self.dirty.range(first..=last) {
            // The byte of `buf` that is the block's first, which may lie before `buf`.
            let at = ((number - start) * size) as i64 - offset as i64;
            let from = (-at).max(0) as usize;
            let to = at.max(0) as usize;
            let len = (self.block_size - from).min(buf.len() - to);
            buf[to..to + len].copy_from_slice(&block[from..from + len]);
        }
        Ok(())
    }

    /// Writes bytes at `offset` within the run of blocks from `start` on straight to the device.
    pub(crate) fn write_run(&mut self, start: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(last) = (offset + bytes.len() as u64).checked_sub(1) else { return Ok(()) };
        let base = self.offset(start, last / self.block_size as u64 + 1)?;
        self.changes += 1;
        self.unsynced = true;
        Ok(self.device.writable()?.write_at(base + offset, bytes)?)
    }

    /// Writes bytes at an offset of the device that no block of the cache covers: the superblock.
    pub(crate) fn write_device(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.unsynced = true;
        Ok(self.device.writable()?.write_at(offset, bytes)?)
    }

    /// Gives bytes of blocks that hold nothing back to the device, after which they read as zeros.
    pub(crate) fn discard(&mut self, bytes: Range<u64>) -> Result<()> {
        let size = self.block_size as u64;
        self.offset(bytes.start / size, bytes.end.div_ceil(size) - bytes.start / size)?;
        self.forget(bytes.start / size, bytes.end.div_ceil(size) - bytes.start / size);
        self.unsynced = true;
        Ok(self.device.writable()?.discard(bytes.start, bytes.end - bytes.start)?)
    }

    /// Writes all changed blocks, neighbours in one call each.
    pub(crate) fn write_back(&mut self) -> Result<()> {
        let max = (MAX_RUN_BYTES / self.block_size).max(1);
        let mut run: Vec<u8> = Vec::new();
        let mut run_start = 0;
        let mut next = 0;
        // Cheap copies: on failure the changed blocks must still be there to be read.
        let dirty =
            self.dirty.iter().map(|(number, (kind, block))| (*number, *kind, block.clone())).collect::<Vec<_>>();
        for (number, _, block) in &dirty {
            if *number != next || run.len() / self.block_size >= max {
                self.write_blocks(run_start, &run)?;
                run.clear();
                run_start = *number;
            }
            run.extend_from_slice(block);
            next = number + 1;
        }
        self.write_blocks(run_start, &run)?;
        self.dirty.clear();
        let clean = self.clean.get_mut().unwrap_or_else(PoisonError::into_inner);
        dirty.into_iter().for_each(|(number, kind, block)| clean.insert(number, kind, block));
        Ok(())
    }

    /// Makes what was written safe, if anything was.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.unsynced {
            self.device.writable()?.flush()?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn write_blocks(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let offset = self.offset(start, (bytes.len() / self.block_size) as u64)?;
        self.write_device(offset, bytes)
    }

    /// Where a run of blocks starts on the device, if it lies inside the file system.
    fn offset(&self, start: u64, count: u64) -> Result<u64> {
        match start.checked_add(count) {
            Some(end) if end <= self.blocks_count => Ok(start * self.block_size as u64),
            _ => Err(self.outside(start)),
        }
    }

    fn outside(&self, number: u64) -> Error {
        Error::corrupt(
            "block number",
            format_args!("block {number}"),
            format!("lies inside the file system of {} blocks", self.blocks_count),
        )
    }
}
