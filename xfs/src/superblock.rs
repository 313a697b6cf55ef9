//! The superblock: geometry and features. xfs-documentation `design/XFS_Filesystem_Structure`, "Superblocks".

use crate::bytes::{be16, be32, be64, checksum, le32, put_checksum, put64, uuid};
use crate::{Error, Result};

/// Where the checksum is.
const CRC: usize = 224;
/// What is read: more than the smallest sector never holds anything.
pub(crate) const LEN: usize = 512;

/// Features of version 5 that an old kernel may not write.
pub(crate) mod ro_compat {
    pub(crate) const FINOBT: u32 = 1;
    pub(crate) const RMAPBT: u32 = 2;
    pub(crate) const REFLINK: u32 = 4;
    pub(crate) const INOBTCNT: u32 = 8;
}

/// Features of version 5 that an old kernel may not read.
pub(crate) mod incompat {
    pub(crate) const FTYPE: u32 = 1;
    pub(crate) const SPINODES: u32 = 2;
    pub(crate) const META_UUID: u32 = 4;
    pub(crate) const BIGTIME: u32 = 8;
    pub(crate) const NEEDSREPAIR: u32 = 0x10;
    pub(crate) const NREXT64: u32 = 0x20;
    pub(crate) const PARENT: u32 = 0x80;
}

const VERSION_BITS_LOGV2: u16 = 0x400;
const VERSION_BITS_DIRV2: u16 = 0x2000;
const VERSION_BITS_ASCII_CI: u16 = 0x4000;
const VERSION_BITS_MOREBITS: u16 = 0x8000;
const FEATURES2_LAZYSBCOUNT: u32 = 0x2;
const FEATURES2_FTYPE: u32 = 0x200;

/// A superblock that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    /// The sector as it was read, so that what we do not know stays.
    pub(crate) raw: Vec<u8>,
    pub(crate) block_size: usize,
    pub(crate) blocks: u64,
    pub(crate) uuid: [u8; 16],
    /// What metadata are stamped with.
    pub(crate) meta_uuid: [u8; 16],
    /// The log's first block, as an FSB; 0 where it is on a device of its own.
    pub(crate) log_start: u64,
    pub(crate) log_blocks: u32,
    pub(crate) root_inode: u64,
    pub(crate) ag_blocks: u32,
    pub(crate) ag_count: u32,
    pub(crate) is_v5: bool,
    pub(crate) sector_size: usize,
    pub(crate) inode_size: usize,
    pub(crate) inodes_per_block: u32,
    pub(crate) inodes_per_block_log: u32,
    pub(crate) ag_block_log: u32,
    pub(crate) dir_block_size: usize,
    pub(crate) inode_align: u32,
    pub(crate) has_ftype: bool,
    pub(crate) ro_compat: u32,
    pub(crate) incompat: u32,
    version: u16,
    log_incompat: u32,
}

