//! An open image.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use block::{Access, HostFile, ReadAt, Storage};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use crate::backing::{self, BackingName};
use crate::cache::Cache;
use crate::compress::Decompressor;
use crate::crypt::Crypt;
use crate::dirty_tracking::Tracked;
use crate::features::Incompatible;
use crate::geometry::Geometry;
use crate::header::Header;
use crate::header_extension::Extensions;
use crate::l1_table::L1Table;
use crate::occupied::Occupied;
use crate::pending::Pending;
use crate::refcount::RefcountTable;
use crate::slice_cache::SliceCache;
use crate::{Backing, Compression, DataFile, Error, Result, commit, data_file};

/// How an image is opened. By default for reading only, and nothing that it names is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    pub(crate) writable: bool,
    pub(crate) repair: bool,
    pub(crate) unlocked: bool,
    pub(crate) backing: Backing,
    pub(crate) data_file: DataFile,
    /// The passphrase of this image, of its backing file, of that one's, and so on.
    #[cfg(feature = "luks")]
    pub(crate) passphrases: Vec<Option<crate::Secret>>,
    #[cfg(feature = "luks")]
    pub(crate) max_key_iterations: Option<u32>,
    pub(crate) data_storage: Option<DataStorage>,
    pub(crate) threads: usize,
}

impl OpenOptions {
    /// Reading only; no backing files, no external data files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the image may be written.
    #[must_use]
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// Whether the image may be repaired, and nothing else: it may be marked corrupt, and have damaged refcounts.
    #[must_use]
    pub fn repair(mut self, repair: bool) -> Self {
        self.repair = repair;
        self
    }

    /// Whether the files are opened with no locks taken or looked at, where they are only read: another program may be
    /// changing them, so that what is read may be of no one moment.
    #[must_use]
    pub fn unlocked(mut self, unlocked: bool) -> Self {
        self.unlocked = unlocked;
        self
    }

    /// How many threads may decompress for one large read; by default one, the caller's own. They are started for the
    /// read and end with it. (To read a whole disk by several threads, see [`crate::read_in_order`].)
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// How the file of an image is to be opened.
    pub(crate) fn access(&self) -> Access {
        match (self.writable || self.repair, self.unlocked) {
            (true, _) => Access::ReadWrite,
            (false, true) => Access::ReadUnlocked,
            (false, false) => Access::Read,
        }
    }

    /// Which backing files may be opened.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// The passphrase of an encrypted image. Without one it can be opened, too: to be described, checked, and mapped. Its data
    /// can then be neither read nor written.
    #[cfg(feature = "luks")]
    #[must_use]
    pub fn passphrase(self, passphrase: crate::Secret) -> Self {
        self.backing_passphrase(0, passphrase)
    }

    /// The passphrase of an encrypted backing file: that of the image is at depth 1, its own at depth 2, and so on.
    #[cfg(feature = "luks")]
    #[must_use]
    pub fn backing_passphrase(mut self, depth: usize, passphrase: crate::Secret) -> Self {
        if depth < crate::limits::BACKING_DEPTH {
            self.passphrases.resize(self.passphrases.len().max(depth + 1), None);
            self.passphrases[depth] = Some(passphrase);
        }
        self
    }

    /// How many iterations of PBKDF2 are carried out at most for one key slot: the image says how many it wants, and a
    /// hostile one would have us count for hours. By default 33,554,432.
    #[cfg(feature = "luks")]
    #[must_use]
    pub fn max_key_iterations(mut self, iterations: u32) -> Self {
        self.max_key_iterations = Some(iterations);
        self
    }

    /// These options for the backing file.
    pub(crate) fn for_backing(&self) -> Self {
        Self {
            writable: false,
            repair: false,
            data_storage: None,
            #[cfg(feature = "luks")]
            passphrases: self.passphrases.get(1..).unwrap_or_default().to_vec(),
            ..self.clone()
        }
    }

    /// The external data file, opened already: where the image has one, it is this, whatever the image calls it.
    #[must_use]
    pub fn data_storage(mut self, data: Arc<dyn Storage>) -> Self {
        self.data_storage = Some(DataStorage(data));
        self
    }

    /// Which external data files may be opened.
    #[must_use]
    pub fn data_file(mut self, data_file: DataFile) -> Self {
        self.data_file = data_file;
        self
    }
}

