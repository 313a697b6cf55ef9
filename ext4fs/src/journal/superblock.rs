//! The journal's superblock, decoded, and the few changes made to it.
//!
//! <https://docs.kernel.org/filesystems/ext4/journal.html#super-block>, kernel `fs/jbd2/journal.c`
//! (`journal_check_superblock`, `jbd2_superblock_csum`).

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::error::{Error, Result};
use crate::layout::journal::{
    BLOCK_TYPE_SUPERBLOCK_V1, BLOCK_TYPE_SUPERBLOCK_V2, JBD2_MAGIC, JournalHeader, JournalSuperblock,
};

/// Blocks of the fast commit area of journals that do not say.
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// `s_checksum_type` of crc32c.
const CRC32C: u8 = 4;

bitflags::bitflags! {
    /// `s_feature_compat`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Compat: u32 {
        /// Version 1 checksums, one for a whole transaction.
        const CHECKSUM = 0x1;
        const _ = !0;
    }

    /// `s_feature_incompat`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Incompat: u32 {
        const REVOKE = 0x1;
        /// Block numbers of 64 bits.
        const BITS_64 = 0x2;
        /// The commit block need not be written after all others.
        const ASYNC_COMMIT = 0x4;
        const CSUM_V2 = 0x8;
        const CSUM_V3 = 0x10;
        const FAST_COMMIT = 0x20;
        const _ = !0;
    }
}

/// Which checksums a journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checksums {
    None,
    /// crc32 of a transaction in its commit block.
    V1,
    /// crc32c in every block, 16 bits of it in tags.
    V2 {
        seed: u32,
    },
    /// crc32c in every block and in full in tags, which are laid out anew.
    V3 {
        seed: u32,
    },
}

impl Checksums {
    /// The seed where blocks have checksums of their own, that is in versions 2 and 3.
    pub(super) fn block_seed(self) -> Option<u32> {
        match self {
            Self::None | Self::V1 => None,
            Self::V2 { seed } | Self::V3 { seed } => Some(seed),
        }
    }
}

/// What a replay needs to know, checked.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    /// The first transaction expected.
    pub(super) sequence: u32,
    /// Where it starts, or 0 if there is none.
    pub(super) start: u32,
    /// The first block of the log.
    pub(super) first: u32,
    /// The block after the log's last, where the fast commit area begins if there is one.
    pub(super) end: u32,
    pub(super) checksums: Checksums,
    pub(super) wide: bool,
    pub(super) asynchronous: bool,
    /// The end of the fast commit area, which begins at `end`.
    pub(super) area_end: u32,
}

