//! Reads and writes qcow2 disk images, and changes them in atomic transactions.
//!
//! * [`Image`] is an open image. It is a [`block::ReadAt`] device that any number of threads may read at once, and,
//!   when opened for writing, a [`block::WriteAt`] device whose metadata is written in QEMU's order.
//! * [`Transaction`] is a device whose writes reach the image all at once, by [`Transaction::commit`], or not at all:
//!   after a crash at any moment the image is the old one or the new one, never something between.
//! * Internal snapshots ([`Image::create_snapshot`], [`Image::apply_snapshot`], [`Image::delete_snapshot`],
//!   [`Image::into_snapshot`]) and the disk's length ([`Image::resize`]) change in the same way: at once or not at all.
//! * Persistent bitmaps are listed, read and changed ([`Image::bitmaps`], [`Image::read_bitmap`], [`Image::add_bitmap`], ...), and
//!   those that are enabled are kept right when the disk is written in place. A transaction drops them.
//! * [`Image::commit_to`] writes an overlay into its backing file, [`Image::rebase`] puts it on top of another one.
//! * [`Image::amend`] changes version, refcount width and features.
//! * [`read_in_order`] reads a whole disk by several threads.
//! * [`create`](create()) writes a new image, compressed or not, from any device; [`create_empty`] makes one that holds nothing.
//!
//! The format is specified in QEMU's `docs/interop/qcow2.rst`; `docs/qcow2.md` of this project restates what is
//! relied on, with the checks made.
//!
//! Versions 2 and 3, cluster sizes from 512 bytes to 2 MiB, refcounts of 1 to 64 bits, extended L2 entries, zlib and
//! zstd clusters, backing files (qcow2 and raw) and external data files are handled; images with an external data file are
//! written in place, and not in transactions. Images encrypted
//! with LUKS are read, written and made with the feature `luks`; the legacy AES encryption is refused by name. What an image names on the host is opened
//! only where [`Backing`] and [`DataFile`] allow it.
//!
//! # Memory
//!
//! Whatever an image says, an [`Image`] holds at most its L1 table (32 MiB; at 64 KiB clusters 128 KiB for a terabyte), 16 MiB of
//! slices of L2 tables, 16 MiB of decompressed clusters (at least 8 of them), 16 decompressors and, opened for writing, its
//! refcount table (8 MiB) and 16 MiB of metadata that waits for the flush. Transactions and checks say what they add.
//!
//! # Examples
//!
//! Making an image, writing it in place, and reading it back. A file of the host would be a [`block::HostFile`], and
//! [`Image::open`] takes its path, and the locks that QEMU takes:
//!
//! ```
//! use std::sync::Arc;
//!
//! use block::{Memory, ReadAt, Storage, WriteAt};
//! use qcow2::{CreateOptions, Image, ImageFeatures, OpenOptions, create_empty};
//!
//! let file: Arc<dyn Storage> = Arc::new(Memory::new(0));
//! create_empty(Arc::clone(&file), 1 << 30, &CreateOptions::new().cluster_size(65_536), &ImageFeatures::new())?;
//!
//! let image = Image::open_storage(Arc::clone(&file), &OpenOptions::new().writable(true))?;
//! image.write_at(4096, b"in place")?;
//! image.flush()?;
//! drop(image);
//!
//! let image = Image::open_storage(file, &OpenOptions::new())?;
//! let mut bytes = [0; 8];
//! image.read_at(4096, &mut bytes)?;
//! assert_eq!(&bytes, b"in place");
//! assert_eq!(image.len(), 1 << 30);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A transaction, whose changes reach the image all at once or not at all; then a snapshot, and what it holds:
//!
//! ```
//! # use std::sync::Arc;
//! # use block::{Memory, ReadAt, Storage, WriteAt};
//! # use qcow2::{CreateOptions, Image, ImageFeatures, OpenOptions, create_empty};
//! # let file: Arc<dyn Storage> = Arc::new(Memory::new(0));
//! # create_empty(Arc::clone(&file), 1 << 30, &CreateOptions::new(), &ImageFeatures::new())?;
//! let writable = OpenOptions::new().writable(true);
//! let transaction = Image::open_storage(Arc::clone(&file), &writable)?.begin()?;
//! transaction.write_at(4096, b"all of this")?;
//! transaction.discard(1 << 20, 1 << 20)?;
//! let committed = transaction.commit()?; // or drop it, and nothing happened
//! assert!(committed.changed);
//! drop(transaction);
//!
//! let mut image = Image::open_storage(Arc::clone(&file), &writable)?;
//! image.create_snapshot("before", std::time::SystemTime::UNIX_EPOCH)?;
//! image.resize(2 << 30)?;
//! image.write_at(4096, b"what came after")?;
//! let before = image.into_snapshot("before")?; // a device, for reading
//! let mut bytes = [0; 11];
//! before.read_at(4096, &mut bytes)?;
//! assert_eq!(&bytes, b"all of this");
//! assert_eq!(before.len(), 1 << 30);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod address;
mod amend;
mod backing;
mod bitmap;
mod bitmaps;
mod cache;
mod check;
mod commit;
mod commit_down;
mod compare;
mod compress;
mod create;
#[cfg_attr(not(feature = "luks"), path = "crypt_absent.rs")]
mod crypt;
mod data_file;
mod dirty_tracking;
mod error;
mod features;
mod geometry;
mod guest_data;
mod header;
mod header_area;
mod header_extension;
mod image;
mod image_features;
mod info;
mod json_name;
mod l1_table;
mod l2_entry;
mod l2_table;
mod limits;
mod map;
mod measure;
mod named_file;
mod occupied;
mod pack;
mod pending;
mod pipeline;
mod preallocation;
mod read;
mod rebase;
mod reclaim;
mod refcount;
mod references;
mod resize;
mod slice_cache;
mod snapshot;
mod snapshots;
mod stream;
mod transaction;
mod write;
mod write_compressed;

pub use amend::AmendOptions;
pub use backing::{Backing, BackingName};
pub use bitmap::Bitmap;
pub use bitmaps::DirtyBits;
pub use check::{CheckReport, Problem, Repair, Severity};
pub use compare::compare;
pub use compress::Compression;
pub use create::{CreateOptions, create};
#[cfg(feature = "luks")]
pub use crypt::{
    CipherAlgorithm, CipherMode, EncryptInfo, HashAlgorithm, IvGenerator, KeySlotInfo, LuksOptions, NewPassphrase,
    Secret,
};
pub use data_file::DataFile;
pub use error::{Corrupt, Error, Result};
pub use features::{Autoclear, Compatible, Incompatible};
pub use image::{Image, OpenOptions};
pub use image_features::{ImageFeatures, add_features, create_empty};
pub use info::{BitmapInfo, ImageInfo};
pub use map::MapEntry;
pub use measure::Measure;
pub use preallocation::Preallocation;
pub use read::{MappedExtent, MappedKind};
pub use reclaim::Reclaimed;
pub use snapshot::Snapshot;
pub use stream::read_in_order;
pub use transaction::{Committed, Transaction};
