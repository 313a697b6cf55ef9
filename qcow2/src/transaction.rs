//! A transaction: changes to the virtual disk that reach the image all at once or not at all.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use block::{AllocationUnit, Error as BlockError, Extent, ExtentKind, ReadAt, WriteAt};

use crate::address::{GuestCluster, HostCluster};
use crate::commit::{self, Allocator};
use crate::image::Image;
use crate::l2_entry::RawEntry;
use crate::references::Accounting;
use crate::{Error, Result, reclaim};

/// What a cluster of the virtual disk is to hold.
#[derive(Debug)]
pub(crate) enum Content {
    /// These bytes, a whole cluster of them.
    Data(Box<[u8]>),
    /// Zeros.
    Zero,
    /// What was written to this host cluster, which the image on disk calls free.
    Spilled(HostCluster),
    /// What it holds already, at another place: its new L2 entry. Made by the commit itself.
    Moved(RawEntry),
}

/// A device over an [`Image`] whose changes reach the image all at once, by [`Transaction::commit`], or not at all.
///
/// Until the commit nothing that the image on disk can reach is overwritten: changed clusters are kept in memory and, where
/// they are many, in clusters of the file that are free. Dropping the transaction, or a crash, leaves the image as it was.
/// Writing what is there already changes nothing.
#[derive(Debug)]
pub struct Transaction {
    image: Image,
    state: RwLock<TransactionState>,
    memory_limit: usize,
}

#[derive(Debug)]
struct TransactionState {
    changed: BTreeMap<u64, Content>,
    /// Bytes held by `Content::Data`.
    in_memory: usize,
    allocator: Allocator,
    accounting: Accounting,
    delete_snapshots: bool,
    committed: bool,
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// Whether anything was written at all.
    pub changed: bool,
    /// Clusters newly written, tables included.
    pub clusters_written: u64,
    /// Clusters that were used before and are free now.
    pub clusters_freed: u64,
    /// Bytes of the file that held something no longer used and now read as zeros or are cut off.
    pub host_bytes_reclaimed: u64,
    /// Persistent bitmaps that were dropped, since they no longer describe the contents.
    pub bitmaps_dropped: u32,
}

/// Clusters changed are kept in memory up to this many bytes.
const MEMORY_LIMIT: usize = 32 << 20;

impl Image {
    /// Starts a transaction. The whole metadata is walked first, so a damaged image is refused before anything is
    /// written. On an image opened for reading it can be filled, and read, but not committed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for metadata that contradicts itself, [`Error::Io`]; [`Error::Unsupported`] with an external
    /// data file, whose clusters no switch of the header exchanges.
    pub fn begin(mut self) -> Result<Transaction> {
        // A transaction that is dropped leaves the file as it was.
        self.marks_corruption = false;
        self.refuse_external_data("a transaction")?;
        let accounting = Accounting::take(&self, &*self.settled()?)?;
        Ok(Transaction {
            image: self,
            state: RwLock::new(TransactionState {
                changed: BTreeMap::new(),
                in_memory: 0,
                allocator: Allocator::default(),
                accounting,
                delete_snapshots: false,
                committed: false,
            }),
            memory_limit: MEMORY_LIMIT,
        })
    }
}

impl Transaction {
    /// The image as it was before, and is after the commit.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Keeps at most about `bytes` of changed clusters in memory; the rest goes to free clusters of the file.
    #[must_use]
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Deletes all internal snapshots with the commit.
    pub fn delete_snapshots(&self) {
        self.state_mut().delete_snapshots = true;
    }

    /// Whether anything differs from the image so far.
    pub fn is_changed(&self) -> bool {
        let state = self.state();
        !state.changed.is_empty() || state.delete_snapshots
    }

