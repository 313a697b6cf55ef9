//! An inode: its fields, and what its literal area is divided into. "On-disk Inode".

use crate::bytes::{be16, be32, be64, checksum, le32, put, put_checksum, put16, put32, put64, uuid};
use crate::metadata::{FileKind, Timestamp};
use crate::superblock::{Superblock, incompat};
use crate::{Error, Result};

/// Where the checksum of version 3 is.
const CRC: usize = 100;
const NANOSECONDS: i128 = 1_000_000_000;
/// Where times of 64 bits begin: the earliest that 32 bits can say.
const BIGTIME_EPOCH: i128 = 1 << 31;
/// No next inode in a list of unlinked ones.
pub(crate) const NULL_AGINO: u32 = u32::MAX;

pub(crate) mod flags2 {
    pub(crate) const BIGTIME: u64 = 8;
    pub(crate) const NREXT64: u64 = 16;
}

/// The flag of `di_flags` that puts a file's contents on the realtime section.
const FLAG_REALTIME: u16 = 1;

/// How a fork holds what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Device,
    Local,
    Extents,
    Btree,
}

impl Format {
    fn decode(value: u8) -> Option<Self> {
        [Self::Device, Self::Local, Self::Extents, Self::Btree].get(usize::from(value)).copied()
    }

    pub(crate) fn encode(self) -> u8 {
        match self {
            Self::Device => 0,
            Self::Local => 1,
            Self::Extents => 2,
            Self::Btree => 3,
        }
    }
}

/// One of the two forks of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fork {
    Data,
    Attr,
}

/// An inode, as its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) number: u64,
    pub(crate) raw: Vec<u8>,
}

impl Inode {
    /// Checks the bytes of an inode's slot. One that is not in use has mode 0.
    pub(crate) fn decode(raw: Vec<u8>, number: u64, sb: &Superblock) -> Result<Self> {
        let inode = Self { number, raw };
        let raw = &inode.raw;
        if be16(raw, 0) != 0x494e {
            return Err(inode.corrupt(format!("the magic number is IN, found {:#x}", be16(raw, 0))));
        }
        let version = raw[4];
        if sb.is_v5 {
            if version != 3 {
                return Err(inode.corrupt(format!("di_version is 3, found {version}")));
            }
            let sum = checksum(raw, CRC);
            if sum != le32(raw, CRC) {
                return Err(inode.corrupt(format!("the checksum is {sum:#x}, found {:#x}", le32(raw, CRC))));
            }
            if be64(raw, 152) != number || uuid(raw, 160) != sb.meta_uuid {
                return Err(inode.corrupt(format!("di_ino and di_uuid are its own, found inode {}", be64(raw, 152))));
            }
        } else if !matches!(version, 1 | 2) {
            return Err(inode.corrupt(format!("di_version is 1 or 2, found {version}")));
        }
        if inode.mode() == 0 {
            return Ok(inode);
        }
        if inode.forkoff() > inode.literal_len() {
            return Err(inode.corrupt(format!("di_forkoff lies in the inode, found {}", raw[82])));
        }
        let kind = inode.kind()?;
        let data = Format::decode(raw[5]);
        let fits = match kind {
            FileKind::File => matches!(data, Some(Format::Extents | Format::Btree)),
            FileKind::Directory | FileKind::Symlink => {
                matches!(data, Some(Format::Local | Format::Extents | Format::Btree))
            }
            _ => data == Some(Format::Device),
        };
        if !fits {
            return Err(inode.corrupt(format!("di_format fits {kind:?}, found {}", raw[5])));
        }
        let attr = Format::decode(raw[83]);
        if inode.forkoff() != 0 && !matches!(attr, Some(Format::Local | Format::Extents | Format::Btree)) {
            return Err(inode.corrupt(format!("di_aformat is one of attributes, found {}", raw[83])));
        }
        for fork in [Fork::Data, Fork::Attr] {
            let bytes = inode.fork(fork);
            let fits = match inode.format(fork) {
                _ if bytes.is_empty() => true,
                Format::Device => bytes.len() >= 8,
                Format::Local if fork == Fork::Data => inode.size() <= bytes.len() as u64,
                Format::Local => usize::from(be16(bytes, 0)) <= bytes.len(),
                Format::Extents => inode.extent_count(fork) <= bytes.len() as u64 / 16,
                Format::Btree => 4 + usize::from(be16(bytes, 2)) * 16 <= bytes.len(),
            };
            if !fits {
                return Err(
                    inode.corrupt(format!("what it holds has room in its {fork:?} fork of {} bytes", bytes.len()))
                );
            }
        }
        if inode.size() > i64::MAX as u64 {
            return Err(inode.corrupt(format!("di_size is at most 2^63 - 1, found {}", inode.size())));
        }
        Ok(inode)
    }

