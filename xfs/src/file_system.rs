//! An open file system: how it is opened and flushed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use block::{ReadAt, WriteAt};

use crate::group::Group;
use crate::listing::Known;
use crate::log::{LogState, Work};
use crate::metadata::Timestamp;
use crate::store::{Device, Store};
use crate::superblock::{self, Superblock};
use crate::{Error, Result};

/// Groups that are looked at when a file system is opened for writing.
const MAX_GROUPS: u32 = 1 << 16;

/// How a file system is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Nothing is written.
    pub read_only: bool,
    /// The time that changes are stamped with. Without one it is 1970.
    pub clock: Option<Timestamp>,
}

/// An XFS file system on a device.
///
/// Reading takes `&self` and may be done from many threads. Contents of files are written to the device at once;
/// everything else stays in memory until [`FileSystem::flush`], so that a file system that is dropped unflushed may
/// hold new contents in blocks that others still have. Whoever needs all or nothing puts an overlay or a transaction below.
///
/// When a change fails half way (the device failed, or the image turned out to be corrupt), the file system is
/// poisoned: nothing more is changed or flushed, [`Error::Poisoned`].
#[derive(Debug)]
pub struct FileSystem {
    pub(crate) sb: Superblock,
    pub(crate) store: Store,
    pub(crate) known: Known,
    pub(crate) clock: Timestamp,
    /// The groups that were needed for changes.
    pub(crate) groups: BTreeMap<u32, Group>,
    /// What the superblock counts of each of them: inodes, free inodes, free blocks.
    pub(crate) counted_before: HashMap<u32, ((u32, u32), u64)>,
    /// Inodes whose extents changed.
    pub(crate) touched: BTreeSet<u64>,
    pub(crate) read_only: Option<String>,
    pub(crate) log: LogState,
    /// Work that its log announced and that was not done.
    pub(crate) unfinished: Vec<Work>,
    /// Why that cannot be done.
    pub(crate) refused: Option<String>,
    pub(crate) poisoned: bool,
}

impl FileSystem {
    /// Opens a file system. Nothing is written yet: where it was not unmounted, its log is replayed in memory
    /// ([`FileSystem::log_state`]), files that were deleted while they were open are freed, and all that is written by the
    /// next [`FileSystem::flush`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unsupported`] where there is no file system that can be read.
    pub fn open(device: Arc<dyn WriteAt>, options: &OpenOptions) -> Result<Self> {
        Self::open_device(Device::Writable(device), options)
    }

    /// Opens a file system for reading only. Where it was not unmounted, what its log holds is read, too.
    ///
    /// # Errors
    /// As [`FileSystem::open`].
    pub fn open_read_only(device: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_device(Device::ReadOnly(device), &OpenOptions { read_only: true, clock: None })
    }

    fn open_device(device: Device, options: &OpenOptions) -> Result<Self> {
        let len = device.reader().len();
        if len < superblock::LEN as u64 {
            return Err(Error::corrupt(
                "superblock",
                "offset 0",
                format!("the device has room for it, found {len} bytes"),
            ));
        }
        let mut raw = vec![0; superblock::LEN];
        device.reader().read_at(0, &mut raw)?;
        // The checksum is over a whole sector.
        let sector = usize::from(u16::from_be_bytes([raw[102], raw[103]])).clamp(superblock::LEN, 32768);
        if sector as u64 <= len {
            raw.resize(sector, 0);
            device.reader().read_at(0, &mut raw)?;
        }
        let sb = Superblock::decode(&raw, len)?;
        let store = Store::new(device, sb.block_size, sb.blocks);
        let clock = options.clock.unwrap_or_default();
        let mut fs = Self {
            sb,
            store,
            known: Known::default(),
            clock,
            groups: BTreeMap::new(),
            counted_before: HashMap::new(),
            touched: BTreeSet::new(),
            read_only: None,
            log: LogState::Clean,
            unfinished: Vec::new(),
            refused: None,
            poisoned: false,
        };
        fs.replay_log()?;
        fs.read_only = fs.why_read_only(options)?;
        if fs.read_only.is_none() && fs.needs_recovery()? {
            fs.read_only = fs.recover()?;
        }
        fs.check_directory(fs.sb.root_inode)?;
        Ok(fs)
    }

    fn why_read_only(&self, options: &OpenOptions) -> Result<Option<String>> {
        if options.read_only {
            return Ok(Some("opened for reading only".to_owned()));
        }
        if matches!(self.store.device(), Device::ReadOnly(_)) {
            return Ok(Some("the device cannot be written".to_owned()));
        }
        if let Some(reason) = self.sb.read_only_reason() {
            return Ok(Some(reason));
        }
        if let LogState::NotReplayed(reason) = &self.log {
            return Ok(Some(reason.clone()));
        }
        if self.refused.is_some() {
            return Ok(self.refused.clone());
        }
        if self.sb.ag_count > MAX_GROUPS {
            return Ok(Some(format!("writing is not supported with more than {MAX_GROUPS} groups")));
        }
        Ok(None)
    }

    /// Whether it was not unmounted, or holds files that were deleted while they were open.
    fn needs_recovery(&self) -> Result<bool> {
        if matches!(self.log, LogState::Replayed { .. }) {
            return Ok(true);
        }
        for group in 0..self.sb.ag_count {
            if self.has_unlinked(group)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
