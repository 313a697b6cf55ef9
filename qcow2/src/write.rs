//! Writing in place, in QEMU's order: refcounts and data before the L2 entries that rely on them, and refcounts lowered
//! only after nothing leads to the cluster any more. A crash leaves leaked clusters at worst, never a wrong reference.
//! As in QEMU, what was written is sure to be there only after a flush: see `pending`.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use block::{Error as BlockError, ExtentKind, ReadAt, WriteAt};

use crate::address::GuestCluster;
use crate::commit::{self, Changes, Relayout};
use crate::features::{Autoclear, Incompatible};
use crate::image::{Image, State};
use crate::l2_entry::{COPIED, L2Entry, RawEntry, Subclusters};
use crate::occupied::Occupied;
use crate::pending::Round;
use crate::read::MappedKind;
use crate::references::Accounting;
use crate::{Error, Result};

/// Clusters that one round of allocating writes handles: enough that its flush costs little beside the data.
const ROUND: usize = 256;

impl Image {
    /// Makes the image fit for writing in place: refcounts rebuilt if the dirty bit is set, autoclear bits cleared, and
    /// room in the refcount table for `clusters` more.
    ///
    /// The caller holds `self.allocating`, so that nothing is allocated between the count and the commit.
    pub(crate) fn prepare(&self, clusters: u64) -> Result<()> {
        self.check_writable()?;
        if self.state().occupied.is_none() {
            let mut state = self.state_mut();
            let occupied = Occupied::read(self, &state)?;
            state.occupied = Some(occupied);
        }
        let needed = {
            let state = self.state();
            self.check_data_layout(&state)?;
            let roots = &state.header.roots;
            let per_block = self.geometry.refcounts_per_block();
            // Tables that wait to be written may lie beyond the end of the file.
            let end = self.storage.len().div_ceil(self.geometry.cluster_size()).max(state.first_free);
            // Besides the data: an L2 table each in the worst case, and refcount blocks for all of it.
            let wanted = (end + 2 * clusters + 64).div_ceil(per_block) + 1;
            let short = wanted > state.refcounts.blocks.len() as u64;
            // Bitmaps are kept right; a raw data file is, where it is there.
            let mut kept = Autoclear::BITMAPS;
            kept.set(Autoclear::RAW_EXTERNAL_DATA, self.data.is_some());
            let unfit =
                roots.incompatible.contains(Incompatible::DIRTY) || !roots.autoclear.difference(kept).is_empty();
            (short || unfit).then(|| if short { (2 * wanted) as usize } else { 0 })
        };
        // The tables in the last cluster may be written beyond where the file ends so far.
        let whole = self.storage.len().next_multiple_of(self.geometry.cluster_size());
        if self.storage.len() < whole {
            self.poison_on_error(|| Ok(self.storage.set_len(whole)?))?;
        }
        if let Some(refcount_blocks) = needed {
            let accounting = Accounting::take(self, &*self.settled()?)?;
            let mut changes = Changes { force: true, refcount_blocks, ..Changes::default() };
            if self.has_bitmaps() {
                let counts = accounting.references.clone();
                let disk_len = self.geometry.disk_len;
                changes.relayout = Some(Relayout { counts, l1: None, snapshots: None, disk_len });
            }
            self.poison_on_error(|| commit::commit(self, &accounting, changes))?;
        }
        self.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// The turn of one thread to allocate and free clusters.
    pub(crate) fn allocating(&self) -> MutexGuard<'_, ()> {
        self.allocating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes where every cluster of the range has a host cluster of its own; says whether it did.
    fn overwrite(&self, offset: u64, buf: &[u8]) -> Result<bool> {
        let state = self.state();
        if state.occupied.is_none() {
            return Ok(false); // it is to be found anew
        }
        let mut targets = Vec::new();
        let mut start = 0;
        for cluster in self.clusters_of(offset, buf.len() as u64) {
            let (within, part) = self.part_in(cluster, offset, buf);
            match self.entry(&state, cluster)? {
                (entry, true) => match self.place_of(entry, within, part.len()) {
                    Some(at) => {
                        self.check_data(&state, at, part.len() as u64)?;
                        targets.push((at, start, part.len()));
                        start += part.len();
                    }
                    None => return Ok(false),
                },
                _ => return Ok(false),
            }
        }
        self.poison_on_error(|| {
            let mut run = Run::default();
            for (at, start, len) in targets {
                run.push(self, at, &buf[start..], len)?;
            }
            run.write(self)?;
            Ok(true)
        })
    }

    /// Where in the file `len` bytes from `within` of a cluster on may be written with no change of its entry.
    fn place_of(&self, entry: L2Entry, within: usize, len: usize) -> Option<u64> {
        let (first, end) = self.geometry.subclusters_of(within as u64, len as u64);
        let held = Subclusters::mask(first, end) & !entry.subclusters().allocated == 0;
        entry.own_host().filter(|_| held).map(|host| host + within as u64)
    }

    /// Makes sure that an entry leads to where data can be, before that is written or freed: within the file, and where no
    /// metadata is.
    pub(crate) fn check_data(&self, state: &State, offset: u64, len: u64) -> Result<()> {
        if self.data.is_some() {
            return Ok(());
        }
        if offset >= self.storage.len() {
            return Err(Error::corrupt("L2 entry", offset, "a cluster must start before the end of the file"));
        }
        state.occupied.as_ref().map_or(Ok(()), |occupied| occupied.check("data cluster", offset, len))
    }

    fn clusters_of(&self, offset: u64, len: u64) -> impl Iterator<Item = GuestCluster> + use<> {
        let size = self.geometry.cluster_size();
        (offset / size..(offset + len).div_ceil(size)).map(GuestCluster)
    }

    /// The part of `buf`, which is to be written at `offset`, that falls into `cluster`, and where in the cluster it starts.
    fn part_in<'b>(&self, cluster: GuestCluster, offset: u64, buf: &'b [u8]) -> (usize, &'b [u8]) {
        let start = self.geometry.guest_offset(cluster);
        let from = start.max(offset);
        let to = (start + self.geometry.cluster_size()).min(offset + buf.len() as u64);
        ((from - start) as usize, &buf[(from - offset) as usize..(to - offset) as usize])
    }

