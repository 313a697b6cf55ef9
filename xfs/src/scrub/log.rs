//! The log's old contents.

use super::ScrubReport;
use crate::Result;
use crate::bytes::{be32, put32};
use crate::file_system::FileSystem;
use crate::log::{MAGIC, SECTOR, round};
use crate::zeros;

/// The log is read in pieces of this many sectors.
const CHUNK: u64 = 2048;

impl FileSystem {
    /// Wipes every sector of the log but for those of its last record, and for the number of the round that each begins
    /// with: that tells where the log ends, and stays. Nothing that is read of a clean log changes.
    pub(super) fn wipe_log(&mut self, report: &mut ScrubReport) -> Result<()> {
        let Some(log) = self.clean_log()? else { return Ok(()) };
        let mut at = 0;
        while at < log.ring.sectors {
            let count = CHUNK.min(log.ring.sectors - at);
            let mut bytes = vec![0; count as usize * SECTOR];
            let offset = log.ring.start + at * SECTOR as u64;
            self.store.read(offset, &mut bytes)?;
            let mut changed = 0;
            for (number, sector) in (at..).zip(bytes.chunks_exact_mut(SECTOR)) {
                if log.is_of_last_record(number) {
                    continue;
                }
                let round = round(sector);
                if be32(sector, 0) == MAGIC || !zeros::is_zero(&sector[4..]) {
                    changed += zeros::clear(sector);
                    put32(sector, 0, round);
                }
            }
            if changed > 0 {
                report.log += changed;
                self.store.write(offset, &bytes)?;
            }
            at += count;
        }
        Ok(())
    }
}
