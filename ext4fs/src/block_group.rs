//! Group descriptors, decoded once, and the blocks that the format itself takes.
//!
//! <https://docs.kernel.org/filesystems/ext4/group_descr.html>; `fs/ext4/super.c`, `ext4_group_desc_csum`.

use std::ops::Range;

use bitflags::bitflags;
use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::{crc16, crc32c};
use crate::layout::group_descriptor::{CHECKSUM_OFFSET, RawGroupDescriptor};
use crate::superblock::Superblock;
use crate::{Error, Result};

bitflags! {
    /// What of a group was never written.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct GroupFlags: u16 {
        /// The inode bitmap and table are to be taken as empty.
        const INODE_UNINIT = 1;
        /// The block bitmap is to be computed.
        const BLOCK_UNINIT = 2;
        /// The inode table is zeroed where it is unused.
        const INODE_ZEROED = 4;
        const _ = !0;
    }
}

/// One group, decoded.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    /// Free clusters.
    pub free_blocks: u32,
    pub free_inodes: u32,
    pub used_dirs: u32,
    /// Inodes at the table's end that were never used.
    pub itable_unused: u32,
    pub flags: GroupFlags,
    /// No cluster below this one is free. Known in memory only.
    pub first_free: u32,
    pub block_bitmap_checksum: u32,
    pub inode_bitmap_checksum: u32,
    /// Whether it differs from the descriptor on the disk.
    pub dirty: bool,
    /// Whether a bitmap was changed, so that its checksum is to be computed before the descriptor is written.
    pub bitmaps_changed: bool,
}

impl Group {
    /// Decodes and checks the descriptor of group `number`.
    pub(crate) fn decode(bytes: &[u8], superblock: &Superblock, number: u32) -> Result<Self> {
        let wrong = |expected: String| Error::corrupt("group descriptor", format_args!("group {number}"), expected);
        let mut full = [0; size_of::<RawGroupDescriptor>()];
        let known = bytes.len().min(full.len());
        full[..known].copy_from_slice(&bytes[..known]);
        let raw = RawGroupDescriptor::read_from_bytes(&full).map_err(|_| wrong("is 64 bytes long".to_owned()))?;
        if superblock.features.group_checksum() {
            let computed = checksum(bytes, superblock, number);
            if computed != raw.bg_checksum.get() {
                return Err(wrong(format!("bg_checksum is {computed:#x}, found {:#x}", raw.bg_checksum.get())));
            }
        }
        let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let count = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let flags = if superblock.features.group_checksum() {
            GroupFlags::from_bits_retain(raw.bg_flags.get())
        } else {
            GroupFlags::empty()
        };
        let group = Self {
            block_bitmap: wide(raw.bg_block_bitmap_lo.get(), raw.bg_block_bitmap_hi.get()),
            inode_bitmap: wide(raw.bg_inode_bitmap_lo.get(), raw.bg_inode_bitmap_hi.get()),
            inode_table: wide(raw.bg_inode_table_lo.get(), raw.bg_inode_table_hi.get()),
            free_blocks: count(raw.bg_free_blocks_count_lo.get(), raw.bg_free_blocks_count_hi.get()),
            free_inodes: count(raw.bg_free_inodes_count_lo.get(), raw.bg_free_inodes_count_hi.get()),
            used_dirs: count(raw.bg_used_dirs_count_lo.get(), raw.bg_used_dirs_count_hi.get()),
            itable_unused: count(raw.bg_itable_unused_lo.get(), raw.bg_itable_unused_hi.get()),
            flags,
            first_free: 0,
            block_bitmap_checksum: count(raw.bg_block_bitmap_csum_lo.get(), raw.bg_block_bitmap_csum_hi.get()),
            inode_bitmap_checksum: count(raw.bg_inode_bitmap_csum_lo.get(), raw.bg_inode_bitmap_csum_hi.get()),
            dirty: false,
            bitmaps_changed: false,
        };
        let inside = |block: u64, len: u64| {
            block >= superblock.first_data_block
                && block.checked_add(len).is_some_and(|end| end <= superblock.blocks_count)
        };
        if !inside(group.block_bitmap, 1) || !inside(group.inode_bitmap, 1) {
            let found = format!("found {} and {}", group.block_bitmap, group.inode_bitmap);
            return Err(wrong(format!("the bitmaps lie inside the file system, {found}")));
        }
        if !inside(group.inode_table, u64::from(superblock.inode_table_blocks)) {
            return Err(wrong(format!(
                "the inode table lies inside the file system, found block {}",
                group.inode_table
            )));
        }
        if group.free_blocks > superblock.group_clusters(number) {
            return Err(wrong(format!("free blocks fit the group, found {}", group.free_blocks)));
        }
        if group.free_inodes > superblock.inodes_per_group || group.itable_unused > superblock.inodes_per_group {
            let found = format!("found {} and {}", group.free_inodes, group.itable_unused);
            return Err(wrong(format!("free and unused inodes fit the group, {found}")));
        }
        Ok(group)
    }

