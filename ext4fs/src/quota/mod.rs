//! Usage by user, group and project, kept in the quota files as inodes change.
//!
//! What an inode uses is told by its slot in the inode table, so every change of a slot says what changes for whom.
//! The sums are written to the quota files when the change that they belong to is done.

mod file;

use std::collections::{BTreeMap, HashMap};

use crate::features::RoCompat;
use crate::file_system::{FileSystem, ROOT_INODE};
use crate::inode::{Inode, InodeFlags};
use crate::superblock::Superblock;
use crate::{Error, Result};

/// Blocks that all quota files together may grow by in one change.
pub(crate) const RESERVED_BLOCKS: u64 = 24;

/// Whom a quota file counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    User,
    Group,
    Project,
}

impl Kind {
    const ALL: [Self; 3] = [Self::User, Self::Group, Self::Project];

    fn magic(self) -> u32 {
        match self {
            Self::User => 0xD9C0_1F11,
            Self::Group => 0xD9C0_1927,
            Self::Project => 0xD9C0_3F14,
        }
    }

    /// The inode of the quota file, or 0 where this is not counted.
    fn inode(self, superblock: &Superblock) -> u32 {
        match self {
            _ if !superblock.features.ro_compat.contains(RoCompat::QUOTA) => 0,
            Self::User => superblock.raw.s_usr_quota_inum.get(),
            Self::Group => superblock.raw.s_grp_quota_inum.get(),
            Self::Project if superblock.features.ro_compat.contains(RoCompat::PROJECT) => {
                superblock.raw.s_prj_quota_inum.get()
            }
            Self::Project => 0,
        }
    }

    fn id(self, inode: &Inode) -> u32 {
        match self {
            Self::User => inode.uid(),
            Self::Group => inode.gid(),
            Self::Project => inode.project(),
        }
    }
}

/// What is used more or less than before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    bytes: i64,
    inodes: i64,
}

/// What all inodes use, by whom it counts for.
#[derive(Debug, Default)]
pub(crate) struct Usages(BTreeMap<(Kind, u32), Usage>);

impl Usages {
    /// Counts an inode's blocks, and `inodes` inodes, for those who own it.
    pub(crate) fn add(&mut self, fs: &FileSystem, inode: &Inode, inodes: i64) {
        let files = Kind::ALL.map(|kind| kind.inode(&fs.superblock));
        if files.contains(&inode.number) || is_uncounted(inode) {
            return;
        }
        for (kind, _) in Kind::ALL.into_iter().zip(files).filter(|(_, file)| *file != 0) {
            let usage = self.0.entry((kind, kind.id(inode))).or_default();
            usage.bytes = usage.bytes.saturating_add(sectors_to_bytes(inode.sectors(&fs.superblock)));
            usage.inodes = usage.inodes.saturating_add(inodes);
        }
    }
}

/// Usage that the quota files do not tell yet.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    pending: BTreeMap<(Kind, u32), Usage>,
    /// Where the entries are that were used last.
    places: HashMap<(Kind, u32), u64>,
}

impl FileSystem {
    /// Compares what inodes use with what the quota files say.
    pub(crate) fn check_usages(&self, usages: &Usages) -> Result<()> {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.inode(&self.superblock) != 0) {
            let mut told = self.usages_in_file(kind)?;
            for ((_, id), found) in usages.0.range((kind, 0)..=(kind, u32::MAX)) {
                let told = told.remove(id).unwrap_or_default();
                if told != *found {
                    return Err(wrong_usage(kind, *id, *found, told));
                }
            }
            if let Some((id, told)) = told.into_iter().find(|(_, told)| *told != Usage::default()) {
                return Err(wrong_usage(kind, id, Usage::default(), told));
            }
        }
        Ok(())
    }

    /// Whether anything is counted.
    pub(crate) fn counts_usage(&self) -> bool {
        Kind::ALL.iter().any(|kind| kind.inode(&self.superblock) != 0)
    }

    /// Notes what the change of an inode's slot means for those who own it.
    pub(crate) fn note_slot_change(&mut self, before: &Inode, after: &Inode) {
        for (inode, sign) in [(before, -1), (after, 1)] {
            if inode.mode() != 0 && inode.links() != 0 {
                self.note_usage(inode, sign * sectors_to_bytes(inode.sectors(&self.superblock)), sign);
            }
        }
    }

    /// Notes that an inode without a name, which the quota files still count, goes.
    pub(crate) fn note_orphan_gone(&mut self, number: u32) -> Result<()> {
        if self.counts_usage() {
            let inode = self.read_inode(number)?;
            self.note_usage(&inode, -sectors_to_bytes(inode.sectors(&self.superblock)), -1);
        }
        Ok(())
    }

    /// Notes that the owners of an inode use this much more.
    pub(crate) fn note_usage(&mut self, inode: &Inode, bytes: i64, inodes: i64) {
        let own = inode.number < self.superblock.first_inode && inode.number != ROOT_INODE;
        let files = Kind::ALL.map(|kind| kind.inode(&self.superblock));
        if own || files.contains(&inode.number) || is_uncounted(inode) {
            return;
        }
        for (kind, file) in Kind::ALL.into_iter().zip(files) {
            if file != 0 {
                let usage = self.quota.pending.entry((kind, kind.id(inode))).or_default();
                usage.bytes = usage.bytes.saturating_add(bytes);
                usage.inodes = usage.inodes.saturating_add(inodes);
            }
        }
    }

    /// Writes what was noted into the quota files.
    pub(crate) fn apply_usage(&mut self) -> Result<()> {
        while let Some(((kind, id), usage)) = self.quota.pending.pop_first() {
            if usage != Usage::default() {
                self.add_usage(kind, id, usage)?;
            }
        }
        Ok(())
    }
}

/// Whether an inode counts for nobody. What holds a value of an attribute is counted for the inodes that have the
/// attribute; and symbolic links whose target is inline, which only mke2fs makes, e2fsck passes over.
fn is_uncounted(inode: &Inode) -> bool {
    let flags = inode.flags();
    flags.contains(InodeFlags::EA_INODE) || inode.is_symlink() && flags.contains(InodeFlags::INLINE_DATA)
}

fn wrong_usage(kind: Kind, id: u32, found: Usage, told: Usage) -> Error {
    let expected = format!(
        "{} bytes and {} inodes are in use, found {} and {}",
        found.bytes, found.inodes, told.bytes, told.inodes
    );
    Error::corrupt("quota file", format_args!("{kind:?} {id}"), expected)
}

fn sectors_to_bytes(sectors: u64) -> i64 {
    i64::try_from(sectors.saturating_mul(512)).unwrap_or(i64::MAX)
}
