//! How large a file a new image needs.

use block::{ExtentKind, ReadAt};

use crate::geometry::Geometry;
use crate::{BitmapInfo, CreateOptions, Image, Result};

/// Sizes of a file, with the names of `qemu-img measure --output=json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Measure {
    /// Bytes needed for what the source holds.
    pub required: u64,
    /// Bytes needed once every cluster of the disk is written.
    pub fully_allocated: u64,
    /// Bytes needed beside these to keep the source's persistent bitmaps, where it may have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitmaps: Option<u64>,
}

impl Measure {
    /// The sizes of a new image made of `source`, without compression.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for options that the format does not allow, [`crate::Error::Io`] from `source`.
    pub fn of(source: &dyn ReadAt, options: &CreateOptions) -> Result<Self> {
        let geometry = options.geometry(source.len())?;
        let size = geometry.cluster_size();
        let mut data = 0;
        let mut at = 0;
        while at < source.len() {
            let extent = source.extent_at(at, source.len() - at)?;
            let mut end = at + extent.len;
            if extent.kind == ExtentKind::Data {
                end = end.next_multiple_of(size);
                data += at % size + (end - at);
            }
            at = end;
        }
        Ok(Self::new(&geometry, data, options))
    }

    /// The sizes of a new image made of what another holds, its backing files included, without compression. Space that was
    /// set aside in the other, and never written, is not counted.
    ///
    /// # Errors
    /// As [`Measure::of`].
    pub fn of_image(source: &Image, options: &CreateOptions) -> Result<Self> {
        let geometry = options.geometry(source.len())?;
        let size = geometry.cluster_size();
        let mut data = 0;
        let mut at = 0;
        source.map_chain(&mut |entry| {
            let (start, mut end) = (entry.start.max(at), entry.start + entry.length);
            if start < end && entry.data && !entry.zero {
                end = end.next_multiple_of(size);
                data += start % size + (end - start);
            }
            at = at.max(end);
        })?;
        Ok(Self::new(&geometry, data, options))
    }

    /// The sizes of a new image of `disk_len` bytes that holds nothing.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for options that the format does not allow.
    pub fn of_empty(disk_len: u64, options: &CreateOptions) -> Result<Self> {
        Ok(Self::new(&options.geometry(disk_len)?, 0, options))
    }

    /// The same with what these persistent bitmaps of the source would take.
    #[must_use]
    pub fn with_bitmaps(self, bitmaps: &[BitmapInfo], disk_len: u64, options: &CreateOptions) -> Self {
        let Ok(geometry) = options.geometry(disk_len) else { return self };
        let size = geometry.cluster_size();
        let mut directory = 0;
        let mut bytes = 0;
        for bitmap in bitmaps {
            let clusters = disk_len.div_ceil(bitmap.granularity).div_ceil(8).div_ceil(size);
            bytes += clusters * size + (clusters * 8).next_multiple_of(size);
            directory += (24 + bitmap.name.len() as u64).next_multiple_of(8);
        }
        Self { bitmaps: Some(bytes + directory.next_multiple_of(size)), ..self }
    }

    fn new(geometry: &Geometry, data: u64, options: &CreateOptions) -> Self {
        let size = geometry.cluster_size();
        let clusters = geometry.guest_clusters();
        let l2_tables = clusters.div_ceil(geometry.l2_entries());
        let l1_clusters = (l2_tables * 8).div_ceil(size);
        let others = clusters + 1 + l2_tables + l1_clusters;
        // Refcount blocks and table count themselves.
        let (mut blocks, mut table) = (0, 0);
        loop {
            let wanted = (others + blocks + table).div_ceil(geometry.refcounts_per_block());
            let wanted_table = (wanted * 8).div_ceil(size);
            if (wanted, wanted_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (wanted, wanted_table);
        }
        // As QEMU reckons: the header of the encryption beside all else.
        let fully_allocated = (others + blocks + table) * size + options.crypto_len().next_multiple_of(size);
        Self { required: fully_allocated - clusters * size + data, fully_allocated, bitmaps: None }
    }
}
