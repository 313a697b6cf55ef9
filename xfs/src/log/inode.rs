//! Inodes in the log: the core, in the order of the machine that wrote it, and what changed of the forks.
//! "Inode Log Item", "Inode Log Items' Data Structures".

use super::transaction::{Item, number};
use crate::bytes::{be16, be64, put, put_checksum, put16, put32, put64};
use crate::inode::{Fork, flags2};

/// What of the inode an item brings.
mod fields {
    pub(super) const CORE: u64 = 0x1;
    pub(super) const DATA: [u64; 3] = [0x2, 0x4, 0x8];
    pub(super) const DEVICE: u64 = 0x10;
    pub(super) const ATTR: [u64; 3] = [0x40, 0x80, 0x100];
    pub(super) const OWNERS: u64 = 0x200 | 0x400;
    pub(super) const DATA_OWNER: u64 = 0x200;
}

const CORE_LEN: usize = 176;
const CRC: usize = 100;
const LSN: usize = 112;
/// The header of a tree of extents' root as it is in memory, and in an inode; a key with its pointer.
const ROOT_IN_MEMORY: usize = 72;
const ROOT: usize = 4;
const RECORD: usize = 16;

/// Where the fields of the core are whose bytes change their order, and how many bytes they have.
const NUMBERS: [(usize, usize); 17] = [
    (2, 2),
    (8, 4),
    (12, 4),
    (16, 4),
    (20, 2),
    (22, 2),
    (56, 8),
    (64, 8),
    (72, 4),
    (84, 4),
    (88, 2),
    (90, 2),
    (92, 4),
    (104, 8),
    (120, 8),
    (128, 4),
    (152, 8),
];
/// Version, format, and offset and format of the attributes.
const BYTES: [usize; 4] = [4, 5, 82, 83];
const TIMES: [usize; 4] = [32, 40, 48, 144];

/// A change of an inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct InodeChange<'a> {
    pub(super) number: u64,
    /// The buffer of inodes that it lies in: sector and number of sectors, and where in it, in bytes.
    pub(super) sector: u64,
    pub(super) sectors: u64,
    pub(super) offset: usize,
    fields: u64,
    device: u64,
    item: &'a Item,
}

impl<'a> InodeChange<'a> {
    /// Decodes an item that is an inode. `Err`: the rule that does not hold.
    pub(super) fn decode(item: &'a Item) -> Result<Self, String> {
        let head = item.region(0);
        // Machines of 32 bits leave no gap before the inode's number.
        let at = match head.len() {
            56 => 16,
            52 => 12,
            len => return Err(format!("an inode's item has 52 or 56 bytes, found {len}")),
        };
        let (sector, sectors) = (number(head, at + 24, 8), number(head, at + 32, 4));
        let offset = number(head, at + 36, 4) as usize;
        if sector > u64::MAX / 1024 || !(1..=128).contains(&sectors) || offset >= sectors as usize * 512 {
            return Err(format!("an inode lies in its buffer, found {offset} in {sectors} sectors at {sector}"));
        }
        Ok(Self {
            number: number(head, at, 8),
            sector,
            sectors,
            offset,
            fields: number(head, 4, 4),
            device: number(head, at + 8, 4),
            item,
        })
    }

    /// The forks whose trees' blocks have to be told that they are this inode's.
    pub(super) fn owners_changed(&self) -> Option<Fork> {
        match self.fields & fields::OWNERS {
            0 => None,
            fields::DATA_OWNER => Some(Fork::Data),
            _ => Some(Fork::Attr),
        }
    }

    /// Whether the inode as it is on the disk is newer than a change of an LSN.
    pub(super) fn is_in_place(slot: &[u8], lsn: u64) -> bool {
        let found = be64(slot, LSN);
        found != 0 && found != u64::MAX && found > lsn
    }

