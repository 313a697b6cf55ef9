//! One record of the log: its header, its checksum, and how its sectors are stamped. "Log Records".
//!
//! The first word of every sector of a record is the number of the round in which it was written; the words that belong
//! there are kept in the header, and in further headers behind it where there are more than 64 sectors.

use crate::bytes::{be32, be64, le32, put, put32, put64, uuid};

pub(crate) const SECTOR: usize = 512;
pub(crate) const MAGIC: u32 = 0xfeed_babe;
/// Set in the flags of the one operation of a record that says that the file system was unmounted.
pub(super) const UNMOUNT: u8 = 0x20;
/// Bytes of log that one sector of a record's header stands for.
const HEADER_COVERS: u32 = 32 << 10;
/// The longest record that any kernel writes.
const MAX_RECORD: u32 = 256 << 10;
/// Bytes of an operation's header.
pub(super) const HEADER: usize = 12;
/// Where the header keeps the first words of its sectors, and where further headers do.
const FIRST_WORDS: usize = 44;
const MORE_FIRST_WORDS: usize = 4;
const WORDS_PER_HEADER: usize = HEADER_COVERS as usize / SECTOR;
/// What the checksum covers of a header, as 64-bit and 32-bit kernels count it, and of a further one.
const SUMMED: [usize; 2] = [328, 324];
const SUMMED_MORE: usize = 4 + WORDS_PER_HEADER * 4;
const CRC: usize = 32;
/// Numbers in records are those of a little-endian machine.
const LITTLE_ENDIAN: u32 = 1;

/// A record's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) cycle: u32,
    /// Sectors of headers, and of what follows.
    pub(super) headers: u64,
    pub(super) data: u64,
    /// Bytes of what follows.
    pub(super) len: u32,
    pub(super) lsn: u64,
    /// The LSN of the oldest record that was needed when this one was written.
    pub(super) tail: u64,
    pub(super) operations: u32,
}

impl Header {
    /// Decodes the first sector of a record at a sector of the log. `Err`: the rule that does not hold.
    pub(super) fn decode(sector: &[u8], at: u64, id: &[u8; 16]) -> Result<Self, String> {
        if be32(sector, 0) != MAGIC {
            return Err(format!("a record begins here with {MAGIC:#x}, found {:#x}", be32(sector, 0)));
        }
        let (cycle, version, len, lsn) = (be32(sector, 4), be32(sector, 8), be32(sector, 12), be64(sector, 16));
        if version != 2 {
            return Err(format!("records are of version 2, found {version}"));
        }
        if lsn != u64::from(cycle) << 32 | at {
            return Err(format!("the record's LSN says where it is, found {}:{}", lsn >> 32, lsn as u32));
        }
        let size = be32(sector, 320);
        if len > MAX_RECORD || size > MAX_RECORD {
            return Err(format!("a record has at most {MAX_RECORD} bytes, found {len} of {size}"));
        }
        if uuid(sector, 304) != *id {
            return Err("the record has the file system's UUID".to_owned());
        }
        if be32(sector, 300) != LITTLE_ENDIAN {
            return Err(format!("numbers are little-endian (format 1), found format {}", be32(sector, 300)));
        }
        Ok(Self {
            cycle,
            headers: u64::from(size.div_ceil(HEADER_COVERS).max(1)),
            data: u64::from(len.div_ceil(SECTOR as u32)),
            len,
            lsn,
            tail: be64(sector, 24),
            operations: be32(sector, 40),
        })
    }

    pub(super) fn sectors(&self) -> u64 {
        self.headers + self.data
    }
}

/// Whether the checksum of a record is right. One of 0 was never made: tools do that, the kernel does not.
pub(super) fn checksum_is_right(headers: &[u8], data: &[u8], len: u32) -> bool {
    let found = le32(headers, CRC);
    found == 0 || SUMMED.iter().any(|summed| checksum(headers, data, len, *summed) == Some(found))
}

fn checksum(headers: &[u8], data: &[u8], len: u32, summed: usize) -> Option<u32> {
    let mut sum = crc32c::crc32c(headers.get(..CRC)?);
    sum = crc32c::crc32c_append(sum, &[0; 4]);
    sum = crc32c::crc32c_append(sum, headers.get(CRC + 4..summed)?);
    for more in 1..len.div_ceil(HEADER_COVERS) as usize {
        sum = crc32c::crc32c_append(sum, headers.get(more * SECTOR..more * SECTOR + SUMMED_MORE)?);
    }
    Some(crc32c::crc32c_append(sum, data.get(..len as usize)?))
}

/// Where in the headers the first word of a sector is kept.
fn first_word(sector: usize) -> usize {
    match sector / WORDS_PER_HEADER {
        0 => FIRST_WORDS + sector * 4,
        more => more * SECTOR + MORE_FIRST_WORDS + sector % WORDS_PER_HEADER * 4,
    }
}

/// Puts the words back that the stamps have replaced. `Err`: the rule that does not hold.
pub(super) fn unpack(headers: &[u8], data: &mut [u8]) -> Result<(), String> {
    for (number, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let at = first_word(number);
        let word = headers.get(at..at + 4).ok_or("the record has headers for all of its sectors")?;
        put(sector, 0, word);
    }
    Ok(())
}

/// Where a record is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) cycle: u32,
    pub(super) at: u64,
    /// Sectors of the whole log.
    pub(super) log: u64,
    /// Bytes that records are multiples of.
    pub(super) unit: u32,
}