    /// Makes what was written safe: data before metadata.
    pub(crate) fn flush_all(&self) -> Result<()> {
        if let Some(data) = &self.data {
            data.flush()?;
        }
        Ok(self.storage.flush()?)
    }

    /// A cluster's entry, and whether the L2 table that holds it may be written in place.
    pub(crate) fn entry(&self, state: &State, cluster: GuestCluster) -> Result<(L2Entry, bool)> {
        let (l1_index, _) = self.geometry.table_indices(cluster);
        let own_table = state.pending.table(l1_index).is_some()
            || self.l1(state)?.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
        Ok((self.entry_of(state, cluster)?, own_table))
    }

    fn write_in_place(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_writable()?;
        self.check_unlocked()?;
        BlockError::check_range(offset, buf.len() as u64, self.geometry.disk_len)?;
        self.record_dirty(offset, buf.len() as u64)?;
        let round = ROUND * self.geometry.cluster_len();
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let part = &buf[done..buf.len().min(done + round)];
            if !self.prepared.load(Ordering::Acquire) || !self.overwrite(at, part)? {
                let _turn = self.allocating();
                self.prepare(part.len().div_ceil(self.geometry.cluster_len()) as u64 + 1)?;
                self.poison_on_error(|| Round::new(self, &mut self.state_mut()).write(at, part))?;
            }
            done += part.len();
        }
        Ok(())
    }

    fn zero_in_place(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable()?;
        self.check_unlocked()?;
        BlockError::check_range(offset, len, self.geometry.disk_len)?;
        self.record_dirty(offset, len)?;
        let size = self.geometry.cluster_size();
        let raw = self.is_data_file_raw(&self.state());
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let extent = self.extent_at(at, end - at)?;
            let stop = at + extent.len;
            if extent.kind == ExtentKind::Hole {
                at = stop;
                continue;
            }
            if raw {
                at = self.zero_raw_data(at, stop)?;
                continue;
            }
            let whole_until = if end == self.geometry.disk_len { end } else { end / size * size };
            if at.is_multiple_of(size) && whole_until > at {
                // As many clusters as lie in this run, and at least the one of which it is a part.
                let run_until = if stop < whole_until { (stop / size * size).max(at + size) } else { whole_until };
                let clusters = run_until.div_ceil(size).min(at / size + ROUND as u64) - at / size;
                let _turn = self.allocating();
                self.prepare(clusters)?;
                self.poison_on_error(|| Round::new(self, &mut self.state_mut()).unmap(at / size, clusters))?;
                at = (at + clusters * size).min(end);
            } else {
                // Up to the next cluster's start, within one cluster.
                let part_end = (at / size + 1).saturating_mul(size).min(stop);
                at = if extent.kind == ExtentKind::Zero { part_end } else { self.zero_part(at, part_end)? };
            }
        }
        Ok(())
    }

    /// Zeroes bytes up to `end` or less far where the data file is to hold what the disk does; returns how far.
    fn zero_raw_data(&self, at: u64, end: u64) -> Result<u64> {
        {
            let _turn = self.allocating();
            self.prepare(0)?;
        }
        let state = self.state();
        let extent = self.map_in(&state, at, end - at)?;
        let stop = at + extent.len;
        match extent.kind {
            MappedKind::Data { host_offset } if self.crypt.is_none() => self.poison_on_error(|| {
                let data = self.data_storage();
                let held = extent.len.min(data.len().saturating_sub(host_offset));
                // What lies beyond the end of the data file is not there to be zeroed.
                if held > 0 { Ok(data.write_zeroes(host_offset, held)?) } else { Ok(()) }
            })?,
            MappedKind::Unallocated | MappedKind::Data { .. } | MappedKind::Encrypted { .. } => {
                // It reads from the backing file, or its zeros are encrypted. A round of writing is as much as is held in
                // memory.
                drop(state);
                let stop = stop.min(at + (ROUND * self.geometry.cluster_len()) as u64);
                self.write_in_place(at, &vec![0; (stop - at) as usize])?;
                return Ok(stop);
            }
            MappedKind::Zero { .. } | MappedKind::Compressed => {}
        }
        Ok(stop)
    }

    /// Zeroes bytes within one cluster up to `end` or less far; returns how far. Whole subclusters are unmapped.
    fn zero_part(&self, at: u64, end: u64) -> Result<u64> {
        let size = self.geometry.subcluster_size();
        let cluster = self.geometry.guest_cluster_at(at);
        let whole_until = if end == self.geometry.disk_len { end } else { end / size * size };
        let compressed = matches!(self.entry(&self.state(), cluster)?.0, L2Entry::Compressed(_));
        if !self.geometry.extended_l2 || compressed || (at.is_multiple_of(size) && whole_until <= at) {
            self.write_in_place(at, &vec![0; (end - at) as usize])?;
            return Ok(end);
        }
        if !at.is_multiple_of(size) {
            let next = at.next_multiple_of(size).min(end);
            self.write_in_place(at, &vec![0; (next - at) as usize])?;
            return Ok(next);
        }
        let _turn = self.allocating();
        self.prepare(1)?;
        let within = at - self.geometry.guest_offset(cluster);
        let (first, last) = self.geometry.subclusters_of(within, whole_until - at);
        self.poison_on_error(|| Round::new(self, &mut self.state_mut()).unmap_subclusters(cluster, first, last))?;
        Ok(whole_until)
    }
}

