//! The extents of a fork: where a file's blocks are. "Data Extents": lists in the inode, and B+trees ("Extent B+Trees").

use crate::bytes::{be16, be32, be64, checksum, le32, put64, uuid};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::MAX_LEVELS;
use crate::{Error, Result};

/// Bytes of an extent, and of a key with its pointer.
pub(crate) const RECORD: usize = 16;
/// More blocks than any file has.
pub(crate) const MAX_OFFSET: u64 = 1 << 54;

/// A run of a file's blocks that lies together on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first block's number in the file.
    pub(crate) offset: u64,
    /// The first block on the device.
    pub(crate) block: u64,
    pub(crate) len: u64,
    /// Set aside, and reads as zeros.
    pub(crate) unwritten: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The record on the disk, with the block as an FSB.
    pub(crate) fn encode(&self, fsb: u64, record: &mut [u8]) {
        put64(record, 0, u64::from(self.unwritten) << 63 | self.offset << 9 | fsb >> 43);
        put64(record, 8, fsb << 21 | self.len);
    }
}

/// The header of a block of an extent B+tree.
pub(crate) fn header_len(is_v5: bool) -> usize {
    if is_v5 { 72 } else { 24 }
}

/// How many keys and pointers a root in an inode has room for.
pub(crate) fn root_capacity(fork_len: usize) -> usize {
    fork_len.saturating_sub(4) / RECORD
}

/// A fork's extents, and the blocks of the tree that holds them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extents {
    pub(crate) list: Vec<Extent>,
    pub(crate) tree_blocks: Vec<u64>,
}

impl Extents {
    /// The extent that holds a file's block, or where it would be.
    pub(crate) fn find(&self, offset: u64) -> std::result::Result<usize, usize> {
        let after = self.list.partition_point(|extent| extent.offset <= offset);
        match after.checked_sub(1) {
            Some(at) if offset < self.list[at].end() => Ok(at),
            _ => Err(after),
        }
    }

    /// The block on the device of a file's block that was written.
    pub(crate) fn block(&self, offset: u64) -> Option<u64> {
        let extent = self.list[self.find(offset).ok()?];
        (!extent.unwritten).then(|| extent.block + (offset - extent.offset))
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.list.iter().map(|extent| extent.len).sum::<u64>() + self.tree_blocks.len() as u64
    }
}

impl FileSystem {
    /// Reads all extents of a fork that has some.
    pub(crate) fn extents(&self, inode: &Inode, fork: Fork) -> Result<Extents> {
        let mut extents = Extents::default();
        let bytes = inode.fork(fork);
        if fork == Fork::Data && inode.is_realtime() {
            return Err(Error::Unsupported(format!("inode {}: contents on the realtime section", inode.number)));
        }
        match inode.format(fork) {
            Format::Device | Format::Local => return Ok(extents),
            Format::Extents => {
                let count = inode.extent_count(fork);
                let Some(records) =
                    usize::try_from(count).ok().and_then(|count| bytes.get(..count.checked_mul(RECORD)?))
                else {
                    return Err(inode.corrupt(format!("{count} extents have room in {} bytes", bytes.len())));
                };
                self.add_records(inode, records, &mut extents)?;
            }
            Format::Btree => self.read_tree(inode, fork, bytes, &mut extents)?,
        }
        let counted = inode.extent_count(fork);
        if counted != extents.list.len() as u64 {
            let found = extents.list.len();
            return Err(inode.corrupt(format!("there are as many extents as it says, {counted}, found {found}")));
        }
        Ok(extents)
    }

