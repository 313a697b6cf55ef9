//! Facts of an image.

use crate::features::{Compatible, Incompatible};
use crate::image::Image;
use crate::{Bitmap, Compression, Result, Snapshot, snapshot};

/// Facts of an image, with the names of `qemu-img info --output=json` where it has them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ImageInfo {
    /// 2 or 3.
    pub version: u32,
    /// Length of the virtual disk in bytes.
    pub virtual_size: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Width of a refcount in bits.
    pub refcount_bits: u32,
    /// How compressed clusters are compressed.
    pub compression_type: Compression,
    /// Whether refcount updates may be put off.
    pub lazy_refcounts: bool,
    /// Whether L2 entries tell how each of 32 subclusters is held.
    #[serde(rename = "extended-l2")]
    pub extended_l2: bool,
    /// The dirty bit: refcounts are to be rebuilt before writing.
    pub dirty_flag: bool,
    /// The corrupt bit: the image must not be written.
    pub corrupt: bool,
    /// The backing file's name as the image has it.
    pub backing_filename: Option<String>,
    /// The backing file's format as the image has it.
    pub backing_filename_format: Option<String>,
    /// The external data file's name as the image has it.
    pub data_file: Option<String>,
    /// How the image is encrypted.
    #[cfg(feature = "luks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<crate::EncryptInfo>,
    /// Whether the external data file can be read as a raw image.
    pub data_file_raw: bool,
    /// Internal snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Persistent bitmaps; none where they do not describe the contents any more.
    pub bitmaps: Vec<BitmapInfo>,
}

/// Facts of a persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BitmapInfo {
    /// Its flags that are set: `in-use` (not saved rightly), `auto` (QEMU keeps it up to date).
    pub flags: Vec<&'static str>,
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
}

impl BitmapInfo {
    fn of(bitmap: &Bitmap) -> Self {
        let flags = [("in-use", bitmap.in_use), ("auto", bitmap.enabled)];
        Self {
            flags: flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect(),
            name: bitmap.name.clone(),
            granularity: bitmap.granularity,
        }
    }
}

impl Image {
    /// Facts of the image.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the snapshot table or the bitmap directory is damaged.
    pub fn info(&self) -> Result<ImageInfo> {
        let state = self.state();
        let header = &state.header;
        let roots = &header.roots;
        Ok(ImageInfo {
            version: self.version,
            virtual_size: self.geometry.disk_len,
            cluster_size: self.geometry.cluster_size(),
            refcount_bits: 1 << self.geometry.refcount_order,
            compression_type: self.compression,
            lazy_refcounts: header.compatible.contains(Compatible::LAZY_REFCOUNTS),
            extended_l2: self.geometry.extended_l2,
            dirty_flag: roots.incompatible.contains(Incompatible::DIRTY),
            corrupt: roots.incompatible.contains(Incompatible::CORRUPT),
            backing_filename: self.backing_name.as_ref().map(|backing| backing.name.clone()),
            backing_filename_format: self.backing_name.as_ref().and_then(|backing| backing.format.clone()),
            snapshots: snapshot::read_table(&*self.storage, roots, &self.geometry)?.0,
            bitmaps: self.bitmaps()?.iter().map(BitmapInfo::of).collect(),
            data_file: self.extensions.data_file.clone().filter(|_| self.geometry.external_data),
            #[cfg(feature = "luks")]
            encrypt: self.crypt.as_ref().map(crate::crypt::Crypt::info),
            data_file_raw: self.is_data_file_raw(&state),
        })
    }
}
