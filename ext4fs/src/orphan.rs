//! Orphans: inodes that a crash left without a name, or longer than they say they are.
//!
//! They are on a list that begins in the superblock and runs through `i_dtime`, or in the orphan file.
//! <https://docs.kernel.org/filesystems/ext4/orphan.html>; `fs/ext4/orphan.c`.

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::features::{Compat, RoCompat};
use crate::file_system::FileSystem;
use crate::inode::Inode;
use crate::layout::orphan_file::{MAGIC, RawOrphanTail};
use crate::mapping::Place;
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

const TAIL_LEN: usize = size_of::<RawOrphanTail>();

impl FileSystem {
    /// Deletes or cuts all orphans, as the kernel does when it mounts, and empties the lists.
    pub(crate) fn process_orphans(&mut self) -> Result<()> {
        let listed = self.superblock.raw.s_last_orphan.get() != 0;
        let features = self.superblock.features;
        let in_file =
            features.compat.contains(Compat::ORPHAN_FILE) && features.ro_compat.contains(RoCompat::ORPHAN_PRESENT);
        if !listed && !in_file {
            return Ok(());
        }
        self.change(|fs| {
            fs.process_orphan_list()?;
            if in_file {
                fs.process_orphan_file()?;
                let mut features = fs.superblock.features;
                features.ro_compat.remove(RoCompat::ORPHAN_PRESENT);
                fs.superblock.set_features(features);
            }
            fs.mark_superblock_changed();
            Ok(())
        })?;
        self.flush()
    }

    fn process_orphan_list(&mut self) -> Result<()> {
        let mut next = self.superblock.raw.s_last_orphan.get();
        // Each step deletes an inode or takes it off the list, but a list made by hand may run in circles.
        for _ in 0..=self.superblock.inodes_count {
            if next == 0 {
                self.superblock.raw.s_last_orphan = 0.into();
                return Ok(());
            }
            let mut inode = self.orphan(next)?;
            next = inode.raw.i_dtime.get();
            inode.raw.i_dtime = 0.into();
            self.process_orphan(inode)?;
        }
        Err(Error::corrupt("orphan list", "superblock", "ends"))
    }

    fn process_orphan_file(&mut self) -> Result<()> {
        let number = self.superblock.raw.s_orphan_file_inum.get();
        let file = self.read_inode(number)?;
        let blocks = file.size(&self.superblock) >> self.superblock.block_bits;
        if !file.is_file() || blocks > self.superblock.blocks_count.min(u64::from(u32::MAX)) {
            return Err(Error::corrupt("orphan file", format_args!("inode {number}"), "is a file of whole blocks"));
        }
        let seed = file.checksum_seed(&self.superblock);
        for logical in 0..blocks as u32 {
            let Place::Written(block) = self.map(&file, logical)?.place else {
                return Err(Error::corrupt("orphan file", format_args!("block {logical}"), "has no holes"));
            };
            let checked = self.superblock.features.metadata_csum();
            let bytes =
                self.cache.get(block, BlockKind::OrphanFile, |bytes| check_block(bytes, block, seed, checked))?;
            let entries = bytes.len() - TAIL_LEN;
            let orphans = bytes[..entries].as_chunks().0.iter().map(|b: &[u8; 4]| u32::from_le_bytes(*b));
            let orphans = orphans.filter(|number| *number != 0).collect::<Vec<_>>();
            drop(bytes);
            if orphans.is_empty() {
                continue;
            }
            for orphan in orphans {
                let inode = self.orphan(orphan)?;
                self.process_orphan(inode)?;
            }
            let bytes = self.cache.modify(block, BlockKind::OrphanFile, |_| Ok(()))?;
            bytes[..entries].fill(0);
            let sum = if checked { checksum(&bytes[..entries], block, seed) } else { 0 };
            let tail = RawOrphanTail { ob_magic: MAGIC.into(), ob_checksum: sum.into() };
            bytes[entries..].copy_from_slice(tail.as_bytes());
        }
        Ok(())
    }

    fn orphan(&self, number: u32) -> Result<Inode> {
        if number < self.superblock.first_inode {
            let expected = "an orphan is not one of the file system's own inodes";
            return Err(Error::corrupt("orphan", format_args!("inode {number}"), expected));
        }
        let inode = self.read_inode(number)?;
        inode.kind()?;
        Ok(inode)
    }

    fn process_orphan(&mut self, mut inode: Inode) -> Result<()> {
        if inode.links() == 0 {
            return self.delete_inode(inode);
        }
        let blocks = inode.size(&self.superblock).div_ceil(self.superblock.block_size as u64);
        if let Ok(from) = u32::try_from(blocks) {
            self.truncate_blocks(&mut inode, from)?;
            if inode.maps_blocks(&self.superblock) {
                let len = inode.size(&self.superblock);
                self.zero_tail(&inode, len)?;
            }
        }
        self.write_inode(&inode)
    }
}

fn checksum(entries: &[u8], block: u64, seed: u32) -> u32 {
    crc32c(crc32c(seed, &block.to_le_bytes()), entries)
}

fn check_block(bytes: &[u8], block: u64, seed: u32, checked: bool) -> Result<()> {
    let wrong = |expected: String| Error::corrupt("orphan file", format_args!("block {block}"), expected);
    let (entries, tail) = RawOrphanTail::read_from_suffix(bytes).map_err(|_| wrong("has a tail".to_owned()))?;
    if tail.ob_magic.get() != MAGIC {
        return Err(wrong(format!("ob_magic is {MAGIC:#x}, found {:#x}", tail.ob_magic.get())));
    }
    let computed = checksum(entries, block, seed);
    if checked && computed != tail.ob_checksum.get() {
        return Err(wrong(format!("ob_checksum is {computed:#x}, found {:#x}", tail.ob_checksum.get())));
    }
    Ok(())
}
