//! Reading a redo log, and carrying out what a complete one says.

use zerocopy::{FromBytes, IntoBytes};

use super::layout::{CHUNK, DATA, ENTRY_LEN, Entry, FIRST_SLOT, HEADER_LEN, Header, MAGIC, SECTOR, VERSION, ZERO};
use super::place::LogPlace;
use crate::{Error, ReadAt, Result, Storage, WriteAt};

/// Which device a log is for, so that it is not applied to another.
pub type Identity = [u8; 16];

/// What [`recover`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// There was no log.
    None,
    /// There was a log that is not complete: nothing of it had reached the device, and it is gone.
    Dropped,
    /// There was a complete log: the device now holds all that it says, and the log is gone.
    Applied,
}

/// Finishes what a crash has interrupted: applies a complete log to `device`, and drops an incomplete one.
///
/// # Errors
/// [`Error::RedoLog`] where the file is no redo log, is damaged, is for another device, or where the device holds, at a
/// place that the log changes, neither what was there before nor what the log says; then nothing was written.
/// Otherwise what the device or the place says; calling again goes on.
pub fn recover(device: &(impl WriteAt + ?Sized), identity: &Identity, place: &dyn LogPlace) -> Result<Recovery> {
    let Some(storage) = place.open(true)? else { return Ok(Recovery::None) };
    let Some(log) = CompleteLog::open(&*storage, device.len(), identity)? else {
        place.remove()?;
        return Ok(Recovery::Dropped);
    };
    log.check_device(device)?;
    log.apply(device, |_| None)?;
    // The changes of an incomplete log must not come back: empty it before the name goes.
    storage.set_len(0)?;
    storage.flush()?;
    place.remove()?;
    Ok(Recovery::Applied)
}

/// A log that says all that it was to say.
pub(crate) struct CompleteLog<'a> {
    storage: &'a dyn Storage,
    header: Header,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::RedoLog(what.into())
}

/// Chunks read and written at once.
const RUN: usize = 256;
/// Entries read at once.
const BATCH: u64 = 1024;

impl<'a> CompleteLog<'a> {
    /// Checks a log's header and index. `None` where the log is not complete.
    pub(crate) fn open(storage: &'a dyn Storage, device_len: u64, identity: &Identity) -> Result<Option<Self>> {
        let mut bytes = [0; HEADER_LEN];
        let len = storage.len().min(HEADER_LEN as u64) as usize;
        storage.read_at(0, &mut bytes[..len])?;
        let header = Header::read_from_bytes(&bytes).map_err(|_| wrong("has a header of 64 bytes"))?;
        // A crash soon after the log was made may leave it without its first bytes, and then nothing else is in it. A
        // longer file that begins with zeros may be anything, and is not ours to remove.
        let empty = bytes == [0; HEADER_LEN] && storage.len() <= HEADER_LEN as u64;
        if empty || (header.magic == MAGIC && header.index_offset.get() == 0) {
            return Ok(None);
        }
        if header.magic != MAGIC {
            return Err(wrong("does not begin as a redo log does"));
        }
        if header.version.get() != VERSION {
            return Err(wrong(format!("is of version {}, not {VERSION}", header.version.get())));
        }
        if header.checksum.get() != header.computed_checksum() {
            return Err(wrong("has a header with a wrong checksum"));
        }
        if header.target_len.get() != device_len {
            return Err(wrong(format!("is for a device of {} bytes, not {device_len}", header.target_len.get())));
        }
        if header.identity != *identity {
            return Err(wrong("is for another device"));
        }
        let log = Self { storage, header };
        log.check_index()?;
        Ok(Some(log))
    }

    /// Checks the index as a whole: its checksum, and that entries are in order, inside the device, and in the log.
    fn check_index(&self) -> Result<()> {
        let (offset, entries) = (self.header.index_offset.get(), self.header.entries.get());
        let end = entries.checked_mul(ENTRY_LEN as u64).and_then(|len| offset.checked_add(len));
        if offset < FIRST_SLOT || end.is_none_or(|end| end > self.storage.len()) {
            return Err(wrong("has an index that lies outside it"));
        }
        let mut checksum = 0;
        let mut next = 0;
        let device_len = self.header.target_len.get();
        self.for_each_raw(&mut |bytes, entry| {
            checksum = crc32c::crc32c_append(checksum, bytes);
            let (at, len, slot) = (entry.offset.get(), entry.len.get(), entry.slot.get());
            let end = at.checked_add(len).filter(|end| *end <= device_len && at >= next && len > 0);
            let end = end.ok_or_else(|| wrong(format!("has an entry of {len} bytes at offset {at} after {next}")))?;
            let sound = at.is_multiple_of(CHUNK)
                && match entry.kind.get() {
                    DATA => {
                        len == CHUNK.min(device_len - at)
                            && slot >= FIRST_SLOT
                            && slot.checked_add(len).is_some_and(|end| end <= self.storage.len())
                    }
                    ZERO => end == device_len || len.is_multiple_of(CHUNK),
                    _ => false,
                };
            if !sound {
                return Err(wrong(format!("has an entry at offset {at} that is neither data nor zeros")));
            }
            next = end;
            Ok(())
        })?;
        if checksum != self.header.index_checksum.get() {
            return Err(wrong("has an index with a wrong checksum"));
        }
        Ok(())
    }

