//! The map of a disk through its whole backing chain, as `qemu-img map` draws it.

use block::{ExtentKind, ReadAt};
use serde::Serialize;

use crate::image::Image;
use crate::refcount::RefcountTable;
use crate::{MappedKind, Result};

/// A run of the disk that is held in one way, with the names of `qemu-img map --output=json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MapEntry {
    /// Where it starts on the disk.
    pub start: u64,
    /// Bytes in it.
    pub length: u64,
    /// Which file holds it: 0 this image's, 1 its backing file, and so on.
    pub depth: u32,
    /// Whether any file holds it, be it only as a mark that it is zeros.
    pub present: bool,
    /// Whether it is known to read as zeros.
    pub zero: bool,
    /// Whether a file holds bytes of it.
    pub data: bool,
    /// Whether these are compressed.
    pub compressed: bool,
    /// Where they start in that file, unless compressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

impl MapEntry {
    /// Whether `next` goes on where this one ends, in the same way.
    fn continues_with(&self, next: &Self) -> bool {
        let place = |entry: &Self| (entry.depth, entry.present, entry.zero, entry.data, entry.compressed);
        place(self) == place(next) && next.offset == self.offset.map(|offset| offset.saturating_add(self.length))
    }
}

impl Image {
    /// Tells how every byte of the disk is held, through the whole backing chain: the runs in order, each as long as
    /// can be.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn map_chain(&self, each: &mut dyn FnMut(&MapEntry)) -> Result<()> {
        let mut layers = vec![(self, self.is_metadata_preallocated())];
        while let Some(below) = layers.last().and_then(|(image, _)| image.backing_image.as_deref()) {
            layers.push((below, below.is_metadata_preallocated()));
        }
        let mut held: Option<MapEntry> = None;
        let mut at = 0;
        while at < self.len() {
            let next = map_layers(&layers, at, self.len() - at)?;
            at += next.length;
            match &mut held {
                Some(entry) if entry.continues_with(&next) => entry.length += next.length,
                _ => {
                    if let Some(entry) = held.replace(next) {
                        each(&entry);
                    }
                }
            }
        }
        if let Some(entry) = held {
            each(&entry);
        }
        Ok(())
    }

    /// Whether many more clusters are set aside than the file takes space for, so that the file's holes tell more than
    /// the tables. As QEMU judges it: where holes are some tenth of all clusters.
    fn is_metadata_preallocated(&self) -> bool {
        let Some(host_bytes) = self.host_bytes else { return false };
        let geometry = &self.geometry;
        let real = host_bytes / geometry.cluster_size();
        let threshold = (real * 10 / 9).max(real + 2);
        let clusters = self.storage.len().next_multiple_of(512).div_ceil(geometry.cluster_size());
        if clusters < threshold {
            return false;
        }
        let Ok(table) = RefcountTable::read(&*self.storage, &self.state().header.roots, geometry) else { return false };
        let mut counted = 0;
        for index in 0..clusters.div_ceil(geometry.refcounts_per_block()) {
            let Ok(counts) = table.read_block(&*self.storage, geometry, index as usize) else { return false };
            let left = clusters - index * geometry.refcounts_per_block();
            counted += counts.iter().take(left as usize).filter(|&&count| count != 0).count() as u64;
            if counted >= threshold {
                return true;
            }
        }
        false
    }
}

/// How the bytes from `start` on are held, by the first layer that holds them.
fn map_layers(layers: &[(&Image, bool)], start: u64, mut length: u64) -> Result<MapEntry> {
    let entry = |length, depth| MapEntry {
        start,
        length,
        depth,
        present: true,
        zero: false,
        data: false,
        compressed: false,
        offset: None,
    };
    let mut depth = 0;
    for &(image, preallocated) in layers {
        let extent = image.map(start, length)?;
        length = extent.len;
        match extent.kind {
            MappedKind::Compressed => return Ok(MapEntry { data: true, compressed: true, ..entry(length, depth) }),
            MappedKind::Zero { host_offset } => {
                return Ok(MapEntry {
                    zero: true,
                    offset: host_offset.filter(|_| image.crypt.is_none()),
                    ..entry(length, depth)
                });
            }
            MappedKind::Encrypted { .. } => return Ok(MapEntry { data: true, ..entry(length, depth) }),
            MappedKind::Data { host_offset } => {
                let mut found = MapEntry { data: true, offset: Some(host_offset), ..entry(length, depth) };
                if preallocated {
                    (found.length, found.zero) = image.look_into_file(host_offset, length)?;
                }
                return Ok(found);
            }
            MappedKind::Unallocated => {}
        }
        let nothing = MapEntry { present: false, zero: true, ..entry(length, depth) };
        let Some(below) = &image.backing else { return Ok(nothing) };
        if start >= below.len() {
            return Ok(nothing);
        }
        length = length.min(below.len() - start);
        depth += 1;
        if image.backing_image.is_none() {
            let extent = below.extent_at(start, length)?;
            let data = extent.kind == ExtentKind::Data;
            return Ok(MapEntry { data, zero: !data, offset: Some(start), ..entry(extent.len, depth) });
        }
    }
    Ok(MapEntry { present: false, zero: true, ..entry(length, depth) })
}

impl Image {
    /// For how many bytes at an offset of the file that holds data it is the same whether they are a hole, and whether they are.
    fn look_into_file(&self, offset: u64, length: u64) -> Result<(u64, bool)> {
        let file = self.data.as_ref().unwrap_or(&self.storage);
        let left = file.len().saturating_sub(offset);
        if left == 0 {
            return Ok((length, true));
        }
        let extent = file.extent_at(offset, length.min(left))?;
        let zero = extent.kind != ExtentKind::Data;
        // A hole at the end of the file goes on behind it.
        Ok((if zero && extent.len == left { length } else { extent.len }, zero))
    }
}