    /// Bytes of the file that hold something that the image as it was no longer uses; a commit gives them back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stale_host_bytes(&self) -> Result<u64> {
        reclaim::stale_bytes(&self.image, &self.state().accounting.references)
    }

    /// Makes all changes the image's own, and gives back what is no longer used.
    ///
    /// Everything new is written to free clusters and flushed; then one sector of the header switches from the old
    /// tables to the new ones and is flushed; then freed clusters are punched out of the file and its end is cut off.
    /// A crash before the switch leaves the old image, one after it the new image, both without errors or leaks; an
    /// interrupted last step is done again by the next commit, which may be one without changes.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Committed`], [`Error::Io`]. After an error before the switch the image is as it was;
    /// after one in or behind the switch it is the old or the new image. Either way it refuses further writes.
    pub fn commit(&self) -> Result<Committed> {
        self.image.check_writable()?;
        let mut state = self.state_mut();
        if state.committed {
            return Err(Error::Committed);
        }
        state.committed = true;
        let changes = commit::Changes {
            clusters: std::mem::take(&mut state.changed),
            allocator: std::mem::take(&mut state.allocator),
            delete_snapshots: state.delete_snapshots,
            ..commit::Changes::default()
        };
        self.image.poison_on_error(|| commit::commit(&self.image, &state.accounting, changes))
    }

    fn state(&self) -> RwLockReadGuard<'_, TransactionState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, TransactionState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the image on disk holds for a whole cluster; what lies beyond the end of the disk is zeros.
    fn old_cluster(&self, cluster: GuestCluster) -> Result<Box<[u8]>> {
        let mut bytes = vec![0; self.image.geometry.cluster_len()].into_boxed_slice();
        let on_disk = self.image.geometry.len_on_disk(cluster);
        self.image.read_at(self.image.geometry.guest_offset(cluster), &mut bytes[..on_disk])?;
        Ok(bytes)
    }

    fn write_part(
        &self,
        state: &mut TransactionState,
        cluster: GuestCluster,
        within: usize,
        part: &[u8],
    ) -> Result<()> {
        let end = within + part.len();
        let bytes = match state.changed.get_mut(&cluster.0) {
            Some(Content::Data(bytes)) => {
                bytes[within..end].copy_from_slice(part);
                return Ok(());
            }
            Some(Content::Spilled(host)) => {
                let offset = self.image.geometry.host_offset(*host) + within as u64;
                return self.image.poison_on_error(|| self.image.write_data(offset, part));
            }
            Some(Content::Zero) => {
                if is_zero(part) {
                    return Ok(());
                }
                let mut bytes = vec![0; self.image.geometry.cluster_len()].into_boxed_slice();
                bytes[within..end].copy_from_slice(part);
                bytes
            }
            None | Some(Content::Moved(_)) => {
                let mut bytes = self.old_cluster(cluster)?;
                if bytes[within..end] == *part {
                    return Ok(());
                }
                bytes[within..end].copy_from_slice(part);
                bytes
            }
        };
        self.hold(state, cluster, bytes)
    }

    /// Keeps a changed cluster, moving others to the file where memory runs short.
    fn hold(&self, state: &mut TransactionState, cluster: GuestCluster, bytes: Box<[u8]>) -> Result<()> {
        state.in_memory += bytes.len();
        state.changed.insert(cluster.0, Content::Data(bytes));
        if state.in_memory <= self.memory_limit || !self.image.writable {
            return Ok(());
        }
        // The lowest ones go first: file systems are scrubbed upwards, so they are the least likely to change again.
        self.image.poison_on_error(|| {
            for content in state.changed.values_mut() {
                if state.in_memory <= self.memory_limit / 2 {
                    break;
                }
                if let Content::Data(bytes) = content {
                    let host = state.allocator.allocate(&state.accounting, 1)?;
                    self.image.write_data_cluster(host, bytes)?;
                    state.in_memory -= bytes.len();
                    *content = Content::Spilled(host);
                }
            }
            Ok(())
        })
    }

    fn zero_part(&self, state: &mut TransactionState, cluster: GuestCluster, within: usize, len: usize) -> Result<()> {
        let geometry = &self.image.geometry;
        if within == 0 && len == geometry.len_on_disk(cluster) {
            if let Some(Content::Data(bytes)) = state.changed.insert(cluster.0, Content::Zero) {
                state.in_memory -= bytes.len();
            }
            return Ok(());
        }
        if let Some(Content::Spilled(host)) = state.changed.get(&cluster.0) {
            let offset = geometry.host_offset(*host) + within as u64;
            return self.image.poison_on_error(|| self.image.write_data(offset, &vec![0; len]));
        }
        self.write_part(state, cluster, within, &vec![0; len])
    }

    fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let geometry = self.image.geometry;
        let state = &mut *self.open_state()?;
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let cluster = geometry.guest_cluster_at(at);
            let mut step = (geometry.guest_offset(cluster) + geometry.cluster_size() - at).min(len - done);
            let within = (at - geometry.guest_offset(cluster)) as usize;
            if state.changed.contains_key(&cluster.0) {
                self.zero_part(state, cluster, within, step as usize)?;
            } else {
                // Whole runs that hold nothing are passed over in one step, up to the next changed cluster.
                let next = state.changed.range(cluster.0..).next().map_or(u64::MAX, |(&next, _)| next);
                let limit = next.saturating_mul(geometry.cluster_size()).saturating_sub(at).min(len - done);
                let extent = self.image.extent_at(at, limit)?;
                if extent.kind == ExtentKind::Hole {
                    step = extent.len;
                } else {
                    self.zero_part(state, cluster, within, step as usize)?;
                }
            }
            done += step;
        }
        Ok(())
    }

    fn open_state(&self) -> Result<RwLockWriteGuard<'_, TransactionState>> {
        let state = self.state_mut();
        if state.committed { Err(Error::Committed) } else { Ok(state) }
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // By blocks of words, which the compiler turns into wide loads.
    let (words, tail) = bytes.as_chunks::<8>();
    tail.iter().all(|&byte| byte == 0)
        && words.chunks(64).all(|chunk| chunk.iter().fold(0, |seen, &word| seen | u64::from_le_bytes(word)) == 0)
}

