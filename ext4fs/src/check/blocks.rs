//! What owns blocks, beside what is marked as in use and counted.

use std::ops::Range;

use crate::block_group::overlapping;
use crate::features::RoCompat;
use crate::file_system::FileSystem;
use crate::scrub::BAD_BLOCKS_INODE;
use crate::{Error, Result, zeros};

/// More runs of bad blocks than these are taken for an attack on memory.
const MAX_BAD: usize = 1 << 18;

impl FileSystem {
    /// The first contradiction between what owns blocks and what is marked.
    pub(super) fn check_blocks(&self) -> Result<()> {
        // Where files may share blocks, owners say nothing; such a file system is never written.
        if self.superblock.features.ro_compat.contains(RoCompat::SHARED_BLOCKS) {
            return Ok(());
        }
        let bad = self.bad_blocks()?;
        let owned = self.check_owners(&bad)?;
        let blocks = self.superblock.blocks_count - self.superblock.first_data_block;
        let clusters = blocks.div_ceil(u64::from(self.superblock.cluster_ratio));
        let free = self.free_blocks();
        if owned + free != clusters {
            let expected = format!("{} clusters are in use, found {owned} that have an owner", clusters - free);
            return Err(Error::corrupt("block bitmap", "all groups", expected));
        }
        Ok(())
    }

    /// The blocks that are listed as bad.
    fn bad_blocks(&self) -> Result<Vec<Range<u64>>> {
        let inode = self.read_inode(BAD_BLOCKS_INODE)?;
        let wrong = |expected: String| Error::corrupt("bad blocks", format_args!("inode {BAD_BLOCKS_INODE}"), expected);
        if zeros::is_zero(&inode.raw.i_block) {
            return Ok(Vec::new());
        }
        if inode.mode() != 0 || inode.links() != 0 || inode.size(&self.superblock) >> 32 != 0 {
            return Err(wrong("the list has no mode, no links and no great length".to_owned()));
        }
        let mut bad = Vec::new();
        let few = |bad: &[Range<u64>]| match bad.len() {
            ..=MAX_BAD => Ok(()),
            _ => Err(wrong(format!("the list has at most {MAX_BAD} runs"))),
        };
        self.for_each_indirect_block(&inode, &mut |block| {
            bad.push(block..block + 1);
            few(&bad)
        })?;
        let mut logical = 0;
        while logical < u32::MAX {
            let mapping = self.map_indirect(&inode, logical)?;
            if let Some(start) = mapping.physical() {
                bad.push(start..start + u64::from(mapping.len));
                few(&bad)?;
            }
            logical = logical.saturating_add(mapping.len);
        }
        match bad.iter().find(|run| overlapping(self.system_blocks(), (*run).clone()).next().is_some()) {
            Some(run) => Err(wrong(format!("none is the file system's own, found {run:?}"))),
            None => Ok(bad),
        }
    }
}
