//! Writing in place, in QEMU's order: refcounts and data before the L2 entries that rely on them, and refcounts lowered
//! only after nothing leads to the cluster any more. A crash leaves leaked clusters at worst, never a wrong reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use block::{Error as BlockError, ExtentKind, ReadAt, Storage, WriteAt};
use byteorder::{BigEndian, ByteOrder};

use crate::address::{GuestCluster, HostCluster};
use crate::commit::{self, Changes};
use crate::features::{Autoclear, Incompatible};
use crate::image::{Image, State};
use crate::l2_entry::{self, COPIED, L2Entry, ZERO};
use crate::refcount::encode_block;
use crate::references::Accounting;
use crate::{Error, Result};

/// Clusters that one round of allocating writes handles: enough that its flush costs little beside the data.
const ROUND: usize = 256;

impl Image {
    /// Makes the image fit for writing in place: refcounts rebuilt if the dirty bit is set, autoclear bits cleared, and
    /// room in the refcount table for `clusters` more.
    fn prepare(&self, clusters: u64) -> Result<()> {
        self.check_writable()?;
        let needed = {
            let state = self.state();
            let roots = &state.header.roots;
            let per_block = self.geometry.refcounts_per_block();
            let end = self.storage.len().div_ceil(self.geometry.cluster_size());
            // Besides the data: an L2 table each in the worst case, and refcount blocks for all of it.
            let wanted = (end + 2 * clusters + 64).div_ceil(per_block) + 1;
            let short = wanted > state.refcounts.blocks.len() as u64;
            let unfit = roots.incompatible.contains(Incompatible::DIRTY) || roots.autoclear != Autoclear::empty();
            (short || unfit).then(|| if short { (2 * wanted) as usize } else { 0 })
        };
        if let Some(refcount_blocks) = needed {
            let accounting = Accounting::take(self, &self.state())?;
            let changes = Changes { force: true, refcount_blocks, ..Changes::default() };
            self.poison_on_error(|| commit::commit(self, &accounting, changes))?;
        }
        Ok(())
    }

    /// Writes where every cluster of the range has a host cluster of its own; says whether it did.
    fn overwrite(&self, offset: u64, buf: &[u8]) -> Result<bool> {
        let state = self.state();
        let mut targets = Vec::new();
        for cluster in self.clusters_of(offset, buf.len() as u64) {
            match self.entry(&state, cluster)? {
                (L2Entry::Data { host, copied: true }, true) => targets.push((cluster, host)),
                _ => return Ok(false),
            }
        }
        self.poison_on_error(|| {
            for (cluster, host) in targets {
                let (within, part) = self.part_in(cluster, offset, buf);
                self.write_host(host + within as u64, part)?;
            }
            Ok(true)
        })
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

    fn write_host(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if self.storage.len() < end {
            self.storage.set_len(end)?;
        }
        Ok(self.storage.write_at(offset, bytes)?)
    }

    /// A cluster's entry, and whether the L2 table that holds it may be written in place.
    pub(crate) fn entry(&self, state: &State, cluster: GuestCluster) -> Result<(L2Entry, bool)> {
        let (l1_index, l2_index) = self.geometry.table_indices(cluster);
        let own_table = state.l1.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
        let Some((offset, table)) = self.l2_table(state, l1_index)? else {
            return Ok((L2Entry::Unallocated, own_table));
        };
        let raw = table.get(l2_index).copied().unwrap_or(0);
        Ok((l2_entry::decode(raw, self.version, &self.geometry, offset + l2_index as u64 * 8)?, own_table))
    }

    fn write_in_place(&self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_writable()?;
        BlockError::check_range(offset, buf.len() as u64, self.geometry.disk_len)?;
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
        BlockError::check_range(offset, len, self.geometry.disk_len)?;
        let size = self.geometry.cluster_size();
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let extent = self.extent_at(at, end - at)?;
            let stop = at + extent.len;
            if extent.kind == ExtentKind::Hole {
                at = stop;
                continue;
            }
            let whole_until = if stop == self.geometry.disk_len { stop } else { stop / size * size };
            if at.is_multiple_of(size) && whole_until > at {
                let clusters = whole_until.div_ceil(size).min(at / size + ROUND as u64) - at / size;
                self.prepare(clusters)?;
                self.poison_on_error(|| Round::new(self, &mut self.state_mut()).unmap(at / size, clusters))?;
                at = (at + clusters * size).min(end);
            } else {
                // Up to the next cluster's start, within one cluster.
                let part_end = (at / size + 1).saturating_mul(size).min(stop);
                if extent.kind != ExtentKind::Zero {
                    self.write_in_place(at, &vec![0; (part_end - at) as usize])?;
                }
                at = part_end;
            }
        }
        Ok(())
    }
}

