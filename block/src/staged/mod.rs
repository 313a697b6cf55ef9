//! Changes to a device kept apart until they are committed as a whole.

mod commit;
mod zero_runs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::redo_log::layout::{CHUNK, DATA, FIRST_SLOT};
use crate::redo_log::{CompleteLog, Identity, LogFile, LogPlace, begin, recover};
use crate::{Access, AllocationUnit, Error, Extent, ExtentKind, HostFile, ReadAt, Result, Storage, WriteAt};

/// Bytes of changed contents kept in memory before they go to the log file.
const DEFAULT_MEMORY_LIMIT: usize = 32 << 20;
/// The longest run of slots written to the log in one call.
const MAX_RUN: usize = 1 << 20;
/// The log grows by as much as it is long, but by no more than this, so that its length is seldom set.
const LOG_STEP: u64 = 8 << 20;

/// A device whose changes are kept apart, in memory and beyond a limit in a log file, until [`Staged::commit`] carries
/// them out as a whole: after a crash at any moment the device holds, once [`recover`] has run (which opening does),
/// all of them or none. Dropping it undoes everything.
///
/// ```
/// use block::{ReadAt, Staged, WriteAt};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("disk.img");
/// # std::fs::write(&path, [0; 8192])?;
/// let disk = Staged::open(&path, None)?; // finishes an interrupted commit, if there was one
/// disk.write_at(1000, b"both of these")?;
/// disk.write_at(8000, b"or neither")?;
/// disk.commit()?;
/// # assert_eq!(&std::fs::read(&path)?[8000..8010], b"or neither");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Memory: the limit, and about 40 bytes for each changed chunk of 4096 bytes; zeros cost only their runs.
pub struct Staged<D> {
    device: D,
    identity: Identity,
    place: Box<dyn LogPlace>,
    memory_limit: usize,
    state: RwLock<State>,
}

/// Where a changed chunk is: in memory, in the log, or (while it is committed) in both.
#[derive(Debug, Default)]
struct Slot {
    memory: Option<Box<[u8]>>,
    /// The offset in the log.
    logged: Option<u64>,
}

/// What is to become of a part of a chunk.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// These bytes, of which the part's are those from how far into the range it is.
    Bytes(&'a [u8]),
    Zeros,
}

impl Change<'_> {
    fn apply(self, part: &mut [u8], done: usize) {
        match self {
            Self::Bytes(bytes) => part.copy_from_slice(&bytes[done..done + part.len()]),
            Self::Zeros => part.fill(0),
        }
    }

    fn whole(self, size: usize, done: usize) -> Box<[u8]> {
        match self {
            Self::Bytes(bytes) => bytes[done..done + size].into(),
            Self::Zeros => vec![0; size].into(),
        }
    }
}

/// Whether chunks stay in memory when they go to the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Freed,
    Kept,
}

#[derive(Default)]
struct State {
    /// Changed chunks. They hide what `zeros` says.
    chunks: BTreeMap<u64, Slot>,
    /// Chunks that read as zeros.
    zeros: zero_runs::Runs,
    /// How many chunks are in memory.
    in_memory: usize,
    log: Option<Box<dyn Storage>>,
    /// Slots of the log that hold nothing any more.
    free: Vec<u64>,
    /// Where the log's next slot is.
    end: u64,
    /// A call on the log or a commit failed.
    failed: bool,
    /// What is in the log may be what the device needs: it must stay.
    keep_log: bool,
}

impl<D> std::fmt::Debug for Staged<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Staged").field("changed_chunks", &state.chunks.len()).finish_non_exhaustive()
    }
}

impl Staged<HostFile> {
    /// Opens a file or block device of the host for writing. The log is at `log`, or beside the image as
    /// [`LogFile::beside`] says; it is made when it is needed. What an earlier commit left unfinished is finished.
    ///
    /// # Errors
    /// As [`HostFile::open`], [`LogFile::beside`] and [`recover`].
    pub fn open(path: &Path, log: Option<&Path>) -> Result<Self> {
        let place = log.map_or_else(|| LogFile::beside(path), |log| Ok(LogFile::new(log)))?;
        let file = HostFile::open(path, Access::ReadWrite)?;
        let identity = file.identity()?;
        Self::new(file, identity, Box::new(place))
    }
}

impl<D: WriteAt> Staged<D> {
    /// Finishes what an earlier commit left unfinished, and stages changes over `device` from then on. `identity` tells
    /// the device from others of its length.
    ///
    /// # Errors
    /// As [`recover`].
    pub fn new(device: D, identity: Identity, place: Box<dyn LogPlace>) -> Result<Self> {
        recover(&device, &identity, &*place)?;
        Ok(Self {
            device,
            identity,
            place,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            state: RwLock::new(State { end: FIRST_SLOT, ..State::default() }),
        })
    }

