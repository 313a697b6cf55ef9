//! One inode: the fields of the disk, read and set by meaning.
//!
//! <https://docs.kernel.org/filesystems/ext4/inodes.html>

use bitflags::bitflags;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::block_map;
use crate::checksum::{crc32c, inode_seed};
use crate::features::{Incompat, RoCompat};
use crate::layout::inode::{BASE_LEN, CHECKSUM_HI_OFFSET, CHECKSUM_LO_OFFSET, EXTRA_ISIZE_OFFSET, FULL_LEN, RawInode};
use crate::metadata::{DeviceNumber, FileKind, Metadata, Timestamp};
use crate::superblock::Superblock;
use crate::{Error, Result};

bitflags! {
    /// `i_flags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct InodeFlags: u32 {
        const IMMUTABLE = 0x10;
        const APPEND = 0x20;
        const ENCRYPT = 0x800;
        const INDEX = 0x1000;
        const HUGE_FILE = 0x4_0000;
        const EXTENTS = 0x8_0000;
        const VERITY = 0x10_0000;
        const EA_INODE = 0x20_0000;
        const EOFBLOCKS = 0x40_0000;
        const INLINE_DATA = 0x1000_0000;
        const PROJINHERIT = 0x2000_0000;
        const CASEFOLD = 0x4000_0000;
        const _ = !0;
    }
}

impl InodeFlags {
    /// What a new inode takes from its directory: directories the most, files less, others no more than two flags.
    pub(crate) const fn inherited_by(kind: FileKind) -> Self {
        Self::from_bits_retain(match kind {
            FileKind::Directory => 0x6201_C4CF,
            FileKind::File => 0x0200_C4CF,
            _ => 0xC0,
        })
    }
}

/// The largest `i_blocks` that 48 bits hold.
const MAX_SECTORS_48: u64 = (1 << 48) - 1;

/// An inode in memory. Bytes of its slot that are not fields (extended attributes) stay in the inode table's block.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub number: u32,
    pub raw: RawInode,
}

impl Inode {
    /// Decodes a slot of the inode table, whose checksum the caller has checked.
    pub(crate) fn decode(slot: &[u8], number: u32) -> Result<Self> {
        let mut bytes = [0; FULL_LEN];
        let known = field_bytes(slot);
        let (Some(to), Some(from)) = (bytes.get_mut(..known), slot.get(..known)) else {
            return Err(Error::corrupt("inode", format_args!("inode {number}"), "has at least 128 bytes"));
        };
        to.copy_from_slice(from);
        let raw = RawInode::read_from_bytes(&bytes)
            .map_err(|_| Error::corrupt("inode", format_args!("inode {number}"), "has at least 128 bytes"))?;
        Ok(Self { number, raw })
    }

    /// A new inode with nothing in it.
    pub(crate) fn new(number: u32, superblock: &Superblock) -> Self {
        let mut raw = RawInode::new_zeroed();
        if superblock.inode_size > BASE_LEN {
            // What the file system wants for new inodes, but never more than the slot has, nor less than we fill.
            let wanted = superblock.raw.s_want_extra_isize.get().clamp(32, (superblock.inode_size - BASE_LEN) as u16);
            raw.i_extra_isize = (wanted & !3).into();
        }
        Self { number, raw }
    }

    /// Writes the fields into the inode's slot, and its checksum.
    pub(crate) fn encode(&self, slot: &mut [u8], superblock: &Superblock) {
        // `i_extra_isize` says how many fields there are, so it goes first.
        if slot.len() > BASE_LEN {
            slot[EXTRA_ISIZE_OFFSET..EXTRA_ISIZE_OFFSET + 2].copy_from_slice(self.raw.i_extra_isize.as_bytes());
        }
        let known = field_bytes(slot);
        slot[..known].copy_from_slice(&self.raw.as_bytes()[..known]);
        set_checksum(slot, superblock, self.number);
    }

    pub(crate) fn mode(&self) -> u16 {
        self.raw.i_mode.get()
    }

    /// Sets the lower 12 bits of the mode.
    pub(crate) fn set_permissions(&mut self, mode: u32) {
        self.raw.i_mode = (self.mode() & 0xF000 | mode as u16 & 0o7777).into();
    }

    pub(crate) fn kind(&self) -> Result<FileKind> {
        FileKind::from_mode(self.mode()).ok_or_else(|| {
            let expected = format!("i_mode names a kind of file, found {:#o}", self.mode());
            Error::corrupt("inode", format_args!("inode {}", self.number), expected)
        })
    }

    pub(crate) fn is_directory(&self) -> bool {
        FileKind::from_mode(self.mode()) == Some(FileKind::Directory)
    }

