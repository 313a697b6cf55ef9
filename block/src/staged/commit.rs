//! Carrying out staged changes: log, flush, apply, flush, drop the log.

use zerocopy::IntoBytes;

use super::{Memory, Slot, Staged, State};
use crate::redo_log::layout::{CHUNK, DATA, ENTRY_LEN, Entry, SECTOR, ZERO};
use crate::redo_log::{CompleteLog, write_header};
use crate::{Error, ExtentKind, ReadAt, Result, WriteAt};

/// Chunks read in one call.
const RUN: usize = 256;
/// A chunk of a hole.
const ZEROS: [u8; CHUNK as usize] = [0; CHUNK as usize];
/// crc32c of a sector of zeros.
const ZERO_SECTOR: u32 = 0x30fc_edc0;
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
            log.apply(&self.device, |chunk| state.chunks.get(&chunk)?.memory.as_deref())?;
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
        state.spill(&*self.place, Memory::Kept)?;
        let mut index = Index { offset: state.end, entries: 0, checksum: 0, buffer: Vec::new() };
        let mut chunks = state.chunks.iter().peekable();
        let mut run = Run { chunks: Vec::with_capacity(RUN), before: Vec::new(), after: Vec::new() };
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
        // A log that was cut short later must not look whole.
        let end = index.offset + index.entries * ENTRY_LEN as u64;
        if log.len() > end {
            log.set_len(end)?;
        }
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
    fn index_data(&self, state: &State, index: &mut Index, run: &mut Run, chunk: u64, slot: &Slot) -> Result<()> {
        let Some(logged) = slot.logged else { return Ok(()) };
        let continues = run.chunks.last().is_some_and(|last| *last == (chunk - 1, logged.saturating_sub(CHUNK)));
        if !continues || run.chunks.len() >= RUN {
            self.index_run(state, index, run)?;
        }
        run.chunks.push((chunk, logged));
        Ok(())
    }

    /// Indexes chunks that follow each other on the device and in the log. What is in memory is not read from the log, and
    /// what is a hole is not read from the device.
    fn index_run(&self, state: &State, index: &mut Index, run: &mut Run) -> Result<()> {
        let Run { chunks, before, after } = run;
        let (Some(&(first, first_slot)), Some(&(last, _))) = (chunks.first(), chunks.last()) else { return Ok(()) };
        let len = (last - first) * CHUNK + self.chunk_len(last) as u64;
        let in_memory = |chunk: u64| state.chunks.get(&chunk).and_then(|slot| slot.memory.as_deref());
        if chunks.iter().any(|(chunk, _)| in_memory(*chunk).is_none()) {
            after.resize(len as usize, 0);
            state.read_slot(first_slot, after)?;
        }
        before.resize(len as usize, 0);
        let mut hole_until = 0;
        let mut read_until = 0;
        for &(chunk, slot) in chunks.iter() {
            let (at, size) = ((chunk - first) * CHUNK, self.chunk_len(chunk));
            if at >= hole_until.max(read_until) {
                let extent = self.device.extent_at(first * CHUNK + at, len - at)?;
                let whole = if at + extent.len == len { len } else { at + extent.len / CHUNK * CHUNK };
                if extent.kind == ExtentKind::Hole && whole > at {
                    hole_until = whole;
                } else {
                    read_until = (at + extent.len).next_multiple_of(CHUNK).min(len);
                    self.device.read_at(first * CHUNK + at, &mut before[at as usize..read_until as usize])?;
                }
            }
            let part = at as usize..at as usize + size;
            let after = in_memory(chunk).unwrap_or_else(|| &after[part.clone()]);
            let before = if at < hole_until { &ZEROS[..size] } else { &before[part] };
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
                let zeros = at < hole_until && sector.len() == SECTOR;
                *sum = if zeros { ZERO_SECTOR } else { crc32c::crc32c(sector) }.into();
            }
            index.push(state, &entry)?;
        }
        chunks.clear();
        Ok(())
    }
}

/// Chunks that follow each other, and room for what they held and hold.
struct Run {
    /// Each chunk with its slot in the log.
    chunks: Vec<(u64, u64)>,
    before: Vec<u8>,
    after: Vec<u8>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_the_checksum_that_is_assumed() {
        assert_eq!(crc32c::crc32c(&ZEROS[..SECTOR]), ZERO_SECTOR);
    }
}