/// A data file that the caller opened.
#[derive(Clone)]
pub(crate) struct DataStorage(Arc<dyn Storage>);

impl std::fmt::Debug for DataStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataStorage")
    }
}

/// An open image: a device that many threads may read at once.
pub struct Image {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) writable: bool,
    repairable: bool,
    /// The external data file.
    pub(crate) data: Option<Arc<dyn Storage>>,
    pub(crate) data_layout_checked: AtomicBool,
    pub(crate) backing: Option<Arc<dyn ReadAt>>,
    /// The backing file, where it is an image itself.
    pub(crate) backing_image: Option<Arc<Self>>,
    /// Where the backing file is.
    pub(crate) backing_path: Option<PathBuf>,
    pub(crate) backing_name: Option<BackingName>,
    /// Bytes of the host's disk that the file takes, where that is known.
    pub(crate) host_bytes: Option<u64>,
    /// How guest data is encrypted, where it is.
    pub(crate) crypt: Option<Crypt>,
    pub(crate) extensions: Extensions,
    pub(crate) geometry: Geometry,
    pub(crate) version: u32,
    pub(crate) compression: Compression,
    pub(crate) state: ShardedLock<State>,
    pub(crate) slices: SliceCache,
    /// Decompressed clusters, by the offset of their stream.
    pub(crate) decompressed: Cache<Arc<Vec<u8>>>,
    /// Threads that may decompress for one read.
    pub(crate) threads: usize,
    /// Decompressors that nobody uses just now.
    pub(crate) decompressors: Mutex<Vec<Decompressor>>,
    /// Held by the one thread that allocates or frees clusters.
    pub(crate) allocating: Mutex<()>,
    /// Whether the image was made fit for writing in place.
    pub(crate) prepared: AtomicBool,
    /// The enabled bitmaps, once something was written in place.
    pub(crate) tracked: Mutex<Option<Vec<Tracked>>>,
    /// One of [`SOUND`], [`WRITE_FAILED`], [`CORRUPTION_FOUND`].
    soundness: AtomicU8,
    /// Whether the corrupt bit is to be set where corruption is found.
    pub(crate) marks_corruption: bool,
}

const SOUND: u8 = 0;
/// What is in memory may not be what is on the disk.
const WRITE_FAILED: u8 = 1;
/// The metadata is not to be trusted.
const CORRUPTION_FOUND: u8 = 2;

/// What changes when the image is written.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) header: Header,
    pub(crate) l1: L1Table,
    pub(crate) refcounts: RefcountTable,
    /// No cluster before this one is free.
    pub(crate) first_free: u64,
    /// Where the last compressed stream ends that was written in place; 0 where there is none that another may follow.
    pub(crate) stream_end: u64,
    /// Changes of metadata that are still to be written.
    pub(crate) pending: Pending,
    /// Where metadata is, once something is written in place.
    pub(crate) occupied: Option<Occupied>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("geometry", &self.geometry)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