    pub(crate) fn is_file(&self) -> bool {
        FileKind::from_mode(self.mode()) == Some(FileKind::File)
    }

    pub(crate) fn is_symlink(&self) -> bool {
        FileKind::from_mode(self.mode()) == Some(FileKind::Symlink)
    }

    /// Whether `i_block` maps blocks: not so for devices, sockets, pipes, short symbolic links and inline data.
    pub(crate) fn maps_blocks(&self, superblock: &Superblock) -> bool {
        let may = self.is_file() || self.is_directory() || (self.is_symlink() && !self.is_fast_symlink(superblock));
        may && !self.flags().contains(InodeFlags::INLINE_DATA)
    }

    /// Whether a symbolic link's target is in `i_block`: no block but that of the extended attributes is counted.
    pub(crate) fn is_fast_symlink(&self, superblock: &Superblock) -> bool {
        // Where values of attributes may lie in inodes, their blocks are counted here, too, and only the length tells.
        if superblock.features.incompat.contains(Incompat::EA_INODE) {
            return self.is_symlink()
                && self.raw.i_size_lo.get() < self.raw.i_block.len() as u32
                && !self.flags().intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA);
        }
        let attributes = if self.xattr_block() == 0 { 0 } else { (superblock.block_size / 512) as u64 };
        let mapped = self.sectors(superblock).saturating_sub(attributes * u64::from(superblock.cluster_ratio));
        self.is_symlink()
            && mapped == 0
            && self.raw.i_size_lo.get() < self.raw.i_block.len() as u32
            && !self.flags().intersects(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA)
    }

    pub(crate) fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_retain(self.raw.i_flags.get())
    }

    pub(crate) fn set_flags(&mut self, flags: InodeFlags) {
        self.raw.i_flags = flags.bits().into();
    }

    pub(crate) fn size(&self, superblock: &Superblock) -> u64 {
        let high = self.is_file()
            || (self.is_directory() && superblock.features.incompat.contains(Incompat::LARGEDIR))
            || self.flags().contains(InodeFlags::EA_INODE);
        let high = if high { u64::from(self.raw.i_size_high.get()) } else { 0 };
        high << 32 | u64::from(self.raw.i_size_lo.get())
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        self.raw.i_size_lo = (size as u32).into();
        // For other kinds the field was `i_dir_acl`, and their sizes stay below 4 GiB.
        if self.is_file() || size > u64::from(u32::MAX) {
            self.raw.i_size_high = ((size >> 32) as u32).into();
        }
    }

    pub(crate) fn links(&self) -> u16 {
        self.raw.i_links_count.get()
    }

    pub(crate) fn set_links(&mut self, links: u16) {
        self.raw.i_links_count = links.into();
    }

    pub(crate) fn uid(&self) -> u32 {
        u32::from(self.raw.i_uid_high.get()) << 16 | u32::from(self.raw.i_uid.get())
    }

    pub(crate) fn gid(&self) -> u32 {
        u32::from(self.raw.i_gid_high.get()) << 16 | u32::from(self.raw.i_gid.get())
    }

    pub(crate) fn set_owner(&mut self, uid: u32, gid: u32) {
        self.raw.i_uid = (uid as u16).into();
        self.raw.i_uid_high = ((uid >> 16) as u16).into();
        self.raw.i_gid = (gid as u16).into();
        self.raw.i_gid_high = ((gid >> 16) as u16).into();
    }

    /// The project, 0 where there is no field for it.
    pub(crate) fn project(&self) -> u32 {
        if self.has_field(160) { self.raw.i_projid.get() } else { 0 }
    }

    /// Sets the project; returns whether there is a field for it.
    pub(crate) fn set_project(&mut self, project: u32) -> bool {
        if self.has_field(160) {
            self.raw.i_projid = project.into();
        }
        self.has_field(160)
    }

    /// The block of extended attributes, or 0.
    pub(crate) fn xattr_block(&self) -> u64 {
        u64::from(self.raw.i_file_acl_high.get()) << 32 | u64::from(self.raw.i_file_acl_lo.get())
    }

    pub(crate) fn set_xattr_block(&mut self, block: u64) {
        self.raw.i_file_acl_lo = (block as u32).into();
        self.raw.i_file_acl_high = ((block >> 32) as u16).into();
    }

    /// `i_blocks` in units of 512 bytes.
    pub(crate) fn sectors(&self, superblock: &Superblock) -> u64 {
        let low = u64::from(self.raw.i_blocks_lo.get());
        if !superblock.features.ro_compat.contains(RoCompat::HUGE_FILE) {
            return low;
        }
        let blocks = u64::from(self.raw.i_blocks_high.get()) << 32 | low;
        if self.flags().contains(InodeFlags::HUGE_FILE) {
            blocks.saturating_mul(superblock.block_size as u64 / 512)
        } else {
            blocks
        }
    }

    /// Sets `i_blocks` from units of 512 bytes.
    ///
    /// # Errors
    /// [`Error::FileTooLarge`] where the field cannot hold it without the feature `huge_file`.
    pub(crate) fn set_sectors(&mut self, sectors: u64, superblock: &Superblock) -> Result<()> {
        let huge = superblock.features.ro_compat.contains(RoCompat::HUGE_FILE);
        let mut flags = self.flags().difference(InodeFlags::HUGE_FILE);
        let value = if sectors > MAX_SECTORS_48 {
            flags |= InodeFlags::HUGE_FILE;
            sectors / (superblock.block_size as u64 / 512)
        } else {
            sectors
        };
        if (value > u64::from(u32::MAX) && !huge) || value > MAX_SECTORS_48 {
            return Err(Error::FileTooLarge(sectors.saturating_mul(512)));
        }
        self.raw.i_blocks_lo = (value as u32).into();
        if huge {
            self.raw.i_blocks_high = ((value >> 32) as u16).into();
            self.set_flags(flags);
        }
        Ok(())
    }

    /// The seed of checksums in this inode's blocks.
    pub(crate) fn checksum_seed(&self, superblock: &Superblock) -> u32 {
        inode_seed(superblock.checksum_seed, self.number, self.raw.i_generation.get())
    }

    /// Whether the fields up to `end` (an offset in the slot) exist.
    fn has_field(&self, end: usize) -> bool {
        BASE_LEN + usize::from(self.raw.i_extra_isize.get()) >= end
    }

    pub(crate) fn accessed(&self) -> Timestamp {
        decode_time(self.raw.i_atime, self.raw.i_atime_extra, self.has_field(144))
    }

    pub(crate) fn modified(&self) -> Timestamp {
        decode_time(self.raw.i_mtime, self.raw.i_mtime_extra, self.has_field(140))
    }

    pub(crate) fn changed(&self) -> Timestamp {
        decode_time(self.raw.i_ctime, self.raw.i_ctime_extra, self.has_field(136))
    }

    pub(crate) fn set_accessed(&mut self, time: Timestamp) {
        let extra = self.has_field(144);
        (self.raw.i_atime, self.raw.i_atime_extra) = encode_time(time, extra);
    }

    pub(crate) fn set_modified(&mut self, time: Timestamp) {
        let extra = self.has_field(140);
        (self.raw.i_mtime, self.raw.i_mtime_extra) = encode_time(time, extra);
    }

    pub(crate) fn set_changed(&mut self, time: Timestamp) {
        let extra = self.has_field(136);
        (self.raw.i_ctime, self.raw.i_ctime_extra) = encode_time(time, extra);
    }

    pub(crate) fn set_created(&mut self, time: Timestamp) {
        if self.has_field(152) {
            (self.raw.i_crtime, self.raw.i_crtime_extra) = encode_time(time, true);
        }
    }

    /// When the inode was made, where it has the field.
    fn created(&self) -> Option<Timestamp> {
        self.has_field(152).then(|| decode_time(self.raw.i_crtime, self.raw.i_crtime_extra, true))
    }

    /// The device that it stands for, if it is one.
    fn device(&self) -> DeviceNumber {
        match FileKind::from_mode(self.mode()) {
            Some(FileKind::CharDevice | FileKind::BlockDevice) => {
                DeviceNumber::decode([0, 1].map(|index| block_map::pointer(&self.raw.i_block, index) as u32))
            }
            _ => DeviceNumber::default(),
        }
    }

    /// Lets it stand for a device.
    pub(crate) fn set_device(&mut self, device: DeviceNumber) {
        let words = device.encode();
        self.raw.i_block[..8].copy_from_slice(words.map(u32::to_le_bytes).as_flattened());
    }

    pub(crate) fn metadata(&self, superblock: &Superblock) -> Result<Metadata> {
        Ok(Metadata {
            inode: self.number,
            kind: self.kind()?,
            mode: u32::from(self.mode() & 0o7777),
            uid: self.uid(),
            gid: self.gid(),
            size: self.size(superblock),
            sectors: self.sectors(superblock),
            links: u32::from(self.links()),
            accessed: self.accessed(),
            modified: self.modified(),
            changed: self.changed(),
            created: self.created(),
            device: self.device(),
        })
    }
}

