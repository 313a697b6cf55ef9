//! Making, applying, deleting and reading internal snapshots.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use crate::commit::{self, Changes, Relayout};
use crate::features::Autoclear;
use crate::geometry::Geometry;
use crate::image::Image;
use crate::l2_entry::OFFSET;
use crate::references::{Accounting, References};
use crate::snapshot::{self, Entry};
use crate::{Error, Result, Snapshot, limits};

impl Image {
    /// The internal snapshots, in the order of the image's table.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the table is damaged, [`Error::Io`].
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        Ok(snapshot::read_table(&*self.storage, &self.state().header.roots, &self.geometry)?.0)
    }

    /// Makes this a device, for reading only, of what the disk held when a snapshot was made. `snapshot` is its id or its
    /// name; ids go first.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is none so called, [`Error::Corrupt`], [`Error::Io`].
    pub fn into_snapshot(mut self, snapshot: &str) -> Result<Self> {
        self.settle()?;
        let (_, found) = self.find_snapshot(snapshot)?;
        let l1 = found.read_l1(&*self.storage)?;
        self.geometry.disk_len = self.snapshot_disk_len(&found)?;
        let geometry = self.geometry;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.l1 = l1.into();
        state.header.geometry = geometry;
        state.header.roots.l1_offset = found.l1_offset;
        state.header.roots.l1_entries = found.l1_entries;
        self.writable = false;
        Ok(self)
    }

    /// Makes a snapshot of what the disk holds, as made at `time`. As with any commit, a crash leaves the image with the
    /// snapshot or without it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a refcount would outgrow its width, or with 65,536 snapshots; [`Error::Invalid`] for a
    /// name of more than 255 bytes or a time before 1970; [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn create_snapshot(&mut self, name: &str, time: SystemTime) -> Result<Snapshot> {
        let since_epoch = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::Invalid("a snapshot's time must lie after 1970".to_owned()))?;
        self.create_snapshot_at(name, since_epoch)
    }

    fn create_snapshot_at(&mut self, name: &str, since_epoch: Duration) -> Result<Snapshot> {
        self.check_writable()?;
        self.refuse_external_data("a snapshot")?;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let mut counts = accounting.references.clone();
        let (mut entries, highest_id) = self.release_table(&mut counts)?;
        if entries.len() >= limits::SNAPSHOTS as usize {
            return Err(Error::Unsupported(format!("more than {} snapshots", limits::SNAPSHOTS)));
        }
        let id = highest_id.saturating_add(1).to_string();
        entries.push(Entry::new(&id, name, since_epoch, self.geometry.disk_len)?);
        {
            let state = self.state();
            counts.add_all(&References::of_l1(self, self.l1(&state)?)?);
            if u64::from(counts.greatest()) > self.geometry.refcount_max() {
                let bits = 1 << self.geometry.refcount_order;
                return Err(Error::Unsupported(format!("another snapshot with refcounts of {bits} bits")));
            }
            // The tables themselves are shared by the commit, which may move them first.
            for table in self.l1(&state)?.iter().map(|raw| raw & OFFSET).filter(|&table| table != 0) {
                counts.release(self.geometry.host_cluster_at(table).0);
            }
        }
        let disk_len = self.geometry.disk_len;
        self.relayout(&accounting, Relayout { counts, l1: None, snapshots: Some(entries), disk_len })?;
        let mut all = self.snapshots()?;
        all.pop().ok_or_else(|| Error::Invalid("snapshot".to_owned()))
    }

    /// Makes the disk hold what it held, and be as long as it was, when a snapshot was made; the snapshot stays. A crash
    /// leaves what the disk held before, or what it is to hold.
    ///
    /// # Errors
    /// As [`Image::create_snapshot`]; [`Error::Invalid`] where no snapshot is so called; [`Error::Unsupported`] with
    /// persistent bitmaps, which would no longer tell the truth.
    pub fn apply_snapshot(&mut self, snapshot: &str) -> Result<()> {
        self.check_writable()?;
        self.refuse_external_data("a snapshot")?;
        if self.has_bitmaps() {
            return Err(Error::Unsupported("applying a snapshot where there are persistent bitmaps".to_owned()));
        }
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let (_, found) = self.find_snapshot(snapshot)?;
        let disk_len = self.snapshot_disk_len(&found)?;
        let mut l1 = found.read_l1(&*self.storage)?;
        let mut counts = accounting.references.clone();
        counts.release_all(&References::of_l1(self, self.l1(&self.state())?)?);
        counts.add_all(&References::of_l1(self, &l1)?);
        if u64::from(counts.greatest()) > self.geometry.refcount_max() {
            let bits = 1 << self.geometry.refcount_order;
            return Err(Error::Unsupported(format!("applying a snapshot with refcounts of {bits} bits")));
        }
        let geometry = Geometry { disk_len, ..self.geometry };
        l1.resize(l1.len().max(geometry.l1_entries() as usize), 0);
        self.relayout(&accounting, Relayout { counts, l1: Some(l1), snapshots: None, disk_len })
    }

    /// Deletes a snapshot, and gives back what it alone held. A crash leaves the image with the snapshot or without it.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no snapshot is so called; [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn delete_snapshot(&mut self, snapshot: &str) -> Result<()> {
        self.check_writable()?;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let (index, _) = self.find_snapshot(snapshot)?;
        self.delete_snapshots_where(&accounting, |at| at == index)
    }

    /// Deletes all snapshots at once. Unlike [`crate::Transaction::delete_snapshots`], it keeps persistent bitmaps.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn delete_all_snapshots(&mut self) -> Result<()> {
        self.check_writable()?;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        self.delete_snapshots_where(&accounting, |_| true)
    }

    fn delete_snapshots_where(&mut self, accounting: &Accounting, deleted: impl Fn(usize) -> bool) -> Result<()> {
        let snapshots = self.snapshots()?;
        if !(0..snapshots.len()).any(&deleted) {
            return Ok(());
        }
        let mut counts = accounting.references.clone();
        let (entries, _) = self.release_table(&mut counts)?;
        for (_, snapshot) in snapshots.iter().enumerate().filter(|&(index, _)| deleted(index)) {
            counts.release_all(&References::of_l1(self, &snapshot.read_l1(&*self.storage)?)?);
            let first = self.geometry.host_cluster_at(snapshot.l1_offset).0;
            let clusters = (u64::from(snapshot.l1_entries) * 8).div_ceil(self.geometry.cluster_size());
            (first..first + clusters).for_each(|cluster| counts.release(cluster));
        }
        let kept = entries.into_iter().enumerate().filter(|&(index, _)| !deleted(index)).map(|(_, entry)| entry);
        let snapshots = Some(kept.collect());
        let disk_len = self.geometry.disk_len;
        self.relayout(accounting, Relayout { counts, l1: None, snapshots, disk_len })
    }

    /// The entries of the snapshot table, whose clusters are taken out of `counts`, and the highest id that is a number.
    fn release_table(&self, counts: &mut References) -> Result<(Vec<Entry>, u64)> {
        let roots = self.state().header.roots;
        let (snapshots, len) = snapshot::read_table(&*self.storage, &roots, &self.geometry)?;
        if roots.snapshots > 0 {
            let first = self.geometry.host_cluster_at(roots.snapshots_offset).0;
            let clusters = len.div_ceil(self.geometry.cluster_size());
            (first..first + clusters).for_each(|cluster| counts.release(cluster));
        }
        let highest_id = snapshots.iter().filter_map(|snapshot| snapshot.id.parse().ok()).max().unwrap_or(0);
        let entries = snapshots.iter().map(|snapshot| Entry::of(snapshot, &*self.storage)).collect::<Result<_>>()?;
        Ok((entries, highest_id))
    }

    fn find_snapshot(&self, wanted: &str) -> Result<(usize, Snapshot)> {
        let snapshots = self.snapshots()?;
        let by_id = snapshots.iter().position(|snapshot| snapshot.id == wanted);
        let found = by_id.or_else(|| snapshots.iter().position(|snapshot| snapshot.name == wanted));
        match found.and_then(|index| snapshots.into_iter().nth(index).map(|snapshot| (index, snapshot))) {
            Some(found) => Ok(found),
            None => Err(Error::Invalid(format!("no snapshot has the id or the name {wanted:?}"))),
        }
    }

    /// The length of the disk in a snapshot; that of the disk now, where the snapshot does not say.
    fn snapshot_disk_len(&self, snapshot: &Snapshot) -> Result<u64> {
        let disk_len = snapshot.disk_size.unwrap_or(self.geometry.disk_len);
        let geometry = Geometry { disk_len, ..self.geometry };
        if disk_len > limits::DISK_BYTES || geometry.l1_entries() * 8 > limits::L1_BYTES {
            let expected = format!("a snapshot's disk must fit the L1 table's 32 MiB, found {disk_len} bytes");
            return Err(Error::corrupt("snapshot table entry", snapshot.entry.0, expected));
        }
        Ok(disk_len)
    }

    /// Whether there are persistent bitmaps that describe the contents.
    pub(crate) fn has_bitmaps(&self) -> bool {
        self.extensions.bitmaps.is_some() && self.state().header.roots.autoclear.contains(Autoclear::BITMAPS)
    }

    /// Commits a change of what the image consists of.
    pub(crate) fn relayout(&mut self, accounting: &Accounting, relayout: Relayout) -> Result<()> {
        self.relayout_with(accounting, Changes { relayout: Some(relayout), ..Changes::default() })
    }

    pub(crate) fn relayout_with(&mut self, accounting: &Accounting, changes: Changes) -> Result<()> {
        self.relayout_at_width(accounting, changes, self.geometry.refcount_order)
    }

    /// Commits a change of what the image consists of, with refcounts of another width.
    pub(crate) fn relayout_at_width(
        &mut self,
        accounting: &Accounting,
        changes: Changes,
        refcount_order: u32,
    ) -> Result<()> {
        let old = self.geometry;
        self.geometry.refcount_order = refcount_order;
        if let Some(relayout) = &changes.relayout {
            self.geometry.disk_len = relayout.disk_len;
        }
        let header = changes.header.clone();
        if header.is_some() {
            // Its places are found anew where they are asked for, by the new extensions.
            self.state_mut().occupied = None;
        }
        let result = self.poison_on_error(|| {
            commit::commit(self, accounting, changes)?;
            header.as_ref().map_or(Ok(()), |header| header.write_after(&*self.storage))
        });
        if result.is_err() {
            self.geometry = old;
        } else if header.is_some() {
            self.reload_header()?;
        }
        result
    }
}
