//! The walk over the log: finds the transactions that were committed, what they wrote and what they revoked.
//!
//! Kernel `fs/jbd2/recovery.c` (`do_one_pass`, `jbd2_block_tag_csum_verify`, `jbd2_commit_block_csum_verify`).

use zerocopy::FromBytes;
use zerocopy::big_endian::U32;

use super::JournalBlocks;
use super::revoke::Revokes;
use super::superblock::{Checksums, Superblock};
use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::layout::journal::{
    BLOCK_TYPE_COMMIT, BLOCK_TYPE_DESCRIPTOR, BLOCK_TYPE_REVOKE, BlockTag, BlockTag3, CommitHeader, JBD2_MAGIC,
    JournalHeader, TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID,
};

/// The crc32 of version 1: from the highest bit down, and not inverted at the end.
const CRC32_BE: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_MPEG_2);
/// Bytes of the checksum at the end of descriptor and revoke blocks.
const TAIL_LEN: usize = 4;
/// Where `h_chksum` lies in a commit block.
const COMMIT_CHECKSUM_OFFSET: usize = 16;

/// A block that a transaction wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    /// The file system's block.
    pub(super) target: u64,
    /// Where in the journal the contents are.
    pub(super) source: u32,
    pub(super) sequence: u32,
    /// Whether the first four bytes are to become the magic number again.
    pub(super) escaped: bool,
}

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// All writes of committed transactions, in order.
    pub(super) writes: Vec<Write>,
    pub(super) revokes: Revokes,
    pub(super) transactions: u32,
    /// The number after that of the last committed transaction.
    pub(super) next_sequence: u32,
}

/// Walks the log of a journal that is not clean.
pub(super) fn scan(journal: &dyn JournalBlocks, superblock: &Superblock) -> Result<Scan> {
    let mut walk = Walk {
        journal,
        superblock,
        next: superblock.start,
        left: superblock.end - superblock.first,
        pending: Transaction::default(),
        last_commit: (0, 0),
        found: Scan { next_sequence: superblock.sequence, ..Scan::default() },
    };
    while walk.step()? {}
    Ok(walk.found)
}

/// What was read of a transaction whose commit block has not been reached yet.
#[derive(Default)]
struct Transaction {
    writes: Vec<Write>,
    /// Revoke blocks, by their number in the journal.
    revokes: Vec<u32>,
    /// A checksum that is wrong, which is an error if the transaction turns out to be one of this log.
    damage: Option<Error>,
    /// What version 1 sums: descriptor blocks and data.
    blocks: Vec<u32>,
}

struct Walk<'a> {
    journal: &'a dyn JournalBlocks,
    superblock: &'a Superblock,
    next: u32,
    /// How many blocks may still be read: a log is no longer than its journal.
    left: u32,
    pending: Transaction,
    /// When the last transaction was committed.
    last_commit: (u64, u32),
    found: Scan,
}

