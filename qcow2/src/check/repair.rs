//! The repair: refcounts as they ought to be, beside the old ones, and one sector that switches to them.

use std::collections::BTreeMap;

use block::{ReadAt, Storage, WriteAt};
use byteorder::{BigEndian, ByteOrder};

use super::Checked;
use super::problem::{CheckReport, Problem};
use super::tally::Tally;
use super::walk::{Refcounts, read_padded};
use crate::features::Incompatible;
use crate::geometry::Geometry;
use crate::image::{Image, State};
use crate::l2_entry::{COMPRESSED, COPIED, OFFSET, ZERO};
use crate::l2_table::L2Table;
use crate::refcount::encode_block;
use crate::{Error, Result, commit, limits};

/// What is to be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Refcounts that are too high: space that nobody uses is given back.
    Leaks,
    /// Whatever can be: all refcounts, the refcount structures themselves, COPIED flags.
    All,
}

impl Image {
    /// Repairs an image that was opened by [`crate::OpenOptions::repair`], and checks it again: the report holds what
    /// is left, and how much was repaired. What is found before the repair is told to `problem`.
    ///
    /// COPIED flags that are wrongly set are cleared first; then new refcounts are written to free clusters, and one
    /// sector of the header switches to them; then missing flags are set. A crash in between leaves an image that is
    /// no worse, and that can be repaired again. The dirty and the corrupt bit are cleared where nothing
    /// worse than leaks is left.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where the image was not opened for a repair, [`Error::Unsupported`] where refcounts cannot be read
    /// and only leaks are to be repaired, [`Error::Io`]. After an error the image refuses further changes.
    pub fn repair(&self, repair: Repair, problem: &mut dyn FnMut(&Problem)) -> Result<CheckReport> {
        self.check_repairable()?;
        let state = &mut *self.state_mut();
        let before = self.check_in(state, problem)?;
        let wrong = match repair {
            Repair::Leaks => before.report.leaks,
            Repair::All => before.report.leaks + before.report.corruptions + before.report.check_errors,
        };
        if repair == Repair::Leaks && before.report.check_errors > 0 {
            return Err(Error::Unsupported("repairing leaks alone where refcounts cannot be read".to_owned()));
        }
        self.poison_on_error(|| {
            let mut flags = 0;
            if wrong > 0 {
                flags = self.rebuild(state, &before, repair)?;
            }
            let mut after = self.check_in(state, &mut |_| {})?;
            if repair == Repair::All && wrong > 0 && after.report.leaks > 0 {
                // An entry that was dropped with the flags no longer uses what it did when clusters were counted.
                self.rebuild(state, &after, repair)?;
                after = self.check_in(state, &mut |_| {})?;
            }
            self.clear_bits(state, &after.report)?;
            if wrong > 0 && after.report.is_clean() {
                give_back(self, &after.all)?;
            }
            let others = |checked: &Checked| checked.report.corruptions - checked.wrong_flags;
            after.report.corruptions_fixed = others(&before).saturating_sub(others(&after)) + flags;
            after.report.leaks_fixed = before.report.leaks.saturating_sub(after.report.leaks);
            Ok(after.report)
        })
    }

    /// Writes new refcounts and puts flags right; returns how many flags that were.
    fn rebuild(&self, state: &mut State, before: &Checked, repair: Repair) -> Result<u64> {
        let geometry = self.geometry;
        let old = Refcounts::read(&*self.storage, geometry, &state.header.roots)?;
        let mut wanted = before.without_refcounts.clone();
        if repair == Repair::Leaks {
            for index in 0..wanted.len().div_ceil(geometry.refcounts_per_block()) {
                let counts = old.block(index)?.unwrap_or_default();
                let first = index * geometry.refcounts_per_block();
                for cluster in first..wanted.len().min(first + geometry.refcounts_per_block()) {
                    let found = counts.get((cluster - first) as usize).copied().unwrap_or(0);
                    wanted.lower_to(cluster, found);
                }
            }
        }
        let mut flags = 0;
        if repair == Repair::All {
            flags += self.put_flags_right(state, &wanted, false)?;
            self.storage.flush()?;
        }
        self.switch_refcounts(state, before, &old, wanted.clone())?;
        if repair == Repair::All {
            flags += self.put_flags_right(state, &wanted, true)?;
            self.storage.flush()?;
        }
        self.slices.clear();
        Ok(flags)
    }