    /// Puts the change into an inode's slot. `Err`: the rule that does not hold.
    pub(super) fn apply(&self, slot: &mut [u8], lsn: u64) -> Result<(), String> {
        if be16(slot, 0) != 0x494e {
            return Err(format!("an inode is changed where one is, found {:#x}", be16(slot, 0)));
        }
        let core = self.item.region(1);
        if core.len() != CORE_LEN || number(core, 0, 2) != 0x494e || core[4] != 3 || self.fields & fields::CORE == 0 {
            return Err(format!("an inode's core of {CORE_LEN} bytes is of version 3, found {} bytes", core.len()));
        }
        if number(core, 152, 8) != self.number {
            return Err(format!("inode {} has its number, found {}", self.number, number(core, 152, 8)));
        }
        put_core(slot, core, lsn);
        let literal = slot.len() - CORE_LEN;
        let forkoff = usize::from(slot[82]) * 8;
        if forkoff > literal {
            return Err(format!("di_forkoff lies in the inode, found {forkoff}"));
        }
        let middle = if forkoff == 0 { literal } else { forkoff };
        let (data, attr) = slot[CORE_LEN..].split_at_mut(middle);
        if self.fields & fields::DEVICE != 0 {
            put32(data, 0, self.device as u32);
        }
        let mut region = 2;
        for (fork, kinds) in [(data, fields::DATA), (attr, fields::ATTR)] {
            let [local, extents, root] = kinds.map(|kind| self.fields & kind != 0);
            if !(local || extents || root) {
                continue;
            }
            let Some(bytes) = self.item.regions().get(region) else {
                // A fork that is empty has no region.
                break;
            };
            region += 1;
            if root {
                put_root(fork, bytes)?;
            } else if bytes.len() <= fork.len() {
                put(fork, 0, bytes);
            } else {
                return Err(format!(
                    "a fork of {} bytes has room for what it holds, found {}",
                    fork.len(),
                    bytes.len()
                ));
            }
        }
        put_checksum(slot, CRC);
        Ok(())
    }
}

fn put_core(slot: &mut [u8], core: &[u8], lsn: u64) {
    for (at, len) in NUMBERS {
        let value = number(core, at, len);
        put(slot, at, &value.to_be_bytes()[8 - len..]);
    }
    for at in BYTES {
        slot[at] = core[at];
    }
    let flags2 = number(core, 120, 8);
    for at in TIMES {
        if flags2 & flags2::BIGTIME != 0 {
            put64(slot, at, number(core, at, 8));
        } else {
            put32(slot, at, number(core, at, 4) as u32);
            put32(slot, at + 4, number(core, at + 4, 4) as u32);
        }
    }
    if flags2 & flags2::NREXT64 != 0 {
        put64(slot, 24, number(core, 24, 8));
        put32(slot, 76, number(core, 76, 4) as u32);
        put16(slot, 80, 0);
    } else {
        put64(slot, 24, 0);
        put32(slot, 76, number(core, 76, 4) as u32);
        put16(slot, 80, number(core, 80, 2) as u16);
    }
    put16(slot, 6, 0);
    put64(slot, LSN, lsn);
    put(slot, 132, &core[132..144]);
    put(slot, 160, &core[160..CORE_LEN]);
}