impl Superblock {
    /// Decodes the journal's first block. `blocks` is how many blocks of `block_size` bytes the journal really has.
    pub(super) fn decode(bytes: &[u8], block_size: usize, blocks: u32) -> Result<Self> {
        let wrong = |rule: String| Error::corrupt("journal superblock", "journal block 0", rule);
        let raw = read(bytes)?;
        let (compat, incompat) = features(&raw)?;

        if usize::try_from(raw.s_blocksize.get()) != Ok(block_size) {
            return Err(wrong(format!("s_blocksize must be {block_size}, found {}", raw.s_blocksize)));
        }
        let max_len = raw.s_maxlen.get();
        if max_len > blocks {
            return Err(wrong(format!("s_maxlen must be at most {blocks}, found {max_len}")));
        }
        let seed = crc32c(!0, &raw.s_uuid);
        let flags = [Incompat::CSUM_V2, Incompat::CSUM_V3].map(|flag| incompat.contains(flag));
        let checksums = match (compat.contains(Compat::CHECKSUM), flags) {
            (false, [false, false]) => Checksums::None,
            (true, [false, false]) => Checksums::V1,
            (false, [true, false]) => Checksums::V2 { seed },
            (false, [false, true]) => Checksums::V3 { seed },
            _ => return Err(wrong("must have checksums of one version, found several".to_owned())),
        };
        if checksums.block_seed().is_some() {
            if raw.s_checksum_type != CRC32C {
                return Err(wrong(format!("s_checksum_type must be {CRC32C}, found {}", raw.s_checksum_type)));
            }
            let (expected, found) = (checksum(&raw), raw.s_checksum.get());
            if found != expected {
                return Err(wrong(format!("checksum must be {expected:#010x}, found {found:#010x}")));
            }
        }
        let fast_commit = incompat.contains(Incompat::FAST_COMMIT);
        let area = match (fast_commit, raw.s_num_fc_blks.get()) {
            (false, _) => 0,
            (true, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
            (true, count) => count,
        };
        let (first, start) = (raw.s_first.get(), raw.s_start.get());
        let end = max_len.saturating_sub(area);
        if first == 0 || first >= end {
            return Err(wrong(format!("s_first must be from 1 to below {end}, found {first}")));
        }
        if start != 0 && !(first..end).contains(&start) {
            return Err(wrong(format!("s_start must be 0 or from {first} to below {end}, found {start}")));
        }
        Ok(Self {
            sequence: raw.s_sequence.get(),
            start,
            first,
            end,
            checksums,
            wide: incompat.contains(Incompat::BITS_64),
            asynchronous: incompat.contains(Incompat::ASYNC_COMMIT),
            area_end: if fast_commit { max_len } else { end },
        })
    }
}

/// Whether the journal whose first block this is has nothing to replay.
///
/// # Errors
/// [`Error::Corrupt`] where the block is no journal superblock.
pub(super) fn is_clean(superblock: &[u8]) -> Result<bool> {
    Ok(read(superblock)?.s_start.get() == 0)
}

/// Checks what a journal's first block says beyond what a replay needs: its checksum, that a journal of version 1 has none
/// of the later fields, and that the journal is one file system's.
///
/// # Errors
/// [`Error::Corrupt`] where it does not hold together, [`Error::Unsupported`] for unknown features.
pub(crate) fn check_superblock(superblock: &[u8]) -> Result<()> {
    let wrong = |rule: String| Error::corrupt("journal superblock", "journal block 0", rule);
    let raw = read(superblock)?;
    let users = raw.s_nr_users.get();
    if raw.s_header.h_blocktype.get() == BLOCK_TYPE_SUPERBLOCK_V1 {
        let later = [raw.s_feature_compat, raw.s_feature_incompat, raw.s_feature_ro_compat, raw.s_nr_users];
        let blank = later.iter().all(|field| field.get() == 0);
        return if blank { Ok(()) } else { Err(wrong("must have no features in version 1".to_owned())) };
    }
    let (_, incompat) = features(&raw)?;
    let (expected, found) = (checksum(&raw), raw.s_checksum.get());
    if incompat.intersects(Incompat::CSUM_V2 | Incompat::CSUM_V3) && expected != found {
        return Err(wrong(format!("checksum must be {expected:#010x}, found {found:#010x}")));
    }
    if users > 1 { Err(wrong(format!("s_nr_users must be at most 1, found {users}"))) } else { Ok(()) }
}

/// The first block of a clean journal whose other blocks are to be all zeros: the superblock's own fields stay, so that
/// sequence numbers go on, and what lies behind it becomes zeros.
///
/// # Errors
/// [`Error::Corrupt`] where the block is no journal superblock, [`Error::Invalid`] where the journal is not clean.
pub(crate) fn scrubbed_superblock(superblock: &[u8]) -> Result<Vec<u8>> {
    if !is_clean(superblock)? {
        return Err(Error::Invalid("the journal has transactions to replay"));
    }
    let mut bytes = superblock.to_vec();
    bytes[size_of::<JournalSuperblock>()..].fill(0);
    Ok(bytes)
}

/// The first block of a journal once it was replayed: the log is empty, and `sequence` comes next.
pub(super) fn emptied(superblock: &[u8], sequence: u32) -> Result<Vec<u8>> {
    let mut raw = read(superblock)?;
    let (_, incompat) = features(&raw)?;
    raw.s_start.set(0);
    raw.s_sequence.set(sequence);
    if incompat.intersects(Incompat::CSUM_V2 | Incompat::CSUM_V3) {
        raw.s_checksum.set(checksum(&raw));
    }
    let mut bytes = superblock.to_vec();
    bytes[..size_of::<JournalSuperblock>()].copy_from_slice(raw.as_bytes());
    Ok(bytes)
}

/// The first block of a journal with another UUID. Checksums of blocks are begun with it, so the log must be empty.
///
/// # Errors
/// As [`scrubbed_superblock`].
pub(crate) fn superblock_with_uuid(superblock: &[u8], uuid: [u8; 16]) -> Result<Vec<u8>> {
    let mut raw = read(superblock)?;
    if raw.s_start.get() != 0 {
        return Err(Error::Invalid("the journal has transactions to replay"));
    }
    let mut bytes = superblock.to_vec();
    // Version 1 ends before the UUID.
    if raw.s_header.h_blocktype.get() == BLOCK_TYPE_SUPERBLOCK_V1 {
        return Ok(bytes);
    }
    let (_, incompat) = features(&raw)?;
    raw.s_uuid = uuid;
    if incompat.intersects(Incompat::CSUM_V2 | Incompat::CSUM_V3) {
        raw.s_checksum.set(checksum(&raw));
    }
    bytes[..size_of::<JournalSuperblock>()].copy_from_slice(raw.as_bytes());
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<JournalSuperblock> {
    let wrong = |rule: String| Error::corrupt("journal superblock", "journal block 0", rule);
    let Ok((raw, _)) = JournalSuperblock::read_from_prefix(bytes) else {
        return Err(wrong(format!("must have 1024 bytes, found {}", bytes.len())));
    };
    let JournalHeader { h_magic, h_blocktype, .. } = raw.s_header;
    if h_magic.get() != JBD2_MAGIC {
        return Err(wrong(format!("magic must be {JBD2_MAGIC:#010x}, found {h_magic:#010x}")));
    }
    if ![BLOCK_TYPE_SUPERBLOCK_V1, BLOCK_TYPE_SUPERBLOCK_V2].contains(&h_blocktype.get()) {
        return Err(wrong(format!("block type must be 3 or 4, found {h_blocktype}")));
    }
    Ok(raw)
}

/// The features, of which version 1 superblocks have none; unknown ones are refused.
fn features(raw: &JournalSuperblock) -> Result<(Compat, Incompat)> {
    if raw.s_header.h_blocktype.get() == BLOCK_TYPE_SUPERBLOCK_V1 {
        return Ok((Compat::empty(), Incompat::empty()));
    }
    let incompat = Incompat::from_bits_retain(raw.s_feature_incompat.get());
    let known = Incompat::REVOKE
        | Incompat::BITS_64
        | Incompat::ASYNC_COMMIT
        | Incompat::CSUM_V2
        | Incompat::CSUM_V3
        | Incompat::FAST_COMMIT;
    let unknown = (incompat - known).bits();
    if unknown != 0 || raw.s_feature_ro_compat.get() != 0 {
        let read_only = raw.s_feature_ro_compat;
        return Err(Error::Unsupported(format!(
            "journal features {unknown:#x} (incompat), {read_only:#x} (ro_compat)"
        )));
    }
    Ok((Compat::from_bits_retain(raw.s_feature_compat.get()), incompat))
}

fn checksum(raw: &JournalSuperblock) -> u32 {
    let mut blank = *raw;
    blank.s_checksum.set(0);
    crc32c(!0, blank.as_bytes())
}
