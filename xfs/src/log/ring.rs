//! Where the log begins and ends: it is written around and around.
//!
//! Every sector begins with the number of the round in which it was written. The sectors of a round come first, then
//! those of the round before it. Records that were on their way when the machine stopped may be there in part, and in
//! any order: what lies behind the first that is missing or damaged does not count.

use super::record::{Header, MAGIC, SECTOR, UNMOUNT, checksum_is_right, next_round, unpack};
use crate::bytes::be32;
use crate::store::Store;
use crate::superblock::Superblock;
use crate::{Error, Result};

/// The longest log there can be, in bytes.
const MAX_LOG: u64 = 2 << 30;
/// How many sectors of records may have been on their way: eight of 256 KiB, with their headers.
const IN_FLIGHT: u64 = 8 * 520;
/// How many of them may be damaged behind a sound one.
const MAX_DAMAGED: u32 = 8;
/// The longest record, with its headers.
const MAX_RECORD_SECTORS: u64 = 520;
/// The log is read in pieces of this many sectors.
const CHUNK: u64 = 2048;

/// The place of the log on the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ring {
    /// The first byte.
    pub(crate) start: u64,
    pub(crate) sectors: u64,
    pub(super) id: [u8; 16],
}

/// A record that was found sound, with the words that its stamps had replaced.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) header: Header,
    pub(super) data: Vec<u8>,
}

/// What there is of a log.
#[derive(Debug)]
pub(super) struct Extent {
    /// The first record that may hold what is not in place, and where the next record would go.
    pub(super) tail: u64,
    pub(super) head: u64,
    /// The round of the next record.
    pub(super) cycle: u32,
    /// The last record.
    pub(super) last: std::ops::Range<u64>,
    pub(super) is_unmounted: bool,
    /// The round of each sector.
    pub(super) rounds: Vec<u32>,
}

/// A log that does not hold together: where, and the rule.
pub(super) fn wrong(at: u64, rule: impl Into<String>) -> Error {
    Error::corrupt("log", format_args!("sector {at}"), rule)
}

impl Ring {
    /// The log of a file system, if it lies in it.
    pub(crate) fn new(sb: &Superblock) -> Result<Self> {
        let blocks = u64::from(sb.log_blocks);
        let size = sb.block_size as u64;
        let last = sb.linear(sb.log_start.saturating_add(blocks.saturating_sub(1)));
        let start = sb.linear(sb.log_start).filter(|start| blocks > 0 && last == Some(start + blocks - 1));
        match start {
            Some(start) if sb.log_start != 0 && blocks * size <= MAX_LOG => {
                Ok(Self { start: start * size, sectors: blocks * size / SECTOR as u64, id: sb.uuid })
            }
            _ => Err(wrong(0, format!("the log lies in the file system, found {blocks} blocks at {}", sb.log_start))),
        }
    }