/// How many bytes of a slot are fields that we know.
fn field_bytes(slot: &[u8]) -> usize {
    (BASE_LEN + extra_isize(slot)).min(FULL_LEN)
}

/// `i_extra_isize`, 0 where the slot has none, and never past the slot's end.
pub(crate) fn extra_isize(slot: &[u8]) -> usize {
    match slot.get(EXTRA_ISIZE_OFFSET..EXTRA_ISIZE_OFFSET + 2) {
        Some(bytes) => usize::from(u16::from_le_bytes([bytes[0], bytes[1]])).min(slot.len() - BASE_LEN) & !3,
        None => 0,
    }
}

/// Whether the slot has `i_checksum_hi`.
fn has_wide_checksum(slot: &[u8]) -> bool {
    extra_isize(slot) + BASE_LEN >= CHECKSUM_HI_OFFSET + 2
}

fn compute_checksum(slot: &[u8], superblock: &Superblock, number: u32) -> u32 {
    let generation = slot.get(100..104).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let seed = inode_seed(superblock.checksum_seed, number, generation);
    let sum = crc32c(seed, &slot[..CHECKSUM_LO_OFFSET]);
    let sum = crc32c(sum, &[0, 0]);
    if !has_wide_checksum(slot) {
        return crc32c(sum, &slot[CHECKSUM_LO_OFFSET + 2..]);
    }
    let sum = crc32c(sum, &slot[CHECKSUM_LO_OFFSET + 2..CHECKSUM_HI_OFFSET]);
    let sum = crc32c(sum, &[0, 0]);
    crc32c(sum, &slot[CHECKSUM_HI_OFFSET + 2..])
}

