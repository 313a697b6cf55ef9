//! An open file system: how it is opened, flushed and asked about itself.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use block::{ReadAt, WriteAt};

use crate::backup;
use crate::block_group::{Group, system_blocks};
use crate::directory::DirectoryFormat;
use crate::features::{Compat, Incompat};
use crate::metadata::{Statfs, Timestamp};
use crate::metadata_cache::{BlockKind, Device, MetadataCache};
use crate::quota::Quota;
use crate::superblock::{self, Superblock};
use crate::{Error, Result};

/// The number of the root directory's inode.
pub(crate) const ROOT_INODE: u32 = 2;

/// `s_encoding` of names in UTF-8 that are folded by Unicode 12.1.
const ENCODING_UTF8_12_1: u16 = 1;

/// How a file system is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Nothing is written, not even what the journal holds.
    pub read_only: bool,
    /// The time that changes are stamped with. Without one it is the time of the last write that the superblock tells.
    pub clock: Option<Timestamp>,
}

/// An ext2, ext3 or ext4 file system on a device.
///
/// Reading takes `&self` and may be done from many threads. Contents of files are written to the device at once;
/// everything else stays in memory until [`FileSystem::flush`], so that a file system that is dropped unflushed may
/// hold new contents under old names. Whoever needs all or nothing puts an overlay or a transaction below.
///
/// When a change fails half way (the device failed, or the image turned out to be corrupt), the file system is
/// poisoned: nothing more is changed or flushed, [`Error::Poisoned`].
#[derive(Debug)]
pub struct FileSystem {
    pub(crate) superblock: Superblock,
    pub(crate) groups: Vec<Group>,
    pub(crate) cache: MetadataCache,
    pub(crate) directory_format: DirectoryFormat,
    pub(crate) clock: Timestamp,
    /// The group whose copies of superblock or descriptors are used, since the first are damaged.
    pub(crate) copy_of_group: Option<u32>,
    pub(crate) quota: Quota,
    /// Blocks that are to be freed later, while fast commits are applied.
    pub(crate) deferred_frees: Option<Vec<Range<u64>>>,
    system_blocks: OnceLock<Vec<Range<u64>>>,
    superblock_changed: bool,
    read_only: Option<String>,
    poisoned: bool,
}

impl FileSystem {
    /// Opens a file system for reading and, where it can be done, for writing.
    ///
    /// A journal that waits for it is replayed first, and what a crash left half removed is removed: both are
    /// written at once where the file system can be written, and else only seen. Otherwise nothing is written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unsupported`] where there is no file system that can be read; [`Error::InUse`]
    /// where multiple mount protection tells that another host uses it.
    pub fn open(device: Arc<dyn WriteAt>, options: &OpenOptions) -> Result<Self> {
        Self::open_device(Device::Writable(device), options)
    }

    /// Opens a file system for reading only. A journal that waits for its replay is replayed in memory.
    ///
    /// # Errors
    /// As [`FileSystem::open`].
    pub fn open_read_only(device: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_device(Device::ReadOnly(device), &OpenOptions { read_only: true, clock: None })
    }

    fn open_device(device: Device, options: &OpenOptions) -> Result<Self> {
        if device.len() < superblock::OFFSET + superblock::LEN as u64 {
            let expected = format!("the device is long enough for one, found {} bytes", device.len());
            return Err(Error::corrupt("superblock", format_args!("offset {}", superblock::OFFSET), expected));
        }
        let (superblock, copy) = backup::read_superblock(&device)?;
        let cache = MetadataCache::new(device, superblock.block_size, superblock.blocks_count);
        let mut fs = Self::load(superblock, cache, options)?;
        if let Some((group, damage)) = copy {
            fs.copy_of_group = Some(group);
            fs.read_only = Some(format!("{damage}; its copy in group {group} is used"));
            // Copies do not tell whether the journal waits: it tells itself.
            if fs.superblock.has_journal() {
                fs = fs.recover(options)?;
            }
            return Ok(fs);
        }
        if fs.read_only.is_none() {
            fs.check_not_in_use()?;
        }
        if fs.superblock.needs_recovery() {
            fs = fs.recover(options)?;
        }
        if fs.read_only.is_none() {
            fs.process_orphans()?;
        }
        Ok(fs)
    }