    pub(crate) fn corrupt(&self, rule: impl Into<String>) -> Error {
        Error::corrupt("inode", format_args!("inode {}", self.number), rule)
    }

    fn is_v3(&self) -> bool {
        self.raw[4] == 3
    }

    /// Where the literal area begins: what holds the forks.
    pub(crate) fn literal(&self) -> usize {
        if self.is_v3() { 176 } else { 100 }
    }

    pub(crate) fn literal_len(&self) -> usize {
        self.raw.len() - self.literal()
    }

    /// Bytes from the literal area's start to the attribute fork; 0 where there is none.
    pub(crate) fn forkoff(&self) -> usize {
        usize::from(self.raw[82]) * 8
    }

    pub(crate) fn mode(&self) -> u16 {
        be16(&self.raw, 2)
    }

    pub(crate) fn kind(&self) -> Result<FileKind> {
        FileKind::from_mode(self.mode())
            .ok_or_else(|| self.corrupt(format!("di_mode says what it is, found {:#o}", self.mode())))
    }

    pub(crate) fn size(&self) -> u64 {
        be64(&self.raw, 56)
    }

    pub(crate) fn blocks(&self) -> u64 {
        be64(&self.raw, 64)
    }

    pub(crate) fn uid(&self) -> u32 {
        be32(&self.raw, 8)
    }

    pub(crate) fn gid(&self) -> u32 {
        be32(&self.raw, 12)
    }

    pub(crate) fn links(&self) -> u32 {
        if self.raw[4] == 1 { be16(&self.raw, 6).into() } else { be32(&self.raw, 16) }
    }

    pub(crate) fn generation(&self) -> u32 {
        be32(&self.raw, 92)
    }

    pub(crate) fn is_realtime(&self) -> bool {
        be16(&self.raw, 90) & FLAG_REALTIME != 0
    }

    pub(crate) fn flags2(&self) -> u64 {
        if self.is_v3() { be64(&self.raw, 120) } else { 0 }
    }

    fn time(&self, at: usize) -> Timestamp {
        if self.flags2() & flags2::BIGTIME != 0 {
            let all = i128::from(be64(&self.raw, at)) - BIGTIME_EPOCH * NANOSECONDS;
            let (seconds, nanoseconds) = (all.div_euclid(NANOSECONDS), all.rem_euclid(NANOSECONDS));
            return Timestamp { seconds: seconds as i64, nanoseconds: nanoseconds as u32 };
        }
        let seconds = be32(&self.raw, at).cast_signed();
        Timestamp { seconds: seconds.into(), nanoseconds: be32(&self.raw, at + 4).min(999_999_999) }
    }

    pub(crate) fn accessed(&self) -> Timestamp {
        self.time(32)
    }

    pub(crate) fn modified(&self) -> Timestamp {
        self.time(40)
    }

    pub(crate) fn changed(&self) -> Timestamp {
        self.time(48)
    }

    pub(crate) fn format(&self, fork: Fork) -> Format {
        let value = if fork == Fork::Data { self.raw[5] } else { self.raw[83] };
        Format::decode(value).unwrap_or(Format::Extents)
    }

    /// How many extents a fork says that it has.
    pub(crate) fn extent_count(&self, fork: Fork) -> u64 {
        let large = self.flags2() & flags2::NREXT64 != 0;
        match (fork, large) {
            (Fork::Data, false) => be32(&self.raw, 76).into(),
            (Fork::Data, true) => be64(&self.raw, 24),
            (Fork::Attr, false) => be16(&self.raw, 80).into(),
            (Fork::Attr, true) => be32(&self.raw, 76).into(),
        }
    }

    /// The bytes of a fork in the literal area; none where there is no such fork.
    pub(crate) fn fork(&self, fork: Fork) -> &[u8] {
        let (start, end) = self.fork_range(fork);
        &self.raw[start..end]
    }

