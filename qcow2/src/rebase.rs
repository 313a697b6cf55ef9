//! Changing the backing file: with what the disk holds kept as it is, or by its name alone.

use std::sync::Arc;

use block::{ExtentKind, ReadAt, WriteAt as _};

use crate::Result;
use crate::address::GuestCluster;
use crate::backing::{self, BackingName};
use crate::commit::{self, Changes, Relayout};
use crate::features::Autoclear;
use crate::header_area::HeaderArea;
use crate::image::Image;
use crate::read::MappedKind;
use crate::references::Accounting;
use crate::transaction::{Content, is_zero};

/// Bytes compared at a time.
const STEP: u64 = 1 << 20;
/// Clusters copied up are kept in memory up to this many bytes.
const MEMORY_LIMIT: usize = 32 << 20;

impl Image {
    /// Puts the image on top of another backing file, or of none, so that its disk stays what it is: clusters that come from
    /// the old backing file, and that the new one holds otherwise, are copied up. Returns how many bytes those were.
    ///
    /// `backing` is the name that the image is to have for it, which is not opened here, with the disk that it holds. Persistent
    /// bitmaps stay as they are. One sector of the header switches from the old tables and the old name to the new ones, so that a
    /// crash leaves the one or the other.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a name of more than 1023 bytes; [`crate::Error::Unsupported`] with an external data file, and where the
    /// header has no room; [`crate::Error::ReadOnly`], [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn rebase(
        mut self,
        backing: Option<(BackingName, Arc<dyn ReadAt>)>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        self.check_writable()?;
        self.refuse_external_data("rebasing")?;
        self.check_unlocked()?;
        let (name, below) = backing.unzip();
        let mut area = HeaderArea::read(&self)?;
        area.set_backing(name)?;
        let header = Some(area.plan(&self)?);
        let accounting = Accounting::take(&self, &*self.settled()?)?;
        let counted = Some(&accounting);
        let mut copied =
            CopiedUp { image: &self, accounting: counted, changes: Changes::default(), in_memory: 0, bytes: 0 };
        copied.all(below.as_deref(), progress)?;
        let CopiedUp { changes, bytes, .. } = copied;
        (self.backing, self.backing_image) = (below, None);
        let (counts, disk_len) = (accounting.references.clone(), self.geometry.disk_len);
        let relayout = Some(Relayout { counts, l1: None, snapshots: None, disk_len });
        self.relayout_with(&accounting, Changes { relayout, header, ..changes })?;
        Ok(bytes)
    }

    /// As [`Image::rebase`], but the clusters that are copied up are compressed where they get shorter by it. They are written in
    /// place, before the name is changed, and bitmaps that are enabled take them for written: a crash before that leaves the
    /// old name, and the disk what it was.
    ///
    /// # Errors
    /// As [`Image::rebase`]; [`crate::Error::Unsupported`] for an encrypted image, too.
    pub fn rebase_compressed(
        mut self,
        backing: Option<(BackingName, Arc<dyn ReadAt>)>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        self.check_writable()?;
        self.refuse_external_data("rebasing")?;
        if self.is_encrypted() {
            return Err(crate::Error::Unsupported("compressing clusters of an encrypted image".to_owned()));
        }
        let (name, below) = backing.unzip();
        let mut area = HeaderArea::read(&self)?;
        area.set_backing(name.clone())?;
        area.plan(&self)?;
        let mut copied =
            CopiedUp { image: &self, accounting: None, changes: Changes::default(), in_memory: 0, bytes: 0 };
        copied.all(below.as_deref(), progress)?;
        let CopiedUp { changes, bytes, .. } = copied;
        self.flush()?;
        let accounting = Accounting::take(&self, &*self.settled()?)?;
        let mut area = HeaderArea::read(&self)?;
        area.set_backing(name)?;
        let header = Some(area.plan(&self)?);
        (self.backing, self.backing_image) = (below, None);
        let (counts, disk_len) = (accounting.references.clone(), self.geometry.disk_len);
        let relayout = Some(Relayout { counts, l1: None, snapshots: None, disk_len });
        self.relayout_with(&accounting, Changes { relayout, header, ..changes })?;
        Ok(bytes)
    }

    /// Has the image name another backing file, or none, and changes nothing else: what the disk held of the old one it
    /// takes from the new one. A crash leaves the old name or the new one.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for a name of more than 1023 bytes; [`crate::Error::Unsupported`] where the header has no room;
    /// [`crate::Error::ReadOnly`], [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn set_backing_name(mut self, backing: Option<BackingName>) -> Result<()> {
        self.check_writable()?;
        let mut area = HeaderArea::read(&self)?;
        area.set_backing(backing)?;
        self.rewrite_header(&area)
    }

    /// Writes another header, extensions and backing file's name, and nothing else.
    pub(crate) fn rewrite_header(&mut self, area: &HeaderArea) -> Result<()> {
        let rewrite = area.plan(self)?;
        let mut roots = self.state().header.roots;
        roots.autoclear &= Autoclear::BITMAPS | Autoclear::RAW_EXTERNAL_DATA;
        self.poison_on_error(|| {
            rewrite.write_before(&*self.storage)?;
            self.storage.flush()?;
            commit::write_first_sector(self, &self.state(), &roots, rewrite.sector)?;
            rewrite.write_after(&*self.storage)
        })?;
        self.reload_header()
    }
}