/// One round of changes that share their flushes.
struct Round<'a> {
    image: &'a Image,
    state: &'a mut State,
    /// Refcount blocks that changed, by index.
    refcounts: BTreeMap<usize, Vec<u64>>,
    /// L2 tables that changed: where they are, whether they are new there, and their entries.
    tables: BTreeMap<usize, (HostCluster, bool, Vec<u64>)>,
    /// Clusters that nothing leads to any more, once the new tables are in place.
    freed: Vec<u64>,
}

impl<'a> Round<'a> {
    fn new(image: &'a Image, state: &'a mut State) -> Self {
        Self { image, state, refcounts: BTreeMap::new(), tables: BTreeMap::new(), freed: Vec::new() }
    }

    fn write(mut self, offset: u64, buf: &[u8]) -> Result<()> {
        let geometry = self.image.geometry;
        for cluster in self.image.clusters_of(offset, buf.len() as u64) {
            let (within, part) = self.image.part_in(cluster, offset, buf);
            let (old, _) = self.image.entry(self.state, cluster)?;
            if let L2Entry::Data { host, copied: true } = old {
                self.image.write_host(host + within as u64, part)?;
                continue;
            }
            // The bytes around the part come from what the cluster held so far.
            let mut bytes = vec![0; geometry.cluster_len()];
            if part.len() < geometry.len_on_disk(cluster) {
                let on_disk = geometry.len_on_disk(cluster);
                self.image.read_in(self.state, geometry.guest_offset(cluster), &mut bytes[..on_disk])?;
            }
            bytes[within..within + part.len()].copy_from_slice(part);
            let host = match old {
                L2Entry::Zero { host: Some(host), copied: true } => geometry.host_cluster_at(host),
                _ => {
                    self.free_later(old);
                    self.allocate()?
                }
            };
            commit::write_cluster(self.image, host, &bytes)?;
            self.set_entry(cluster, geometry.host_offset(host) | COPIED)?;
        }
        self.finish()
    }

    fn unmap(mut self, first: u64, clusters: u64) -> Result<()> {
        for cluster in (first..first + clusters).map(GuestCluster) {
            let (old, _) = self.image.entry(self.state, cluster)?;
            let offset = self.image.geometry.guest_offset(cluster);
            let backed = self.image.backing.as_ref().is_some_and(|below| below.len() > offset);
            let new = match (backed, self.image.version) {
                (false, _) => 0,
                (true, 2) => {
                    let host = self.allocate()?;
                    commit::write_cluster(self.image, host, &vec![0; self.image.geometry.cluster_len()])?;
                    self.image.geometry.host_offset(host) | COPIED
                }
                (true, _) => ZERO,
            };
            if old == L2Entry::Unallocated && new == 0 {
                continue;
            }
            self.free_later(old);
            self.set_entry(cluster, new)?;
        }
        self.finish()
    }

    fn free_later(&mut self, entry: L2Entry) {
        let geometry = &self.image.geometry;
        match entry {
            L2Entry::Unallocated | L2Entry::Zero { host: None, .. } => {}
            L2Entry::Data { host, .. } | L2Entry::Zero { host: Some(host), .. } => {
                self.freed.push(geometry.host_cluster_at(host).0);
            }
            L2Entry::Compressed(stream) => self.freed.extend(stream.host_clusters(geometry)),
        }
    }

