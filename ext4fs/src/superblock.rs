//! The superblock, checked: geometry that all other arithmetic may rely on.
//!
//! <https://docs.kernel.org/filesystems/ext4/super.html>; checks as in `fs/ext4/super.c`, `__ext4_fill_super`.

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::features::{Compat, Features, Incompat, RoCompat};
use crate::layout::superblock::RawSuperblock;
use crate::limits::{MAX_GROUPS, MAX_LOG_BLOCK_SIZE};
use crate::{Error, Result, Timestamp};

/// Where the primary superblock starts on the device, in bytes.
pub(crate) const OFFSET: u64 = 1024;
/// Its length in bytes.
pub(crate) const LEN: usize = 1024;

pub(crate) const MAGIC: u16 = 0xEF53;
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
pub(crate) const CHECKSUM_OFFSET: usize = 0x3FC;
const DYNAMIC_REVISION: u32 = 1;
const CHECKSUM_TYPE_CRC32C: u8 = 1;
const FLAG_UNSIGNED_HASH: u32 = 2;

/// The checked superblock. Counts of free blocks and inodes are kept by the groups, not here.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    pub raw: RawSuperblock,
    pub features: Features,
    /// Bytes in a block: 1024 to 65536.
    pub block_size: usize,
    pub block_bits: u32,
    pub blocks_count: u64,
    pub first_data_block: u64,
    pub blocks_per_group: u32,
    /// Blocks in a cluster: 1 but with `bigalloc`.
    pub cluster_ratio: u32,
    pub inodes_per_group: u32,
    pub inodes_count: u32,
    pub inode_size: usize,
    /// Blocks of one group's inode table.
    pub inode_table_blocks: u32,
    pub first_inode: u32,
    pub group_count: u32,
    pub descriptor_size: usize,
    /// Seed of all metadata checksums.
    pub checksum_seed: u32,
}

fn wrong(expected: impl Into<String>) -> Error {
    Error::corrupt("superblock", format_args!("offset {OFFSET}"), expected)
}

impl Superblock {
    /// Decodes and checks a superblock for a device of `device_len` bytes.
    pub(crate) fn decode(bytes: &[u8], device_len: u64) -> Result<Self> {
        let raw = RawSuperblock::read_from_bytes(bytes).map_err(|_| wrong("is 1024 bytes long"))?;
        if raw.s_magic.get() != MAGIC {
            return Err(wrong(format!("s_magic is {MAGIC:#x}, found {:#x}", raw.s_magic.get())));
        }
        let features = Features {
            compat: Compat::from_bits_retain(raw.s_feature_compat.get()),
            incompat: Incompat::from_bits_retain(raw.s_feature_incompat.get()),
            ro_compat: RoCompat::from_bits_retain(raw.s_feature_ro_compat.get()),
        };
        features.check_readable()?;
        if features.metadata_csum() {
            if raw.s_checksum_type != CHECKSUM_TYPE_CRC32C {
                return Err(Error::Unsupported(format!("checksum type {}", raw.s_checksum_type)));
            }
            let computed = crc32c(!0, &bytes[..CHECKSUM_OFFSET]);
            if computed != raw.s_checksum.get() {
                return Err(wrong(format!("s_checksum is {computed:#x}, found {:#x}", raw.s_checksum.get())));
            }
        }
        let checksum_seed = if features.incompat.contains(Incompat::CSUM_SEED) {
            raw.s_checksum_seed.get()
        } else {
            crc32c(!0, &raw.s_uuid)
        };
        let mut superblock = Self {
            features,
            block_size: 0,
            block_bits: 0,
            blocks_count: u64::from(raw.s_blocks_count_lo.get()),
            first_data_block: u64::from(raw.s_first_data_block.get()),
            blocks_per_group: raw.s_blocks_per_group.get(),
            cluster_ratio: 1,
            inodes_per_group: raw.s_inodes_per_group.get(),
            inodes_count: raw.s_inodes_count.get(),
            inode_size: 128,
            inode_table_blocks: 0,
            first_inode: 11,
            group_count: 0,
            descriptor_size: 32,
            checksum_seed,
            raw,
        };
        superblock.check_sizes()?;
        superblock.check_geometry(device_len)?;
        Ok(superblock)
    }

