//! Label and UUID, wherever the file system keeps them.

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::features::{Compat, Incompat, RoCompat};
use crate::file_system::FileSystem;
use crate::journal;
use crate::layout::superblock::RawSuperblock;
use crate::metadata_cache::BlockKind;
use crate::superblock::{CHECKSUM_OFFSET, LEN, MAGIC};
use crate::{Error, Result};

impl FileSystem {
    /// Sets the label: at most 16 bytes, none of them NUL; empty for none. The copies of the superblock follow.
    ///
    /// # Errors
    /// [`Error::Invalid`], and what the image or the device has against it.
    pub fn set_label(&mut self, label: &[u8]) -> Result<()> {
        if label.len() > 16 || label.contains(&0) {
            return Err(Error::Invalid("a label has at most 16 bytes, none of them NUL"));
        }
        let mut name = [0; 16];
        name[..label.len()].copy_from_slice(label);
        self.change(|fs| fs.change_all_superblocks(|raw| raw.s_volume_name = name))
    }

    /// Sets the UUID. Checksums that were begun with the old one go on with it: the feature `metadata_csum_seed`, which
    /// Linux knows since 4.4, keeps it. The copies of the superblock, the checksums of group descriptors that hold the
    /// UUID, with their copies, and the journal follow.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `stable_inodes` forbids it, since encrypted contents depend on it; and what the image
    /// or the device has against it.
    pub fn set_uuid(&mut self, uuid: [u8; 16]) -> Result<()> {
        if self.superblock.features.compat.contains(Compat::STABLE_INODES) {
            return Err(Error::Unsupported("changing the UUID with feature stable_inodes".to_owned()));
        }
        self.change(|fs| {
            let mut features = fs.superblock.features;
            let seed = fs.superblock.checksum_seed;
            if features.metadata_csum() {
                features.incompat |= Incompat::CSUM_SEED;
                fs.superblock.set_features(features);
            }
            fs.change_all_superblocks(|raw| {
                raw.s_uuid = uuid;
                if features.metadata_csum() {
                    raw.s_checksum_seed = seed.into();
                    raw.s_feature_incompat = features.incompat.bits().into();
                }
            })?;
            if !features.metadata_csum() && features.ro_compat.contains(RoCompat::GDT_CSUM) {
                fs.rewrite_descriptor_checksums()?;
            }
            fs.change_journal_uuid(uuid)
        })
    }

    /// The feature that [`FileSystem::set_uuid`] sets, where it is not set yet. Whatever reads the file system then has to
    /// know it: GRUB does since 2.12, and those of 2.06 that distributions mended.
    #[must_use]
    pub fn uuid_adds_feature(&self) -> Option<&'static str> {
        let features = self.superblock.features;
        let adds = features.metadata_csum() && !features.incompat.contains(Incompat::CSUM_SEED);
        adds.then_some("metadata_csum_seed")
    }

    /// Changes the superblock and every copy of it.
    fn change_all_superblocks(&mut self, change: impl Fn(&mut RawSuperblock)) -> Result<()> {
        let copies: Vec<u32> =
            (1..self.superblock.group_count).filter(|n| self.superblock.has_superblock(*n)).collect();
        for group in copies {
            let block = self.superblock.group_first_block(group);
            let csum = self.superblock.features.metadata_csum();
            let bytes = self.cache.get(block, BlockKind::Unchecked, |_| Ok(()))?;
            let Ok((mut raw, _)) = RawSuperblock::read_from_prefix(&bytes) else { continue };
            // What is not there, or broken, is no help to anybody; e2fsck makes it anew.
            if raw.s_magic.get() != MAGIC {
                continue;
            }
            drop(bytes);
            change(&mut raw);
            if csum {
                raw.s_checksum = crc32c(!0, &raw.as_bytes()[..CHECKSUM_OFFSET]).into();
            }
            let bytes = self.cache.modify(block, BlockKind::Unchecked, |_| Ok(()))?;
            bytes[..LEN].copy_from_slice(raw.as_bytes());
        }
        change(&mut self.superblock.raw);
        self.mark_superblock_changed();
        Ok(())
    }

    /// Computes the checksums of all group descriptors anew, in their copies, too.
    fn rewrite_descriptor_checksums(&mut self) -> Result<()> {
        let per_block = self.superblock.descriptors_per_block();
        let size = self.superblock.descriptor_size;
        for group in 0..self.superblock.group_count {
            self.group_mut(group)?;
        }
        for index in 0..self.superblock.descriptor_blocks() {
            let block = self.superblock.descriptor_block(index);
            let mut bytes = self.cache.get(block, BlockKind::GroupDescriptors, |_| Ok(()))?.to_vec();
            let first = index * per_block;
            for group in first..(first + per_block).min(self.superblock.group_count) {
                let start = (group - first) as usize * size;
                self.groups[group as usize].encode(&mut bytes[start..start + size], &self.superblock, group);
            }
            for copy in self.superblock.descriptor_block_copies(index) {
                self.cache.put(copy, BlockKind::Unchecked, bytes.clone())?;
            }
        }
        Ok(())
    }

    fn change_journal_uuid(&mut self, uuid: [u8; 16]) -> Result<()> {
        let Some(first) = self.journal()?.map(|journal| journal.place(0)).transpose()? else { return Ok(()) };
        let bytes = self.cache.get(first, BlockKind::Unchecked, |_| Ok(()))?;
        let changed = journal::superblock_with_uuid(&bytes, uuid)?;
        self.cache.put(first, BlockKind::Unchecked, changed)
    }
}
