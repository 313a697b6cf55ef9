//! All access to the device: one current copy of every block, changed ones in memory until they are written back.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use block::{ReadAt, WriteAt};

use crate::limits::{CLEAN_CACHE_BYTES, MAX_RUN_BYTES};
use crate::{Error, Result};

/// One block's bytes.
pub(crate) type Block = Arc<Vec<u8>>;

/// What the file system lies on.
#[derive(Clone)]
pub(crate) enum Device {
    ReadOnly(Arc<dyn ReadAt>),
    Writable(Arc<dyn WriteAt>),
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("len", &self.reader().len()).finish_non_exhaustive()
    }
}

impl Device {
    pub(crate) fn reader(&self) -> &dyn ReadAt {
        match self {
            Self::ReadOnly(device) => device.as_ref(),
            Self::Writable(device) => device.as_ref(),
        }
    }

    fn writable(&self) -> block::Result<&dyn WriteAt> {
        match self {
            Self::ReadOnly(_) => Err(block::Error::ReadOnly),
            Self::Writable(device) => Ok(device.as_ref()),
        }
    }
}

/// The blocks of a file system, numbered from the device's start.
#[derive(Debug)]
pub(crate) struct Store {
    device: Device,
    block_size: usize,
    blocks: u64,
    dirty: BTreeMap<u64, Block>,
    clean: Mutex<Clean>,
    /// Counts changes to anything, so that a failed call can tell whether it had begun to change things.
    changes: u64,
    unsynced: bool,
}

/// Clean blocks in two generations: when the young one is full it becomes the old one, and the old one is dropped.
#[derive(Debug, Default)]
struct Clean {
    young: HashMap<u64, Block>,
    old: HashMap<u64, Block>,
    generation_len: usize,
}

impl Clean {
    fn get(&mut self, number: u64) -> Option<Block> {
        if let Some(block) = self.young.get(&number) {
            return Some(Arc::clone(block));
        }
        let block = self.old.remove(&number)?;
        self.insert(number, Arc::clone(&block));
        Some(block)
    }

    fn insert(&mut self, number: u64, block: Block) {
        if self.young.len() >= self.generation_len {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(number, block);
    }

    fn forget(&mut self, range: &Range<u64>) {
        if range.end - range.start > (self.young.len() + self.old.len()) as u64 {
            self.young.retain(|number, _| !range.contains(number));
            self.old.retain(|number, _| !range.contains(number));
        } else {
            for number in range.clone() {
                self.young.remove(&number);
                self.old.remove(&number);
            }
        }
    }
}

impl Store {
    pub(crate) fn new(device: Device, block_size: usize, blocks: u64) -> Self {
        let generation_len = (CLEAN_CACHE_BYTES / 2 / block_size).max(1);
        Self {
            device,
            block_size,
            blocks,
            dirty: BTreeMap::new(),
            clean: Mutex::new(Clean { generation_len, ..Clean::default() }),
            changes: 0,
            unsynced: false,
        }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Notes a change that is in no block yet.
    pub(crate) fn note_change(&mut self) {
        self.changes += 1;
    }

    /// The bytes of all changed blocks.
    pub(crate) fn changed_bytes(&self) -> u64 {
        self.dirty.len() as u64 * self.block_size as u64
    }

    /// How many blocks there are: a file system may turn out to have grown.
    pub(crate) fn set_blocks(&mut self, blocks: u64) {
        self.blocks = blocks;
    }

    /// The changed blocks as they are now.
    pub(crate) fn changed_blocks(&self) -> BTreeMap<u64, Block> {
        self.dirty.clone()
    }

    /// Goes back to changed blocks as they were.
    pub(crate) fn restore(&mut self, blocks: BTreeMap<u64, Block>) {
        self.dirty = blocks;
        self.clean.get_mut().unwrap_or_else(PoisonError::into_inner).forget(&(0..u64::MAX));
    }

    pub(crate) fn needs_flush(&self) -> bool {
        !self.dirty.is_empty() || self.unsynced
    }

    /// A block's bytes.
    pub(crate) fn block(&self, number: u64) -> Result<Block> {
        self.block_ahead(number, 1)
    }

    /// As [`Self::block`], and where the device has to be read, `ahead` blocks from `number` on are read at once.
    pub(crate) fn block_ahead(&self, number: u64, ahead: u64) -> Result<Block> {
        if let Some(block) = self.dirty.get(&number) {
            return Ok(Arc::clone(block));
        }
        if let Some(block) = self.clean.lock().unwrap_or_else(PoisonError::into_inner).get(number) {
            return Ok(block);
        }
        let most = (MAX_RUN_BYTES / self.block_size) as u64;
        let count = ahead.clamp(1, most.max(1)).min(self.blocks.saturating_sub(number)).max(1);
        let mut bytes = vec![0; self.block_size * count as usize];
        self.device.reader().read_at(self.offset(number, count)?, &mut bytes)?;
        let mut clean = self.clean.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = bytes.chunks_exact(self.block_size).map(|bytes| Arc::new(bytes.to_vec()));
        let Some(first) = blocks.next() else { return Err(self.outside(number)) };
        clean.insert(number, Arc::clone(&first));
        for (number, block) in (number + 1..).zip(blocks) {
            if !self.dirty.contains_key(&number) && clean.get(number).is_none() {
                clean.insert(number, block);
            }
        }
        Ok(first)
    }

    /// Some neighbouring blocks' bytes, as one.
    pub(crate) fn run(&self, number: u64, count: u64) -> Result<Vec<u8>> {
        self.offset(number, count)?;
        let mut bytes = Vec::with_capacity(self.block_size * count as usize);
        for at in number..number + count {
            bytes.extend_from_slice(&self.block_ahead(at, number + count - at)?);
        }
        Ok(bytes)
    }

    /// Replaces a block's bytes.
    pub(crate) fn put(&mut self, number: u64, bytes: Vec<u8>) -> Result<()> {
        debug_assert_eq!(bytes.len(), self.block_size);
        self.offset(number, 1)?;
        self.changes += 1;
        self.clean.get_mut().unwrap_or_else(PoisonError::into_inner).forget(&(number..number + 1));
        self.dirty.insert(number, Arc::new(bytes));
        Ok(())
    }

    /// Bytes of metadata, wherever they lie.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let size = self.block_size as u64;
        let (first, last) = (offset / size, (offset + len as u64).div_ceil(size));
        let from = (offset % size) as usize;
        Ok(self.run(first, last - first)?.get(from..from + len).unwrap_or_default().to_vec())
    }