    /// Decodes the group descriptors and settles whether there may be writing.
    pub(crate) fn load(superblock: Superblock, cache: MetadataCache, options: &OpenOptions) -> Result<Self> {
        let (groups, copy) = backup::read_groups(&superblock, &cache)?;
        let directory_format = DirectoryFormat {
            block_size: superblock.block_size,
            has_file_type: superblock.features.incompat.contains(Incompat::FILETYPE),
            checksum: superblock.features.metadata_csum(),
            hash_seed: superblock.raw.s_hash_seed.map(|word| word.get()),
            default_hash: superblock.raw.s_def_hash_version,
            unsigned_hash: superblock.unsigned_hash(),
            indexed: superblock.features.compat.contains(Compat::DIR_INDEX),
            large: superblock.features.incompat.contains(Incompat::LARGEDIR),
        };
        let read_only = match &copy {
            Some((group, damage)) => Some(format!("{damage}; the copies in group {group} are used")),
            None => read_only_reason(&superblock, &cache, options),
        };
        let clock = options.clock.unwrap_or_else(|| superblock.write_time());
        Ok(Self {
            superblock,
            groups,
            cache,
            directory_format,
            clock,
            copy_of_group: copy.map(|(group, _)| group),
            quota: Quota::default(),
            deferred_frees: None,
            system_blocks: OnceLock::new(),
            superblock_changed: false,
            read_only,
            poisoned: false,
        })
    }

    /// Why the file system cannot be written, if it cannot. One whose superblock or group descriptors are damaged is read by
    /// their copies, and this says so.
    pub fn read_only_reason(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Keeps a file system from being written that is read by copies of what is damaged.
    pub(crate) fn stay_read_only(&mut self, reason: Option<String>, copy: Option<u32>) {
        self.read_only = reason;
        self.copy_of_group = copy;
    }

    /// The UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.raw.s_uuid
    }

    /// The label, without trailing NULs; empty where there is none.
    pub fn label(&self) -> &[u8] {
        let name = &self.superblock.raw.s_volume_name;
        &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
    }