    /// Reads sectors, on from the start behind the last one. There are no more of them than the log has.
    fn read(&self, store: &Store, at: u64, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize * SECTOR];
        let straight = count.min(self.sectors - at);
        let (first, rest) = bytes.split_at_mut(straight as usize * SECTOR);
        store.read(self.start + at * SECTOR as u64, first)?;
        store.read(self.start, rest)?;
        Ok(bytes)
    }

    /// How far it is from one place on to another.
    pub(super) fn distance(&self, from: u64, to: u64) -> u64 {
        if to >= from { to - from } else { self.sectors - from + to }
    }

    pub(super) fn after(&self, at: u64, sectors: u64) -> u64 {
        (at + sectors) % self.sectors
    }

    /// Reads the record at a place. It ends before `room` sectors do.
    pub(super) fn record(&self, store: &Store, at: u64, room: u64) -> Result<Record> {
        let header = Header::decode(&self.read(store, at, 1)?, at, &self.id).map_err(|rule| wrong(at, rule))?;
        if header.sectors() > room {
            return Err(wrong(at, format!("the record ends in {room} sectors, found {}", header.sectors())));
        }
        let mut headers = self.read(store, at, header.sectors())?;
        let mut data = headers.split_off(header.headers as usize * SECTOR);
        if !checksum_is_right(&headers, &data, header.len) {
            return Err(wrong(at, "the record's checksum is right"));
        }
        unpack(&headers, &mut data).map_err(|rule| wrong(at, rule))?;
        data.truncate(header.len as usize);
        Ok(Record { header, data })
    }

    /// The last record, where the log's end is found at once and it says that the file system was unmounted. `None`:
    /// every sector has to be looked at.
    pub(super) fn ends_with_unmount(&self, store: &Store) -> Result<Option<std::ops::Range<u64>>> {
        let round_at = |at: u64| Ok::<_, Error>(round(&self.read(store, at, 1)?));
        let (first, last) = (round_at(0)?, round_at(self.sectors - 1)?);
        let mut head = self.sectors;
        if last != first {
            // The first sector that is not of the first sector's round.
            let (mut low, mut high) = (0, self.sectors - 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if round_at(middle)? == first { low = middle } else { high = middle }
            }
            head = high;
        }
        for at in (head.saturating_sub(MAX_RECORD_SECTORS)..head).rev() {
            if be32(&self.read(store, at, 1)?, 0) != MAGIC {
                continue;
            }
            return match self.record(store, at, head - at) {
                Ok(record) if record.is_unmount() && record.header.sectors() == head - at => Ok(Some(at..head)),
                Err(Error::Io(error)) => Err(Error::Io(error)),
                _ => Ok(None),
            };
        }
        Ok(None)
    }

    /// Looks at every sector, and finds the log's end and beginning.
    pub(super) fn find(&self, store: &Store) -> Result<Extent> {
        let mut rounds = Vec::with_capacity(self.sectors as usize);
        let mut records: Vec<u32> = Vec::new();
        while (rounds.len() as u64) < self.sectors {
            let at = rounds.len() as u64;
            for (sector, number) in self.read(store, at, CHUNK.min(self.sectors - at))?.chunks_exact(SECTOR).zip(at..) {
                rounds.push(round(sector));
                if be32(sector, 0) == MAGIC {
                    records.push(number as u32);
                }
            }
        }
        let end = end(&rounds).map_err(|rule| wrong(0, rule))?;
        let mut head = end;
        let (mut tries, mut walks) = (records.len(), MAX_DAMAGED);
        loop {
            if tries == 0 || walks == 0 || self.distance(head % self.sectors, end % self.sectors) > IN_FLIGHT {
                return Err(wrong(head, format!("no more than {IN_FLIGHT} sectors at the log's end are damaged")));
            }
            // The last record before the end, which may lie before the log's end.
            let before = records.partition_point(|at| u64::from(*at) < head);
            let last = before.checked_sub(1).or(records.len().checked_sub(1));
            let Some(last) = last.and_then(|index| records.get(index)).map(|at| u64::from(*at)) else {
                return Err(wrong(head, "there is a record before the log's end"));
            };
            let room = self.distance(last, head % self.sectors);
            let room = if room == 0 { self.sectors } else { room };
            let record = match self.record(store, last, room) {
                Ok(record) if record.header.sectors() == room => record,
                Err(Error::Io(error)) => return Err(Error::Io(error)),
                // It did not get there as a whole.
                _ => {
                    head = last;
                    tries -= 1;
                    continue;
                }
            };
            match self.check(store, &record, last, head % self.sectors)? {
                Some(damaged) => {
                    head = damaged;
                    walks -= 1;
                }
                None => return Ok(self.extent(&record, last, rounds)),
            }
        }
    }

    /// Checks all records from the tail to the last one; returns where the first is that is damaged.
    fn check(&self, store: &Store, record: &Record, last: u64, head: u64) -> Result<Option<u64>> {
        let header = &record.header;
        if record.is_unmount() {
            return Ok(None);
        }
        let (cycle, tail) = (header.tail >> 32, header.tail & u64::from(u32::MAX));
        let fits =
            if tail <= last { cycle == u64::from(header.cycle) } else { next_round(cycle as u32) == header.cycle };
        if !fits || tail >= self.sectors {
            return Err(wrong(last, format!("the tail is in this round or the last, found {cycle}:{tail}")));
        }
        let mut at = tail;
        while at != last {
            match self.record(store, at, self.distance(at, last)) {
                Ok(record) => at = self.after(at, record.header.sectors()),
                Err(Error::Corrupt(_)) if self.distance(at, head) <= IN_FLIGHT => return Ok(Some(at)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn extent(&self, record: &Record, last: u64, rounds: Vec<u32>) -> Extent {
        let header = &record.header;
        let end = last + header.sectors();
        let is_around = end >= self.sectors;
        Extent {
            tail: if record.is_unmount() { end % self.sectors } else { header.tail & u64::from(u32::MAX) },
            head: end % self.sectors,
            cycle: if is_around { next_round(header.cycle) } else { header.cycle },
            last: last..end,
            is_unmounted: record.is_unmount(),
            rounds,
        }
    }
}

impl Record {
    /// Whether it says that the file system was unmounted.
    fn is_unmount(&self) -> bool {
        self.header.operations == 1 && self.data.get(9).is_some_and(|flags| flags & UNMOUNT != 0)
    }
}

/// The round in which a sector of the log was written.
pub(crate) fn round(sector: &[u8]) -> u32 {
    if be32(sector, 0) == MAGIC { be32(sector, 4) } else { be32(sector, 0) }
}

/// Where the sectors of the last round end. `Err`: the rule that does not hold.
fn end(rounds: &[u32]) -> Result<u64, String> {
    let (Some(first), Some(last)) = (rounds.first().copied(), rounds.last().copied()) else {
        return Err("the log has sectors".to_owned());
    };
    let before = match (first, last) {
        (0, _) => return Err("the log was written, found nothing but zeros at its start".to_owned()),
        (1, 0) => 0,
        (_, last) if last == first || next_round(last) == first => rounds_before(first),
        (first, last) => {
            return Err(format!("the last sector's round is the first one's or before it, found {last} and {first}"));
        }
    };
    // Where all are of one round, the next may have begun.
    let next = if last == first { next_round(first) } else { first };
    match rounds.iter().position(|round| ![first, before, next].contains(round)) {
        Some(at) => Err(format!("sectors are of two rounds that follow each other, found {} at {at}", rounds[at])),
        None => Ok(rounds.iter().position(|round| *round == before).unwrap_or(rounds.len()) as u64),
    }
}

/// The round before another.
pub(super) fn rounds_before(round: u32) -> u32 {
    match round.wrapping_sub(1) {
        MAGIC => MAGIC - 1,
        before => before,
    }
}
