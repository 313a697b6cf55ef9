//! The log: where it ends, whether it is clean, and its replay where it is not. "Journaling Log".
//!
//! A file system that was unmounted has a record at the log's end that says just that, and the log is not touched.
//! One that was not has changes there that may not be in place: they are put in place in memory, and what is written at
//! the next flush ends with a record that says that all is in place.

mod buffer;
mod create;
mod inode;
mod intents;
mod record;
mod recover;
mod replay;
mod ring;
mod transaction;

pub(crate) use intents::Work;
pub(crate) use record::{MAGIC, SECTOR};
pub(crate) use ring::{Ring, round};

use std::ops::Range;

use crate::Result;
use crate::file_system::FileSystem;
use record::{Header, Place, next_round, put_id, unmount_record};
use ring::{Extent, rounds_before};

/// What was found in the log when a file system was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogState {
    /// The file system was unmounted.
    Clean,
    /// It was not unmounted, and its log was replayed.
    Replayed {
        /// How many transactions the log held. Some of them may have been in place.
        transactions: u64,
        /// How many pieces of work they had begun and not done, which now are: space freed, owners and counts noted.
        finished: u64,
        /// How many files that were deleted while they were open are now gone.
        orphans: u64,
    },
    /// It was not unmounted, and its log was not replayed: what is read is what was in place. The reason.
    NotReplayed(String),
}

/// A clean log.
#[derive(Debug, Clone)]
pub(crate) struct CleanLog {
    pub(crate) ring: Ring,
    /// The sectors of its last record, which have to stay; they may go on from the log's start.
    pub(crate) last_record: Range<u64>,
}

impl CleanLog {
    /// Whether a sector is of the last record.
    pub(crate) fn is_of_last_record(&self, sector: u64) -> bool {
        self.last_record.contains(&sector) || self.last_record.contains(&(sector + self.ring.sectors))
    }
}

/// A log, and whether all that it says is in place.
enum Found {
    Clean(CleanLog),
    Dirty(Ring, Extent),
}

impl FileSystem {
    /// The log, if it is clean.
    pub(crate) fn clean_log(&self) -> Result<Option<CleanLog>> {
        match self.find_log()? {
            Found::Clean(log) => Ok(Some(log)),
            Found::Dirty(..) => Ok(None),
        }
    }

    fn find_log(&self) -> Result<Found> {
        let ring = Ring::new(&self.sb)?;
        if let Some(last_record) = ring.ends_with_unmount(&self.store)? {
            return Ok(Found::Clean(CleanLog { ring, last_record }));
        }
        let extent = ring.find(&self.store)?;
        if extent.is_unmounted {
            return Ok(Found::Clean(CleanLog { ring, last_record: extent.last }));
        }
        Ok(Found::Dirty(ring, extent))
    }

    /// Writes, in memory, a record behind the log's last one that says that all is in place, and takes back what lies
    /// behind that from writes that did not get there as a whole.
    fn end_log(&mut self, ring: Ring, log: &Extent) -> Result<()> {
        let place = Place { cycle: log.cycle, at: log.head, log: ring.sectors, unit: self.sb.log_unit() };
        let record = unmount_record(place, &ring.id);
        let sectors = (record.len() / SECTOR) as u64;
        if sectors >= ring.sectors {
            return Err(ring::wrong(log.head, format!("the log has room for a record of {sectors} sectors")));
        }
        let end = (log.head + sectors) % ring.sectors;
        let cycle = if log.head + sectors >= ring.sectors { next_round(log.cycle) } else { log.cycle };
        for (at, bytes) in (log.head..).zip(record.chunks_exact(SECTOR)) {
            self.store.put_bytes(ring.start + at % ring.sectors * SECTOR as u64, bytes)?;
        }
        for (at, found) in (0..).zip(&log.rounds) {
            let is_new = ring.distance(log.head, at) < sectors;
            let expected = if at < end { cycle } else { rounds_before(cycle) };
            if !is_new && *found != expected {
                let mut blank = [0; SECTOR];
                crate::bytes::put32(&mut blank, 0, expected);
                self.store.put_bytes(ring.start + at * SECTOR as u64, &blank)?;
            }
        }
        Ok(())
    }

    /// Gives the record at the end of a clean log another UUID: the log has to be the file system's own.
    pub(crate) fn stamp_log(&mut self, id: [u8; 16]) -> Result<()> {
        let Some(log) = self.clean_log()? else {
            return Err(ring::wrong(0, "the log is clean once it was replayed"));
        };
        let (ring, at) = (log.ring, log.last_record.start);
        let sectors = log.last_record.end - at;
        let mut headers = ring.read(&self.store, at, sectors)?;
        let header = Header::decode(&headers, at, &ring.id).map_err(|rule| ring::wrong(at, rule))?;
        let data = headers.split_off(header.headers as usize * SECTOR);
        put_id(&mut headers, &data, &id);
        for (number, sector) in (at..).zip(headers.chunks_exact(SECTOR)) {
            self.store.put_bytes(ring.start + number % ring.sectors * SECTOR as u64, sector)?;
        }
        Ok(())
    }
}
