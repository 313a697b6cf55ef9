//! Multiple mount protection: a file system that another host uses is not written.
//!
//! <https://docs.kernel.org/filesystems/ext4/mmp.html>; `fs/ext4/mmp.c`.

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::crc32c;
use crate::features::Incompat;
use crate::file_system::FileSystem;
use crate::layout::mmp::{MAGIC, RawMmp, SEQ_CLEAN, SEQ_FSCK};
use crate::{Error, Result};

impl FileSystem {
    /// Fails where the file system is protected and somebody uses it, or did not say that he no longer does. The device
    /// is asked each time, never the cache, since it is others who write there.
    pub(crate) fn check_not_in_use(&self) -> Result<()> {
        if !self.superblock.features.incompat.contains(Incompat::MMP) {
            return Ok(());
        }
        let block = self.superblock.raw.s_mmp_block.get();
        let wrong = |expected: String| Error::corrupt("mmp block", format_args!("block {block}"), expected);
        if block <= self.superblock.first_data_block || block >= self.superblock.blocks_count {
            return Err(wrong(format!("lies inside the file system of {} blocks", self.superblock.blocks_count)));
        }
        let mut bytes = [0; size_of::<RawMmp>()];
        self.cache.device().read_at(block << self.superblock.block_bits, &mut bytes)?;
        let raw = RawMmp::read_from_bytes(&bytes).map_err(|_| wrong("is 1024 bytes long".to_owned()))?;
        if raw.mmp_magic.get() != MAGIC {
            return Err(wrong(format!("mmp_magic is {MAGIC:#x}, found {:#x}", raw.mmp_magic.get())));
        }
        let sum = crc32c(self.superblock.checksum_seed, &raw.as_bytes()[..size_of::<RawMmp>() - 4]);
        if self.superblock.features.metadata_csum() && sum != raw.mmp_checksum.get() {
            return Err(wrong(format!("mmp_checksum is {sum:#x}, found {:#x}", raw.mmp_checksum.get())));
        }
        let node = raw.mmp_nodename.split(|byte| *byte == 0).next().unwrap_or_default();
        let node = String::from_utf8_lossy(node).escape_default().to_string();
        match raw.mmp_seq.get() {
            SEQ_CLEAN => Ok(()),
            SEQ_FSCK => Err(Error::InUse(format!("e2fsck runs on host {node}"))),
            _ => Err(Error::InUse(format!("host {node} has it mounted, or did until it crashed"))),
        }
    }
}