    fn for_each_raw(&self, each: &mut dyn FnMut(&[u8], &Entry) -> Result<()>) -> Result<()> {
        let mut done = 0;
        let mut bytes = vec![0; BATCH.min(self.header.entries.get()) as usize * ENTRY_LEN];
        while done < self.header.entries.get() {
            let count = BATCH.min(self.header.entries.get() - done);
            let batch = &mut bytes[..count as usize * ENTRY_LEN];
            self.storage.read_at(self.header.index_offset.get() + done * ENTRY_LEN as u64, batch)?;
            for entry in batch.chunks_exact(ENTRY_LEN) {
                let decoded = Entry::read_from_bytes(entry).map_err(|_| wrong("has entries of 64 bytes"))?;
                each(entry, &decoded)?;
            }
            done += count;
        }
        Ok(())
    }

    /// All entries in ascending order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
        self.for_each_raw(&mut |_, entry| each(entry))
    }

    /// The contents that an entry of data leads to.
    fn contents(&self, entry: &Entry) -> Result<Vec<u8>> {
        let bytes = crate::read_vec(&self.storage, entry.slot.get(), entry.len.get())?;
        if crc32c::crc32c(&bytes) != entry.checksum.get() {
            return Err(wrong(format!("has contents for offset {} with a wrong checksum", entry.offset.get())));
        }
        Ok(bytes)
    }

    /// Checks, before anything is written, that each sector of the device that is to be changed is as it was when the
    /// log was written, or is changed already: nobody has written the device since.
    pub(crate) fn check_device(&self, device: &(impl ReadAt + ?Sized)) -> Result<()> {
        self.for_each(|entry| {
            if entry.kind.get() != DATA {
                return Ok(());
            }
            let new = self.contents(entry)?;
            let found = crate::read_vec(device, entry.offset.get(), entry.len.get())?;
            for (index, (found, new)) in found.chunks(SECTOR).zip(new.chunks(SECTOR)).enumerate() {
                if found != new && crc32c::crc32c(found) != entry.before[index].get() {
                    let at = entry.offset.get() + (index * SECTOR) as u64;
                    return Err(wrong(format!("does not fit the device, which was changed since at offset {at}")));
                }
            }
            Ok(())
        })
    }

    /// Carries out all entries and makes them safe. `in_memory` gives the contents of chunks that need not be read from the
    /// log.
    pub(crate) fn apply<'m>(
        &self,
        device: &(impl WriteAt + ?Sized),
        in_memory: impl Fn(u64) -> Option<&'m [u8]>,
    ) -> Result<()> {
        let mut run: Vec<Entry> = Vec::new();
        let mut bytes = Vec::new();
        self.for_each(|entry| {
            if entry.kind.get() == ZERO {
                return device.discard(entry.offset.get(), entry.len.get());
            }
            let continues = run.last().is_some_and(|last| {
                last.offset.get() + CHUNK == entry.offset.get() && last.slot.get() + CHUNK == entry.slot.get()
            });
            if !continues || run.len() >= RUN {
                self.apply_run(device, &run, &mut bytes, &in_memory)?;
                run.clear();
            }
            run.push(entry.clone());
            Ok(())
        })?;
        self.apply_run(device, &run, &mut bytes, &in_memory)?;
        device.flush()
    }

    /// Carries out entries of data that follow each other on the device and in the log.
    fn apply_run<'m>(
        &self,
        device: &(impl WriteAt + ?Sized),
        run: &[Entry],
        bytes: &mut Vec<u8>,
        in_memory: &impl Fn(u64) -> Option<&'m [u8]>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        bytes.clear();
        for entry in run {
            let Some(contents) = in_memory(entry.offset.get() / CHUNK) else { break };
            bytes.extend_from_slice(contents);
        }
        let len = last.offset.get() - first.offset.get() + last.len.get();
        if bytes.len() as u64 == len {
            return device.write_at(first.offset.get(), bytes);
        }
        bytes.resize(len as usize, 0);
        self.storage.read_at(first.slot.get(), bytes)?;
        for (entry, contents) in run.iter().zip(bytes.chunks(CHUNK as usize)) {
            if crc32c::crc32c(contents) != entry.checksum.get() {
                return Err(wrong(format!("has contents for offset {} with a wrong checksum", entry.offset.get())));
            }
        }
        device.write_at(first.offset.get(), bytes)
    }
}

/// Begins a new log, so that it is known for one, and makes that safe before anything else is in it.
pub(crate) fn begin(storage: &dyn Storage) -> Result<()> {
    storage.set_len(HEADER_LEN as u64)?;
    let header = Header { magic: MAGIC, version: VERSION.into(), ..Header::default() };
    storage.write_at(0, header.as_bytes())?;
    storage.flush()
}

/// Writes the header that makes a log complete.
pub(crate) fn write_header(
    storage: &dyn Storage,
    device_len: u64,
    identity: &Identity,
    index: (u64, u64, u32),
) -> Result<()> {
    let (offset, entries, checksum) = index;
    let mut header = Header {
        magic: MAGIC,
        version: VERSION.into(),
        target_len: device_len.into(),
        identity: *identity,
        index_offset: offset.into(),
        entries: entries.into(),
        index_checksum: checksum.into(),
        ..Header::default()
    };
    header.checksum = header.computed_checksum().into();
    storage.write_at(0, header.as_bytes())
}