    fn add_records(&self, inode: &Inode, records: &[u8], extents: &mut Extents) -> Result<()> {
        for record in records.as_chunks::<RECORD>().0 {
            let (high, low) = (be64(record, 0), be64(record, 8));
            let (offset, len) = (high >> 9 & (MAX_OFFSET - 1), low & 0x1f_ffff);
            let fsb = (high & 0x1ff) << 43 | low >> 21;
            let block = self.sb.linear(fsb);
            let last = fsb.checked_add(len.wrapping_sub(1)).and_then(|last| self.sb.linear(last));
            let (Some(block), Some(last)) = (block, last) else {
                return Err(inode.corrupt(format!("extents lie in the file system, found {len} blocks at {fsb:#x}")));
            };
            if len == 0 || last != block + len - 1 {
                return Err(inode.corrupt(format!("extents lie in one group, found {len} blocks at {fsb:#x}")));
            }
            // So that bytes can be counted, too.
            if offset + len > (1 << 63) / self.sb.block_size as u64 {
                return Err(inode.corrupt(format!("extents lie within 2^63 bytes, found one at block {offset}")));
            }
            if extents.list.last().is_some_and(|before| before.end() > offset) {
                return Err(inode.corrupt(format!("extents ascend, found one at {offset} behind one that ends later")));
            }
            extents.list.push(Extent { offset, block, len, unwritten: high >> 63 != 0 });
        }
        Ok(())
    }

    fn read_tree(&self, inode: &Inode, fork: Fork, root: &[u8], extents: &mut Extents) -> Result<()> {
        let (level, count) = (be16(root, 0), usize::from(be16(root, 2)));
        let capacity = root_capacity(root.len());
        if level == 0 || level > MAX_LEVELS || count == 0 || count > capacity {
            return Err(inode.corrupt(format!("the root of its extents is right, found level {level} with {count}")));
        }
        // All blocks of one level, from the root on down.
        let pointers = 4 + capacity * 8;
        let mut blocks: Vec<u64> = (0..count).map(|at| be64(root, pointers + at * 8)).collect();
        for level in (0..level).rev() {
            let mut below = Vec::new();
            for fsb in blocks {
                let bytes = self.tree_block(inode, fsb, level)?;
                if extents.tree_blocks.len() as u64 >= inode.blocks() {
                    return Err(
                        inode.corrupt(format!("{fork:?} extents take no more than its {} blocks", inode.blocks()))
                    );
                }
                extents.tree_blocks.extend(self.sb.linear(fsb));
                let header = header_len(self.sb.is_v5);
                let count = usize::from(be16(&bytes, 6));
                let capacity = (bytes.len() - header) / RECORD;
                if count == 0 || count > capacity {
                    return Err(inode.corrupt(format!("a block of extents holds 1 to {capacity}, found {count}")));
                }
                if level == 0 {
                    self.add_records(inode, &bytes[header..header + count * RECORD], extents)?;
                } else {
                    let pointers = header + capacity * 8;
                    below.extend((0..count).map(|at| be64(&bytes, pointers + at * 8)));
                }
            }
            blocks = below;
        }
        Ok(())
    }

    fn tree_block(&self, inode: &Inode, fsb: u64, level: u16) -> Result<crate::store::Block> {
        let Some(number) = self.sb.linear(fsb) else {
            return Err(inode.corrupt(format!("its extents' tree lies in the file system, found block {fsb:#x}")));
        };
        let bytes = self.store.block(number)?;
        let wrong = |rule: &str| {
            Error::corrupt("extent tree block", format_args!("block {number} of inode {}", inode.number), rule)
        };
        let magic: &[u8] = if self.sb.is_v5 { b"BMA3" } else { b"BMAP" };
        if !bytes.starts_with(magic) || be16(&bytes, 4) != level {
            return Err(wrong("magic number and level are right"));
        }
        if self.sb.is_v5 {
            if checksum(&bytes, 64) != le32(&bytes, 64) {
                return Err(wrong("the checksum is right"));
            }
            let place = (be64(&bytes, 24), uuid(&bytes, 40), be64(&bytes, 56));
            if place != (self.sb.daddr(number), self.sb.meta_uuid, inode.number) {
                return Err(wrong("place, UUID and owner are its own"));
            }
        }
        debug_assert!(be32(&bytes, 0) != 0);
        Ok(bytes)
    }
}
