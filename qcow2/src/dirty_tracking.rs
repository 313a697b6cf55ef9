//! Persistent bitmaps kept right while the disk is written in place.
//!
//! The bits of what is about to be written are set, and safe on the disk, before the write itself: after a crash a bitmap
//! may call dirty what did not change after all, and never calls clean what did.

use std::sync::PoisonError;

use block::WriteAt;

use crate::Result;
use crate::bitmap::Bitmap;
use crate::bitmaps::DirtyBits;
use crate::commit;
use crate::image::Image;
use crate::l2_entry::OFFSET;
use crate::pending::Round;

/// An enabled bitmap, with its bits and its table as they are on the disk.
#[derive(Debug)]
pub(crate) struct Tracked {
    bitmap: Bitmap,
    bits: DirtyBits,
    table: Vec<u64>,
}

impl Image {
    /// Sets the bits of `len` bytes at `offset` in every enabled bitmap. To be called before they are written.
    pub(crate) fn record_dirty(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 || !self.has_bitmaps() {
            return Ok(());
        }
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        if tracked.is_none() {
            *tracked = Some(self.read_tracked()?);
        }
        let range = offset..offset + len;
        let mut written = false;
        for tracked in tracked.iter_mut().flatten().filter(|tracked| !tracked.bits.covers(&range)) {
            let chunks = tracked.bits.chunks_of(&range);
            // A cluster for each chunk, in the worst case.
            let _turn = self.allocating();
            self.prepare(chunks.end - chunks.start)?;
            self.poison_on_error(|| {
                tracked.bits.set(range.clone());
                chunks.clone().try_for_each(|chunk| self.write_chunk(tracked, chunk))
            })?;
            written = true;
        }
        if written {
            self.poison_on_error(|| Ok(self.storage.flush()?))?;
        }
        Ok(())
    }

    fn read_tracked(&self) -> Result<Vec<Tracked>> {
        let mut tracked = Vec::new();
        // Those that were not stored mean nothing, and stay so.
        for bitmap in self.bitmaps()?.into_iter().filter(|bitmap| bitmap.enabled && !bitmap.in_use) {
            let (bits, table) = (self.dirty_bits(&bitmap)?, bitmap.read_table(&*self.storage)?);
            tracked.push(Tracked { bitmap, bits, table });
        }
        Ok(tracked)
    }

    /// Writes the bits of one entry of a bitmap's table.
    fn write_chunk(&self, tracked: &mut Tracked, chunk: u64) -> Result<()> {
        let (Some(entry), Some(bytes)) = (tracked.table.get_mut(chunk as usize), tracked.bits.chunk(chunk)) else {
            return Ok(());
        };
        if *entry & OFFSET != 0 {
            let place = *entry & OFFSET;
            if let Some(occupied) = &self.state().occupied {
                occupied.check("bitmap data", place, bytes.len() as u64)?;
            }
            return Ok(self.storage.write_at(place, bytes)?);
        }
        if *entry & 1 != 0 {
            return Ok(()); // all are set
        }
        let host = {
            let mut state = self.state_mut();
            let mut round = Round::new(self, &mut state);
            let host = round.allocate()?;
            round.settle()?;
            host
        };
        commit::write_cluster(self, host, bytes)?;
        self.storage.flush()?;
        *entry = self.geometry.host_offset(host);
        Ok(self.storage.write_at(tracked.bitmap.table_offset + chunk * 8, &entry.to_be_bytes())?)
    }
}