    fn check_sizes(&mut self) -> Result<()> {
        let raw = &self.raw;
        let log = raw.s_log_block_size.get();
        if log > MAX_LOG_BLOCK_SIZE {
            return Err(wrong(format!("s_log_block_size is at most {MAX_LOG_BLOCK_SIZE}, found {log}")));
        }
        self.block_bits = 10 + log;
        self.block_size = 1 << self.block_bits;
        if raw.s_rev_level.get() >= DYNAMIC_REVISION {
            self.inode_size = usize::from(raw.s_inode_size.get());
            self.first_inode = raw.s_first_ino.get();
        }
        if !self.inode_size.is_power_of_two() || self.inode_size < 128 || self.inode_size > self.block_size {
            return Err(wrong(format!(
                "s_inode_size is a power of two from 128 to a block, found {}",
                self.inode_size
            )));
        }
        if self.first_inode < 11 {
            return Err(wrong(format!("s_first_ino is at least 11, found {}", self.first_inode)));
        }
        if self.features.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
            self.blocks_count |= u64::from(raw.s_blocks_count_hi.get()) << 32;
            self.descriptor_size = usize::from(raw.s_desc_size.get());
            if !self.descriptor_size.is_power_of_two() || !(64..=1024).contains(&self.descriptor_size) {
                return Err(wrong(format!(
                    "s_desc_size is a power of two from 64 to 1024, found {}",
                    self.descriptor_size
                )));
            }
        }
        if self.features.ro_compat.contains(RoCompat::BIGALLOC) {
            let cluster = raw.s_log_cluster_size.get();
            if cluster < log || cluster > 20 {
                return Err(wrong(format!("s_log_cluster_size is from {log} to 20, found {cluster}")));
            }
            self.cluster_ratio = 1 << (cluster - log);
        }
        Ok(())
    }

    fn check_geometry(&mut self, device_len: u64) -> Result<()> {
        let block_size = self.block_size as u64;
        if self.blocks_count > device_len / block_size {
            return Err(wrong(format!(
                "s_blocks_count fits the device of {device_len} bytes, found {} blocks of {block_size}",
                self.blocks_count
            )));
        }
        let first_allowed = if self.block_size == 1024 && self.cluster_ratio == 1 { 1..=1 } else { 0..=1 };
        if !first_allowed.contains(&self.first_data_block) || (self.block_size > 1024 && self.first_data_block != 0) {
            return Err(wrong(format!("s_first_data_block fits the block size, found {}", self.first_data_block)));
        }
        let bits = self.block_size as u32 * 8;
        let clusters = self.blocks_per_group / self.cluster_ratio;
        if clusters < 8 || clusters > bits || !self.blocks_per_group.is_multiple_of(self.cluster_ratio) {
            return Err(wrong(format!("s_blocks_per_group fits one bitmap block, found {}", self.blocks_per_group)));
        }
        let inodes_per_block = (self.block_size / self.inode_size) as u32;
        if self.inodes_per_group < inodes_per_block || self.inodes_per_group > bits {
            return Err(wrong(format!("s_inodes_per_group fits one bitmap block, found {}", self.inodes_per_group)));
        }
        self.inode_table_blocks = self.inodes_per_group.div_ceil(inodes_per_block);
        if self.inode_table_blocks >= self.blocks_per_group {
            return Err(wrong(format!("an inode table fits a group, found {} blocks", self.inode_table_blocks)));
        }
        let Some(blocks) = self.blocks_count.checked_sub(self.first_data_block).filter(|blocks| *blocks > 0) else {
            return Err(wrong(format!("s_blocks_count is above s_first_data_block, found {}", self.blocks_count)));
        };
        let groups = blocks.div_ceil(u64::from(self.blocks_per_group));
        if groups > MAX_GROUPS {
            return Err(wrong(format!("at most {MAX_GROUPS} groups, found {groups}")));
        }
        self.group_count = groups as u32;
        if u64::from(self.inodes_count) != groups * u64::from(self.inodes_per_group) {
            return Err(wrong(format!(
                "s_inodes_count is {groups} groups of {}, found {}",
                self.inodes_per_group, self.inodes_count
            )));
        }
        Ok(())
    }

    /// Whether the kernel or e2fsck noted an error that is not yet repaired.
    pub(crate) fn has_error_state(&self) -> bool {
        self.raw.s_state.get() & STATE_ERROR != 0
    }

    /// Whether it was unmounted, as far as a file system without a journal tells.
    pub(crate) fn is_clean(&self) -> bool {
        self.raw.s_state.get() & STATE_VALID != 0
    }

    /// Whether there is a journal, inside or elsewhere.
    pub(crate) fn has_journal(&self) -> bool {
        self.features.compat.contains(Compat::HAS_JOURNAL)
    }

    /// Whether a journal waits to be replayed.
    pub(crate) fn needs_recovery(&self) -> bool {
        self.features.incompat.contains(Incompat::RECOVER)
    }

    /// Clears or sets feature bits, in the raw superblock, too.
    pub(crate) fn set_features(&mut self, features: Features) {
        // Revision 0 knows no features: what it implies is said from now on.
        if self.raw.s_rev_level.get() < DYNAMIC_REVISION {
            self.raw.s_rev_level = DYNAMIC_REVISION.into();
            self.raw.s_first_ino = self.first_inode.into();
            self.raw.s_inode_size = (self.inode_size as u16).into();
        }
        self.features = features;
        self.raw.s_feature_compat = features.compat.bits().into();
        self.raw.s_feature_incompat = features.incompat.bits().into();
        self.raw.s_feature_ro_compat = features.ro_compat.bits().into();
    }

    /// Whether directory hashes treat bytes as unsigned.
    pub(crate) fn unsigned_hash(&self) -> bool {
        self.raw.s_flags.get() & FLAG_UNSIGNED_HASH != 0
    }

    /// The time of the last write.
    pub(crate) fn write_time(&self) -> Timestamp {
        let seconds = i64::from(self.raw.s_wtime.get()) | i64::from(self.raw.s_wtime_hi) << 32;
        Timestamp { seconds, nanoseconds: 0 }
    }

    /// The bytes for the disk, with these free counts, the time of this write, and a new checksum.
    pub(crate) fn encode(&mut self, free_blocks: u64, free_inodes: u32, now: Timestamp) -> &[u8] {
        let raw = &mut self.raw;
        raw.s_free_blocks_count_lo = (free_blocks as u32).into();
        if self.features.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
            raw.s_free_blocks_count_hi = ((free_blocks >> 32) as u32).into();
        }
        raw.s_free_inodes_count = free_inodes.into();
        // 40 bits: until the year 36812. A time before 1970 cannot be told and becomes 1970.
        let seconds = now.seconds.clamp(0, (1 << 40) - 1) as u64;
        raw.s_wtime = (seconds as u32).into();
        raw.s_wtime_hi = (seconds >> 32) as u8;
        if self.features.metadata_csum() {
            raw.s_checksum = crc32c(!0, &raw.as_bytes()[..CHECKSUM_OFFSET]).into();
        }
        raw.as_bytes()
    }
}
