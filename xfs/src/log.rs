//! The log: whether it is clean. "Journaling Log". Nothing is ever written to it but by a scrub.
//!
//! Every sector of the log begins with the number of the round in which it was written, so that the place where the
//! rounds change is where the log ends. A file system that was unmounted has a record there that says just that.

use crate::Result;
use crate::bytes::be32;
use crate::file_system::FileSystem;

pub(crate) const SECTOR: usize = 512;
pub(crate) const MAGIC: u32 = 0xfeed_babe;
const UNMOUNT: u8 = 0x20;
/// Bytes of log that one sector of a record's header stands for.
const HEADER_COVERS: usize = 32 << 10;
/// How far before the end of the log the last record's header may lie: the largest record and its headers.
const MAX_RECORD_SECTORS: u64 = 2 * (256 << 10) / SECTOR as u64;

/// A clean log: the sectors of its last record, which has to stay.
#[derive(Debug, Clone)]
pub(crate) struct CleanLog {
    pub(crate) start: u64,
    pub(crate) sectors: u64,
    pub(crate) last_record: std::ops::Range<u64>,
}

impl FileSystem {
    /// Finds the end of the log. `Err` in the result: why it is not clean.
    pub(crate) fn clean_log(&self) -> Result<std::result::Result<CleanLog, &'static str>> {
        let size = self.sb.block_size as u64;
        let sectors = u64::from(self.sb.log_blocks) * size / SECTOR as u64;
        let start = self.sb.linear(self.sb.log_start);
        let last = self.sb.linear(self.sb.log_start + u64::from(self.sb.log_blocks).saturating_sub(1));
        let (Some(start), true) =
            (start, sectors > 0 && last == start.map(|start| start + u64::from(self.sb.log_blocks) - 1))
        else {
            return Ok(Err("its log does not lie in the file system"));
        };
        let start = start * size;
        let read = |sector: u64| {
            let mut bytes = [0; SECTOR];
            self.store.read(start + sector * SECTOR as u64, &mut bytes)?;
            Ok::<_, crate::Error>(bytes)
        };
        let (first, end) = (round(&read(0)?), round(&read(sectors - 1)?));
        if first == 0 {
            return Ok(Err("its log is empty"));
        }
        let mut head = sectors;
        if end != first {
            if end != 0 && end != first.wrapping_sub(1) {
                return Ok(Err("the rounds of its log contradict each other"));
            }
            // The first sector that is not of the first sector's round.
            let (mut low, mut high) = (0, sectors - 1);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if round(&read(middle)?) == first { low = middle } else { high = middle }
            }
            head = high;
        }
        // The last record's header, behind which its data and then the end are.
        for back in 2..=MAX_RECORD_SECTORS.min(head) {
            let at = head - back;
            let header = read(at)?;
            if be32(&header, 0) != MAGIC {
                continue;
            }
            let (version, len, operations) = (be32(&header, 8), be32(&header, 12), be32(&header, 40));
            let covers = be32(&header, 320) as usize;
            let headers = if version & 2 != 0 { covers.div_ceil(HEADER_COVERS).clamp(1, 8) as u64 } else { 1 };
            let record_end = at + headers + u64::from(len).div_ceil(SECTOR as u64);
            if record_end != head || operations != 1 || at + headers >= head {
                break;
            }
            let data = read(at + headers)?;
            if data[9] & UNMOUNT != 0 {
                return Ok(Ok(CleanLog { start, sectors, last_record: at..head }));
            }
            break;
        }
        Ok(Err(
            "it was not unmounted: its log holds changes that are not in place yet; mount it once, or boot the guest and shut it down",
        ))
    }
}

/// The round in which a sector of the log was written.
pub(crate) fn round(sector: &[u8]) -> u32 {
    if be32(sector, 0) == MAGIC { be32(sector, 4) } else { be32(sector, 0) }
}