impl Image {
    /// Opens the image in a file of the host, with the locks that QEMU takes: an image that a virtual machine uses
    /// cannot be opened, and a virtual machine cannot start on one that is open here for writing.
    ///
    /// Nothing is written by opening. A dirty or corrupt image can be opened for reading.
    ///
    /// # Errors
    /// [`Error::NotQcow2`], [`Error::Unsupported`], [`Error::Corrupt`], [`Error::BackingRefused`],
    /// [`Error::DataFileRefused`], [`Error::ReadOnly`] for writing an image that is marked corrupt, and [`Error::Io`]
    /// with what the host says.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = HostFile::open(path, options.access())?;
        let host_bytes = Some(file.allocated_when_opened());
        let mut image = Self::open_chain(Arc::new(file), Some(path), options, Vec::new())?;
        image.host_bytes = host_bytes;
        Ok(image)
    }

    /// Opens the image in any storage. A relative backing file name cannot be followed from here.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_storage(storage: Arc<dyn Storage>, options: &OpenOptions) -> Result<Self> {
        Self::open_chain(storage, None, options, Vec::new())
    }

    /// Opens the last of a chain of images, whose real paths are `chain`, its own among them where it is not the first.
    pub(crate) fn open_chain(
        storage: Arc<dyn Storage>,
        path: Option<&Path>,
        options: &OpenOptions,
        mut chain: Vec<PathBuf>,
    ) -> Result<Self> {
        let mut start = vec![0; storage.len().min(HEADER_WINDOW) as usize];
        storage.read_at(0, &mut start)?;
        let header = Header::decode(&start)?;
        let geometry = header.geometry;
        if options.writable && !options.repair && header.roots.incompatible.contains(Incompatible::CORRUPT) {
            return Err(Error::ReadOnly("it is marked corrupt"));
        }
        let extensions = read_extensions(&*storage, &header, start)?;
        let backing_name = match header.backing_name {
            None => None,
            Some((offset, len)) => {
                let bytes = block::read_vec(&*storage, offset, u64::from(len))?;
                let name = String::from_utf8(bytes)
                    .map_err(|_| Error::corrupt("backing file name", offset, "must be valid UTF-8"))?;
                Some(BackingName { name, format: extensions.backing_format.clone() })
            }
        };
        if chain.is_empty() && (geometry.external_data || backing_name.is_some()) {
            chain.extend(path.and_then(|path| path.canonicalize().ok()));
        }
        let data = if let (true, Some(DataStorage(data))) = (geometry.external_data, &options.data_storage) {
            Some(Arc::clone(data))
        } else if geometry.external_data {
            Some(data_file::open(extensions.data_file.as_deref(), path, options, &chain)?)
        } else {
            None
        };
        let backing::Opened { device: backing, image: backing_image, path: backing_path } = match &backing_name {
            Some(named) => backing::open(named, path, options, &chain, geometry.disk_len)?,
            None => backing::Opened::default(),
        };

        let l1 = L1Table::unread(&*storage, &header.roots)?;
        let refcounts = if options.writable && !options.repair {
            RefcountTable::read(&*storage, &header.roots, &geometry)?
        } else {
            // A reader has no use for refcounts, and an image whose refcounts are damaged can still be read.
            RefcountTable::default()
        };
        let crypt = open_crypt(&*storage, &header, &extensions, options)?;
        // 16 MiB of decompressed clusters serve neighbours.
        let clusters = ((16 << 20) >> geometry.cluster_bits).clamp(8, 256);
        Ok(Self {
            storage,
            writable: options.writable && !options.repair,
            repairable: options.repair,
            data,
            data_layout_checked: AtomicBool::new(false),
            backing,
            backing_image,
            backing_path,
            backing_name,
            host_bytes: None,
            crypt,
            extensions,
            geometry,
            version: header.version,
            compression: header.compression,
            state: ShardedLock::new(State {
                header,
                l1,
                refcounts,
                first_free: 0,
                stream_end: 0,
                pending: Pending::default(),
                occupied: None,
            }),
            slices: SliceCache::default(),
            decompressed: Cache::new(clusters),
            threads: options.threads.clamp(1, 64),
            decompressors: Mutex::new(Vec::new()),
            allocating: Mutex::new(()),
            prepared: AtomicBool::new(false),
            tracked: Mutex::new(None),
            soundness: AtomicU8::new(SOUND),
            marks_corruption: options.writable && !options.repair,
        })
    }

    /// What the image says of its backing file.
    #[must_use]
    pub fn backing_name(&self) -> Option<&BackingName> {
        self.backing_name.as_ref()
    }

    /// Where the backing file is, all symbolic links followed, if it was opened.
    #[must_use]
    pub fn backing_path(&self) -> Option<&Path> {
        self.backing_path.as_deref()
    }

    /// The backing file, if it was opened and is a qcow2 image itself.
    #[must_use]
    pub fn backing_image(&self) -> Option<&Self> {
        self.backing_image.as_deref()
    }

    /// The entries of the active L1 table.
    pub(crate) fn l1<'s>(&self, state: &'s State) -> Result<&'s [u64]> {
        state.l1.get(&*self.storage, &state.header.roots)
    }

    pub(crate) fn state(&self) -> ShardedLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> ShardedLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if !self.writable {
            return Err(Error::ReadOnly("it was opened for reading"));
        }
        self.check_sound()
    }

    fn check_sound(&self) -> Result<()> {
        match self.soundness.load(Ordering::Acquire) {
            SOUND => Ok(()),
            CORRUPTION_FOUND => Err(Error::ReadOnly("its metadata was found to be corrupt")),
            _ => Err(Error::Poisoned),
        }
    }

    pub(crate) fn check_repairable(&self) -> Result<()> {
        if !self.repairable {
            return Err(Error::ReadOnly("it was not opened for a repair"));
        }
        self.check_sound()
    }

    /// Runs a change of the file; if it fails, memory and file may differ, so no further change is allowed.
    pub(crate) fn poison_on_error<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = change();
        if let Err(error) = &result {
            let found = if error.is_corruption() { CORRUPTION_FOUND } else { WRITE_FAILED };
            let _ = self.soundness.compare_exchange(SOUND, found, Ordering::AcqRel, Ordering::Acquire);
        }
        result
    }

    /// Passes on what a call on the disk returns. Where that is corruption of the metadata, and the image is open for writing
    /// in place, it is marked as corrupt, as QEMU does: nobody is to write it before it is repaired.
    pub(crate) fn mark_if_corrupt<T>(&self, result: Result<T>) -> Result<T> {
        let found = result.as_ref().is_err_and(Error::is_corruption);
        if found && self.marks_corruption {
            let before = self.soundness.compare_exchange(SOUND, CORRUPTION_FOUND, Ordering::AcqRel, Ordering::Acquire);
            // After a failed write, what looks wrong may be right on the disk.
            if before != Err(WRITE_FAILED) {
                // The caller learns of the corruption, which weighs more than that the mark could not be written.
                let _ = self.write_corrupt_bit();
            }
        }
        result
    }

    fn write_corrupt_bit(&self) -> Result<()> {
        let state = &mut *self.state_mut();
        let mut roots = state.header.roots;
        // Version 2 has no such bit.
        if self.version < 3 || roots.incompatible.contains(Incompatible::CORRUPT) {
            return Ok(());
        }
        roots.incompatible.insert(Incompatible::CORRUPT);
        commit::write_roots(self, state, &roots)?;
        state.header.roots = roots;
        Ok(())
    }

    /// Makes all that was written safe, and closes the image: the only way to learn whether that worked. (Dropping an image
    /// writes what is still to be written, too, but does not flush it, and tells nobody of errors.)
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Poisoned`] where an earlier write failed, and [`Error::ReadOnly`] where the metadata was found
    /// to be corrupt: then something that was to be written is not.
    pub fn close(self) -> Result<()> {
        if !self.writable && !self.repairable {
            return Ok(());
        }
        self.check_sound()?;
        self.settle()?;
        self.poison_on_error(|| self.flush_all())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.writable && self.check_sound().is_ok() {
            // Who wants to know whether it worked calls `close`.
            let _ = self.settle();
        }
    }
}

/// Bytes of the file that are read at once when it is opened: they hold the header, and nearly always its extensions.
const HEADER_WINDOW: u64 = 4096;

/// The header extensions. `start` is what was read of the file already.
fn read_extensions(storage: &dyn Storage, header: &Header, mut start: Vec<u8>) -> Result<Extensions> {
    let cluster = header.geometry.cluster_size().min(storage.len()) as usize;
    start.truncate(cluster);
    loop {
        let area_end = header.backing_name.map_or(cluster, |(offset, _)| offset as usize);
        let area = start.get(header.header_len as usize..area_end.min(start.len())).unwrap_or_default();
        let decoded = Extensions::decode(area, u64::from(header.header_len));
        let whole = start.len() >= area_end.min(cluster);
        // With the end marker in sight nothing can be missing.
        if whole || decoded.as_ref().is_ok_and(|found| found.end + 8 <= start.len() as u64) {
            return decoded;
        }
        start = block::read_vec(storage, 0, cluster as u64)?;
    }
}

/// Reads how guest data is encrypted. Specification: "Full disk encryption header pointer".
#[cfg(feature = "luks")]
fn open_crypt(
    storage: &dyn Storage,
    header: &Header,
    extensions: &Extensions,
    options: &OpenOptions,
) -> Result<Option<Crypt>> {
    let Some(extension) = extensions.crypto_of(header)? else { return Ok(None) };
    let passphrase = options.passphrases.first().and_then(Option::as_ref);
    let max_iterations = options.max_key_iterations.unwrap_or(crate::crypt::MAX_ITERATIONS);
    Crypt::open(storage, extension, passphrase, max_iterations).map(Some)
}

/// Without the feature the header refused an image that is encrypted.
#[cfg(not(feature = "luks"))]
fn open_crypt(_: &dyn Storage, header: &Header, extensions: &Extensions, _: &OpenOptions) -> Result<Option<Crypt>> {
    extensions.crypto_of(header).map(|_| None)
}