    /// Writes what may change into the descriptor's bytes, and its checksum.
    pub(crate) fn encode(&self, bytes: &mut [u8], superblock: &Superblock, number: u32) {
        let known = bytes.len().min(size_of::<RawGroupDescriptor>());
        let mut full = [0; size_of::<RawGroupDescriptor>()];
        full[..known].copy_from_slice(&bytes[..known]);
        let mut raw = RawGroupDescriptor::read_from_bytes(&full).unwrap_or_default();
        let split = |n: u32| ((n as u16).into(), ((n >> 16) as u16).into());
        (raw.bg_free_blocks_count_lo, raw.bg_free_blocks_count_hi) = split(self.free_blocks);
        (raw.bg_free_inodes_count_lo, raw.bg_free_inodes_count_hi) = split(self.free_inodes);
        (raw.bg_used_dirs_count_lo, raw.bg_used_dirs_count_hi) = split(self.used_dirs);
        (raw.bg_itable_unused_lo, raw.bg_itable_unused_hi) = split(self.itable_unused);
        (raw.bg_block_bitmap_csum_lo, raw.bg_block_bitmap_csum_hi) = split(self.block_bitmap_checksum);
        (raw.bg_inode_bitmap_csum_lo, raw.bg_inode_bitmap_csum_hi) = split(self.inode_bitmap_checksum);
        if superblock.features.group_checksum() {
            raw.bg_flags = self.flags.bits().into();
        }
        bytes[..known].copy_from_slice(&raw.as_bytes()[..known]);
        if superblock.features.group_checksum() {
            let sum = checksum(bytes, superblock, number);
            bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// Inodes at the table's start that may be in use.
    pub(crate) fn inodes_ever_used(&self, superblock: &Superblock) -> u32 {
        if self.flags.contains(GroupFlags::INODE_UNINIT) {
            return 0;
        }
        if superblock.features.group_checksum() {
            superblock.inodes_per_group - self.itable_unused
        } else {
            superblock.inodes_per_group
        }
    }
}

fn checksum(bytes: &[u8], superblock: &Superblock, number: u32) -> u16 {
    let before = &bytes[..CHECKSUM_OFFSET];
    let after = &bytes[CHECKSUM_OFFSET + 2..];
    let number = number.to_le_bytes();
    if superblock.features.metadata_csum() {
        let sum = crc32c(crc32c(superblock.checksum_seed, &number), before);
        crc32c(crc32c(sum, &[0, 0]), after) as u16
    } else {
        crc16(&[&superblock.raw.s_uuid, &number, before, after])
    }
}

/// A bitmap's checksum as the descriptor can hold it: 16 bits of it in a 32-byte descriptor.
pub(crate) fn bitmap_checksum(superblock: &Superblock, bitmap: &[u8], bits: u32) -> u32 {
    let len = (bits as usize / 8).min(bitmap.len());
    let sum = crc32c(superblock.checksum_seed, &bitmap[..len]);
    if superblock.descriptor_size >= size_of::<RawGroupDescriptor>() { sum } else { sum & 0xFFFF }
}

/// All blocks that superblocks, descriptors, bitmaps and inode tables take, as sorted runs that do not touch.
pub(crate) fn system_blocks(superblock: &Superblock, groups: &[Group]) -> Vec<Range<u64>> {
    let mut runs = Vec::with_capacity(groups.len() * 4);
    for (number, group) in (0..).zip(groups) {
        runs.push(superblock.group_header_blocks(number));
        runs.push(group.block_bitmap..group.block_bitmap + 1);
        runs.push(group.inode_bitmap..group.inode_bitmap + 1);
        runs.push(group.inode_table..group.inode_table + u64::from(superblock.inode_table_blocks));
    }
    if superblock.first_data_block == 0 {
        runs.push(0..1);
    }
    runs.retain(|run| !run.is_empty());
    runs.sort_unstable_by_key(|run| run.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

/// The runs of `system` that reach into `range`.
pub(crate) fn overlapping(system: &[Range<u64>], range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
    let from = system.partition_point(|run| run.end <= range.start);
    let end = range.end;
    system[from..]
        .iter()
        .take_while(move |run| run.start < end)
        .map(move |run| run.start.max(range.start)..run.end.min(end))
}
