//! Quota files: a tree of blocks of 1 KiB with an entry for each user, group or project.
//!
//! Kernel `fs/quota/quotaio_v2.h`, `fs/quota/quota_tree.h`, `include/linux/dqblk_qtree.h`.

use std::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a block of a quota file.
pub(crate) const BLOCK_LEN: usize = 1024;
/// The block that is the root of the tree.
pub(crate) const ROOT_BLOCK: u32 = 1;
/// Levels of blocks that hold numbers of blocks: each takes 8 bits of an id.
pub(crate) const LEVELS: u32 = 4;
/// `dqh_version` of entries as they are here.
pub(crate) const VERSION: u32 = 1;

/// The start of a quota file (`v2_disk_dqheader`, then `v2_disk_dqinfo`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct QuotaHeader {
    pub dqh_magic: U32,
    pub dqh_version: U32,
    pub dqi_bgrace: U32,
    pub dqi_igrace: U32,
    pub dqi_flags: U32,
    /// Blocks of the file.
    pub dqi_blocks: U32,
    /// The first of a list of blocks that hold nothing, or 0.
    pub dqi_free_blk: U32,
    /// The first of a list of blocks of entries with room, or 0.
    pub dqi_free_entry: U32,
}

/// The start of a block of entries (`qt_disk_dqdbheader`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct EntriesHeader {
    pub dqdh_next_free: U32,
    pub dqdh_prev_free: U32,
    pub dqdh_entries: U16,
    pub dqdh_pad1: U16,
    pub dqdh_pad2: U32,
}

/// What one user, group or project uses and may use (`v2r1_disk_dqblk`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct QuotaEntry {
    pub dqb_id: U32,
    pub dqb_pad: U32,
    pub dqb_ihardlimit: U64,
    pub dqb_isoftlimit: U64,
    /// Inodes in use.
    pub dqb_curinodes: U64,
    pub dqb_bhardlimit: U64,
    pub dqb_bsoftlimit: U64,
    /// Bytes in use.
    pub dqb_curspace: U64,
    pub dqb_btime: U64,
    pub dqb_itime: U64,
}

/// Entries in a block.
pub(crate) const ENTRIES: usize = (BLOCK_LEN - size_of::<EntriesHeader>()) / size_of::<QuotaEntry>();

const _: () = assert!(size_of::<QuotaHeader>() == 32);
const _: () = assert!(offset_of!(QuotaHeader, dqi_blocks) == 20);
const _: () = assert!(size_of::<EntriesHeader>() == 16);
const _: () = assert!(size_of::<QuotaEntry>() == 72);
const _: () = assert!(offset_of!(QuotaEntry, dqb_curspace) == 48);
const _: () = assert!(ENTRIES == 14);