/// A record that says that the file system was unmounted: its sectors, to be written from its place on and around the
/// log's end.
pub(super) fn unmount_record(place: Place, id: &[u8; 16]) -> Vec<u8> {
    // One operation: an identifier of its own, eight bytes of the log's, flagged. Those say what they are, too.
    let mut data = vec![0; HEADER + 8];
    put32(&mut data, 0, 0xb0c0_d0d0);
    put32(&mut data, 4, 8);
    data[8] = 0xaa;
    data[9] = UNMOUNT;
    data[HEADER..HEADER + 2].copy_from_slice(&0x556e_u16.to_le_bytes());
    record(place, id, &data, 1, u64::from(place.cycle) << 32 | place.at)
}

/// A record of some operations: its sectors.
pub(super) fn record(place: Place, id: &[u8; 16], operations: &[u8], count: u32, tail: u64) -> Vec<u8> {
    let unit = place.unit.clamp(SECTOR as u32, MAX_RECORD) as usize;
    let size = (unit.max(operations.len()) as u32).div_ceil(HEADER_COVERS) * HEADER_COVERS;
    let headers = (size / HEADER_COVERS) as usize * SECTOR;
    let whole = (headers + operations.len().next_multiple_of(SECTOR)).next_multiple_of(unit);
    let mut bytes = vec![0; whole];
    let (head, data) = bytes.split_at_mut(headers);
    put(data, 0, operations);
    put32(head, 0, MAGIC);
    put32(head, 4, place.cycle);
    put32(head, 8, 2);
    put32(head, 12, data.len() as u32);
    put64(head, 16, u64::from(place.cycle) << 32 | place.at);
    put64(head, 24, tail);
    put32(head, 36, u32::MAX);
    put32(head, 40, count);
    put32(head, 300, LITTLE_ENDIAN);
    put(head, 304, id);
    put32(head, 320, size);
    // The stamps: the round, and the next one where the record has gone around the log's end.
    let first = headers / SECTOR;
    for (number, sector) in data.chunks_exact_mut(SECTOR).enumerate() {
        let at = first_word(number);
        put(head, at, &sector[..4]);
        put32(sector, 0, round_at(place, (first + number) as u64));
    }
    for number in 1..first {
        put32(head, number * SECTOR, round_at(place, number as u64));
    }
    let sum = checksum(head, data, data.len() as u32, SUMMED[0]).unwrap_or(0);
    put(head, CRC, &sum.to_le_bytes());
    bytes
}

/// Gives a record, of which these are the headers and the data, another UUID.
pub(super) fn put_id(headers: &mut [u8], data: &[u8], id: &[u8; 16]) {
    put(headers, 304, id);
    let sum = checksum(headers, data, be32(headers, 12), SUMMED[0]).unwrap_or(0);
    put(headers, CRC, &sum.to_le_bytes());
}

/// The round of a sector of a record that begins at a place.
fn round_at(place: Place, sector: u64) -> u32 {
    if place.at + sector < place.log { place.cycle } else { next_round(place.cycle) }
}

/// The round after another. None looks like the beginning of a record.
pub(super) fn next_round(cycle: u32) -> u32 {
    match cycle.wrapping_add(1) {
        MAGIC => MAGIC + 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];

    #[test]
    fn an_unmount_record_is_read_back() {
        for (unit, headers, sectors) in
            [(512, 1, 2), (4096, 1, 8), (32 << 10, 1, 64), (128 << 10, 4, 256), (256 << 10, 8, 512)]
        {
            let place = Place { cycle: 5, at: 1000, log: 1300, unit };
            let mut bytes = unmount_record(place, &ID);
            let header = Header::decode(&bytes, 1000, &ID).unwrap();
            assert_eq!((header.headers, header.sectors(), header.operations), (headers, sectors, 1));
            assert_eq!(header.lsn, 5 << 32 | 1000);
            let (head, data) = bytes.split_at_mut(headers as usize * SECTOR);
            assert!(checksum_is_right(head, data, header.len));
            for (number, sector) in head.chunks(SECTOR).skip(1).chain(data.chunks(SECTOR)).enumerate() {
                assert_eq!(be32(sector, 0), if number + 1 < 300 { 5 } else { 6 }, "sector {number} of {unit}");
            }
            unpack(head, data).unwrap();
            assert_eq!((be32(data, 0), data[9]), (0xb0c0_d0d0, UNMOUNT));
            head[50] ^= 1;
            assert!(!checksum_is_right(head, data, header.len));
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let good = unmount_record(Place { cycle: 5, at: 10, log: 100, unit: 512 }, &ID);
        assert!(Header::decode(&good, 10, &ID).is_ok());
        assert!(Header::decode(&good, 11, &ID).unwrap_err().contains("LSN"));
        assert!(Header::decode(&good, 10, &[8; 16]).unwrap_err().contains("UUID"));
        let changed = |at: usize, value: u32| {
            let mut bytes = good.clone();
            put32(&mut bytes, at, value);
            Header::decode(&bytes, 10, &ID).unwrap_err()
        };
        assert!(changed(0, 0).contains("begins"));
        assert!(changed(8, 1).contains("version"));
        assert!(changed(12, u32::MAX).contains("at most"));
        assert!(changed(320, u32::MAX).contains("at most"));
        assert!(changed(300, 2).contains("little-endian"));
    }

    #[test]
    fn a_record_with_too_few_headers_is_refused() {
        let mut data = vec![0; 65 * SECTOR];
        assert!(unpack(&[0; SECTOR], &mut data).is_err());
        assert!(unpack(&[0; 2 * SECTOR], &mut data).is_ok());
    }

    #[test]
    fn no_round_looks_like_a_record() {
        assert_eq!((next_round(1), next_round(MAGIC - 1)), (2, MAGIC + 1));
    }
}
