//! Blocks of metadata in the log: those of their pieces of 128 bytes that changed. "Buffer Log Item".

use super::transaction::{Item, number};
use crate::bytes::{be16, be32, be64, put, put_checksum, put64, uuid};
use crate::superblock::Superblock;

/// Bytes that a bit of the map stands for.
const CHUNK: usize = 128;
const MAP: usize = 20;
/// Words of the map of a buffer of 64 KiB, and one that some kernels add.
const MAX_MAP_WORDS: u64 = 17;
/// The longest buffer, in sectors of 512 bytes.
const MAX_SECTORS: u64 = 128;
/// Where an inode has the next one in its list of unlinked ones, and its checksum.
const NEXT_UNLINKED: usize = 96;
const INODE_CRC: usize = 100;

mod flags {
    pub(super) const INODES: u64 = 1;
    pub(super) const CANCEL: u64 = 2;
    pub(super) const QUOTA: u64 = 4 | 8 | 16;
}

/// What kind of block a buffer is, as its item says.
mod kind {
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const QUOTA: std::ops::RangeInclusive<u8> = 1..=3;
    pub(super) const TREE: u8 = 4;
    pub(super) const AGF: u8 = 5;
    pub(super) const AGFL: u8 = 6;
    pub(super) const AGI: u8 = 7;
    pub(super) const INODES: u8 = 8;
    pub(super) const TARGET: u8 = 9;
    pub(super) const DIR_BLOCK: u8 = 10;
    pub(super) const DIR_DATA: u8 = 11;
    pub(super) const DIR_FREE: u8 = 12;
    pub(super) const DIR_LEAF_ONE: u8 = 13;
    pub(super) const DIR_LEAF: u8 = 14;
    pub(super) const NODE: u8 = 15;
    pub(super) const ATTR_LEAF: u8 = 16;
    pub(super) const ATTR_VALUE: u8 = 17;
    pub(super) const SUPERBLOCK: u8 = 18;
}

/// A change of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buffer<'a> {
    /// The first sector of 512 bytes, and how many there are.
    pub(super) sector: u64,
    pub(super) sectors: u64,
    flags: u64,
    kind: u8,
    item: &'a Item,
}

/// Where a block has the LSN of its last change, its UUID and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    lsn: usize,
    uuid: usize,
    crc: usize,
}

impl Stamp {
    /// What a block's first bytes say that it is.
    fn of(bytes: &[u8]) -> Option<Self> {
        let stamp = |lsn, uuid, crc| Some(Self { lsn, uuid, crc });
        match bytes.get(..4)? {
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => stamp(24, 32, 52),
            b"BMA3" => stamp(32, 40, 64),
            b"XAGF" => stamp(208, 64, 216),
            b"XAGI" => stamp(320, 296, 312),
            b"XAFL" => stamp(24, 8, 32),
            b"XSLM" => stamp(48, 16, 12),
            b"XDB3" | b"XDD3" | b"XDF3" => stamp(16, 24, 4),
            b"XFSB" => stamp(240, 32, 224),
            _ => match be16(bytes, 8) {
                0x3df1 | 0x3dff | 0x3ebe | 0x3bee => stamp(24, 32, 12),
                _ => None,
            },
        }
    }

    /// Stamps a block with the LSN of its last change.
    pub(super) fn put(self, bytes: &mut [u8], lsn: u64) {
        put64(bytes, self.lsn, lsn);
        put_checksum(bytes, self.crc);
    }
}

impl<'a> Buffer<'a> {
    /// Decodes an item that is a buffer. `Err`: the rule that does not hold.
    pub(super) fn decode(item: &'a Item) -> Result<Self, String> {
        let head = item.region(0);
        let (flags, sectors, sector, words) =
            (number(head, 4, 2), number(head, 6, 2), number(head, 8, 8), number(head, 16, 4));
        if words > MAX_MAP_WORDS || head.len() < MAP + words as usize * 4 {
            return Err(format!("a buffer's map has at most {MAX_MAP_WORDS} words, found {words}"));
        }
        if !(1..=MAX_SECTORS).contains(&sectors) || sector > u64::MAX / 1024 {
            return Err(format!("a buffer has 1 to {MAX_SECTORS} sectors, found {sectors} at {sector}"));
        }
        Ok(Self { sector, sectors, flags, kind: (flags >> 11) as u8 & 0x1f, item })
    }

    /// Whether it says that the buffer holds nothing any more: what was logged of it before must not be replayed.
    pub(super) fn is_cancel(&self) -> bool {
        self.flags & flags::CANCEL != 0
    }

    /// Whether all that counts of it are the links between inodes that were deleted while they were open.
    pub(super) fn is_of_unlinked(&self) -> bool {
        self.flags & flags::INODES != 0
    }