    pub(crate) fn fork_range(&self, fork: Fork) -> (usize, usize) {
        let (literal, forkoff) = (self.literal(), self.forkoff());
        match (fork, forkoff) {
            (Fork::Data, 0) => (literal, self.raw.len()),
            (Fork::Data, _) => (literal, literal + forkoff),
            (Fork::Attr, 0) => (self.raw.len(), self.raw.len()),
            (Fork::Attr, _) => (literal + forkoff, self.raw.len()),
        }
    }

    // What changes an inode: only of version 3, since no other is written.

    /// An inode that was just made.
    pub(crate) fn new(number: u64, generation: u32, sb: &Superblock) -> Self {
        let mut inode = Self { number, raw: vec![0; sb.inode_size] };
        put16(&mut inode.raw, 0, 0x494e);
        inode.raw[4] = 3;
        inode.raw[5] = Format::Extents.encode();
        inode.raw[83] = Format::Extents.encode();
        put32(&mut inode.raw, 92, generation);
        put32(&mut inode.raw, 96, NULL_AGINO);
        let mut flags2 = 0;
        if sb.has_incompat(incompat::BIGTIME) {
            flags2 |= flags2::BIGTIME;
        }
        if sb.has_incompat(incompat::NREXT64) {
            flags2 |= flags2::NREXT64;
        }
        put64(&mut inode.raw, 120, flags2);
        put64(&mut inode.raw, 152, number);
        put(&mut inode.raw, 160, &sb.meta_uuid);
        put_checksum(&mut inode.raw, CRC);
        inode
    }

    /// Puts the checksum right.
    pub(crate) fn seal(&mut self) {
        put_checksum(&mut self.raw, CRC);
    }

    pub(crate) fn set_mode(&mut self, mode: u16) {
        put16(&mut self.raw, 2, mode);
    }

    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        put32(&mut self.raw, 8, uid);
        put32(&mut self.raw, 12, gid);
    }

    pub(crate) fn set_links(&mut self, links: u32) {
        put32(&mut self.raw, 16, links);
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        put64(&mut self.raw, 56, size);
    }

    pub(crate) fn set_blocks(&mut self, blocks: u64) {
        put64(&mut self.raw, 64, blocks);
    }

    pub(crate) fn set_extent_count(&mut self, fork: Fork, count: u64) {
        let large = self.flags2() & flags2::NREXT64 != 0;
        match (fork, large) {
            (Fork::Data, false) => put32(&mut self.raw, 76, count as u32),
            (Fork::Data, true) => put64(&mut self.raw, 24, count),
            (Fork::Attr, false) => put16(&mut self.raw, 80, count as u16),
            (Fork::Attr, true) => put32(&mut self.raw, 76, count as u32),
        }
    }

    pub(crate) fn set_format(&mut self, fork: Fork, format: Format) {
        self.raw[if fork == Fork::Data { 5 } else { 83 }] = format.encode();
    }

    pub(crate) fn set_forkoff(&mut self, forkoff: usize) {
        self.raw[82] = (forkoff / 8) as u8;
    }

    fn set_time(&mut self, at: usize, time: Timestamp) {
        if self.flags2() & flags2::BIGTIME != 0 {
            let all = (i128::from(time.seconds) + BIGTIME_EPOCH) * NANOSECONDS + i128::from(time.nanoseconds);
            put64(&mut self.raw, at, all.clamp(0, u64::MAX.into()) as u64);
            return;
        }
        let seconds = time.seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        put32(&mut self.raw, at, seconds.cast_unsigned());
        put32(&mut self.raw, at + 4, time.nanoseconds);
    }

    pub(crate) fn set_accessed(&mut self, time: Timestamp) {
        self.set_time(32, time);
    }

    pub(crate) fn set_modified(&mut self, time: Timestamp) {
        self.set_time(40, time);
    }

    pub(crate) fn set_changed(&mut self, time: Timestamp) {
        self.set_time(48, time);
        let count = be64(&self.raw, 104).wrapping_add(1);
        put64(&mut self.raw, 104, count);
    }

    pub(crate) fn set_created(&mut self, time: Timestamp) {
        self.set_time(144, time);
    }
}