/// Puts the root of a tree of extents into a fork. In memory its header is longer, and its pointers lie elsewhere.
fn put_root(fork: &mut [u8], root: &[u8]) -> Result<(), String> {
    let count = usize::from(be16(root, 6));
    let there = root.len().saturating_sub(ROOT_IN_MEMORY) / RECORD;
    let here = fork.len().saturating_sub(ROOT) / RECORD;
    if count > there || count > here || root.len() < ROOT_IN_MEMORY {
        return Err(format!("a root has room for its {count} pointers, found {there} and {here}"));
    }
    put(fork, 0, &root[4..8]);
    put(fork, ROOT, &root[ROOT_IN_MEMORY..ROOT_IN_MEMORY + count * 8]);
    let pointers = ROOT_IN_MEMORY + there * 8;
    put(fork, ROOT + here * 8, &root[pointers..pointers + count * 8]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::{be32, checksum, le32};

    fn item(fields: u32, core: &[u8], more: &[&[u8]]) -> Item {
        let mut head = vec![0; 56];
        head[..2].copy_from_slice(&0x123b_u16.to_le_bytes());
        head[4..8].copy_from_slice(&fields.to_le_bytes());
        head[16..24].copy_from_slice(&131_u64.to_le_bytes());
        head[24..28].copy_from_slice(&0x0103_u32.to_le_bytes());
        head[40..48].copy_from_slice(&128_u64.to_le_bytes());
        head[48..52].copy_from_slice(&16_u32.to_le_bytes());
        head[52..56].copy_from_slice(&1536_u32.to_le_bytes());
        let mut regions = vec![head, core.to_vec()];
        regions.extend(more.iter().map(|bytes| bytes.to_vec()));
        Item::new(regions)
    }

    fn core(flags2: u64) -> Vec<u8> {
        let mut core = vec![0; CORE_LEN];
        core[..2].copy_from_slice(&0x494e_u16.to_le_bytes());
        core[2..4].copy_from_slice(&0o100_644_u16.to_le_bytes());
        (core[4], core[5], core[82], core[83]) = (3, 2, 10, 1);
        core[24..32].copy_from_slice(&0x0102_u64.to_le_bytes());
        core[32..36].copy_from_slice(&7_u32.to_le_bytes());
        core[36..40].copy_from_slice(&8_u32.to_le_bytes());
        core[56..64].copy_from_slice(&5000_u64.to_le_bytes());
        core[76..80].copy_from_slice(&3_u32.to_le_bytes());
        core[80..82].copy_from_slice(&4_u16.to_le_bytes());
        core[96..100].copy_from_slice(&[1; 4]);
        core[120..128].copy_from_slice(&flags2.to_le_bytes());
        core[152..160].copy_from_slice(&131_u64.to_le_bytes());
        core
    }

    fn slot() -> Vec<u8> {
        let mut slot = vec![0xee; 512];
        slot[..2].copy_from_slice(b"IN");
        slot
    }

    #[test]
    fn the_core_and_the_forks_are_put_in_place() {
        let item = item(0x1 | 0x4 | 0x40, &core(0), &[&[0xdd; 32], &[0xaa; 8]]);
        let change = InodeChange::decode(&item).unwrap();
        assert_eq!((change.number, change.sector, change.sectors, change.offset), (131, 128, 16, 1536));
        let mut slot = slot();
        change.apply(&mut slot, 42).unwrap();
        assert_eq!((be16(&slot, 2), be64(&slot, 56), be64(&slot, LSN)), (0o100_644, 5000, 42));
        assert_eq!((be32(&slot, 32), be32(&slot, 36)), (7, 8));
        assert_eq!((be64(&slot, 24), be32(&slot, 76), be16(&slot, 80)), (0, 3, 4));
        assert_eq!(be32(&slot, 96), 0xeeee_eeee, "the list of unlinked inodes is no part of it");
        assert_eq!((slot[176 + 31], slot[176 + 32]), (0xdd, 0xee));
        assert_eq!((slot[176 + 79], slot[176 + 80], slot[176 + 88]), (0xee, 0xaa, 0xee));
        assert_eq!(le32(&slot, CRC), checksum(&slot, CRC));
        for (own, newer) in [(0, false), (42, false), (43, true), (u64::MAX, false)] {
            put64(&mut slot, LSN, own);
            assert_eq!(InodeChange::is_in_place(&slot, 42), newer, "{own}");
        }
    }

    #[test]
    fn times_and_counts_of_64_bits_are_put_in_place() {
        let item = item(0x1 | 0x10, &core(flags2::BIGTIME | flags2::NREXT64), &[]);
        let mut slot = slot();
        InodeChange::decode(&item).unwrap().apply(&mut slot, 42).unwrap();
        assert_eq!((be64(&slot, 32), be64(&slot, 24)), (8 << 32 | 7, 0x0102));
        assert_eq!((be32(&slot, 76), be16(&slot, 80)), (3, 0));
        assert_eq!(be32(&slot, 176), 0x0103);
    }

    #[test]
    fn a_root_is_put_in_place() {
        let mut root = vec![0; 72 + 3 * 16];
        put16(&mut root, 4, 1);
        put16(&mut root, 6, 2);
        root[72..80].fill(1);
        root[80..88].fill(2);
        root[96..104].fill(3);
        root[104..112].fill(4);
        let item = item(0x1 | 0x8, &core(0), &[&root]);
        let mut slot = slot();
        InodeChange::decode(&item).unwrap().apply(&mut slot, 42).unwrap();
        // A fork of 80 bytes has room for four keys and pointers.
        let fork = &slot[176..256];
        assert_eq!((be16(fork, 0), be16(fork, 2)), (1, 2));
        assert_eq!((fork[4], fork[12], fork[20], fork[36], fork[44]), (1, 2, 0xee, 3, 4));
    }

    #[test]
    fn inodes_that_lie_are_refused() {
        let refused = |item: &Item, rule: &str| {
            let mut slot = slot();
            let found = InodeChange::decode(item).and_then(|change| change.apply(&mut slot, 42)).unwrap_err();
            assert!(found.contains(rule), "{found}");
        };
        let with = |at: usize, value: u8| {
            let mut core = core(0);
            core[at] = value;
            core
        };
        refused(&item(1, &core(0)[..170], &[]), "core");
        refused(&item(1, &with(0, 0), &[]), "core");
        refused(&item(1, &with(4, 2), &[]), "version 3");
        refused(&item(1, &with(152, 9), &[]), "its number");
        refused(&item(1, &with(82, 255), &[]), "di_forkoff");
        refused(&item(5, &core(0), &[&[0; 81]]), "has room");
        refused(&item(9, &core(0), &[&[0xff; 100]]), "pointers");
        refused(&item(9, &core(0), &[&[0; 10]]), "pointers");
        let mut regions = item(1, &core(0), &[]).regions().to_vec();
        regions[0][52..56].fill(0xff);
        refused(&Item::new(regions.clone()), "in its buffer");
        regions[0].truncate(50);
        refused(&Item::new(regions), "52 or 56");
        let item = item(1, &core(0), &[]);
        assert!(InodeChange::decode(&item).unwrap().apply(&mut [0; 512], 42).is_err());
    }
}
