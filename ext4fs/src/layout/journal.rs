//! The structures of jbd2, all big-endian.
//!
//! <https://docs.kernel.org/filesystems/ext4/journal.html>, kernel `include/linux/jbd2.h`.

use std::mem::{offset_of, size_of};

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `h_magic` of every block that is not data.
pub(crate) const JBD2_MAGIC: u32 = 0xc03b_3998;

/// What every block of the journal that is not data begins with (`journal_header_s`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct JournalHeader {
    /// [`JBD2_MAGIC`].
    pub h_magic: U32,
    /// One of the `BLOCK_TYPE_` numbers.
    pub h_blocktype: U32,
    /// The transaction.
    pub h_sequence: U32,
}

/// Describes the blocks that follow it.
pub(crate) const BLOCK_TYPE_DESCRIPTOR: u32 = 1;
/// Ends a transaction.
pub(crate) const BLOCK_TYPE_COMMIT: u32 = 2;
/// A superblock without feature fields.
pub(crate) const BLOCK_TYPE_SUPERBLOCK_V1: u32 = 3;
/// A superblock with feature fields.
pub(crate) const BLOCK_TYPE_SUPERBLOCK_V2: u32 = 4;
/// Lists blocks that earlier transactions must not be replayed to.
pub(crate) const BLOCK_TYPE_REVOKE: u32 = 5;

/// The first block of the journal (`journal_superblock_s`), 1024 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct JournalSuperblock {
    /// The header, with one of the two superblock types.
    pub s_header: JournalHeader,
    /// Bytes of a block.
    pub s_blocksize: U32,
    /// Blocks of the journal, this one counted.
    pub s_maxlen: U32,
    /// The first block of the log.
    pub s_first: U32,
    /// The first transaction expected in the log.
    pub s_sequence: U32,
    /// The block where the log starts; 0 where it is empty.
    pub s_start: U32,
    /// The error that the journal was aborted with.
    pub s_errno: U32,
    /// Features that may be ignored.
    pub s_feature_compat: U32,
    /// Features that must be known to read the journal.
    pub s_feature_incompat: U32,
    /// Features that must be known to write it; none are defined.
    pub s_feature_ro_compat: U32,
    /// The journal's UUID, the seed of its checksums.
    pub s_uuid: [u8; 16],
    /// How many file systems share it.
    pub s_nr_users: U32,
    /// A copy of the superblock; unused.
    pub s_dynsuper: U32,
    /// Unused.
    pub s_max_transaction: U32,
    /// Unused.
    pub s_max_trans_data: U32,
    /// 4 for crc32c.
    pub s_checksum_type: u8,
    /// 0.
    pub s_padding2: [u8; 3],
    /// Blocks of the fast commit area at the journal's end; 0 stands for 256.
    pub s_num_fc_blks: U32,
    /// Where the log's head was when it was last emptied.
    pub s_head: U32,
    /// 0.
    pub s_padding: [U32; 40],
    /// crc32c of this structure with 0 here.
    pub s_checksum: U32,
    /// The file systems that share the journal.
    pub s_users: [u8; 768],
}

/// Ends a transaction (`commit_header`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct CommitHeader {
    /// The header.
    pub c_header: JournalHeader,
    /// Of version 1 checksums: 1 for crc32.
    pub h_chksum_type: u8,
    /// Of version 1 checksums: 4.
    pub h_chksum_size: u8,
    /// 0.
    pub h_padding: [u8; 2],
    /// The first holds the checksum: of the transaction (version 1) or of this block (versions 2 and 3).
    pub h_chksum: [U32; 8],
    /// When it was committed: seconds.
    pub h_commit_sec: U64,
    /// When it was committed: nanoseconds.
    pub h_commit_nsec: U32,
}

/// Describes one block of data (`journal_block_tag_s`) with the high half of the number cut off; a
/// [`U32`] with it follows where the journal is of 64 bits.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BlockTag {
    /// The file system's block, low half.
    pub t_blocknr: U32,
    /// Low half of the crc32c of the transaction's number and the data.
    pub t_checksum: U16,
    /// The `TAG_` bits.
    pub t_flags: U16,
}

/// Describes one block of data in journals with version 3 checksums (`journal_block_tag3_s`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BlockTag3 {
    /// The file system's block, low half.
    pub t_blocknr: U32,
    /// The `TAG_` bits.
    pub t_flags: U32,
    /// The file system's block, high half.
    pub t_blocknr_high: U32,
    /// crc32c of the transaction's number and the data.
    pub t_checksum: U32,
}

/// The data began with [`JBD2_MAGIC`], and has zeros there in the journal.
pub(crate) const TAG_ESCAPE: u32 = 1;
/// No UUID follows the tag.
pub(crate) const TAG_SAME_UUID: u32 = 2;
/// The last tag of the block.
pub(crate) const TAG_LAST: u32 = 8;

/// The header of a revoke block (`jbd2_journal_revoke_header_s`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RevokeHeader {
    /// The header.
    pub r_header: JournalHeader,
    /// Bytes used, this header counted.
    pub r_count: U32,
}

const _: () = assert!(size_of::<JournalHeader>() == 12);
const _: () = assert!(size_of::<JournalSuperblock>() == 1024);
const _: () = assert!(offset_of!(JournalSuperblock, s_start) == 28);
const _: () = assert!(offset_of!(JournalSuperblock, s_feature_incompat) == 40);
const _: () = assert!(offset_of!(JournalSuperblock, s_uuid) == 48);
const _: () = assert!(offset_of!(JournalSuperblock, s_num_fc_blks) == 84);
const _: () = assert!(offset_of!(JournalSuperblock, s_checksum) == 252);
const _: () = assert!(size_of::<CommitHeader>() == 60);
const _: () = assert!(offset_of!(CommitHeader, h_chksum) == 16);
const _: () = assert!(offset_of!(CommitHeader, h_commit_sec) == 48);
const _: () = assert!(size_of::<BlockTag>() == 8);
const _: () = assert!(size_of::<BlockTag3>() == 16);
const _: () = assert!(size_of::<RevokeHeader>() == 16);