    /// Writes the refcounts `wanted`, which do not count the structures that hold them, and switches to them.
    fn switch_refcounts(&self, state: &mut State, before: &Checked, old: &Refcounts<'_>, wanted: Tally) -> Result<()> {
        let geometry = self.geometry;
        let mut placer = Placer { before, old, geometry, counts: wanted, next: 0, block: None };
        let mut blocks: BTreeMap<u64, u64> = BTreeMap::new();
        let mut table: Option<(u64, u64)> = None;
        let per_block = geometry.refcounts_per_block();
        // Blocks and table count themselves: rounds go on until there is a block for each of them.
        loop {
            let missing: Vec<u64> = (0..placer.counts.len().div_ceil(per_block))
                .filter(|index| !blocks.contains_key(index))
                .filter(|&index| !placer.counts.is_unused(index * per_block..(index + 1) * per_block))
                .collect();
            let needed = missing.iter().chain(blocks.keys()).max().map_or(1, |last| last + 1);
            let clusters = (needed * 8).div_ceil(geometry.cluster_size());
            if clusters << geometry.cluster_bits > limits::REFCOUNT_TABLE_BYTES.max(geometry.cluster_size()) {
                return Err(Error::Unsupported("a refcount table of more than 8 MiB".to_owned()));
            }
            if missing.is_empty() && table.is_some_and(|(_, placed)| placed >= clusters) {
                break;
            }
            for index in missing {
                blocks.insert(index, placer.place(1)?);
            }
            if table.is_none_or(|(_, placed)| placed < clusters) {
                if let Some((first, placed)) = table {
                    (first..first + placed).for_each(|cluster| placer.counts.lower_to(cluster, 0));
                }
                table = Some((placer.place(clusters)?, clusters));
            }
        }
        let Some((first, clusters)) = table else { return Ok(()) };
        let mut entries = vec![0; (clusters << geometry.cluster_bits) as usize / 8];
        for (&index, &host) in &blocks {
            let counts: Vec<u64> =
                (index * per_block..(index + 1) * per_block).map(|cluster| placer.counts.get(cluster)).collect();
            self.write_long(host << geometry.cluster_bits, &encode_block(&counts, geometry.refcount_order))?;
            entries[index as usize] = host << geometry.cluster_bits;
        }
        let mut bytes = vec![0; entries.len() * 8];
        BigEndian::write_u64_into(&entries, &mut bytes);
        self.write_long(first << geometry.cluster_bits, &bytes)?;
        self.storage.flush()?;
        let mut roots = state.header.roots;
        roots.refcount_table_offset = first << geometry.cluster_bits;
        // At most 8 MiB of table, so it fits.
        roots.refcount_table_clusters = clusters as u32;
        commit::write_roots(self, state, &roots)?;
        state.header.roots = roots;
        Ok(())
    }

    fn write_long(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if self.storage.len() < end {
            self.storage.set_len(end)?;
        }
        Ok(self.storage.write_at(offset, bytes)?)
    }