    pub(super) fn is_of_quota(&self) -> bool {
        self.flags & flags::QUOTA != 0 || kind::QUOTA.contains(&self.kind)
    }

    pub(super) fn is_superblock(&self) -> bool {
        self.kind == kind::SUPERBLOCK && self.sector == 0
    }

    pub(super) fn len(&self) -> usize {
        self.sectors as usize * 512
    }

    /// Whether the block as it is on the disk is newer than a change of an LSN.
    pub(super) fn is_in_place(&self, bytes: &[u8], lsn: u64, sb: &Superblock) -> bool {
        match Stamp::of(bytes) {
            // Of another time or file system.
            Some(stamp) if stamp.lsn != 240 && uuid(bytes, stamp.uuid) != sb.meta_uuid => false,
            Some(stamp) => {
                let found = be64(bytes, stamp.lsn);
                found != 0 && found != u64::MAX && found >= lsn
            }
            None => false,
        }
    }

    /// Puts the change into the block's bytes. `Err`: the rule that does not hold.
    pub(super) fn apply(&self, bytes: &mut [u8], inode_size: usize) -> Result<(), String> {
        let mut region = 1;
        let mut bit = 0;
        let bits = (self.item.region(0).len() - MAP) / 4 * 32;
        let is_set = |bit: usize| {
            let word = number(self.item.region(0), MAP + bit / 32 * 4, 4);
            bit < bits && word >> (bit % 32) & 1 != 0
        };
        while bit < bits {
            if !is_set(bit) {
                bit += 1;
                continue;
            }
            let first = bit;
            while is_set(bit) {
                bit += 1;
            }
            let Some(source) = self.item.regions().get(region) else {
                return Err(format!("a buffer has a region for each run of its map, found {region}"));
            };
            region += 1;
            let start = first * CHUNK;
            // What is not there was not logged: the rest of a run may be missing, in whole pieces.
            let len = ((bit - first) * CHUNK).min(source.len() / CHUNK * CHUNK);
            if start + len > bytes.len() {
                return Err(format!("a buffer's pieces lie in its {} bytes, found {len} at {start}", bytes.len()));
            }
            if self.is_of_unlinked() {
                put_links(bytes, start, &source[..len], inode_size)?;
            } else {
                put(bytes, start, &source[..len]);
            }
        }
        Ok(())
    }