impl Superblock {
    /// Decodes and checks a superblock on a device of a length.
    pub(crate) fn decode(raw: &[u8], device_len: u64) -> Result<Self> {
        let wrong = |rule: String| Error::corrupt("superblock", "offset 0", rule);
        if raw.get(..4) != Some(b"XFSB") {
            return Err(wrong("the magic number is XFSB".to_owned()));
        }
        let version = be16(raw, 100);
        let is_v5 = match version & 0xf {
            4 => false,
            5 => true,
            other => return Err(Error::Unsupported(format!("version {other} of XFS"))),
        };
        if is_v5 && checksum(raw, CRC) != le32(raw, CRC) {
            let found = le32(raw, CRC);
            return Err(wrong(format!("the checksum is {:#x}, found {found:#x}", checksum(raw, CRC))));
        }
        let log2 = |value: u32, name: &str, min: u32, max: u32| {
            let fits = value.is_power_of_two() && (min..=max).contains(&value);
            if fits {
                Ok(value.trailing_zeros())
            } else {
                Err(wrong(format!("{name} is a power of two from {min} to {max}, found {value}")))
            }
        };
        let block_size = be32(raw, 4);
        let block_log = log2(block_size, "sb_blocksize", 512, 65536)?;
        log2(be16(raw, 102).into(), "sb_sectsize", 512, 32768)?;
        let inode_size: u32 = be16(raw, 104).into();
        let inode_log = log2(inode_size, "sb_inodesize", if is_v5 { 512 } else { 256 }, 2048.min(block_size))?;
        let sector_size: u32 = be16(raw, 102).into();
        if sector_size > block_size {
            return Err(wrong(format!("sb_sectsize is at most a block, found {sector_size}")));
        }
        let (blocks, ag_blocks, ag_count) = (be64(raw, 8), be32(raw, 84), be32(raw, 88));
        let ag_block_log = u32::from(raw[124]);
        let full = u64::from(ag_count).checked_mul(ag_blocks.into());
        let last = u64::from(ag_count.saturating_sub(1)) * u64::from(ag_blocks);
        let fits = ag_count >= 1 && ag_blocks >= 8 && full.is_some_and(|full| blocks <= full) && blocks > last;
        if !fits || ag_block_log > 31 || 1_u64 << ag_block_log < ag_blocks.into() {
            return Err(wrong(format!("{ag_count} groups of {ag_blocks} blocks make {blocks} blocks")));
        }
        if blocks.checked_mul(block_size.into()).is_none_or(|len| len > device_len) {
            return Err(wrong(format!(
                "{blocks} blocks of {block_size} bytes lie on the device of {device_len} bytes"
            )));
        }
        let dir_block_log = u32::from(raw[192]) + block_log;
        if dir_block_log > 16 {
            return Err(wrong(format!("a directory's block is at most 65536 bytes, sb_dirblklog is {}", raw[192])));
        }
        if version & VERSION_BITS_DIRV2 == 0 {
            return Err(Error::Unsupported("directories of version 1".to_owned()));
        }
        if raw[126] != 0 {
            return Err(Error::Unsupported("a file system whose mkfs or growfs was not finished".to_owned()));
        }
        let features2 = if version & VERSION_BITS_MOREBITS != 0 { be32(raw, 200) } else { 0 };
        let (ro_compat, incompat, log_incompat) =
            if is_v5 { (be32(raw, 212), be32(raw, 216), be32(raw, 220)) } else { (0, 0, 0) };
        let known = 0xff;
        if incompat & !known != 0 {
            return Err(Error::Unsupported(incompat_names(incompat & !known)));
        }
        let uuid_field = uuid(raw, 32);
        let has_ftype = if is_v5 { incompat & incompat::FTYPE != 0 } else { features2 & FEATURES2_FTYPE != 0 };
        let inodes_per_block_log = block_log - inode_log;
        Ok(Self {
            raw: raw.to_vec(),
            block_size: block_size as usize,
            blocks,
            uuid: uuid_field,
            meta_uuid: if incompat & incompat::META_UUID != 0 { uuid(raw, 248) } else { uuid_field },
            log_start: be64(raw, 48),
            log_blocks: be32(raw, 96),
            root_inode: be64(raw, 56),
            ag_blocks,
            ag_count,
            is_v5,
            sector_size: sector_size as usize,
            inode_size: inode_size as usize,
            inodes_per_block: 1 << inodes_per_block_log,
            inodes_per_block_log,
            ag_block_log,
            dir_block_size: 1 << dir_block_log,
            inode_align: be32(raw, 180),
            has_ftype,
            ro_compat,
            incompat,
            version,
            log_incompat,
        })
    }

    /// Bytes that the log's records are multiples of.
    pub(crate) fn log_unit(&self) -> u32 {
        be32(&self.raw, 196).max(512)
    }

    pub(crate) fn has_ro(&self, feature: u32) -> bool {
        self.ro_compat & feature != 0
    }

