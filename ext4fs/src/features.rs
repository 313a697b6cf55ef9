//! Feature bits, and the one place that judges them.
//!
//! <https://docs.kernel.org/filesystems/ext4/super.html> (feature sets)

use bitflags::bitflags;

use crate::{Error, Result};

bitflags! {
    /// Features that a reader and a writer may ignore, with care.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Compat: u32 {
        const DIR_PREALLOC = 0x1;
        const IMAGIC_INODES = 0x2;
        const HAS_JOURNAL = 0x4;
        const EXT_ATTR = 0x8;
        const RESIZE_INODE = 0x10;
        const DIR_INDEX = 0x20;
        const SPARSE_SUPER2 = 0x200;
        const FAST_COMMIT = 0x400;
        const STABLE_INODES = 0x800;
        const ORPHAN_FILE = 0x1000;
        const _ = !0;
    }
}

bitflags! {
    /// Features without which the file system cannot be read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Incompat: u32 {
        const COMPRESSION = 0x1;
        const FILETYPE = 0x2;
        const RECOVER = 0x4;
        const JOURNAL_DEV = 0x8;
        const META_BG = 0x10;
        const EXTENTS = 0x40;
        const SIXTY_FOUR_BIT = 0x80;
        const MMP = 0x100;
        const FLEX_BG = 0x200;
        const EA_INODE = 0x400;
        const DIRDATA = 0x1000;
        const CSUM_SEED = 0x2000;
        const LARGEDIR = 0x4000;
        const INLINE_DATA = 0x8000;
        const ENCRYPT = 0x1_0000;
        const CASEFOLD = 0x2_0000;
        const _ = !0;
    }
}

bitflags! {
    /// Features without which the file system must not be written.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct RoCompat: u32 {
        const SPARSE_SUPER = 0x1;
        const LARGE_FILE = 0x2;
        const BTREE_DIR = 0x4;
        const HUGE_FILE = 0x8;
        const GDT_CSUM = 0x10;
        const DIR_NLINK = 0x20;
        const EXTRA_ISIZE = 0x40;
        const HAS_SNAPSHOT = 0x80;
        const QUOTA = 0x100;
        const BIGALLOC = 0x200;
        const METADATA_CSUM = 0x400;
        const REPLICA = 0x800;
        const READONLY = 0x1000;
        const PROJECT = 0x2000;
        const SHARED_BLOCKS = 0x4000;
        const VERITY = 0x8000;
        const ORPHAN_PRESENT = 0x1_0000;
        const _ = !0;
    }
}

impl Incompat {
    const READABLE: Self = Self::FILETYPE
        .union(Self::RECOVER)
        .union(Self::META_BG)
        .union(Self::EXTENTS)
        .union(Self::SIXTY_FOUR_BIT)
        .union(Self::MMP)
        .union(Self::FLEX_BG)
        .union(Self::EA_INODE)
        .union(Self::CSUM_SEED)
        .union(Self::LARGEDIR)
        .union(Self::INLINE_DATA)
        .union(Self::ENCRYPT)
        .union(Self::CASEFOLD);
}

impl RoCompat {
    const WRITABLE: Self = Self::SPARSE_SUPER
        .union(Self::LARGE_FILE)
        .union(Self::HUGE_FILE)
        .union(Self::GDT_CSUM)
        .union(Self::DIR_NLINK)
        .union(Self::EXTRA_ISIZE)
        .union(Self::METADATA_CSUM)
        .union(Self::QUOTA)
        .union(Self::BIGALLOC)
        .union(Self::PROJECT)
        .union(Self::VERITY)
        .union(Self::ORPHAN_PRESENT);
}

/// The three feature sets of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    pub compat: Compat,
    pub incompat: Incompat,
    pub ro_compat: RoCompat,
}

impl Features {
    /// Refuses what cannot be read.
    pub(crate) fn check_readable(&self) -> Result<()> {
        if self.incompat.contains(Incompat::JOURNAL_DEV) {
            return Err(Error::Unsupported("this is an external journal, not a file system".to_owned()));
        }
        let unknown = self.incompat.difference(Incompat::READABLE);
        match names(&unknown).as_str() {
            "" => Ok(()),
            names => Err(Error::Unsupported(format!("feature {names}"))),
        }
    }

    /// Why the file system must not be written, if there is a reason among the features.
    pub(crate) fn read_only_reason(&self) -> Option<String> {
        let names = names(&self.ro_compat.difference(RoCompat::WRITABLE));
        (!names.is_empty()).then(|| format!("writing is not supported with feature {names}"))
    }

    /// Whether metadata carries crc32c checksums.
    pub(crate) fn metadata_csum(&self) -> bool {
        self.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Whether groups may be uninitialised, and `bg_checksum` is kept.
    pub(crate) fn group_checksum(&self) -> bool {
        self.ro_compat.intersects(RoCompat::METADATA_CSUM.union(RoCompat::GDT_CSUM))
    }
}

/// The names of set bits as tune2fs spells them, as near as the constants allow; unknown bits as numbers.
fn names<F: bitflags::Flags<Bits = u32>>(flags: &F) -> String {
    let mut names = Vec::new();
    let mut rest = flags.bits();
    for flag in F::FLAGS.iter().filter(|f| f.is_named()) {
        if rest & flag.value().bits() != 0 {
            rest &= !flag.value().bits();
            names.push(flag.name().to_ascii_lowercase());
        }
    }
    names.extend((0..u32::BITS).filter(|bit| rest >> bit & 1 == 1).map(|bit| format!("{:#x}", 1u32 << bit)));
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_by_name() {
        let mut features = Features {
            compat: Compat::empty(),
            incompat: Incompat::FILETYPE | Incompat::DIRDATA | Incompat::from_bits_retain(0x8000_0000),
            ro_compat: RoCompat::REPLICA | RoCompat::from_bits_retain(0x4000_0000) | RoCompat::SPARSE_SUPER,
        };
        let refused = features.check_readable().unwrap_err().to_string();
        assert_eq!(refused, "unsupported: feature dirdata, 0x80000000");
        features.incompat = Incompat::CASEFOLD;
        features.check_readable().unwrap();
        let reason = features.read_only_reason().unwrap();
        assert_eq!(reason, "writing is not supported with feature replica, 0x40000000");
        features.incompat = Incompat::EXTENTS;
        features.ro_compat = RoCompat::METADATA_CSUM;
        assert_eq!(features.read_only_reason(), None);
    }
}
