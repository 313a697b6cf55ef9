//! Changing the length of the virtual disk.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use block::ReadAt;

use crate::address::GuestCluster;
use crate::bitmaps::Placing;
use crate::commit::{Changes, Relayout};
use crate::geometry::Geometry;
use crate::header_area::HeaderArea;
use crate::image::Image;
use crate::l2_entry::L2Entry;
use crate::references::{Accounting, References};
use crate::transaction::{Content, is_zero};
use crate::{Error, Preallocation, Result, limits};

impl Image {
    /// Makes the virtual disk `len` bytes long. What is added reads as zeros, whatever a longer backing file holds there;
    /// what is cut off is gone from the file, unless a snapshot holds on to it. A crash leaves the old length or the new. An
    /// external data file is made as long as the disk: before the disk gets longer, and after it got shorter.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a length that is not a multiple of 512 or too great for the cluster size;
    /// [`Error::Unsupported`] with snapshots that do not say how long their disk is (those of version 2), and with an external
    /// data file that is not laid out as the disk; [`Error::Invalid`] with a persistent bitmap that was not stored; [`Error::ReadOnly`],
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn resize(&mut self, len: u64) -> Result<()> {
        self.resize_with(len, Preallocation::Off)
    }

    /// Resizes, and sets nothing aside.
    pub(crate) fn set_disk_len(&mut self, len: u64) -> Result<()> {
        self.check_writable()?;
        if let Some(data) = &self.data {
            // One that was left closed says so here.
            data.set_len(data.len())?;
        }
        self.check_data_layout(&*self.settled()?)?;
        let new = Geometry { disk_len: len, ..self.geometry };
        if !len.is_multiple_of(512) || len > limits::DISK_BYTES || new.l1_entries() * 8 > limits::L1_BYTES {
            return Err(Error::Invalid(format!(
                "a disk must be a multiple of 512 bytes and fit its cluster size, not {len} bytes"
            )));
        }
        if self.snapshots()?.iter().any(|snapshot| snapshot.disk_size.is_none())
            || (self.version < 3 && self.has_snapshots())
        {
            return Err(Error::Unsupported("resizing a version 2 image that has snapshots".to_owned()));
        }
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let old_len = self.geometry.disk_len;
        if len == old_len {
            return Ok(());
        }
        let bitmaps = self.resized_bitmaps(&new)?;
        let data = self.data.clone();
        if let Some(data) = data.as_ref().filter(|data| data.len() < len) {
            self.poison_on_error(|| Ok(data.set_len(len)?))?;
        }
        let (mut relayout, clusters) =
            if len < old_len { self.shrunk(&accounting, new)? } else { self.grown(&accounting, new)? };
        let mut changes = Changes { clusters, ..Changes::default() };
        if !bitmaps.is_empty() {
            relayout.counts.release_all(&References::of_bitmaps(self)?);
            let mut placing = Placing::new(self, &accounting, relayout.counts);
            let extension = self.poison_on_error(|| placing.bitmaps(bitmaps))?;
            (relayout.counts, changes.allocator) = placing.into_parts();
            let mut area = HeaderArea::read(self)?;
            area.set_bitmaps(Some(&extension));
            changes.header = Some(area.plan(self)?);
        }
        changes.relayout = Some(relayout);
        *self.tracked.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.relayout_with(&accounting, changes)?;
        if let Some(data) = data.filter(|data| data.len() > len) {
            self.poison_on_error(|| {
                data.set_len(len)?;
                Ok(data.flush()?)
            })?;
        }
        Ok(())
    }

    fn has_snapshots(&self) -> bool {
        self.state().header.roots.snapshots > 0
    }

    fn shrunk(&self, accounting: &Accounting, new: Geometry) -> Result<(Relayout, BTreeMap<u64, Content>)> {
        let state = self.state();
        let mut counts = accounting.references.clone();
        let kept = (new.l1_entries() as usize).clamp(1, self.l1(&state)?.len().max(1));
        let mut l1 = self.l1(&state)?.to_vec();
        counts.release_all(&References::of_l1(self, l1.get(kept..).unwrap_or_default())?);
        l1.truncate(kept);

        let mut clusters = BTreeMap::new();
        let table_end = (kept as u64).saturating_mul(new.l2_entries()).min(self.geometry.guest_clusters());
        for cluster in (new.guest_clusters()..table_end).map(GuestCluster) {
            if self.entry(&state, cluster)?.0 != L2Entry::Unallocated {
                // An entry of nothing: no zeros, even above a backing file.
                clusters.insert(cluster.0, Content::Moved(Default::default()));
            }
        }
        drop(state);
        // What is cut off within a cluster must not come back when the disk grows again.
        // (A data file is cut off itself, once nothing leads to what is beyond.)
        if let Some((cluster, content)) = self.zeroed_tail(new.disk_len)?.filter(|_| !new.external_data) {
            clusters.insert(cluster.0, content);
        }
        Ok((Relayout { counts, l1: Some(l1), snapshots: None, disk_len: new.disk_len }, clusters))
    }

    fn grown(&mut self, accounting: &Accounting, new: Geometry) -> Result<(Relayout, BTreeMap<u64, Content>)> {
        let old = std::mem::replace(&mut self.geometry, new);
        let clusters = self.hidden_beyond(old);
        self.geometry = old;
        let mut l1 = self.l1(&self.state())?.to_vec();
        let l1 = (new.l1_entries() as usize > l1.len()).then(|| {
            l1.resize(new.l1_entries() as usize, 0);
            l1
        });
        let counts = accounting.references.clone();
        Ok((Relayout { counts, l1, snapshots: None, disk_len: new.disk_len }, clusters?))
    }

    /// Clusters that must be zeros when the disk grows beyond what it was: the end of the last one, and all that would
    /// show of a longer backing file or of tables left behind the end.
    fn hidden_beyond(&self, old: Geometry) -> Result<BTreeMap<u64, Content>> {
        let mut clusters = BTreeMap::new();
        clusters.extend(self.zeroed_tail(old.disk_len)?.map(|(cluster, content)| (cluster.0, content)));
        let mut at = old.guest_clusters() << old.cluster_bits;
        let end = self.geometry.disk_len;
        while at < end {
            let extent = self.extent_at(at, end - at)?;
            if extent.kind != block::ExtentKind::Hole {
                let first = self.geometry.guest_cluster_at(at).0;
                let after = (at + extent.len).div_ceil(self.geometry.cluster_size());
                clusters.extend((first..after).map(|cluster| (cluster, Content::Zero)));
            }
            at += extent.len;
        }
        Ok(clusters)
    }

    /// The cluster in which the disk is to end at `len`, with zeros behind that, where it holds anything else there.
    fn zeroed_tail(&self, len: u64) -> Result<Option<(GuestCluster, Content)>> {
        let cluster = self.geometry.guest_cluster_at(len);
        let within = (len - self.geometry.guest_offset(cluster)) as usize;
        if within == 0 {
            return Ok(None);
        }
        // The disk is longer than `len` here, before it shrinks or after it grew, but may still end in this cluster.
        let mut bytes = vec![0; self.geometry.cluster_len()].into_boxed_slice();
        let held = self.geometry.len_on_disk(cluster);
        self.read_at(self.geometry.guest_offset(cluster), &mut bytes[..held])?;
        if is_zero(&bytes[within..]) {
            return Ok(None);
        }
        bytes[within..].fill(0);
        Ok(Some((cluster, Content::Data(bytes))))
    }
}
