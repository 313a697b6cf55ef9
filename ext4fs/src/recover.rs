//! Replaying the journal of a file system that was not unmounted.

use crate::features::Incompat;
use crate::file_system::{FileSystem, OpenOptions};
use crate::journal::{self, JournalBlocks};
use crate::mapping::{Mapping, Place};
use crate::metadata_cache::BlockKind;
use crate::superblock::{self, Superblock};
use crate::{Error, Result};

/// The journal's blocks, wherever the journal's inode has them.
pub(crate) struct Journal<'a> {
    fs: &'a FileSystem,
    /// In the order of the logical blocks, without holes.
    runs: Vec<Mapping>,
    block_count: u32,
}

impl JournalBlocks for Journal<'_> {
    fn block_size(&self) -> usize {
        self.fs.superblock.block_size
    }

    fn block_count(&self) -> u32 {
        self.block_count
    }

    fn read(&self, n: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.fs.superblock.block_size];
        self.fs.cache.read_run(self.place(n)?, 0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Journal<'_> {
    /// The block of the file system that holds the journal's block `n`.
    pub(crate) fn place(&self, n: u32) -> Result<u64> {
        let run = self.runs.partition_point(|run| run.logical <= n).checked_sub(1).and_then(|i| self.runs.get(i));
        match run.filter(|run| n - run.logical < run.len).and_then(|run| run.starting_at(n).physical()) {
            Some(block) => Ok(block),
            None => Err(Error::corrupt("journal", format_args!("journal block {n}"), "has no holes")),
        }
    }
}

impl FileSystem {
    /// The internal journal, if there is one.
    pub(crate) fn journal(&self) -> Result<Option<Journal<'_>>> {
        let number = self.superblock.raw.s_journal_inum.get();
        if !self.superblock.has_journal() || number == 0 {
            return Ok(None);
        }
        let inode = self.inode(number)?;
        let blocks = inode.size(&self.superblock) >> self.superblock.block_bits;
        if !inode.is_file() || blocks > self.superblock.blocks_count.min(u64::from(u32::MAX)) {
            return Err(Error::corrupt("journal", format_args!("inode {number}"), "is a file inside the file system"));
        }
        let mut runs = Vec::new();
        self.for_each_mapping(&inode, |mapping| {
            if matches!(mapping.place, Place::Written(_)) {
                runs.push(mapping);
            }
            Ok(())
        })?;
        Ok(Some(Journal { fs: self, runs, block_count: blocks as u32 }))
    }

    /// Checks what the journal's superblock says beyond what a replay needs.
    pub(crate) fn check_journal(&self) -> Result<()> {
        let Some(first) = self.journal()?.map(|journal| journal.place(0)).transpose()? else { return Ok(()) };
        let mut bytes = vec![0; self.superblock.block_size];
        self.cache.read_run(first, 0, &mut bytes)?;
        journal::check_superblock(&bytes)
    }

    /// Replays the journal and opens what results: on the device where there may be writing, else in memory.
    pub(crate) fn recover(mut self, options: &OpenOptions) -> Result<Self> {
        let Some(journal) = self.journal()? else {
            return Err(Error::Unsupported("replay of an external journal".to_owned()));
        };
        let replay = journal::replay(&journal, self.superblock.blocks_count)?;
        let journal_start = journal.place(0)?;
        for (block, bytes) in replay.blocks {
            self.cache.put(block, BlockKind::Unchecked, bytes)?;
        }
        let writes = self.read_only_reason().is_none();
        let reason = self.read_only_reason().map(str::to_owned);
        let copy = self.copy_of_group;
        let mut superblock = match copy {
            Some(_) => self.superblock.clone(),
            None => self.cached_superblock()?,
        };
        if superblock.block_size != self.superblock.block_size
            || superblock.blocks_count != self.superblock.blocks_count
        {
            let expected = "the journal does not change the size of the file system";
            return Err(Error::corrupt("superblock", "journal", expected));
        }
        let mut features = superblock.features;
        features.incompat.remove(Incompat::RECOVER);
        superblock.set_features(features);
        let clock = self.clock;
        let mut fs = Self::load(superblock, self.cache, options)?;
        fs.clock = options.clock.unwrap_or(clock);
        if copy.is_some() {
            fs.stay_read_only(reason, copy);
        }
        fs.apply_fast_commits(&replay.fast_commits)?;
        if writes && fs.read_only_reason().is_none() {
            // What the journal holds must be safe before anything says that it need not be replayed.
            fs.stage_groups()?;
            fs.cache.write_back()?;
            fs.cache.sync()?;
            fs.cache.put(journal_start, BlockKind::Unchecked, replay.superblock)?;
            fs.mark_superblock_changed();
            fs.flush()?;
        }
        Ok(fs)
    }

    /// The superblock as the journal has left it.
    fn cached_superblock(&self) -> Result<Superblock> {
        let mut bytes = [0; superblock::LEN];
        let block = superblock::OFFSET >> self.superblock.block_bits;
        let within = superblock::OFFSET - (block << self.superblock.block_bits);
        self.cache.read_run(block, within, &mut bytes)?;
        Superblock::decode(&bytes, self.cache.device().len())
    }
}