    pub(crate) fn has_incompat(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// Why the features forbid writing, if they do.
    pub(crate) fn read_only_reason(&self) -> Option<String> {
        let refuse = |what: &str| Some(format!("writing is not supported with {what}"));
        if !self.is_v5 {
            return refuse("version 4 of the format (no checksums)");
        }
        let known = ro_compat::FINOBT | ro_compat::RMAPBT | ro_compat::REFLINK | ro_compat::INOBTCNT;
        if self.ro_compat & !known != 0 {
            return refuse(&format!("unknown read-only compatible features {:#x}", self.ro_compat & !known));
        }
        if self.has_incompat(incompat::NEEDSREPAIR) {
            return Some("it is marked as needing repair; xfs_repair has to repair it first".to_owned());
        }
        if self.has_incompat(incompat::PARENT) {
            return refuse("parent pointers");
        }
        if self.log_incompat != 0 {
            return refuse("features of the log that are in use");
        }
        if be64(&self.raw, 16) != 0 {
            return refuse("a realtime section");
        }
        if self.log_start == 0 {
            return refuse("an external log");
        }
        if be16(&self.raw, 176) & 0x49 != 0 {
            return refuse("quota accounting");
        }
        if self.version & VERSION_BITS_ASCII_CI != 0 {
            return refuse("case-insensitive names");
        }
        if self.version & VERSION_BITS_LOGV2 == 0 || be32(&self.raw, 200) & FEATURES2_LAZYSBCOUNT == 0 {
            return refuse("an old format of log or counters");
        }
        None
    }

    /// How many blocks a group has: the last may have fewer.
    pub(crate) fn ag_len(&self, ag: u32) -> u32 {
        let start = u64::from(ag) * u64::from(self.ag_blocks);
        self.blocks.saturating_sub(start).min(self.ag_blocks.into()) as u32
    }

    /// The block of the device that an FSB names, if its group has it.
    pub(crate) fn linear(&self, fsb: u64) -> Option<u64> {
        let ag = u32::try_from(fsb >> self.ag_block_log).ok().filter(|ag| *ag < self.ag_count)?;
        let block = fsb & ((1 << self.ag_block_log) - 1);
        (block < self.ag_len(ag).into()).then(|| u64::from(ag) * u64::from(self.ag_blocks) + block)
    }

    /// The group and the block in it of a block of the device.
    pub(crate) fn split(&self, linear: u64) -> (u32, u32) {
        ((linear / u64::from(self.ag_blocks)) as u32, (linear % u64::from(self.ag_blocks)) as u32)
    }

    /// The FSB that names a block of the device.
    pub(crate) fn fsb(&self, linear: u64) -> u64 {
        let (ag, block) = self.split(linear);
        u64::from(ag) << self.ag_block_log | u64::from(block)
    }

    /// What a block's header says of its place: sectors of 512 bytes.
    pub(crate) fn daddr(&self, linear: u64) -> u64 {
        linear * (self.block_size as u64 / 512)
    }

    /// The group and the number in it of an inode.
    pub(crate) fn split_inode(&self, inode: u64) -> (u64, u64) {
        let bits = self.ag_block_log + self.inodes_per_block_log;
        (inode >> bits, inode & ((1 << bits) - 1))
    }

    pub(crate) fn inode_number(&self, ag: u32, agino: u32) -> u64 {
        u64::from(ag) << (self.ag_block_log + self.inodes_per_block_log) | u64::from(agino)
    }

    /// The block of the device that holds an inode, and where in it.
    pub(crate) fn inode_place(&self, inode: u64) -> Option<(u64, usize)> {
        let (ag, agino) = self.split_inode(inode);
        let block = agino >> self.inodes_per_block_log;
        let ag = u32::try_from(ag).ok().filter(|ag| *ag < self.ag_count)?;
        if inode == 0 || block >= self.ag_len(ag).into() {
            return None;
        }
        let slot = (agino & u64::from(self.inodes_per_block - 1)) as usize;
        Some((u64::from(ag) * u64::from(self.ag_blocks) + block, slot * self.inode_size))
    }

    pub(crate) fn counters(&self) -> (u64, u64, u64) {
        (be64(&self.raw, 128), be64(&self.raw, 136), be64(&self.raw, 144))
    }

    /// Sets inodes, free inodes and free blocks, and the checksum.
    pub(crate) fn set_counters(&mut self, inodes: u64, free_inodes: u64, free_blocks: u64) {
        put64(&mut self.raw, 128, inodes);
        put64(&mut self.raw, 136, free_inodes);
        put64(&mut self.raw, 144, free_blocks);
        put_checksum(&mut self.raw, CRC);
    }

    pub(crate) fn label(&self) -> &[u8] {
        let name = self.raw.get(108..120).unwrap_or_default();
        &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
    }
}

fn incompat_names(bits: u32) -> String {
    let known = [(0x100, "a directory tree of metadata"), (0x200, "zones"), (0x400, "gaps between zones")];
    match known.iter().find(|(bit, _)| bits & bit != 0) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("unknown incompatible features {bits:#x}"),
    }
}

#[cfg(test)]
impl Superblock {
    /// Two groups of 1,000 blocks of 4 KiB, with inodes of 512 bytes.
    pub(crate) fn for_tests() -> Self {
        let mut raw = vec![0; LEN];
        raw[..4].copy_from_slice(b"XFSB");
        let numbers = [
            (4, 4096),
            (84, 1000),
            (88, 2),
            (96, 16),
            (180, 8),
            (200, FEATURES2_LAZYSBCOUNT),
            (212, 1),
            (216, incompat::FTYPE),
        ];
        numbers.iter().for_each(|(at, value)| crate::bytes::put32(&mut raw, *at, *value));
        put64(&mut raw, 8, 2000);
        put64(&mut raw, 48, 500);
        put64(&mut raw, 56, 128);
        raw[32..48].fill(0x55);
        raw[100..106].copy_from_slice(&[0xb4, 0xa5, 2, 0, 2, 0]);
        raw[124] = 10;
        put_checksum(&mut raw, CRC);
        Self::decode(&raw, 2000 * 4096).unwrap()
    }
}
