//! New chunks of inodes in the log: where they are, rather than their bytes. "Inode Creation Log Item".

use super::transaction::{Item, number};
use crate::bytes::{be32, put, put_checksum, put16, put32, put64};
use crate::inode::NULL_AGINO;
use crate::superblock::Superblock;

const LEN: usize = 28;
/// Bytes of inodes that the kernel reads at once, for inodes of 256 bytes; more for larger ones.
const CLUSTER: usize = 8192;
const SMALLEST_INODE: usize = 256;
const INODES_PER_CHUNK: u32 = 64;
const CRC: usize = 100;

/// Blocks that were made into inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Create {
    group: u32,
    block: u32,
    len: u32,
    generation: u32,
}

impl Create {
    /// Decodes an item that makes inodes. `Err`: the rule that does not hold.
    pub(super) fn decode(item: &Item, sb: &Superblock) -> Result<Self, String> {
        let head = item.region(0);
        if head.len() < LEN {
            return Err(format!("an item that makes inodes has {LEN} bytes, found {}", head.len()));
        }
        debug_assert_eq!(number(head, 2, 2), 1);
        let [group, block, count, size, len, generation] = [4, 8, 12, 16, 20, 24].map(|at| be32(head, at));
        let fits = group < sb.ag_count
            && block > 0
            && len > 0
            && u64::from(block) + u64::from(len) <= sb.ag_len(group).into()
            && size as usize == sb.inode_size
            && u64::from(len) * u64::from(sb.inodes_per_block) == count.into()
            && count <= INODES_PER_CHUNK.max(sb.inodes_per_block);
        if !fits {
            return Err(format!("new inodes fill their blocks, found {count} in {len} at {block} of group {group}"));
        }
        Ok(Self { group, block, len, generation })
    }

    /// The buffers that the inodes lie in: sector and number of sectors.
    pub(super) fn buffers(&self, sb: &Superblock) -> impl Iterator<Item = (u64, u64)> {
        let larger = CLUSTER * sb.inode_size / SMALLEST_INODE;
        let aligned = sb.inode_align as usize * sb.block_size >= larger;
        let cluster = if aligned { larger } else { CLUSTER };
        let blocks = (cluster / sb.block_size).max(1) as u64;
        let sectors = sb.block_size as u64 / 512;
        let first = u64::from(self.group) * u64::from(sb.ag_blocks) + u64::from(self.block);
        (0..u64::from(self.len).div_ceil(blocks)).map(move |at| ((first + at * blocks) * sectors, blocks * sectors))
    }

    /// The blocks as they were made: offset in bytes, and bytes.
    pub(super) fn blocks(&self, sb: &Superblock) -> impl Iterator<Item = (u64, Vec<u8>)> {
        (self.block..self.block + self.len).map(move |block| {
            let mut bytes = vec![0; sb.block_size];
            for (slot, number) in bytes.chunks_exact_mut(sb.inode_size).zip(block * sb.inodes_per_block..) {
                put16(slot, 0, 0x494e);
                slot[4] = 3;
                put32(slot, 92, self.generation);
                put32(slot, 96, NULL_AGINO);
                put64(slot, 152, sb.inode_number(self.group, number));
                put(slot, 160, &sb.meta_uuid);
                put_checksum(slot, CRC);
            }
            let linear = u64::from(self.group) * u64::from(sb.ag_blocks) + u64::from(block);
            (linear * sb.block_size as u64, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{be16, be64};
    use crate::inode::Inode;

    fn item(numbers: [u32; 6]) -> Item {
        let mut head = vec![0x3f, 0x12, 1, 0];
        numbers.iter().for_each(|number| head.extend(number.to_be_bytes()));
        Item::new(vec![head])
    }

    #[test]
    fn inodes_are_made() {
        let sb = Superblock::for_tests();
        let create = Create::decode(&item([1, 16, 64, 512, 8, 99]), &sb).unwrap();
        let blocks: Vec<_> = create.blocks(&sb).collect();
        assert_eq!((blocks.len(), blocks[0].0), (8, (u64::from(sb.ag_blocks) + 16) * 4096));
        let slot = blocks[7].1[512..1024].to_vec();
        assert_eq!((be16(&slot, 0), be32(&slot, 92)), (0x494e, 99));
        assert!(Inode::decode(slot.clone(), be64(&slot, 152), &sb).is_ok());
        // 16 KiB at once: four blocks, 32 sectors.
        assert_eq!(create.buffers(&sb).map(|(_, sectors)| sectors).collect::<Vec<_>>(), [32, 32]);
    }

    #[test]
    fn items_that_lie_are_refused() {
        let sb = Superblock::for_tests();
        for numbers in [
            [9, 16, 64, 512, 8, 0],
            [1, 0, 64, 512, 8, 0],
            [1, 16, 64, 512, 0, 0],
            [1, 16, 64, 1024, 8, 0],
            [1, 16, 63, 512, 8, 0],
            [1, 16, u32::MAX, 512, u32::MAX, 0],
            [1, u32::MAX, 64, 512, 8, 0],
        ] {
            assert!(Create::decode(&item(numbers), &sb).is_err(), "{numbers:?}");
        }
        assert!(Create::decode(&Item::new(vec![vec![0x3f, 0x12, 1, 0]]), &sb).is_err());
    }
}