    /// Sets, or clears, the COPIED flags that `counts` asks for, and drops places of zeros that cannot be followed.
    fn put_flags_right(&self, state: &mut State, counts: &Tally, set: bool) -> Result<u64> {
        let geometry = self.geometry;
        let l1_offset = state.header.roots.l1_offset;
        let file_len = self.storage.len();
        let mut changed = 0;
        let wrong = |raw: u64| {
            let host = raw & OFFSET;
            let single = counts.get(host >> geometry.cluster_bits) == 1;
            host != 0 && single == set && (raw & COPIED != 0) != set
        };
        for (index, raw) in self.l1(state)?.to_vec().into_iter().enumerate() {
            let table_offset = raw & OFFSET;
            if wrong(raw) {
                state.l1.set(index, raw ^ COPIED);
                self.storage.write_at(l1_offset + index as u64 * 8, &(raw ^ COPIED).to_be_bytes())?;
                changed += 1;
            }
            // No table is in the header's cluster. A table that is no table holds something else; what lies beyond the end of the file must not be written.
            let inside = table_offset != 0 && table_offset.saturating_add(geometry.cluster_size()) <= file_len;
            if !inside || !geometry.is_aligned(table_offset) || counts.get(table_offset >> geometry.cluster_bits) == 0 {
                continue;
            }
            // Clusters of an external data file have no refcounts that their flags could follow.
            if geometry.external_data {
                continue;
            }
            let table =
                L2Table::decode(&read_padded(&*self.storage, table_offset, geometry.cluster_size())?, &geometry);
            for (index, entry) in table.iter().map(|entry| entry.descriptor).enumerate() {
                if entry & COMPRESSED != 0 {
                    continue;
                }
                let host = entry & OFFSET;
                let new = if !geometry.is_aligned(host) {
                    if set || self.version < 3 || geometry.extended_l2 || entry & ZERO == 0 {
                        continue;
                    }
                    ZERO
                } else if wrong(entry) {
                    changed += 1;
                    entry ^ COPIED
                } else {
                    continue;
                };
                self.storage.write_at(table_offset + index as u64 * geometry.l2_entry_size(), &new.to_be_bytes())?;
            }
        }
        Ok(changed)
    }

    /// Clears the dirty and the corrupt bit where they no longer tell the truth.
    fn clear_bits(&self, state: &mut State, report: &CheckReport) -> Result<()> {
        let mut roots = state.header.roots;
        let marks = Incompatible::DIRTY.union(Incompatible::CORRUPT);
        if report.corruptions > 0 || report.check_errors > 0 || !roots.incompatible.intersects(marks) {
            return Ok(());
        }
        roots.incompatible.remove(marks);
        commit::write_roots(self, state, &roots)?;
        state.header.roots = roots;
        Ok(())
    }
}

/// Hands out clusters that nothing uses: not the image as it is, nor as it will be.
struct Placer<'a> {
    before: &'a Checked,
    old: &'a Refcounts<'a>,
    geometry: Geometry,
    counts: Tally,
    next: u64,
    /// The refcount block looked at last.
    block: Option<(u64, Vec<u64>)>,
}

impl Placer<'_> {
    fn place(&mut self, count: u64) -> Result<u64> {
        let mut start = self.next;
        let mut run = 0;
        while run < count {
            let cluster = start + run;
            if cluster > limits::HOST_CLUSTERS {
                return Err(Error::Unsupported("a file with that many clusters".to_owned()));
            }
            if self.is_free(cluster)? {
                run += 1;
            } else {
                (start, run) = (cluster + 1, 0);
            }
        }
        if count == 1 {
            self.next = start + 1;
        }
        (start..start + count).for_each(|cluster| self.counts.add(cluster));
        Ok(start)
    }

    fn is_free(&mut self, cluster: u64) -> Result<bool> {
        if self.before.all.get(cluster) > 0 || self.counts.get(cluster) > 0 || self.before.beyond.contains(&cluster) {
            return Ok(false);
        }
        let per_block = self.geometry.refcounts_per_block();
        let index = cluster / per_block;
        if self.block.as_ref().is_none_or(|(held, _)| *held != index) {
            self.block = Some((index, self.old.block(index)?.unwrap_or_default()));
        }
        let counts = self.block.as_ref().map(|(_, counts)| &counts[..]).unwrap_or_default();
        Ok(counts.get((cluster % per_block) as usize).is_none_or(|&count| count == 0))
    }
}

/// Punches out what nothing uses, and cuts the file's end off.
fn give_back(image: &Image, used: &Tally) -> Result<()> {
    let geometry = image.geometry;
    let end = (used.end() << geometry.cluster_bits).min(image.storage.len());
    if end < image.storage.len() {
        image.storage.set_len(end)?;
    }
    let mut cluster = 0;
    while cluster < used.end() {
        let start = cluster;
        while cluster < used.end() && used.get(cluster) == 0 {
            cluster += 1;
        }
        if cluster > start {
            let from = start << geometry.cluster_bits;
            image.storage.discard(from, (cluster << geometry.cluster_bits) - from)?;
        }
        cluster += 1;
    }
    Ok(image.storage.flush()?)
}
