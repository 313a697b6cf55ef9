//! Writing in place, in QEMU's order: refcounts and data before the L2 entries that rely on them, and refcounts lowered
//! only after nothing leads to the cluster any more. A crash leaves leaked clusters at worst, never a wrong reference.

use std::collections::BTreeMap;

use block::{Error as BlockError, ExtentKind, ReadAt, WriteAt};

use crate::address::{GuestCluster, HostCluster};
use crate::commit::{self, Changes, Relayout};
use crate::features::{Autoclear, Incompatible};
use crate::image::{Image, State};
use crate::l2_entry::{COPIED, L2Entry, RawEntry, Subclusters};
use crate::l2_table::L2Table;
use crate::occupied::Occupied;
use crate::read::MappedKind;
use crate::refcount::encode_block;
use crate::references::Accounting;
use crate::slice_cache::entries_per_slice;
use crate::{Error, Result};

/// Clusters that one round of allocating writes handles: enough that its flush costs little beside the data.
const ROUND: usize = 256;

impl Image {
    /// Makes the image fit for writing in place: refcounts rebuilt if the dirty bit is set, autoclear bits cleared, and
    /// room in the refcount table for `clusters` more.
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
            let end = self.storage.len().div_ceil(self.geometry.cluster_size());
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
            let accounting = Accounting::take(self, &self.state())?;
            let mut changes = Changes { force: true, refcount_blocks, ..Changes::default() };
            if self.has_bitmaps() {
                let counts = accounting.references.clone();
                let disk_len = self.geometry.disk_len;
                changes.relayout = Some(Relayout { counts, l1: None, snapshots: None, disk_len });
            }
            self.poison_on_error(|| commit::commit(self, &accounting, changes))?;
        }
        Ok(())
    }

    /// Writes where every cluster of the range has a host cluster of its own; says whether it did.
    fn overwrite(&self, offset: u64, buf: &[u8]) -> Result<bool> {
        let state = self.state();
        let mut targets = Vec::new();
        for cluster in self.clusters_of(offset, buf.len() as u64) {
            let (within, part) = self.part_in(cluster, offset, buf);
            match self.entry(&state, cluster)? {
                (entry, true) => match self.place_of(entry, within, part.len()) {
                    Some(at) => {
                        self.check_data(&state, at, part.len() as u64)?;
                        targets.push((at, part));
                    }
                    None => return Ok(false),
                },
                _ => return Ok(false),
            }
        }
        self.poison_on_error(|| {
            targets.into_iter().try_for_each(|(at, part)| self.write_data(at, part))?;
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
    fn check_data(&self, state: &State, offset: u64, len: u64) -> Result<()> {
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
        let own_table = self.l1(state)?.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
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
            self.prepare(part.len().div_ceil(self.geometry.cluster_len()) as u64 + 1)?;
            if !self.overwrite(at, part)? {
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
        self.prepare(0)?;
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
        self.prepare(1)?;
        let within = at - self.geometry.guest_offset(cluster);
        let (first, last) = self.geometry.subclusters_of(within, whole_until - at);
        self.poison_on_error(|| Round::new(self, &mut self.state_mut()).unmap_subclusters(cluster, first, last))?;
        Ok(whole_until)
    }
}

/// One round of changes that share their flushes.
pub(crate) struct Round<'a> {
    image: &'a Image,
    state: &'a mut State,
    /// Refcount blocks that changed, by index.
    refcounts: BTreeMap<usize, Vec<u64>>,
    /// L2 tables that changed: where they are, whether they are new there, and their entries.
    tables: BTreeMap<usize, (HostCluster, bool, L2Table)>,
    /// Clusters that nothing leads to any more, once the new tables are in place.
    freed: Vec<u64>,
    /// Parts of clusters that nothing leads to any more, once the new tables are in place: offset and length.
    freed_parts: Vec<(u64, u64)>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(image: &'a Image, state: &'a mut State) -> Self {
        Self {
            image,
            state,
            refcounts: BTreeMap::new(),
            tables: BTreeMap::new(),
            freed: Vec::new(),
            freed_parts: Vec::new(),
        }
    }

    fn write(mut self, offset: u64, buf: &[u8]) -> Result<()> {
        let geometry = self.image.geometry;
        for cluster in self.image.clusters_of(offset, buf.len() as u64) {
            let (within, part) = self.image.part_in(cluster, offset, buf);
            let (old, _) = self.image.entry(self.state, cluster)?;
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
        self.finish()
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
        self.finish()
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
            let offset = geometry.host_offset(self.allocate()?);
            fill(offset)?;
            self.set_entry(cluster, RawEntry::subclusters(offset, held, &geometry))?;
        }
        self.finish()
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
                    self.freed_parts.push((own + u64::from(first) * size, u64::from(end - first) * size));
                }
                RawEntry { descriptor: host, bitmap }.with_copied(old.own_host().is_some())
            }
        };
        self.set_entry(cluster, new)?;
        self.finish()
    }

    fn free_later(&mut self, entry: L2Entry) -> Result<()> {
        let geometry = &self.image.geometry;
        if let Some(host) = entry.host().filter(|_| geometry.external_data) {
            self.freed_parts.push((host, geometry.cluster_size()));
        } else if let L2Entry::Compressed(stream) = entry {
            self.image.check_data(self.state, stream.offset, stream.len)?;
            self.freed.extend(stream.host_clusters(geometry));
        } else if let Some(host) = entry.host() {
            self.image.check_data(self.state, host, geometry.cluster_size())?;
            self.freed.push(geometry.host_cluster_at(host).0);
        }
        Ok(())
    }

    fn set_entry(&mut self, cluster: GuestCluster, raw: RawEntry) -> Result<()> {
        let geometry = self.image.geometry;
        let (l1_index, l2_index) = geometry.table_indices(cluster);
        if !self.tables.contains_key(&l1_index) {
            let old = self.image.l2_table(self.state, l1_index)?;
            let own = self.image.l1(self.state)?.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
            let table = match old {
                Some((offset, table)) if own => (geometry.host_cluster_at(offset), false, (*table).clone()),
                Some((offset, table)) => {
                    self.freed.push(geometry.host_cluster_at(offset).0);
                    (self.allocate()?, true, (*table).clone())
                }
                None => (self.allocate()?, true, L2Table::empty(&geometry)),
            };
            self.tables.insert(l1_index, table);
        }
        if let Some((_, _, table)) = self.tables.get_mut(&l1_index) {
            table.set(l2_index, raw);
        }
        Ok(())
    }

    /// The refcounts of block `index`, which is made where there is none.
    fn refcount_block(&mut self, index: usize) -> Result<&mut Vec<u64>> {
        if !self.refcounts.contains_key(&index) {
            let geometry = &self.image.geometry;
            let mut counts = self.state.refcounts.read_block(&*self.image.storage, geometry, index)?;
            let Some(place) = self.state.refcounts.blocks.get_mut(index) else {
                return Err(Error::Unsupported("a refcount table of more than 8 MiB".to_owned()));
            };
            if *place == 0 {
                // A block for clusters that nobody uses yet can be the first of them, and count itself.
                let host = HostCluster(index as u64 * geometry.refcounts_per_block());
                let offset = geometry.host_offset(host);
                if let Some(occupied) = &mut self.state.occupied {
                    occupied.check("new refcount block", offset, geometry.cluster_size())?;
                    occupied.insert("refcount block", offset);
                }
                if let Some(count) = counts.first_mut() {
                    *count = 1;
                }
                commit::write_cluster(self.image, host, &encode_block(&counts, geometry.refcount_order))?;
                self.image.storage.flush()?;
                let entry = self.state.header.roots.refcount_table_offset + index as u64 * 8;
                self.image.storage.write_at(entry, &offset.to_be_bytes())?;
                *place = offset;
            }
            self.refcounts.insert(index, counts);
        }
        self.refcounts.get_mut(&index).ok_or_else(|| Error::Invalid("refcount block".to_owned()))
    }

    pub(crate) fn allocate(&mut self) -> Result<HostCluster> {
        let per_block = self.image.geometry.refcounts_per_block();
        loop {
            let cluster = self.state.first_free;
            let counts = self.refcount_block((cluster / per_block) as usize)?;
            let from = (cluster % per_block) as usize;
            match counts[from..].iter().position(|&count| count == 0) {
                Some(free) => {
                    counts[from + free] = 1;
                    let found = HostCluster(cluster + free as u64);
                    self.state.first_free = found.0 + 1;
                    if let Some(occupied) = &self.state.occupied {
                        let geometry = &self.image.geometry;
                        occupied.check("free cluster", geometry.host_offset(found), geometry.cluster_size())?;
                    }
                    return Ok(found);
                }
                None => self.state.first_free = (cluster / per_block + 1) * per_block,
            }
        }
    }

    fn write_refcounts(&mut self) -> Result<()> {
        for (index, counts) in std::mem::take(&mut self.refcounts) {
            let offset = self.state.refcounts.blocks[index];
            self.image.storage.write_at(offset, &encode_block(&counts, self.image.geometry.refcount_order))?;
        }
        Ok(())
    }

    /// Writes the metadata of this round, in the order that its safety needs.
    pub(crate) fn finish(mut self) -> Result<()> {
        let geometry = self.image.geometry;
        self.write_refcounts()?;
        for (host, _, table) in self.tables.values().filter(|(_, new, _)| *new) {
            commit::write_cluster(self.image, *host, &table.encode())?;
        }
        if self.tables.is_empty() {
            return Ok(());
        }
        self.image.flush_all()?;
        for (l1_index, (host, new, table)) in std::mem::take(&mut self.tables) {
            let offset = geometry.host_offset(host);
            if new {
                if let Some(occupied) = &mut self.state.occupied {
                    occupied.insert("L2 table", offset);
                }
                self.state.l1.set(l1_index, offset | COPIED);
                let entry = self.state.header.roots.l1_offset + l1_index as u64 * 8;
                self.image.storage.write_at(entry, &(offset | COPIED).to_be_bytes())?;
            } else {
                self.write_changed_entries(offset, &table)?;
            }
            let per_table = (geometry.l2_entries() / entries_per_slice(&geometry)).max(1);
            let first = l1_index as u64 * per_table;
            self.image.slices.remove(first..first + per_table);
        }
        if self.freed.is_empty() && self.freed_parts.is_empty() {
            return Ok(());
        }
        self.image.storage.flush()?;
        for (offset, len) in std::mem::take(&mut self.freed_parts) {
            let storage = self.image.data_storage();
            let held = len.min(storage.len().saturating_sub(offset));
            if held > 0 {
                storage.discard(offset, held)?;
            }
        }
        let mut unused = Vec::new();
        for cluster in std::mem::take(&mut self.freed) {
            let per_block = geometry.refcounts_per_block();
            let counts = self.refcount_block((cluster / per_block) as usize)?;
            let Some(count) = counts.get_mut((cluster % per_block) as usize).filter(|count| **count > 0) else {
                return Err(Error::corrupt(
                    "refcount",
                    cluster << geometry.cluster_bits,
                    "a cluster in use must have one",
                ));
            };
            *count -= 1;
            if *count == 0 {
                unused.push(cluster);
            }
        }
        self.write_refcounts()?;
        for cluster in unused {
            self.state.first_free = self.state.first_free.min(cluster);
            let offset = cluster << geometry.cluster_bits;
            if let Some(occupied) = &mut self.state.occupied {
                occupied.remove(offset);
            }
            let len = geometry.cluster_size().min(self.image.storage.len().saturating_sub(offset));
            self.image.storage.discard(offset, len)?;
        }
        // A compressed stream's place may be used anew, for another stream.
        self.image.decompressed.clear();
        Ok(())
    }

    /// Writes the entries that differ from the table as it is on disk, neighbours together.
    fn write_changed_entries(&self, offset: u64, table: &L2Table) -> Result<()> {
        let (old, new) = (self.image.read_l2_table(offset)?, table.encode());
        let size = self.image.geometry.l2_entry_size() as usize;
        let mut index = 0;
        while index < table.len() {
            let changed = (index..table.len()).take_while(|&index| table.get(index) != old.get(index)).count();
            if changed > 0 {
                let bytes = &new[index * size..(index + changed) * size];
                self.image.storage.write_at(offset + (index * size) as u64, bytes)?;
            }
            index += changed + 1;
        }
        Ok(())
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
        Ok(self.poison_on_error(|| self.flush_all())?)
    }
}