impl ReadAt for Transaction {
    fn len(&self) -> u64 {
        self.image.len()
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> block::Result<()> {
        BlockError::check_range(offset, buf.len() as u64, self.len())?;
        let geometry = &self.image.geometry;
        let state = self.state();
        let mut at = offset;
        while !buf.is_empty() {
            let cluster = geometry.guest_cluster_at(at);
            let next = state.changed.range(cluster.0..).next();
            let (step, content) = match next {
                Some((&changed, content)) if changed == cluster.0 => {
                    (geometry.guest_offset(cluster) + geometry.cluster_size() - at, Some(content))
                }
                Some((&changed, _)) => (geometry.guest_offset(GuestCluster(changed)) - at, None),
                None => (buf.len() as u64, None),
            };
            let step = step.min(buf.len() as u64) as usize;
            let (part, rest) = std::mem::take(&mut buf).split_at_mut(step);
            let within = (at - geometry.guest_offset(cluster)) as usize;
            match content {
                None => self.image.read_at(at, part)?,
                Some(Content::Zero) => part.fill(0),
                Some(Content::Data(bytes)) => part.copy_from_slice(&bytes[within..within + step]),
                // No cluster is moved before the commit, and none is read here while it runs.
                Some(Content::Moved(_)) => self.image.read_at(at, part)?,
                Some(Content::Spilled(host)) => {
                    self.image.read_data(geometry.host_offset(*host) + within as u64, part)?;
                }
            }
            at += step as u64;
            buf = rest;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        BlockError::check_range(offset, max_len.max(1), self.len())?;
        let geometry = &self.image.geometry;
        let state = self.state();
        let cluster = geometry.guest_cluster_at(offset);
        let limit = match state.changed.range(cluster.0..).next() {
            Some((&changed, content)) if changed == cluster.0 => {
                let kind = if matches!(content, Content::Zero) { ExtentKind::Hole } else { ExtentKind::Data };
                let len = max_len.min(geometry.guest_offset(cluster) + geometry.cluster_size() - offset);
                return Ok(Extent { len, kind });
            }
            Some((&changed, _)) => max_len.min(geometry.guest_offset(GuestCluster(changed)) - offset),
            None => max_len,
        };
        self.image.extent_at(offset, limit)
    }

    fn allocation_unit(&self) -> Option<AllocationUnit> {
        self.image.allocation_unit()
    }
}

impl WriteAt for Transaction {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        BlockError::check_range(offset, buf.len() as u64, self.len())?;
        let geometry = self.image.geometry;
        let mut state = self.open_state()?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let cluster = geometry.guest_cluster_at(at);
            let within = (at - geometry.guest_offset(cluster)) as usize;
            let step = (geometry.cluster_len() - within).min(buf.len() - done);
            self.write_part(&mut state, cluster, within, &buf[done..done + step])?;
            done += step;
        }
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        BlockError::check_range(offset, len, self.len())?;
        Ok(self.zero(offset, len)?)
    }

    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        self.write_zeroes(offset, len)
    }

    /// Does nothing: what is written becomes safe with [`Transaction::commit`].
    fn flush(&self) -> block::Result<()> {
        Ok(())
    }
}