impl Walk<'_> {
    /// Reads the next block of the log that is not data, and what belongs to it. Returns whether the log goes on.
    fn step(&mut self) -> Result<bool> {
        let Some(number) = self.advance() else { return Ok(false) };
        let bytes = self.read(number)?;
        let Ok((header, _)) = JournalHeader::read_from_prefix(&bytes) else { return Ok(false) };
        if header.h_magic.get() != JBD2_MAGIC || header.h_sequence.get() != self.found.next_sequence {
            return Ok(false);
        }
        match header.h_blocktype.get() {
            BLOCK_TYPE_DESCRIPTOR => self.descriptor(number, &bytes),
            BLOCK_TYPE_REVOKE => {
                if !self.tail_is_right(&bytes) {
                    self.damaged(number, "revoke block");
                }
                self.pending.revokes.push(number);
                Ok(true)
            }
            BLOCK_TYPE_COMMIT => self.commit(number, &bytes),
            _ => Ok(false),
        }
    }

    fn descriptor(&mut self, number: u32, bytes: &[u8]) -> Result<bool> {
        if !self.tail_is_right(bytes) {
            self.damaged(number, "descriptor block");
        }
        self.pending.blocks.push(number);
        let mut rest = bytes.get(size_of::<JournalHeader>()..self.records_end(bytes)).unwrap_or_default();
        while let Some((tag, after)) = self.tag(rest) {
            let Some(source) = self.advance() else {
                // The log ends within the transaction, so that it cannot have been committed.
                return Ok(false);
            };
            self.pending.blocks.push(source);
            self.pending.writes.push(Write {
                target: tag.target,
                source,
                sequence: self.found.next_sequence,
                escaped: tag.flags & TAG_ESCAPE != 0,
            });
            if let Some(expected) = tag.checksum {
                let found = self.data_checksum(&self.read(source)?);
                if found != Some(expected) {
                    self.damaged(source, "data");
                }
            }
            if tag.flags & TAG_LAST != 0 {
                break;
            }
            rest = after;
        }
        Ok(true)
    }

    fn commit(&mut self, number: u32, bytes: &[u8]) -> Result<bool> {
        let Ok((header, _)) = CommitHeader::read_from_prefix(bytes) else { return Ok(false) };
        let time = (header.h_commit_sec.get(), header.h_commit_nsec.get());
        let pending = std::mem::take(&mut self.pending);
        let right = self.commit_checksum_is_right(bytes, &header, &pending)?;
        if !right || pending.damage.is_some() {
            // A block that was there before the log came round may have the number expected by chance: only then is
            // its time before that of the last commit.
            if self.superblock.checksums.block_seed().is_some() && time < self.last_commit {
                return Ok(false);
            }
            if let Some(damage) = pending.damage {
                return Err(damage);
            }
            // Written at once with the others, it may have reached the disk before them.
            if self.superblock.asynchronous {
                return Ok(false);
            }
            let place = format!("journal block {number}");
            let rule = format!("checksum of transaction {} must be right", self.found.next_sequence);
            return Err(Error::corrupt("commit block", place, rule));
        }
        for block in pending.revokes {
            let revoke = self.read(block)?;
            let end = self.records_end(&revoke);
            self.found.revokes.read(&revoke, end, self.superblock.wide, self.found.next_sequence, block)?;
        }
        self.found.writes.extend(pending.writes);
        self.found.transactions += 1;
        self.found.next_sequence = self.found.next_sequence.wrapping_add(1);
        self.last_commit = time;
        Ok(true)
    }

    /// The number of the next block of the log, which goes on at its beginning once it is at its end.
    fn advance(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        self.next = if number + 1 >= self.superblock.end { self.superblock.first } else { number + 1 };
        Some(number)
    }

    fn read(&self, number: u32) -> Result<Vec<u8>> {
        let bytes = self.journal.read(number)?;
        if bytes.len() != self.journal.block_size() {
            let rule = format!("must be {} bytes, found {}", self.journal.block_size(), bytes.len());
            return Err(Error::corrupt("journal", format!("journal block {number}"), rule));
        }
        Ok(bytes)
    }

    fn damaged(&mut self, number: u32, what: &'static str) {
        let rule = format!("checksum of {what} in transaction {} must be right", self.found.next_sequence);
        self.pending.damage.get_or_insert(Error::corrupt("journal", format!("journal block {number}"), rule));
    }

    /// Where the records of a descriptor or revoke block end.
    fn records_end(&self, bytes: &[u8]) -> usize {
        if self.superblock.checksums.block_seed().is_some() {
            bytes.len().saturating_sub(TAIL_LEN)
        } else {
            bytes.len()
        }
    }

    fn tail_is_right(&self, bytes: &[u8]) -> bool {
        let Some(seed) = self.superblock.checksums.block_seed() else { return true };
        let (body, tail) = bytes.split_at(self.records_end(bytes));
        tail == crc32c(crc32c(seed, body), &[0; TAIL_LEN]).to_be_bytes()
    }

    /// The checksum of data that a tag is to have.
    fn data_checksum(&self, bytes: &[u8]) -> Option<u32> {
        let seed = self.superblock.checksums.block_seed()?;
        let sum = crc32c(crc32c(seed, &self.found.next_sequence.to_be_bytes()), bytes);
        Some(if matches!(self.superblock.checksums, Checksums::V2 { .. }) { sum & 0xffff } else { sum })
    }

    fn commit_checksum_is_right(&self, bytes: &[u8], header: &CommitHeader, pending: &Transaction) -> Result<bool> {
        let stored = header.h_chksum[0].get();
        match self.superblock.checksums {
            Checksums::None => Ok(true),
            Checksums::V1 => {
                if (header.h_chksum_type, header.h_chksum_size, stored) == (0, 0, 0) {
                    return Ok(true);
                }
                let mut digest = CRC32_BE.digest();
                for &block in &pending.blocks {
                    digest.update(&self.read(block)?);
                }
                Ok((header.h_chksum_type, header.h_chksum_size, stored) == (1, 4, digest.finalize()))
            }
            Checksums::V2 { seed } | Checksums::V3 { seed } => {
                let mut blank = bytes.to_vec();
                blank[COMMIT_CHECKSUM_OFFSET..COMMIT_CHECKSUM_OFFSET + 4].fill(0);
                let whole = crc32c(seed, &blank);
                // Some kernels left old bytes behind the header and summed zeros there.
                blank[size_of::<CommitHeader>()..].fill(0);
                Ok(stored == whole || stored == crc32c(seed, &blank))
            }
        }
    }

    /// The tag at the start of `bytes` and what follows it, or `None` where a tag does not fit any more.
    fn tag<'b>(&self, bytes: &'b [u8]) -> Option<(Tag, &'b [u8])> {
        let wide = |high: u32, low: U32| {
            let high = if self.superblock.wide { u64::from(high) << 32 } else { 0 };
            high | u64::from(low.get())
        };
        let (tag, rest) = if matches!(self.superblock.checksums, Checksums::V3 { .. }) {
            let (raw, rest) = BlockTag3::read_from_prefix(bytes).ok()?;
            let target = wide(raw.t_blocknr_high.get(), raw.t_blocknr);
            (Tag { target, flags: raw.t_flags.get(), checksum: Some(raw.t_checksum.get()) }, rest)
        } else {
            let (raw, mut rest) = BlockTag::read_from_prefix(bytes).ok()?;
            let mut high = U32::new(0);
            if self.superblock.wide {
                (high, rest) = U32::read_from_prefix(rest).ok()?;
            }
            let mut checksum = None;
            if matches!(self.superblock.checksums, Checksums::V2 { .. }) {
                checksum = Some(u32::from(raw.t_checksum.get()));
                // Version 2 makes room for another 16 bits that nothing uses.
                rest = rest.get(2..)?;
            }
            (Tag { target: wide(high.get(), raw.t_blocknr), flags: raw.t_flags.get().into(), checksum }, rest)
        };
        let uuid = if tag.flags & TAG_SAME_UUID == 0 { 16 } else { 0 };
        Some((tag, rest.get(uuid..).unwrap_or_default()))
    }
}

/// A block tag of any version.
struct Tag {
    target: u64,
    flags: u32,
    checksum: Option<u32>,
}