/// Clusters that are to be copied up.
struct CopiedUp<'a> {
    image: &'a Image,
    /// What is counted where the clusters are committed together; nothing where they are written compressed, in place.
    accounting: Option<&'a Accounting>,
    changes: Changes,
    /// Bytes held by `Content::Data`.
    in_memory: usize,
    bytes: u64,
}

impl CopiedUp<'_> {
    /// Looks at the whole disk.
    fn all(&mut self, new: Option<&dyn ReadAt>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let image = self.image;
        let mut at = 0;
        while at < image.len() {
            let extent = image.map(at, image.len() - at)?;
            if extent.kind == MappedKind::Unallocated {
                self.run(at, at + extent.len, new, progress)?;
            }
            at += extent.len;
            progress(at);
        }
        Ok(())
    }

    /// Looks at a run of the disk that comes from the old backing file.
    fn run(&mut self, mut at: u64, end: u64, new: Option<&dyn ReadAt>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let geometry = self.image.geometry;
        let (mut bytes_old, mut bytes_new) = (vec![0; STEP as usize], vec![0; STEP as usize]);
        while at < end {
            let old = self.image.backing.as_deref();
            let (len_old, hole_old) = hole(old, at, end - at)?;
            let (len_new, hole_new) = hole(new, at, end - at)?;
            let mut len = len_old.min(len_new);
            if !(hole_old && hole_new) {
                // Up to the end of a cluster, where that is near, so that few are looked at twice.
                len = len.min(STEP - at % STEP.min(geometry.cluster_size()));
                // At most STEP.
                let (old_part, new_part) = (&mut bytes_old[..len as usize], &mut bytes_new[..len as usize]);
                read(old, at, old_part)?;
                read(new, at, new_part)?;
                self.compare(at, old_part, new_part)?;
            }
            at += len;
            progress(at);
        }
        Ok(())
    }

    /// Copies up the clusters in which the two differ.
    fn compare(&mut self, at: u64, old: &[u8], new: &[u8]) -> Result<()> {
        let geometry = self.image.geometry;
        let end = at + old.len() as u64;
        let mut start = at;
        while start < end {
            let cluster = geometry.guest_cluster_at(start);
            let stop = (geometry.guest_offset(cluster) + geometry.cluster_size()).min(end);
            let range = (start - at) as usize..(stop - at) as usize;
            if old[range.clone()] != new[range] && !self.changes.clusters.contains_key(&cluster.0) {
                self.copy_up(cluster)?;
            }
            start = stop;
        }
        Ok(())
    }

    fn copy_up(&mut self, cluster: GuestCluster) -> Result<()> {
        let geometry = self.image.geometry;
        let mut bytes = vec![0; geometry.cluster_len()].into_boxed_slice();
        let on_disk = geometry.len_on_disk(cluster);
        self.image.read_at(geometry.guest_offset(cluster), &mut bytes[..on_disk])?;
        self.bytes += on_disk as u64;
        // Version 2 can say zeros only by zeros, which may as well be compressed.
        let content = if is_zero(&bytes) && (self.image.version >= 3 || self.accounting.is_some()) {
            Content::Zero
        } else if self.accounting.is_none() {
            return self.image.write_compressed(geometry.guest_offset(cluster), &bytes[..on_disk]);
        } else if self.in_memory + bytes.len() > MEMORY_LIMIT {
            let accounting = self.accounting.ok_or_else(|| crate::Error::Invalid("no accounting".to_owned()))?;
            let host = self.changes.allocator.allocate(accounting, 1)?;
            self.image.write_data_cluster(host, &bytes)?;
            Content::Spilled(host)
        } else {
            self.in_memory += bytes.len();
            Content::Data(bytes)
        };
        self.changes.clusters.insert(cluster.0, content);
        Ok(())
    }
}

/// For how many bytes a backing file, if there is one, is or is not known to read as zeros.
fn hole(backing: Option<&dyn ReadAt>, at: u64, len: u64) -> Result<(u64, bool)> {
    let Some(backing) = backing else { return Ok((len, true)) };
    let extent = backing::extent_padded(backing, at, len)?;
    Ok((extent.len, extent.kind != ExtentKind::Data))
}

fn read(backing: Option<&dyn ReadAt>, at: u64, buf: &mut [u8]) -> Result<()> {
    match backing {
        Some(backing) => Ok(backing::read_padded(backing, at, buf)?),
        None => {
            buf.fill(0);
            Ok(())
        }
    }
}