/// Parts of a buffer that follow one another in the file, too, and are written together.
#[derive(Default)]
struct Run<'b> {
    place: u64,
    /// The buffer from the first part on, and how many bytes of it there are so far.
    buf: &'b [u8],
    len: usize,
}

impl<'b> Run<'b> {
    /// Adds what is to be written at `place`: the start of `rest`, `len` bytes long. Without a break each part follows
    /// the one before in the buffer.
    fn push(&mut self, image: &Image, place: u64, rest: &'b [u8], len: usize) -> Result<()> {
        if self.len == 0 || self.place + self.len as u64 != place {
            self.write(image)?;
            (self.place, self.buf) = (place, rest);
        }
        self.len += len;
        Ok(())
    }

    fn write(&mut self, image: &Image) -> Result<()> {
        let len = std::mem::take(&mut self.len);
        if len > 0 { image.write_data(self.place, &self.buf[..len]) } else { Ok(()) }
    }
}

impl Round<'_> {
    fn write(mut self, offset: u64, buf: &[u8]) -> Result<()> {
        let geometry = self.image.geometry;
        let mut run = Run::default();
        for cluster in self.image.clusters_of(offset, buf.len() as u64) {
            let (within, part) = self.image.part_in(cluster, offset, buf);
            let (old, _) = self.image.entry(self.state, cluster)?;
            let whole = part.len() == geometry.cluster_len();
            let plain = !geometry.extended_l2 && self.image.crypt.is_none();
            if !geometry.external_data && self.is_new(old, cluster, part.len()) && (whole || plain) {
                let host = self.allocate()?;
                let host = geometry.host_offset(host);
                if whole {
                    let start = (geometry.guest_offset(cluster) - offset) as usize;
                    run.push(self.image, host, &buf[start..], part.len())?;
                } else if host >= self.image.storage.len() {
                    // Behind the end of the file there is nothing, so what is around the part reads as zeros.
                    run.write(self.image)?;
                    self.image.storage.set_len(host + geometry.cluster_size())?;
                    self.image.write_data(host + within as u64, part)?;
                } else {
                    run.write(self.image)?;
                    let mut bytes = vec![0; geometry.cluster_len()];
                    bytes[within..within + part.len()].copy_from_slice(part);
                    self.image.write_data(host, &bytes)?;
                }
                self.set_entry(cluster, RawEntry::data(host, &geometry))?;
                continue;
            }
            run.write(self.image)?;
            if let Some(place) = self.image.place_of(old, within, part.len()) {
                self.image.check_data(self.state, place, part.len() as u64)?;
                self.image.write_data(place, part)?;
                continue;
            }
            // Whole subclusters are written, or the whole cluster where its bytes are held at a place that is left.
            let own = old.own_host();
            let carried = own.is_none() && (old.host().is_some() || matches!(old, L2Entry::Compressed(_)));
            let (first, end) = if carried {
                geometry.subclusters_of(0, geometry.cluster_size())
            } else {
                geometry.subclusters_of(within as u64, part.len() as u64)
            };
            let from = u64::from(first) * geometry.subcluster_size();
            let mut bytes = vec![0; (u64::from(end) * geometry.subcluster_size() - from) as usize];
            // The bytes around the part come from what the cluster held so far.
            let on_disk = bytes.len().min(geometry.len_on_disk(cluster) - from as usize);
            if part.len() < on_disk {
                self.image.read_in(self.state, geometry.guest_offset(cluster) + from, &mut bytes[..on_disk])?;
            }
            let within = within - from as usize;
            bytes[within..within + part.len()].copy_from_slice(part);
            let host = match own {
                Some(host) => {
                    self.image.check_data(self.state, host, geometry.cluster_size())?;
                    host
                }
                None if geometry.external_data && old.host().is_some() => {
                    return Err(Error::Unsupported("writing a shared cluster of an external data file".to_owned()));
                }
                None if geometry.external_data => {
                    // The data file ends where the disk does.
                    bytes.truncate(on_disk);
                    geometry.guest_offset(cluster)
                }
                None => {
                    self.free_later(old)?;
                    geometry.host_offset(self.allocate()?)
                }
            };
            self.image.write_data(host + from, &bytes)?;
            let written = Subclusters::mask(first, end);
            let Subclusters { allocated, zero } = if carried { Subclusters::NONE } else { old.subclusters() };
            let subclusters = Subclusters { allocated: allocated | written, zero: zero & !written };
            self.set_entry(cluster, RawEntry::subclusters(host, subclusters, &geometry))?;
        }
        run.write(self.image)?;
        self.settle_if_heavy()
    }

    /// Whether nothing of what a cluster holds, once `len` bytes of it are written, comes from elsewhere but for zeros.
    fn is_new(&self, old: L2Entry, cluster: GuestCluster, len: usize) -> bool {
        let below = self.image.backing.as_ref().map_or(0, |below| below.len());
        match old {
            L2Entry::Unallocated => {
                len == self.image.geometry.cluster_len() || below <= self.image.geometry.guest_offset(cluster)
            }
            L2Entry::Zero { host: None, .. } => true,
            _ => false,
        }
    }

    fn unmap(mut self, first: u64, clusters: u64) -> Result<()> {
        for cluster in (first..first + clusters).map(GuestCluster) {
            let (old, _) = self.image.entry(self.state, cluster)?;
            let offset = self.image.geometry.guest_offset(cluster);
            let backed = self.image.backing.as_ref().is_some_and(|below| below.len() > offset);
            let new = match (backed, self.image.version) {
                (false, _) => RawEntry::UNALLOCATED,
                (true, 2) => {
                    let host = self.allocate()?;
                    self.image.write_data_cluster(host, &vec![0; self.image.geometry.cluster_len()])?;
                    RawEntry::data(self.image.geometry.host_offset(host), &self.image.geometry)
                }
                (true, _) => RawEntry::zero(&self.image.geometry),
            };
            if old == L2Entry::Unallocated && new.is_empty() {
                continue;
            }
            self.free_later(old)?;
            self.set_entry(cluster, new)?;
        }
        self.settle_if_heavy()
    }

    /// Sets clusters of their own aside for those that hold nothing; `fill` is to make them read as zeros.
    pub(crate) fn set_aside(mut self, clusters: std::ops::Range<u64>, fill: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        let geometry = self.image.geometry;
        for cluster in clusters.map(GuestCluster) {
            let (old, _) = self.image.entry(self.state, cluster)?;
            let held = match old {
                L2Entry::Unallocated => Subclusters::NONE,
                L2Entry::Zero { host: None, .. } => Subclusters::ZERO,
                _ => continue,
            };
            let offset = if geometry.external_data {
                geometry.guest_offset(cluster)
            } else {
                geometry.host_offset(self.allocate()?)
            };
            fill(offset)?;
            self.set_entry(cluster, RawEntry::subclusters(offset, held, &geometry))?;
        }
        self.settle()
    }

    /// Makes subclusters `first..end` of a cluster that is not compressed read as zeros.
    fn unmap_subclusters(mut self, cluster: GuestCluster, first: u32, end: u32) -> Result<()> {
        let geometry = self.image.geometry;
        let (old, _) = self.image.entry(self.state, cluster)?;
        let mask = Subclusters::mask(first, end);
        let Subclusters { allocated, zero } = old.subclusters();
        let backed = self.image.backing.as_ref().is_some_and(|below| below.len() > geometry.guest_offset(cluster));
        let zero = if backed { zero | mask } else { zero & !mask };
        let subclusters = Subclusters { allocated: allocated & !mask, zero };
        let bitmap = subclusters.encode();
        let new = match old.host().filter(|_| subclusters.allocated != 0) {
            None => {
                self.free_later(old)?;
                RawEntry { descriptor: 0, bitmap }
            }
            Some(host) => {
                if let Some(own) = old.own_host() {
                    let size = geometry.subcluster_size();
                    self.free_part_later(own + u64::from(first) * size, u64::from(end - first) * size);
                }
                RawEntry { descriptor: host, bitmap }.with_copied(old.own_host().is_some())
            }
        };
        self.set_entry(cluster, new)?;
        self.settle_if_heavy()
    }
}

impl WriteAt for Image {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        Ok(self.mark_if_corrupt(self.write_in_place(offset, buf))?)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        Ok(self.mark_if_corrupt(self.zero_in_place(offset, len))?)
    }

    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        Ok(self.mark_if_corrupt(self.zero_in_place(offset, len))?)
    }

    fn flush(&self) -> block::Result<()> {
        self.check_writable()?;
        self.settle()?;
        Ok(self.poison_on_error(|| self.flush_all())?)
    }
}
