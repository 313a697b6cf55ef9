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
/// How many records that may be.
const MAX_DAMAGED: usize = 8;
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
    pub(super) fn read(&self, store: &Store, at: u64, count: u64) -> Result<Vec<u8>> {
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

    /// How many headers lie from one place on to another.
    fn count(&self, records: &[u32], from: u64, to: u64) -> usize {
        let before = |at: u64| records.partition_point(|record| u64::from(*record) < at);
        if to >= from { before(to) - before(from) } else { records.len() - before(from) + before(to) }
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
            match self.check(store, &record, last, &records)? {
                Some(damaged) => {
                    head = damaged;
                    walks -= 1;
                }
                None => return Ok(self.extent(&record, last, rounds)),
            }
        }
    }

    /// Checks all records from the tail to the last one; returns where the first is that is damaged, if so few lie
    /// behind it that all of them may have been on their way. `records` has all headers' places.
    fn check(&self, store: &Store, record: &Record, last: u64, records: &[u32]) -> Result<Option<u64>> {
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
                Err(Error::Corrupt(_)) if self.count(records, at, last) < MAX_DAMAGED => return Ok(Some(at)),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use block::Memory;

    use super::*;
    use crate::log::record::{Place, record, unmount_record};
    use crate::store::Device;

    const ID: [u8; 16] = [7; 16];
    const LOG: u64 = 4096;

    /// A log in the making.
    struct Log {
        bytes: Vec<u8>,
        cycle: u32,
        at: u64,
        tail: u64,
    }

    impl Log {
        fn new() -> Self {
            Self { bytes: vec![0; LOG as usize * SECTOR], cycle: 1, at: 0, tail: 1 << 32 }
        }

        fn write(&mut self, place: Place, bytes: &[u8]) {
            let sectors = (bytes.len() / SECTOR) as u64;
            for (at, sector) in (place.at..).zip(bytes.chunks_exact(SECTOR)) {
                let at = (at % LOG) as usize * SECTOR;
                self.bytes[at..at + SECTOR].copy_from_slice(sector);
            }
            self.at = (place.at + sectors) % LOG;
            self.cycle += u32::from(place.at + sectors >= LOG);
        }

        fn place(&self) -> Place {
            Place { cycle: self.cycle, at: self.at, log: LOG, unit: 512 }
        }

        /// Writes a record of some sectors of operations, and returns where it is.
        fn add(&mut self, sectors: usize) -> u64 {
            let (place, operations) = (self.place(), vec![0xab; sectors * SECTOR]);
            self.write(place, &record(place, &ID, &operations, 3, self.tail));
            place.at
        }

        /// Writes that it was unmounted.
        fn end(&mut self) -> u64 {
            let place = self.place();
            self.write(place, &unmount_record(place, &ID));
            self.tail = u64::from(self.cycle) << 32 | self.at;
            place.at
        }

        fn sector(&mut self, at: u64) -> &mut [u8] {
            &mut self.bytes[at as usize * SECTOR..][..SECTOR]
        }

        fn store(&self) -> (Ring, Store) {
            let device = Device::ReadOnly(Arc::new(Memory::from(self.bytes.clone())));
            (Ring { start: 0, sectors: LOG, id: ID }, Store::new(device, 4096, LOG / 8))
        }

        fn find(&self) -> Result<Extent> {
            let (ring, store) = self.store();
            ring.find(&store)
        }

        /// Tail, head and whether it was unmounted.
        fn found(&self) -> (u64, u64, bool) {
            let found = self.find().unwrap();
            (found.tail, found.head, found.is_unmounted)
        }
    }

    #[test]
    fn a_log_that_was_ended_is_clean() {
        let mut log = Log::new();
        log.end();
        log.add(5);
        log.add(70);
        let last = log.end();
        assert_eq!(log.found(), (log.at, log.at, true));
        let (ring, store) = log.store();
        assert_eq!(ring.ends_with_unmount(&store).unwrap(), Some(last..log.at));
        log.add(5);
        let (ring, store) = log.store();
        assert_eq!(ring.ends_with_unmount(&store).unwrap(), None);
    }

    #[test]
    fn records_are_found_around_the_end() {
        let mut log = Log::new();
        log.end();
        let tail = log.at;
        let mut records = Vec::new();
        for number in 0..300 {
            records.push(log.add(number % 80));
            assert_eq!(log.found(), (tail % LOG, log.at, false), "{number}");
            if log.distance_from(tail) > LOG - 300 {
                break;
            }
        }
        assert!(log.distance_from(tail) > LOG / 2);
        log.end();
        let tail = log.at;
        for number in 0..400 {
            log.add(number % 80);
            if log.cycle == 3 {
                break;
            }
            if log.distance_from(tail) > LOG - 300 {
                log.end();
                log.tail = u64::from(log.cycle) << 32 | log.at;
            }
            let found = log.find().unwrap();
            assert_eq!((found.head, found.cycle), (log.at, log.cycle), "{number}");
        }
        assert_eq!(log.cycle, 3, "it went around more than once");
    }

    impl Log {
        fn distance_from(&self, tail: u64) -> u64 {
            if self.at >= tail { self.at - tail } else { LOG - tail + self.at }
        }
    }

    #[test]
    fn what_did_not_get_there_does_not_count() {
        let mut log = Log::new();
        log.end();
        let tail = log.at;
        log.add(9);
        let last = log.add(9);
        // A damaged record.
        let mut damaged = Log { bytes: log.bytes.clone(), ..log };
        damaged.sector(last + 4)[77] ^= 1;
        assert_eq!(damaged.found(), (tail, last, false));
        // One of which the end is missing.
        let mut damaged = Log { bytes: log.bytes.clone(), ..log };
        damaged.sector(last + 8).fill(0);
        damaged.sector(last + 9).fill(0);
        assert_eq!(damaged.found(), (tail, last, false));
        // One that is missing, with others behind it.
        let mut damaged = Log { bytes: log.bytes.clone(), ..log };
        damaged.add(3);
        (last..last + 10).for_each(|at| damaged.sector(at).fill(0));
        assert_eq!(damaged.found(), (tail, last, false));
        // One that is damaged, with a sound one behind it.
        let mut damaged = Log { bytes: log.bytes.clone(), ..log };
        damaged.add(3);
        damaged.sector(last + 4)[77] ^= 1;
        assert_eq!(damaged.found(), (tail, last, false));
        // Nothing but what was ended gets there.
        let mut damaged = Log::new();
        damaged.end();
        let at = damaged.add(3);
        damaged.sector(at + 2).fill(0);
        assert_eq!(damaged.found(), (at, at, true));
    }

    #[test]
    fn damage_that_is_no_stop_in_the_midst_is_refused() {
        let mut log = Log::new();
        log.end();
        let tail = log.at;
        for _ in 0..40 {
            log.add(40);
        }
        let refused = |change: &dyn Fn(&mut Log), rule: &str| {
            let mut log = Log { bytes: log.bytes.clone(), ..log };
            change(&mut log);
            let found = log.find().map(|extent| extent.head).unwrap_err().to_string();
            assert!(found.contains(rule), "{found}");
        };
        refused(&|log| log.sector(0).fill(0), "nothing but zeros");
        refused(&|log| log.sector(9)[..4].fill(9), "two rounds");
        refused(&|log| log.sector(LOG - 1)[..4].fill(9), "first one's or before");
        // The tail of the last record.
        let last = log.at - 41;
        for tail in [9 << 32 | tail, 1 << 32 | LOG, 1 << 32 | (last + 1)] {
            let place = Place { cycle: 1, at: last, log: LOG, unit: 512 };
            let bytes = record(place, &ID, &vec![0xab; 40 * SECTOR], 3, tail);
            refused(&|log| log.write(place, &bytes), "the tail is");
        }
        // One that is damaged, with more sound ones behind it than can have been on their way.
        let tenth = log.at - 41 * 10;
        refused(&|log| log.sector(tenth + 3)[5] ^= 1, "checksum");
        let mut damaged = Log { bytes: log.bytes.clone(), ..log };
        damaged.sector(log.at - 41 * 7 + 3)[5] ^= 1;
        assert_eq!(damaged.found(), (tail, log.at - 41 * 7, false));
    }
}
