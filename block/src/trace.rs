//! A storage that records what is done to it, and the means to replay any prefix as a crash would leave it.

use std::sync::{Mutex, PoisonError};

use crate::{AllocationUnit, Extent, Memory, ReadAt, Result, Storage, WriteAt};

/// One thing done to a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A range was made to read as zeros.
    Zero {
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// The length changed.
    SetLen(u64),
    /// Everything before is on stable storage.
    Flush,
}

/// A storage that passes everything on to another and records each change.
#[derive(Debug)]
pub struct Trace<S> {
    storage: S,
    events: Mutex<Vec<Event>>,
}

impl<S: Storage> Trace<S> {
    /// Records from now on what is done to `storage`.
    pub fn new(storage: S) -> Self {
        Self { storage, events: Mutex::new(Vec::new()) }
    }

    /// All that was recorded.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

impl<S: Storage> ReadAt for Trace<S> {
    fn len(&self) -> u64 {
        self.storage.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.storage.read_at(offset, buf)
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> Result<Extent> {
        self.storage.extent_at(offset, max_len)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        self.storage.allocation_unit()
    }
}

impl<S: Storage> WriteAt for Trace<S> {
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.storage.write_at(offset, buf)?;
        self.record(Event::Write { offset, bytes: buf.to_vec() });
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        self.storage.write_zeroes(offset, len)?;
        self.record(Event::Zero { offset, len });
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        self.storage.discard(offset, len)?;
        self.record(Event::Zero { offset, len });
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.storage.flush()?;
        self.record(Event::Flush);
        Ok(())
    }
}

impl<S: Storage> Storage for Trace<S> {
    fn set_len(&self, len: u64) -> Result<()> {
        self.storage.set_len(len)?;
        self.record(Event::SetLen(len));
        Ok(())
    }
}

/// What a crash does to a change that no flush has made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is lost.
    Lost,
    /// It is whole on the disk.
    Kept,
    /// Of a write, what lies in the first so many 512-byte sectors that it touches is on the disk. (Disks write sectors whole.)
    Torn(u64),
}

const SECTOR: u64 = 512;

/// The bytes of a storage that started as `initial`, after a crash behind the last of `events`. Changes before the last
/// flush are whole; for each change after it `outcome` is asked, with its place in `events`.
pub fn replay(initial: &[u8], events: &[Event], mut outcome: impl FnMut(usize, &Event) -> Outcome) -> Result<Vec<u8>> {
    let safe = events.iter().rposition(|event| *event == Event::Flush).unwrap_or(0);
    let disk = Memory::from(initial.to_vec());
    // What the storage shows while it works: a sector that is written in part is written with the rest that it has here.
    let shown = Memory::from(initial.to_vec());
    for (index, event) in events.iter().enumerate() {
        let (offset, len) = match event {
            Event::Write { offset, bytes } => {
                let len = bytes.len() as u64;
                shown.set_len(shown.len().max(offset + len))?;
                shown.write_at(*offset, bytes)?;
                (*offset, len)
            }
            Event::Zero { offset, len } => {
                shown.write_zeroes(*offset, *len)?;
                (*offset, *len)
            }
            Event::SetLen(len) => {
                shown.set_len(*len)?;
                (0, 0)
            }
            Event::Flush => continue,
        };
        let fate = if index < safe { Outcome::Kept } else { outcome(index, event) };
        if let (Event::SetLen(len), Outcome::Kept | Outcome::Torn(_)) = (event, fate) {
            disk.set_len(*len)?;
        }
        let first = offset / SECTOR;
        let sectors = match fate {
            _ if len == 0 => continue,
            Outcome::Lost => continue,
            Outcome::Torn(sectors) => sectors.min((offset + len).div_ceil(SECTOR) - first),
            Outcome::Kept => (offset + len).div_ceil(SECTOR) - first,
        };
        let mut end = ((first + sectors) * SECTOR).min(shown.len());
        if matches!(event, Event::Write { .. }) {
            // A write that got through although the change of length before it was lost makes the file longer.
            disk.set_len(disk.len().max(end.min(offset + len)))?;
        }
        end = end.min(disk.len());
        if let Some(len) = end.checked_sub(first * SECTOR).filter(|&len| len > 0) {
            disk.write_at(first * SECTOR, &crate::read_vec(&shown, first * SECTOR, len)?)?;
        }
    }
    Ok(disk.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_keeps_what_was_flushed_and_asks_about_the_rest() {
        let trace = Trace::new(Memory::new(2048));
        trace.write_at(0, &[1; 1024]).unwrap();
        trace.flush().unwrap();
        trace.write_at(1024, &[2; 1024]).unwrap();
        let events = trace.events();
        let states: Vec<_> = [Outcome::Lost, Outcome::Torn(1), Outcome::Kept]
            .map(|fate| replay(&[0; 2048], &events, |_, _| fate).unwrap())
            .into();
        assert!(states.iter().all(|s| s[..1024] == [1; 1024]));
        assert_eq!(states.iter().map(|s| s.iter().filter(|&&b| b == 2).count()).collect::<Vec<_>>(), [0, 512, 1024]);
    }

    #[test]
    fn a_sector_is_never_a_mixture_of_what_was_never_there_together() {
        let trace = Trace::new(Memory::new(1024));
        trace.write_at(10, &[1; 10]).unwrap();
        trace.write_at(500, &[2; 24]).unwrap();
        let events = trace.events();
        let lost_first = |index: usize, _: &Event| if index == 0 { Outcome::Lost } else { Outcome::Kept };
        assert_eq!(replay(&[0; 1024], &events, lost_first).unwrap(), trace.storage.to_vec());
        let torn = |index: usize, _: &Event| if index == 0 { Outcome::Lost } else { Outcome::Torn(1) };
        let state = replay(&[0; 1024], &events, torn).unwrap();
        assert_eq!((state[10], state[511], state[512]), (1, 2, 0));
    }
}