/// Computes and sets a slot's checksum, if the file system has any.
pub(crate) fn set_checksum(slot: &mut [u8], superblock: &Superblock, number: u32) {
    if !superblock.features.metadata_csum() {
        return;
    }
    let sum = compute_checksum(slot, superblock, number);
    slot[CHECKSUM_LO_OFFSET..CHECKSUM_LO_OFFSET + 2].copy_from_slice(&(sum as u16).to_le_bytes());
    if has_wide_checksum(slot) {
        slot[CHECKSUM_HI_OFFSET..CHECKSUM_HI_OFFSET + 2].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
    }
}

/// Checks a slot's checksum, if the file system has any. A slot of zeros is an inode that was never used.
pub(crate) fn check_checksum(slot: &[u8], superblock: &Superblock, number: u32) -> Result<()> {
    if !superblock.features.metadata_csum() {
        return Ok(());
    }
    let mut computed = compute_checksum(slot, superblock, number);
    let mut found = u32::from(u16::from_le_bytes([slot[CHECKSUM_LO_OFFSET], slot[CHECKSUM_LO_OFFSET + 1]]));
    if has_wide_checksum(slot) {
        let high = u16::from_le_bytes([slot[CHECKSUM_HI_OFFSET], slot[CHECKSUM_HI_OFFSET + 1]]);
        found |= u32::from(high) << 16;
    } else {
        computed &= 0xFFFF;
    }
    if computed != found && slot.iter().any(|byte| *byte != 0) {
        let expected = format!("i_checksum is {computed:#x}, found {found:#x}");
        return Err(Error::corrupt("inode", format_args!("inode {number}"), expected));
    }
    Ok(())
}

/// The lower two bits of the extra field continue the seconds past 2038, the others count nanoseconds.
fn decode_time(seconds: U32, extra: U32, has_extra: bool) -> Timestamp {
    let low = i64::from(seconds.get() as i32);
    if !has_extra {
        return Timestamp { seconds: low, nanoseconds: 0 };
    }
    let epoch = i64::from(extra.get() & 3) << 32;
    Timestamp { seconds: low + epoch, nanoseconds: (extra.get() >> 2).min(999_999_999) }
}

fn encode_time(time: Timestamp, has_extra: bool) -> (U32, U32) {
    if !has_extra {
        let seconds = time.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        return ((seconds as u32).into(), 0.into());
    }
    // From 1901 to 2446: what two more bits of seconds reach.
    let seconds = time.seconds.clamp(i64::from(i32::MIN), (3 << 32) + i64::from(i32::MAX));
    let low = seconds as i32;
    let epoch = ((seconds - i64::from(low)) >> 32) as u32 & 3;
    ((low as u32).into(), (epoch | time.nanoseconds.min(999_999_999) << 2).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_to_2446() {
        for seconds in [i64::from(i32::MIN), -1, 0, 1 << 31, (1 << 32) + 5, (3 << 32) + i64::from(i32::MAX)] {
            let time = Timestamp { seconds, nanoseconds: 999_999_999 };
            let (low, extra) = encode_time(time, true);
            assert_eq!(decode_time(low, extra, true), time);
        }
    }
}