    /// Replaces bytes of metadata, wherever they lie.
    pub(crate) fn put_bytes(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let size = self.block_size as u64;
        let (first, last) = (offset / size, (offset + bytes.len() as u64).div_ceil(size));
        let from = (offset % size) as usize;
        let mut run = self.run(first, last - first)?;
        run[from..from + bytes.len()].copy_from_slice(bytes);
        self.put_run(first, &run)
    }

    /// Replaces neighbouring blocks' bytes.
    pub(crate) fn put_run(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        for (number, bytes) in (number..).zip(bytes.chunks_exact(self.block_size)) {
            self.put(number, bytes.to_vec())?;
        }
        Ok(())
    }

    /// Reads bytes of the device, changed blocks among them as they are now.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        self.device.reader().read_at(offset, buf)?;
        let size = self.block_size as u64;
        let end = offset + buf.len() as u64;
        for (number, block) in self.dirty.range(offset / size..end.div_ceil(size)) {
            let (start, stop) = ((number * size).max(offset), (number * size + size).min(end));
            let from = (start - number * size) as usize;
            let target = &mut buf[(start - offset) as usize..(stop - offset) as usize];
            target.copy_from_slice(&block[from..from + target.len()]);
        }
        Ok(())
    }

    /// Writes bytes straight to the device: contents of files. No copy of those blocks may be left in memory.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let size = self.block_size as u64;
        let (first, last) = (offset / size, (offset + bytes.len() as u64).div_ceil(size));
        // A changed block that is only written in part has to keep the rest of it.
        let changed: Vec<u64> = self.dirty.range(first..last).map(|(number, _)| *number).collect();
        for number in changed {
            if let Some(block) = self.dirty.remove(&number) {
                self.device.writable()?.write_at(number * size, &block)?;
            }
        }
        self.forget(first..last);
        self.unsynced = true;
        Ok(self.device.writable()?.write_at(offset, bytes)?)
    }

    /// Drops what is known of blocks that are free now; changes to them are not written.
    pub(crate) fn forget(&mut self, range: Range<u64>) {
        self.changes += 1;
        self.clean.get_mut().unwrap_or_else(PoisonError::into_inner).forget(&range);
        while let Some(number) = self.dirty.range(range.clone()).next().map(|(number, _)| *number) {
            self.dirty.remove(&number);
        }
    }

    /// Gives bytes of blocks that hold nothing back to the device, after which they read as zeros.
    pub(crate) fn discard(&mut self, bytes: Range<u64>) -> Result<()> {
        let size = self.block_size as u64;
        self.forget(bytes.start / size..bytes.end.div_ceil(size));
        self.unsynced = true;
        Ok(self.device.writable()?.discard(bytes.start, bytes.end - bytes.start)?)
    }

    /// Writes all changed blocks, neighbours in one call each.
    pub(crate) fn write_back(&mut self) -> Result<()> {
        let most = (MAX_RUN_BYTES / self.block_size).max(1);
        let mut run: Vec<u8> = Vec::new();
        let (mut start, mut next) = (0, 0);
        let dirty: Vec<_> = self.dirty.iter().map(|(number, block)| (*number, Arc::clone(block))).collect();
        for (number, block) in &dirty {
            if *number != next || run.len() / self.block_size >= most {
                self.write_run(start, &run)?;
                run.clear();
                start = *number;
            }
            run.extend_from_slice(block);
            next = number + 1;
        }
        self.write_run(start, &run)?;
        self.dirty.clear();
        let clean = self.clean.get_mut().unwrap_or_else(PoisonError::into_inner);
        dirty.into_iter().for_each(|(number, block)| clean.insert(number, block));
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

    fn write_run(&mut self, start: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.unsynced = true;
        Ok(self.device.writable()?.write_at(start * self.block_size as u64, bytes)?)
    }

    fn offset(&self, start: u64, count: u64) -> Result<u64> {
        match start.checked_add(count) {
            Some(end) if end <= self.blocks => Ok(start * self.block_size as u64),
            _ => Err(self.outside(start)),
        }
    }

    fn outside(&self, number: u64) -> Error {
        let rule = format!("lies inside the file system of {} blocks", self.blocks);
        Error::corrupt("block number", format_args!("block {number}"), rule)
    }
}