    fn set_entry(&mut self, cluster: GuestCluster, raw: u64) -> Result<()> {
        let geometry = self.image.geometry;
        let (l1_index, l2_index) = geometry.table_indices(cluster);
        if !self.tables.contains_key(&l1_index) {
            let old = self.image.l2_table(self.state, l1_index)?;
            let own = self.state.l1.get(l1_index).is_some_and(|raw| raw & COPIED != 0);
            let table = match old {
                Some((offset, table)) if own => (geometry.host_cluster_at(offset), false, table.to_vec()),
                Some((offset, table)) => {
                    self.freed.push(geometry.host_cluster_at(offset).0);
                    (self.allocate()?, true, table.to_vec())
                }
                None => (self.allocate()?, true, vec![0; geometry.l2_entries() as usize]),
            };
            self.tables.insert(l1_index, table);
        }
        if let Some(entry) = self.tables.get_mut(&l1_index).and_then(|(_, _, table)| table.get_mut(l2_index)) {
            *entry = raw;
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

    fn allocate(&mut self) -> Result<HostCluster> {
        let per_block = self.image.geometry.refcounts_per_block();
        loop {
            let cluster = self.state.first_free;
            let counts = self.refcount_block((cluster / per_block) as usize)?;
            let from = (cluster % per_block) as usize;
            match counts[from..].iter().position(|&count| count == 0) {
                Some(free) => {
                    counts[from + free] = 1;
                    self.state.first_free = cluster + free as u64 + 1;
                    return Ok(HostCluster(cluster + free as u64));
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
    fn finish(mut self) -> Result<()> {
        let geometry = self.image.geometry;
        self.write_refcounts()?;
        for (host, _, table) in self.tables.values().filter(|(_, new, _)| *new) {
            let mut bytes = vec![0; geometry.cluster_len()];
            BigEndian::write_u64_into(table, &mut bytes);
            commit::write_cluster(self.image, *host, &bytes)?;
        }
        if self.tables.is_empty() {
            return Ok(());
        }
        self.image.storage.flush()?;
        for (l1_index, (host, new, table)) in std::mem::take(&mut self.tables) {
            let offset = geometry.host_offset(host);
            if new {
                self.state.l1[l1_index] = offset | COPIED;
                let entry = self.state.header.roots.l1_offset + l1_index as u64 * 8;
                self.image.storage.write_at(entry, &(offset | COPIED).to_be_bytes())?;
            } else {
                self.write_changed_entries(offset, &table)?;
            }
            self.image.l2_tables.insert(offset, Arc::from(table));
        }
        if self.freed.is_empty() {
            return Ok(());
        }
        self.image.storage.flush()?;
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
            let len = geometry.cluster_size().min(self.image.storage.len().saturating_sub(offset));
            self.image.storage.discard(offset, len)?;
            self.image.l2_tables.remove(offset);
        }
        // A compressed stream's place may be used anew, for another stream.
        self.image.decompressed.clear();
        Ok(())
    }

    /// Writes the entries that differ from the table as it is on disk, neighbours together.
    fn write_changed_entries(&self, offset: u64, table: &[u64]) -> Result<()> {
        let old = self.image.read_l2_table(offset)?;
        let mut index = 0;
        while index < table.len() {
            let changed = table[index..].iter().zip(&old[index..]).take_while(|(new, old)| new != old).count();
            if changed > 0 {
                let mut bytes = vec![0; changed * 8];
                BigEndian::write_u64_into(&table[index..index + changed], &mut bytes);
                self.image.storage.write_at(offset + index as u64 * 8, &bytes)?;
            }
            index += changed + 1;
        }
        Ok(())
    }
}

impl WriteAt for Image {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        Ok(self.write_in_place(offset, buf)?)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        Ok(self.zero_in_place(offset, len)?)
    }

    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        Ok(self.zero_in_place(offset, len)?)
    }

    fn flush(&self) -> block::Result<()> {
        self.check_writable()?;
        self.poison_on_error(|| Ok(self.storage.flush()?)).map_err(Into::into)
    }
}