    /// Bytes of changed contents kept in memory before they go to the log file: 32 MiB unless said otherwise.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }
}

impl<D: ReadAt> Staged<D> {
    /// A device as a complete log would make it, for reading; `None` where there is no complete log. Writing to it fails.
    ///
    /// # Errors
    /// As [`recover`].
    pub fn interrupted(device: D, identity: Identity, place: Box<dyn LogPlace>) -> Result<Option<Self>> {
        let Some(storage) = place.open(false)? else { return Ok(None) };
        let mut state = State { end: FIRST_SLOT, failed: true, keep_log: true, ..State::default() };
        {
            let Some(log) = CompleteLog::open(&*storage, device.len(), &identity)? else { return Ok(None) };
            log.check_device(&device)?;
            log.for_each(|entry| {
                let first = entry.offset.get() / CHUNK;
                if entry.kind.get() == DATA {
                    state.chunks.insert(first, Slot { memory: None, logged: Some(entry.slot.get()) });
                } else {
                    state.zeros.insert(first..(entry.offset.get() + entry.len.get()).div_ceil(CHUNK));
                }
                Ok(())
            })?;
        }
        state.log = Some(storage);
        Ok(Some(Self { device, identity, place, memory_limit: 0, state: RwLock::new(state) }))
    }

    /// The device below.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.failed { Err(Error::RedoLog("can take no more changes".to_owned())) } else { Ok(state) }
    }

    fn chunk_len(&self, chunk: u64) -> usize {
        CHUNK.min(self.len() - chunk * CHUNK) as usize
    }

    /// Changes the bytes of each chunk that the range touches.
    fn change(&self, state: &mut State, offset: u64, len: u64, change: Change<'_>) -> Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let (chunk, within) = (at / CHUNK, (at % CHUNK) as usize);
            let size = self.chunk_len(chunk);
            let step = (size - within).min(usize::try_from(len - done).unwrap_or(usize::MAX));
            let found = state.chunks.get_mut(&chunk);
            if let Some(Slot { memory: Some(bytes), .. }) = found {
                change.apply(&mut bytes[within..within + step], done as usize);
            } else {
                let logged = found.and_then(|slot| slot.logged);
                let bytes = if step == size {
                    change.whole(size, done as usize)
                } else {
                    let mut bytes = vec![0; size].into_boxed_slice();
                    match logged {
                        Some(slot) => state.read_slot(slot, &mut bytes)?,
                        None if state.zeros.contains(chunk) => {}
                        None => self.device.read_at(chunk * CHUNK, &mut bytes)?,
                    }
                    change.apply(&mut bytes[within..within + step], done as usize);
                    bytes
                };
                state.free.extend(logged);
                state.chunks.insert(chunk, Slot { memory: Some(bytes), logged: None });
                state.in_memory += 1;
            }
            done += step as u64;
            if state.in_memory.saturating_mul(CHUNK as usize) > self.memory_limit.max(CHUNK as usize) {
                self.spill(state)?;
            }
        }
        Ok(())
    }

    /// Moves what is in memory to the log.
    fn spill(&self, state: &mut State) -> Result<()> {
        let result = state.spill(&*self.place, Memory::Freed);
        state.failed |= result.is_err();
        result
    }
}

impl State {
    fn log(&self) -> Result<&dyn Storage> {
        self.log.as_deref().ok_or_else(|| Error::RedoLog("was taken away".to_owned()))
    }

    fn read_slot(&self, slot: u64, bytes: &mut [u8]) -> Result<()> {
        self.log()?.read_at(slot, bytes)
    }

