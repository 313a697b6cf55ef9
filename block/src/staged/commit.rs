//! Carrying out staged changes: log, flush, apply, flush, drop the log.

use zerocopy::IntoBytes;

use super::{Slot, Staged, State};
use crate::redo_log::layout::{CHUNK, DATA, ENTRY_LEN, Entry, SECTOR, ZERO};
use crate::redo_log::{CompleteLog, write_header};
use crate::{Error, ReadAt, Result, WriteAt};

/// Chunks read in one call.
const RUN: usize = 256;
/// Bytes of index written in one call.
const INDEX_RUN: usize = 1024 * ENTRY_LEN;

/// The index as it is written: where it starts, how long it is, and its checksum so far.
struct Index {
    offset: u64,
    entries: u64,
    checksum: u32,
    buffer: Vec<u8>,
}

impl<D: WriteAt> Staged<D> {
    /// Carries out all changes, as a whole. When this returns they are safe on stable storage. Without changes nothing
    /// is written.
    ///
    /// The changes and what they replace are written to the log, flushed, and the log is marked complete and flushed;
    /// then they are carried out, flushed, and the log is removed. A crash before the mark leaves the device as it was;
    /// after it, the next opening carries the changes out again.
    ///
    /// # Errors
    /// What the device or the log's place says. Then the device holds what it held, or, once it was opened again, all
    /// changes. No further change is taken.
    pub fn commit(&self) -> Result<()> {
        let mut state = self.state_mut()?;
        if state.chunks.is_empty() && state.zeros.is_empty() {
            return Ok(());
        }
        state.failed = true;
        let complete = self.write_log(&mut state);
        if complete.is_err() {
            // Nothing was carried out yet: a log that looks complete all the same would only surprise.
            if let Some(log) = state.log.take() {
                drop(log);
                let gone = self.place.remove();
                state.keep_log = gone.is_err();
            }
            return complete.map(drop);
        }
        if complete? {
            state.keep_log = true;
            let log = CompleteLog::open(state.log()?, self.len(), &self.identity)?
                .ok_or_else(|| Error::RedoLog("is not complete although it was written".to_owned()))?;
            log.apply(&self.device)?;
            let storage = state.log()?;
            storage.set_len(0)?;
            storage.flush()?;
        }
        state.log = None;
        self.place.remove()?;
        *state = State { end: crate::redo_log::layout::FIRST_SLOT, ..State::default() };
        Ok(())
    }

    /// Writes the log and makes it complete. Returns whether there is any change at all.
    fn write_log(&self, state: &mut State) -> Result<bool> {
        // One more slot, so that the index has a place of its own behind all of them.
        state.spill(&*self.place)?;
        let mut index = Index { offset: state.end, entries: 0, checksum: 0, buffer: Vec::new() };
        let mut chunks = state.chunks.iter().peekable();
        let mut run = Vec::with_capacity(RUN);
        for zeros in state.zeros.within(0..self.len().div_ceil(CHUNK)) {
            let mut from = zeros.start;
            while let Some((&chunk, slot)) = chunks.next_if(|(chunk, _)| **chunk < zeros.end) {
                if from < chunk {
                    self.index_run(state, &mut index, &mut run)?;
                    self.index_zeros(state, &mut index, from, chunk)?;
                }
                self.index_data(state, &mut index, &mut run, chunk, slot)?;
                from = from.max(chunk + 1);
            }
            if from < zeros.end {
                self.index_run(state, &mut index, &mut run)?;
                self.index_zeros(state, &mut index, from, zeros.end)?;
            }
        }
        for (&chunk, slot) in chunks {
            self.index_data(state, &mut index, &mut run, chunk, slot)?;
        }
        self.index_run(state, &mut index, &mut run)?;
        index.write_out(state)?;
        if index.entries == 0 {
            return Ok(false);
        }
        let log = state.log()?;
        log.flush()?;
        write_header(log, self.len(), &self.identity, (index.offset, index.entries, index.checksum))?;
        log.flush()?;
        Ok(true)
    }

    fn index_zeros(&self, state: &State, index: &mut Index, from: u64, to: u64) -> Result<()> {
        let offset = from * CHUNK;
        let len = (to * CHUNK).min(self.len()) - offset;
        index.push(state, &Entry { kind: ZERO.into(), offset: offset.into(), len: len.into(), ..Entry::default() })
    }

    /// Adds a chunk to the run that is read at once, which is indexed first where the chunk does not continue it.
    fn index_data(
        &self,
        state: &State,
        index: &mut Index,
        run: &mut Vec<(u64, u64)>,
        chunk: u64,
        slot: &Slot,
    ) -> Result<()> {
        let Slot::Logged(slot) = slot else { return Ok(()) };
        let continues = run.last().is_some_and(|last| *last == (chunk - 1, slot.saturating_sub(CHUNK)));
        if !continues || run.len() >= RUN {
            self.index_run(state, index, run)?;
        }
        run.push((chunk, *slot));
        Ok(())
    }

    /// Indexes chunks that follow each other on the device and in the log.
    fn index_run(&self, state: &State, index: &mut Index, run: &mut Vec<(u64, u64)>) -> Result<()> {
        let (Some(&(first, first_slot)), Some(&(last, _))) = (run.first(), run.last()) else { return Ok(()) };
        let len = (last - first) * CHUNK + self.chunk_len(last) as u64;
        let before = crate::read_vec(&self.device, first * CHUNK, len)?;
        let mut after = vec![0; before.len()];
        state.read_slot(first_slot, &mut after)?;
        let contents = before.chunks(CHUNK as usize).zip(after.chunks(CHUNK as usize));
        for (&(chunk, slot), (before, after)) in run.iter().zip(contents) {
            if before == after {
                continue;
            }
            let mut entry = Entry {
                kind: DATA.into(),
                checksum: crc32c::crc32c(after).into(),
                offset: (chunk * CHUNK).into(),
                len: (after.len() as u64).into(),
                slot: slot.into(),
                ..Entry::default()
            };
            for (sum, sector) in entry.before.iter_mut().zip(before.chunks(SECTOR)) {
                *sum = crc32c::crc32c(sector).into();
            }
            index.push(state, &entry)?;
        }
        run.clear();
        Ok(())
    }
}

impl Index {
    fn push(&mut self, state: &State, entry: &Entry) -> Result<()> {
        self.checksum = crc32c::crc32c_append(self.checksum, entry.as_bytes());
        self.buffer.extend_from_slice(entry.as_bytes());
        self.entries += 1;
        if self.buffer.len() >= INDEX_RUN { self.write_out(state) } else { Ok(()) }
    }

    fn write_out(&mut self, state: &State) -> Result<()> {
        let written = self.entries * ENTRY_LEN as u64 - self.buffer.len() as u64;
        if !self.buffer.is_empty() {
            state.write_log(self.offset + written, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