    /// How the block is stamped once all changes of one LSN are in it; `None` where its kind is not.
    /// `Err`: the rule that does not hold.
    pub(super) fn stamp(&self, bytes: &[u8], sb: &Superblock) -> Result<Option<Stamp>, String> {
        let magic = &bytes[..4];
        let short = be16(bytes, 8);
        let fits = match self.kind {
            kind::UNKNOWN | kind::INODES => return Ok(None),
            kind::TREE => {
                [b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC", b"BMA3"].iter().any(|known| *known == magic)
            }
            kind::AGF => magic == b"XAGF",
            kind::AGFL => magic == b"XAFL",
            kind::AGI => magic == b"XAGI",
            kind::TARGET => magic == b"XSLM",
            kind::DIR_BLOCK => magic == b"XDB3",
            kind::DIR_DATA => magic == b"XDD3",
            kind::DIR_FREE => magic == b"XDF3",
            kind::DIR_LEAF_ONE => short == 0x3df1,
            kind::DIR_LEAF => short == 0x3dff,
            kind::NODE => short == 0x3ebe,
            kind::ATTR_LEAF => short == 0x3bee,
            kind::SUPERBLOCK => magic == b"XFSB",
            other => return Err(format!("the kind of a buffer is known, found {other}")),
        };
        if self.kind == kind::ATTR_VALUE || !fits {
            return Err(format!(
                "a buffer of kind {} holds a block of that kind, found {:#x} at sector {}",
                self.kind,
                be32(bytes, 0),
                self.sector
            ));
        }
        // A checksum is over the whole of a directory's block, of which this may be a piece that lies elsewhere.
        let is_directory = (kind::DIR_BLOCK..=kind::DIR_LEAF).contains(&self.kind);
        if is_directory && bytes.len() != sb.dir_block_size {
            return Err(format!("a directory's block of {} bytes lies in one piece", sb.dir_block_size));
        }
        Ok(Stamp::of(bytes))
    }
}

/// Puts the links of deleted inodes into a block of inodes, from a piece of it.
fn put_links(bytes: &mut [u8], start: usize, source: &[u8], inode_size: usize) -> Result<(), String> {
    for inode in bytes.chunks_exact_mut(inode_size).zip((0..).step_by(inode_size)) {
        let (inode, at) = inode;
        let at: usize = at;
        let link = (at + NEXT_UNLINKED).checked_sub(start).and_then(|from| source.get(from..from + 4));
        let Some(link) = link else { continue };
        if link == [0; 4] {
            return Err("a link between unlinked inodes is an inode's number or none".to_owned());
        }
        put(inode, NEXT_UNLINKED, link);
        put_checksum(inode, INODE_CRC);
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::log) fn buffer(flags: u16, kind: u8, sector: u64, pieces: &[(usize, &[u8])]) -> Item {
        let mut head = vec![0; MAP + 4];
        let flags = flags | u16::from(kind) << 11;
        let mut map = 0_u32;
        for (first, bytes) in pieces {
            for bit in *first..first + bytes.len().div_ceil(CHUNK) {
                map |= 1 << bit;
            }
        }
        head[..2].copy_from_slice(&0x123c_u16.to_le_bytes());
        head[2..4].copy_from_slice(&(pieces.len() as u16 + 1).to_le_bytes());
        head[4..6].copy_from_slice(&flags.to_le_bytes());
        head[6..8].copy_from_slice(&8_u16.to_le_bytes());
        head[8..16].copy_from_slice(&sector.to_le_bytes());
        head[16..20].copy_from_slice(&1_u32.to_le_bytes());
        head[20..24].copy_from_slice(&map.to_le_bytes());
        Item::new([vec![head], pieces.iter().map(|(_, bytes)| bytes.to_vec()).collect()].concat())
    }

    #[test]
    fn pieces_go_where_the_map_says() {
        let item = buffer(0, 0, 8, &[(1, &[1; 256]), (31, &[2; 128])]);
        let found = Buffer::decode(&item).unwrap();
        let mut bytes = vec![9; 4096];
        found.apply(&mut bytes, 512).unwrap();
        assert_eq!((bytes[127], bytes[128], bytes[383], bytes[384]), (9, 1, 1, 9));
        assert_eq!((bytes[3967], bytes[3968], bytes[4095]), (9, 2, 2));
        assert_eq!(found.stamp(&bytes, &Superblock::for_tests()).unwrap(), None);
    }

    #[test]
    fn of_unlinked_inodes_only_links_are_taken() {
        let mut logged = vec![5; 4096];
        logged[96..100].copy_from_slice(&77_u32.to_be_bytes());
        let item = buffer(1, 8, 8, &[(0, &logged[..128]), (4, &logged[512..640])]);
        let mut bytes = vec![9; 4096];
        Buffer::decode(&item).unwrap().apply(&mut bytes, 512).unwrap();
        assert_eq!((be32(&bytes, 96), be32(&bytes, 512 + 96), be32(&bytes, 1024 + 96)), (77, 0x0505_0505, 0x0909_0909));
        assert_eq!((bytes[95], bytes[104], bytes[120]), (9, 9, 9), "nothing else");
        let zero = buffer(1, 8, 8, &[(0, &[0; 128])]);
        assert!(Buffer::decode(&zero).unwrap().apply(&mut bytes, 512).is_err());
    }

    #[test]
    fn maps_that_lie_are_refused() {
        let refused = |at: usize, value: &[u8], rule: &str| {
            let mut regions = buffer(0, 0, 8, &[(0, &[1; 128])]).regions().to_vec();
            regions[0][at..at + value.len()].copy_from_slice(value);
            let item = Item::new(regions);
            let mut bytes = vec![0; 2048];
            let found = Buffer::decode(&item).and_then(|found| found.apply(&mut bytes, 512)).unwrap_err();
            assert!(found.contains(rule), "{found}");
        };
        refused(16, &u32::MAX.to_le_bytes(), "at most 17");
        refused(16, &2_u32.to_le_bytes(), "at most 17");
        refused(6, &[0, 0], "sectors");
        refused(6, &[0xff, 0xff], "sectors");
        refused(8, &[0xff; 8], "sectors");
        refused(20, &0b101_u32.to_le_bytes(), "a region for each run");
        refused(20, &(1_u32 << 31).to_le_bytes(), "pieces lie in its");
    }

    #[test]
    fn newer_blocks_stay() {
        let sb = Superblock::for_tests();
        let item = buffer(0, kind::AGF, 1, &[]);
        let found = Buffer::decode(&item).unwrap();
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(b"XAGF");
        put(&mut bytes, 64, &sb.meta_uuid);
        for (own, newer) in [(0, false), (u64::MAX, false), (41, false), (42, true), (43, true)] {
            put64(&mut bytes, 208, own);
            assert_eq!(found.is_in_place(&bytes, 42, &sb), newer, "{own}");
        }
        bytes[64] ^= 1;
        assert!(!found.is_in_place(&bytes, 42, &sb), "another file system's");
        let stamp = found.stamp(&bytes, &sb).unwrap().unwrap();
        stamp.put(&mut bytes, 50);
        assert_eq!((be64(&bytes, 208), be32(&bytes, 216)), (50, crate::bytes::checksum(&bytes, 216).swap_bytes()));
        bytes[3] = b'I';
        assert!(found.stamp(&bytes, &sb).is_err());
    }
}