    /// The type as mount(8) names it: `ext4`, `ext3` or `ext2`, by the features in use.
    pub fn type_name(&self) -> &'static str {
        let features = self.superblock.features;
        let ext3 = Incompat::FILETYPE | Incompat::RECOVER | Incompat::META_BG;
        let later = features.ro_compat.bits() & !0x7 != 0 || !ext3.contains(features.incompat);
        match (later, features.compat.contains(Compat::HAS_JOURNAL)) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        }
    }

    /// The root directory's inode number.
    pub fn root(&self) -> u32 {
        ROOT_INODE
    }

    /// How full the file system is.
    pub fn statfs(&self) -> Statfs {
        Statfs {
            block_size: self.superblock.block_size as u32,
            blocks: self.superblock.blocks_count,
            free_blocks: self.free_blocks() * u64::from(self.superblock.cluster_ratio),
            inodes: self.superblock.inodes_count,
            free_inodes: self.free_inodes(),
        }
    }

    /// Sets the time that changes are stamped with from now on.
    pub fn set_clock(&mut self, now: Timestamp) {
        self.clock = now;
    }

    /// Writes all that is still in memory to the device and makes it safe. Where nothing was changed, nothing is written.
    ///
    /// # Errors
    /// [`Error::Io`] where the device fails, after which the file system is poisoned; [`Error::Poisoned`] where it was before.
    pub fn flush(&mut self) -> Result<()> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        if self.read_only.is_some() || !self.has_changes() {
            return Ok(());
        }
        let flushed = self.write_everything();
        self.poisoned = flushed.is_err();
        flushed
    }

    fn write_everything(&mut self) -> Result<()> {
        self.check_not_in_use()?;
        self.stage_groups()?;
        self.cache.write_back()?;
        let free_blocks = self.free_blocks() * u64::from(self.superblock.cluster_ratio);
        let free_inodes = self.free_inodes();
        let bytes = self.superblock.encode(free_blocks, free_inodes, self.clock);
        self.cache.write_device(superblock::OFFSET, bytes)?;
        self.superblock_changed = false;
        self.cache.sync()
    }

    /// Puts the descriptors of groups that were changed into the cache.
    pub(crate) fn stage_groups(&mut self) -> Result<()> {
        let per_block = self.superblock.descriptors_per_block() as usize;
        let size = self.superblock.descriptor_size;
        for number in 0..self.groups.len() {
            if self.groups[number].dirty {
                self.finish_bitmaps(number as u32)?;
                let block = self.superblock.descriptor_block((number / per_block) as u32);
                let bytes = self.cache.modify(block, BlockKind::GroupDescriptors, |_| Ok(()))?;
                let start = number % per_block * size;
                self.groups[number].encode(&mut bytes[start..start + size], &self.superblock, number as u32);
                self.groups[number].dirty = false;
            }
        }
        Ok(())
    }

    /// Runs a change. One that fails after it has begun to change things leaves them half done, so it poisons.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(reason) = &self.read_only {
            return Err(Error::ReadOnly(reason.clone()));
        }
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let before = self.cache.changes();
        let result = change(self).and_then(|done| self.apply_usage().map(|()| done));
        if self.cache.changes() != before {
            self.superblock_changed = true;
            self.poisoned |= result.is_err();
        }
        result
    }

    /// Whether there is something in memory that the device does not have: changes, or a journal that was replayed for
    /// reading only.
    pub(crate) fn has_changes(&self) -> bool {
        self.superblock_changed || self.groups.iter().any(|group| group.dirty) || self.cache.needs_flush()
    }

    /// Notes that the superblock differs from the disk's.
    pub(crate) fn mark_superblock_changed(&mut self) {
        self.superblock_changed = true;
    }

    /// Blocks of the format's own, sorted, as runs that do not touch.
    pub(crate) fn system_blocks(&self) -> &[Range<u64>] {
        self.system_blocks.get_or_init(|| system_blocks(&self.superblock, &self.groups))
    }

    /// A group, by its number.
    pub(crate) fn group(&self, number: u32) -> Result<&Group> {
        self.groups.get(number as usize).ok_or_else(|| no_group(number))
    }

    /// A group for changing; it is written with the next flush.
    pub(crate) fn group_mut(&mut self, number: u32) -> Result<&mut Group> {
        let group = self.groups.get_mut(number as usize).ok_or_else(|| no_group(number))?;
        group.dirty = true;
        Ok(group)
    }

    /// Free clusters in all groups.
    pub(crate) fn free_blocks(&self) -> u64 {
        self.groups.iter().map(|group| u64::from(group.free_blocks)).sum()
    }

    /// Free inodes in all groups. Their sum fits, since all inodes are numbered in 32 bits.
    pub(crate) fn free_inodes(&self) -> u32 {
        self.groups.iter().map(|group| group.free_inodes).sum()
    }
}

fn no_group(number: u32) -> Error {
    Error::corrupt("group number", format_args!("group {number}"), "is that of a group")
}

/// Why there is to be no writing, if so: asked for, the device, the features, or the state.
fn read_only_reason(superblock: &Superblock, cache: &MetadataCache, options: &OpenOptions) -> Option<String> {
    if options.read_only {
        return Some("opened for reading only".to_owned());
    }
    if matches!(cache.device(), Device::ReadOnly(_)) {
        return Some("the device cannot be written".to_owned());
    }
    if let Some(reason) = superblock.features.read_only_reason() {
        return Some(reason);
    }
    let encoding = superblock.raw.s_encoding.get();
    if superblock.features.incompat.contains(Incompat::CASEFOLD) && encoding != ENCODING_UTF8_12_1 {
        return Some(format!("writing is not supported with names of encoding {encoding}"));
    }
    if superblock.has_error_state() {
        return Some("it is marked as having errors; e2fsck has to repair it first".to_owned());
    }
    let journal = superblock.has_journal();
    if journal && superblock.raw.s_journal_inum.get() == 0 {
        return Some("writing is not supported with an external journal".to_owned());
    }
    if !journal && !superblock.is_clean() {
        return Some("it was not unmounted and has no journal; e2fsck has to check it first".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_be_read_from_many_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<FileSystem>();
    }
}