    /// Writes what is only in memory to the log.
    fn spill(&mut self, place: &dyn LogPlace, memory: Memory) -> Result<()> {
        if self.log.is_none() {
            let log = self.log.insert(place.create()?);
            begin(&**log)?;
        }
        let log = self.log.as_deref().ok_or_else(|| Error::RedoLog("was taken away".to_owned()))?;
        let (mut start, mut run) = (0, Vec::with_capacity(MAX_RUN));
        for slot in self.chunks.values_mut() {
            let (Some(bytes), None) = (&slot.memory, slot.logged) else { continue };
            let place = self.free.pop().unwrap_or_else(|| {
                self.end += CHUNK;
                self.end - CHUNK
            });
            if !run.is_empty() && (start + run.len() as u64 != place || run.len() >= MAX_RUN) {
                write_log(log, start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = place;
            }
            run.extend_from_slice(bytes);
            // The last chunk of a device may be shorter than its slot.
            run.resize(run.len().next_multiple_of(CHUNK as usize), 0);
            slot.logged = Some(place);
        }
        if !run.is_empty() {
            write_log(log, start, &run)?;
        }
        if memory == Memory::Freed {
            self.chunks.values_mut().for_each(|slot| slot.memory = None);
            self.in_memory = 0;
        }
        Ok(())
    }

    fn write_log(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write_log(self.log()?, offset, bytes)
    }
}

/// Writes to a log, which is made longer in large steps.
fn write_log(log: &dyn Storage, offset: u64, bytes: &[u8]) -> Result<()> {
    let end = offset + bytes.len() as u64;
    if log.len() < end {
        log.set_len(end.max((log.len() * 2).min(log.len() + LOG_STEP)))?;
    }
    log.write_at(offset, bytes)
}

impl<D: ReadAt> ReadAt for Staged<D> {
    fn len(&self) -> u64 {
        self.device.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let state = self.state();
        self.device.read_at(offset, buf)?;
        let end = offset + buf.len() as u64;
        let chunks = offset / CHUNK..end.div_ceil(CHUNK);
        for run in state.zeros.within(chunks.clone()) {
            let (start, stop) = ((run.start * CHUNK).max(offset), (run.end * CHUNK).min(end));
            buf[(start - offset) as usize..(stop - offset) as usize].fill(0);
        }
        for (&chunk, slot) in state.chunks.range(chunks) {
            let (start, stop) = ((chunk * CHUNK).max(offset), (chunk * CHUNK + CHUNK).min(end));
            let target = &mut buf[(start - offset) as usize..(stop - offset) as usize];
            let within = start - chunk * CHUNK;
            match slot {
                Slot { memory: Some(bytes), .. } => {
                    target.copy_from_slice(&bytes[within as usize..within as usize + target.len()]);
                }
                Slot { logged: Some(slot), .. } => state.read_slot(slot + within, target)?,
                Slot { memory: None, logged: None } => {}
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        Error::check_range(offset, max_len.max(1), self.len())?;
        let state = self.state();
        let (first, last) = (offset / CHUNK, (offset + max_len).div_ceil(CHUNK));
        if state.chunks.contains_key(&first) {
            return Ok(Extent { len: max_len.min(first * CHUNK + CHUNK - offset), kind: ExtentKind::Data });
        }
        let changed = state.chunks.range(first..).next().map_or(u64::MAX, |(&next, _)| next);
        let zeros = state.zeros.within(first..last.max(first + 1)).next();
        match zeros {
            Some(run) if run.start == first => {
                let end = run.end.min(changed) * CHUNK;
                Ok(Extent { len: max_len.min(end - offset), kind: ExtentKind::Hole })
            }
            later => {
                let next = later.map_or(u64::MAX, |run| run.start).min(changed);
                self.device.extent_at(offset, max_len.min(next.saturating_mul(CHUNK) - offset))
            }
        }
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        Some(AllocationUnit { len: CHUNK, start: 0 })
    }
}

impl<D: ReadAt> WriteAt for Staged<D> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        Error::check_range(offset, buf.len() as u64, self.len())?;
        let mut state = self.state_mut()?;
        self.change(&mut state, offset, buf.len() as u64, Change::Bytes(buf))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        Error::check_range(offset, len, self.len())?;
        let mut state = self.state_mut()?;
        let end = offset + len;
        // The last chunk of a device is whole where it ends with the device.
        let last = if end == self.len() { end.div_ceil(CHUNK) } else { end / CHUNK };
        let first = offset.div_ceil(CHUNK);
        if first >= last {
            return self.change(&mut state, offset, len, Change::Zeros);
        }
        self.change(&mut state, offset, first * CHUNK - offset, Change::Zeros)?;
        let tail = end.saturating_sub(last * CHUNK);
        self.change(&mut state, last * CHUNK, tail, Change::Zeros)?;
        let mut hidden = state.chunks.split_off(&first);
        let mut behind = hidden.split_off(&last);
        state.chunks.append(&mut behind);
        for slot in hidden.into_values() {
            state.in_memory -= usize::from(slot.memory.is_some());
            state.free.extend(slot.logged);
        }
        state.zeros.insert(first..last);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.write_zeroes(offset, len)
    }

    /// Does nothing: what was written is safe once [`Staged::commit`] has returned.
    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl<D> Drop for Staged<D> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.log.take().is_some() && !state.keep_log {
            // A log that stays is not complete: the next to open the device drops it.
            let _ = self.place.remove();
        }
    }
}
