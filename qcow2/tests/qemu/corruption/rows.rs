//! The places that are broken, and what must happen.

use crate::overlap::{COPIED, OFFSET, Places, set, word};

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// Clusters of 4 KiB: data, zeros, compressed clusters, a snapshot with an L2 table of its own, a bitmap with bits.
    Rich,
    /// Clusters of 16 KiB with extended L2 entries, in all states.
    Extended,
}

/// What must happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// It does not open: this is said. QEMU does not open it either.
    Refused(&'static str),
    /// It does not open: this is said. QEMU opens it.
    RefusedByUs(&'static str),
    /// It opens, and a check finds what QEMU finds; a repair leaves nothing.
    Mended,
    /// It opens, and a check finds what QEMU finds; some of it stays, as with QEMU.
    Counted,
    /// It opens, and a check counts what QEMU counts, but QEMU repairs it otherwise, or not at all; whether ours leaves nothing.
    OursAlone(bool),
    /// It opens, and a check and a repair do what those of QEMU do; a compressed cluster cannot be read.
    Unreadable,
    /// It opens, and our check finds something; QEMU counts that otherwise.
    Otherwise,
    /// It opens, and our check finds something. QEMU does not open it.
    OpenedByUs,
}

use Expect::{Counted, Mended, OpenedByUs, Otherwise, OursAlone, Refused, RefusedByUs, Unreadable};

fn set32(bytes: &mut [u8], at: u64, value: u32) {
    bytes[at as usize..at as usize + 4].copy_from_slice(&value.to_be_bytes());
}

fn cluster(bytes: &[u8]) -> u64 {
    1 << bytes[23]
}

/// Sets the refcount of what is at an offset.
fn count(bytes: &mut [u8], places: &Places, offset: u64, count: u16) {
    let at = (places.refcount_block + offset / cluster(bytes) * 2) as usize;
    bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
}

fn set_bits(bytes: &mut [u8], at: u64, bits: u64) {
    set(bytes, at, word(bytes, at) | bits);
}

/// Where the first compressed entry of the first L2 table is.
fn compressed(bytes: &[u8], places: &Places) -> u64 {
    (places.l2..places.l2 + cluster(bytes)).step_by(8).find(|&at| word(bytes, at) >> 62 == 1).unwrap()
}

/// Where the header's extension for bitmaps is.
fn extension(bytes: &[u8]) -> u64 {
    (104..4096).find(|&at| bytes[at..at + 4] == [0x23, 0x85, 0x28, 0x75]).unwrap() as u64
}

pub(super) type Row = (&'static str, Base, fn(&mut Vec<u8>, &Places), Expect);

const FAR: u64 = 1 << 40;

pub(super) const HEADER: &[Row] = &[
    ("magic", Base::Rich, |b, _| b[3] = 0, Refused("not a qcow2 image")),
    ("version 1", Base::Rich, |b, _| b[7] = 1, Refused("qcow2 version 1")),
    ("version 4", Base::Rich, |b, _| b[7] = 4, Refused("qcow2 version 4")),
    (
        "backing file's name far away",
        Base::Rich,
        |b, _| {
            set(b, 8, FAR);
            set32(b, 16, 10)
        },
        Refused(""),
    ),
    (
        "backing file's name too long",
        Base::Rich,
        |b, _| {
            set(b, 8, 512);
            set32(b, 16, 1024)
        },
        Refused(""),
    ),
    ("clusters of 256 bytes", Base::Rich, |b, _| b[23] = 8, Refused("")),
    ("clusters of 4 MiB", Base::Rich, |b, _| b[23] = 22, Refused("")),
    ("a disk of 2^63 bytes", Base::Rich, |b, _| set(b, 24, 1 << 63), Refused("")),
    ("a disk that the L1 table does not cover", Base::Rich, |b, _| set(b, 24, 1 << 40), Refused("")),
    ("encryption of no known method", Base::Rich, |b, _| b[35] = 3, Refused("")),
    ("no L1 table", Base::Rich, |b, _| set32(b, 36, 0), Refused("")),
    ("an L1 table of 32 GiB", Base::Rich, |b, _| set32(b, 36, u32::MAX), Refused("")),
    ("an L1 table that goes on over other tables", Base::Rich, |b, _| set32(b, 36, 600), Counted),
    ("L1 table at 0", Base::Rich, |b, _| set(b, 40, 0), RefusedByUs("")),
    ("L1 table not aligned", Base::Rich, |b, p| set(b, 40, p.l1 + 512), Refused("")),
    ("L1 table far away", Base::Rich, |b, _| set(b, 40, FAR), RefusedByUs("")),
    ("L1 table at the end of all offsets", Base::Rich, |b, _| set(b, 40, !4095), Refused("")),
    ("L1 table over the refcount table", Base::Rich, |b, p| set(b, 40, p.refcount_table), Counted),
    ("refcount table at 0", Base::Rich, |b, _| set(b, 48, 0), RefusedByUs("")),
    ("refcount table not aligned", Base::Rich, |b, p| set(b, 48, p.refcount_table + 512), Refused("")),
    ("refcount table far away", Base::Rich, |b, _| set(b, 48, FAR), Mended),
    ("refcount table over the L1 table", Base::Rich, |b, p| set(b, 48, p.l1), Otherwise),
    ("no refcount table", Base::Rich, |b, _| set32(b, 56, 0), Mended),
    ("a refcount table of 16 TiB", Base::Rich, |b, _| set32(b, 56, u32::MAX), Refused("")),
    ("65,537 snapshots", Base::Rich, |b, _| set32(b, 60, 65_537), Refused("")),
    ("snapshots that are none", Base::Rich, |b, _| set32(b, 60, 3), OursAlone(false)),
    ("snapshot table at 0", Base::Rich, |b, _| set(b, 64, 0), RefusedByUs("")),
    ("snapshot table not aligned", Base::Rich, |b, p| set(b, 64, p.snapshots + 512), Refused("")),
    ("snapshot table far away", Base::Rich, |b, _| set(b, 64, FAR), Otherwise),
    ("an unknown incompatible feature", Base::Rich, |b, _| b[79] |= 32, Refused("unknown incompatible feature, bit 5")),
    ("the last incompatible feature", Base::Rich, |b, _| b[72] |= 128, Refused("unknown incompatible feature, bit 63")),
    ("a data file that is not named", Base::Rich, |b, _| b[79] |= 4, Refused("")),
    (
        "a compression type that is none",
        Base::Rich,
        |b, _| {
            b[79] |= 8;
            b[104] = 2
        },
        Refused("compression type 2"),
    ),
    ("a compression type without its feature", Base::Rich, |b, _| b[104] = 1, Refused("")),
    ("zlib with the feature of another type", Base::Rich, |b, _| b[79] |= 8, Refused("")),
    ("extended L2 with small clusters", Base::Rich, |b, _| b[79] |= 16, Refused("")),
    ("an unknown compatible feature", Base::Rich, |b, _| b[80] |= 64, Mended),
    ("an unknown autoclear feature", Base::Rich, |b, _| b[88] |= 64, Mended),
    ("the dirty bit", Base::Rich, |b, _| b[79] |= 1, Mended),
    ("the corrupt bit", Base::Rich, |b, _| b[79] |= 2, Mended),
    ("refcounts of 128 bits", Base::Rich, |b, _| b[99] = 7, Refused("")),
    ("refcounts of 8 bits, where they have 16", Base::Rich, |b, _| b[99] = 3, Mended),
    ("a header of 96 bytes", Base::Rich, |b, _| b[103] = 96, Refused("")),
    ("a header of 105 bytes", Base::Rich, |b, _| b[103] = 105, RefusedByUs("")),
    ("a header longer than a cluster", Base::Rich, |b, _| set32(b, 100, 4104), Refused("")),
    ("an extension that does not end", Base::Rich, |b, _| set32(b, 116, 5000), Refused("")),
    ("an extension of 4 GiB", Base::Rich, |b, _| set32(b, 116, u32::MAX), Refused("")),
];

pub(super) const REFCOUNTS: &[Row] = &[
    ("reserved bits in the refcount table", Base::Rich, |b, p| set_bits(b, p.refcount_table, 1), OursAlone(true)),
    ("a refcount block not aligned", Base::Rich, |b, p| set_bits(b, p.refcount_table, 512), OursAlone(true)),
    ("a refcount block far away", Base::Rich, |b, p| set(b, p.refcount_table + 8, FAR), OursAlone(true)),
    (
        "a refcount block at the end of all offsets",
        Base::Rich,
        |b, p| set(b, p.refcount_table + 8, !4095),
        OursAlone(true),
    ),
    (
        "the header as a refcount block",
        Base::Rich,
        |b, p| {
            set(b, p.refcount_table, 0);
            set(b, p.refcount_table + 8, 4096)
        },
        Mended,
    ),
    ("the L1 table as a refcount block", Base::Rich, |b, p| set(b, p.refcount_table + 8, p.l1), Mended),
    ("an L2 table as a refcount block", Base::Rich, |b, p| set(b, p.refcount_table, p.l2), Mended),
    ("a refcount block twice", Base::Rich, |b, p| set(b, p.refcount_table + 8, p.refcount_block), Mended),
    ("no refcount block", Base::Rich, |b, p| set(b, p.refcount_table, 0), Mended),
    ("refcounts all 0", Base::Rich, |b, p| b[p.refcount_block as usize..][..4096].fill(0), Mended),
    ("refcounts all as great as can be", Base::Rich, |b, p| b[p.refcount_block as usize..][..4096].fill(255), Mended),
    ("the header's refcount 0", Base::Rich, |b, p| count(b, p, 0, 0), Mended),
    ("the header's refcount 2", Base::Rich, |b, p| count(b, p, 0, 2), Mended),
    ("the L1 table's refcount 0", Base::Rich, |b, p| count(b, p, p.l1, 0), Mended),
    ("an L2 table's refcount 0", Base::Rich, |b, p| count(b, p, p.l2, 0), Mended),
    ("an L2 table's refcount 2", Base::Rich, |b, p| count(b, p, p.l2, 2), Mended),
    ("the refcount table's refcount 0", Base::Rich, |b, p| count(b, p, p.refcount_table, 0), Mended),
    ("the refcount block's refcount 0", Base::Rich, |b, p| count(b, p, p.refcount_block, 0), Mended),
    ("the snapshot table's refcount 0", Base::Rich, |b, p| count(b, p, p.snapshots, 0), Mended),
    ("a snapshot's L1 table's refcount 0", Base::Rich, |b, p| count(b, p, p.snapshot_l1, 0), Mended),
    ("a snapshot's L2 table's refcount 5", Base::Rich, |b, p| count(b, p, p.snapshot_l2, 5), Mended),
    ("the bitmap directory's refcount 0", Base::Rich, |b, p| count(b, p, p.bitmaps, 0), OursAlone(true)),
    ("a bitmap table's refcount 3", Base::Rich, |b, p| count(b, p, p.bitmap_table, 3), OursAlone(true)),
    (
        "a data cluster's refcount 7",
        Base::Rich,
        |b, p| {
            let at = word(b, p.l2) & OFFSET;
            count(b, p, at, 7)
        },
        Mended,
    ),
    (
        "a compressed cluster's refcount 1",
        Base::Rich,
        |b, p| {
            let at = word(b, compressed(b, p)) & ((1 << 58) - 1);
            count(b, p, at, 1)
        },
        Mended,
    ),
];

pub(super) const TABLES: &[Row] = &[
    ("reserved bits in an L1 entry", Base::Rich, |b, p| set_bits(b, p.l1, 1 << 57), Counted),
    ("low reserved bits in an L1 entry", Base::Rich, |b, p| set_bits(b, p.l1, 1), Counted),
    ("an L2 table not aligned", Base::Rich, |b, p| set_bits(b, p.l1, 512), OursAlone(false)),
    ("an L2 table far away", Base::Rich, |b, p| set(b, p.l1, FAR | COPIED), Counted),
    ("an L2 table at 0", Base::Rich, |b, p| set(b, p.l1, COPIED), OursAlone(false)),
    ("the L1 table as an L2 table", Base::Rich, |b, p| set(b, p.l1, p.l1 | COPIED), OursAlone(true)),
    ("the refcount table as an L2 table", Base::Rich, |b, p| set(b, p.l1, p.refcount_table | COPIED), OursAlone(true)),
    ("the refcount block as an L2 table", Base::Rich, |b, p| set(b, p.l1, p.refcount_block | COPIED), Counted),
    ("an L2 table twice", Base::Rich, |b, p| set(b, p.l1 + 16, p.l2 | COPIED), Mended),
    ("the snapshot table as an L2 table", Base::Rich, |b, p| set(b, p.l1, p.snapshots | COPIED), Counted),
    ("COPIED missing in L1", Base::Rich, |b, p| set(b, p.l1, p.l2), Mended),
    ("COPIED set in L1 for a shared table", Base::Rich, |b, p| set(b, p.l1 + 8, p.snapshot_l2 | COPIED), Mended),
    ("reserved bits in an L2 entry", Base::Rich, |b, p| set_bits(b, p.l2, 1 << 57), Counted),
    ("low reserved bits in an L2 entry", Base::Rich, |b, p| set_bits(b, p.l2, 4), Counted),
    ("a cluster not aligned", Base::Rich, |b, p| set_bits(b, p.l2, 512), Counted),
    ("a cluster far away", Base::Rich, |b, p| set(b, p.l2, FAR | COPIED), Counted),
    (
        "a cluster behind the end of the file",
        Base::Rich,
        |b, p| {
            let end = b.len() as u64;
            set(b, p.l2, end | COPIED)
        },
        Counted,
    ),
    ("the header as a cluster", Base::Rich, |b, p| set(b, p.l2, COPIED), Mended),
    ("the L1 table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.l1 | COPIED), Mended),
    ("its own L2 table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.l2 | COPIED), OursAlone(true)),
    ("another L2 table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.second_l2 | COPIED), Mended),
    ("the refcount table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.refcount_table | COPIED), OursAlone(true)),
    ("the refcount block as a cluster", Base::Rich, |b, p| set(b, p.l2, p.refcount_block | COPIED), OursAlone(true)),
    ("the snapshot table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.snapshots | COPIED), Mended),
    ("a snapshot's L1 table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.snapshot_l1 | COPIED), Mended),
    ("a snapshot's L2 table as a cluster", Base::Rich, |b, p| set(b, p.l2, p.snapshot_l2 | COPIED), Mended),
    ("the bitmap directory as a cluster", Base::Rich, |b, p| set(b, p.l2, p.bitmaps | COPIED), OursAlone(true)),
    (
        "a cluster twice",
        Base::Rich,
        |b, p| {
            let first = word(b, p.l2);
            set(b, p.l2 + 8, first)
        },
        Mended,
    ),
    (
        "COPIED missing in L2",
        Base::Rich,
        |b, p| {
            let first = word(b, p.l2) & OFFSET;
            set(b, p.l2, first)
        },
        Mended,
    ),
    (
        "a cluster of zeros that is not aligned",
        Base::Rich,
        |b, p| set(b, p.l2, (p.l2 + 512) | COPIED | 1),
        OursAlone(true),
    ),
    (
        "a compressed cluster far away",
        Base::Rich,
        |b, p| {
            let at = compressed(b, p);
            set_bits(b, at, FAR)
        },
        Counted,
    ),
    (
        "a compressed cluster behind the end",
        Base::Rich,
        |b, p| {
            let at = compressed(b, p);
            let end = b.len() as u64;
            set(b, at, 1 << 62 | end)
        },
        Unreadable,
    ),
    (
        "a compressed cluster over the L1 table",
        Base::Rich,
        |b, p| {
            let at = compressed(b, p);
            set(b, at, 1 << 62 | (p.l1 + 7))
        },
        Unreadable,
    ),
    (
        "a compressed cluster with COPIED",
        Base::Rich,
        |b, p| {
            let at = compressed(b, p);
            set_bits(b, at, COPIED)
        },
        Counted,
    ),
    (
        "a compressed cluster of 8 KiB",
        Base::Rich,
        |b, p| {
            let at = compressed(b, p);
            set_bits(b, at, 15 << 58)
        },
        Mended,
    ),
    (
        "a compressed stream that makes no sense",
        Base::Rich,
        |b, p| {
            let at = (word(b, compressed(b, p)) & ((1 << 58) - 1)) as usize;
            b[at..at + 40].fill(0xff)
        },
        Unreadable,
    ),
    ("subclusters allocated and zero", Base::Extended, |b, p| set(b, p.l2 + 8, u64::MAX), Counted),
    (
        "subclusters of no cluster",
        Base::Extended,
        |b, p| {
            set(b, p.l2, 0);
            set(b, p.l2 + 8, 1)
        },
        Counted,
    ),
    (
        "subclusters of a compressed cluster",
        Base::Extended,
        |b, p| {
            let at = (p.l2..p.l2 + 16384).step_by(16).find(|&at| word(b, at) >> 62 == 1).unwrap();
            set(b, at + 8, 1)
        },
        Counted,
    ),
    ("a cluster of no subclusters", Base::Extended, |b, p| set(b, p.l2 + 8, 0), Mended),
    ("the zero flag in an extended entry", Base::Extended, |b, p| set_bits(b, p.l2, 1), Mended),
    ("an extended cluster not aligned", Base::Extended, |b, p| set_bits(b, p.l2, 512), Counted),
    ("an extended cluster over the L1 table", Base::Extended, |b, p| set(b, p.l2, p.l1 | COPIED), Mended),
];

pub(super) const SNAPSHOTS: &[Row] = &[
    (
        "a snapshot's L1 table not aligned",
        Base::Rich,
        |b, p| set(b, p.snapshots, p.snapshot_l1 + 512),
        OursAlone(false),
    ),
    ("a snapshot's L1 table far away", Base::Rich, |b, p| set(b, p.snapshots, FAR), OursAlone(false)),
    ("a snapshot's L1 table over the active one", Base::Rich, |b, p| set(b, p.snapshots, p.l1), Mended),
    ("a snapshot's L1 table of 32 GiB", Base::Rich, |b, p| set32(b, p.snapshots + 8, u32::MAX), OursAlone(false)),
    ("a snapshot's L1 table of nothing", Base::Rich, |b, p| set32(b, p.snapshots + 8, 0), Mended),
    ("a snapshot's id longer than the file", Base::Rich, |b, p| b[p.snapshots as usize + 12..][..2].fill(255), Mended),
    (
        "a snapshot's name longer than the file",
        Base::Rich,
        |b, p| b[p.snapshots as usize + 14..][..2].fill(255),
        Mended,
    ),
    ("a snapshot's name that is no text", Base::Rich, |b, p| b[p.snapshots as usize + 64] = 0xff, Mended),
    ("a snapshot's extra data of 4 GiB", Base::Rich, |b, p| set32(b, p.snapshots + 36, u32::MAX), OpenedByUs),
    ("a snapshot's extra data of 2000 bytes", Base::Rich, |b, p| set32(b, p.snapshots + 36, 2000), OpenedByUs),
    ("a snapshot without extra data", Base::Rich, |b, p| set32(b, p.snapshots + 36, 0), OursAlone(false)),
    ("a snapshot's disk of 2^64 bytes", Base::Rich, |b, p| set(b, p.snapshots + 48, u64::MAX), Mended),
    (
        "reserved bits in a snapshot's L1 entry",
        Base::Rich,
        |b, p| set_bits(b, p.snapshot_l1, 1 << 57),
        OursAlone(false),
    ),
    ("a snapshot's L2 table far away", Base::Rich, |b, p| set(b, p.snapshot_l1, FAR), OursAlone(false)),
    ("a snapshot's L2 table not aligned", Base::Rich, |b, p| set_bits(b, p.snapshot_l1, 512), OursAlone(false)),
    ("a snapshot's cluster far away", Base::Rich, |b, p| set(b, p.snapshot_l2, FAR), OursAlone(false)),
];

pub(super) const BITMAPS: &[Row] = &[
    (
        "no bitmaps",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set32(b, at + 8, 0)
        },
        OpenedByUs,
    ),
    (
        "4 billion bitmaps",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set32(b, at + 8, u32::MAX)
        },
        OpenedByUs,
    ),
    (
        "one bitmap more than there is",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set32(b, at + 8, 2)
        },
        OpenedByUs,
    ),
    (
        "reserved field of the extension",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set32(b, at + 12, 1)
        },
        OpenedByUs,
    ),
    (
        "a bitmap directory of nothing",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set(b, at + 16, 0)
        },
        OpenedByUs,
    ),
    (
        "a bitmap directory of 2^64 bytes",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set(b, at + 16, u64::MAX)
        },
        OpenedByUs,
    ),
    (
        "bitmap directory not aligned",
        Base::Rich,
        |b, p| {
            let at = extension(b);
            set(b, at + 24, p.bitmaps + 512)
        },
        OpenedByUs,
    ),
    (
        "bitmap directory far away",
        Base::Rich,
        |b, _| {
            let at = extension(b);
            set(b, at + 24, FAR)
        },
        OpenedByUs,
    ),
    ("bitmap table not aligned", Base::Rich, |b, p| set(b, p.bitmaps, p.bitmap_table + 512), OpenedByUs),
    ("bitmap table far away", Base::Rich, |b, p| set(b, p.bitmaps, FAR), Counted),
    ("a bitmap table of 32 GiB", Base::Rich, |b, p| set32(b, p.bitmaps + 8, u32::MAX), OpenedByUs),
    ("reserved flags of a bitmap", Base::Rich, |b, p| set32(b, p.bitmaps + 12, 0x8000_0000), OpenedByUs),
    ("a bitmap of no known type", Base::Rich, |b, p| b[p.bitmaps as usize + 16] = 2, OpenedByUs),
    ("a bit for 256 bytes", Base::Rich, |b, p| b[p.bitmaps as usize + 17] = 8, OpenedByUs),
    ("a bit for 2^63 bytes", Base::Rich, |b, p| b[p.bitmaps as usize + 17] = 63, OpenedByUs),
    ("a bitmap without a name", Base::Rich, |b, p| b[p.bitmaps as usize + 19] = 0, OpenedByUs),
    ("a bitmap's name longer than the directory", Base::Rich, |b, p| b[p.bitmaps as usize + 18] = 255, OpenedByUs),
    ("a bitmap's extra data", Base::Rich, |b, p| set32(b, p.bitmaps + 20, 8), OpenedByUs),
    ("reserved bits in a bitmap's table", Base::Rich, |b, p| set_bits(b, p.bitmap_table, 4), OpenedByUs),
    ("bits far away", Base::Rich, |b, p| set(b, p.bitmap_table, FAR), Counted),
    ("bits that are all set, and have a cluster", Base::Rich, |b, p| set_bits(b, p.bitmap_table, 1), OpenedByUs),
    ("bits over the L1 table", Base::Rich, |b, p| set(b, p.bitmap_table, p.l1), OursAlone(true)),
];

pub(super) const LENGTHS: &[Row] = &[
    ("an empty file", Base::Rich, |b, _| b.clear(), Refused("not a qcow2 image")),
    ("a file of 60 bytes", Base::Rich, |b, _| b.truncate(60), Refused("")),
    ("a file of 100 bytes", Base::Rich, |b, _| b.truncate(100), Refused("")),
    ("a file of a header", Base::Rich, |b, _| b.truncate(512), Refused("")),
    ("a file of one cluster", Base::Rich, |b, _| b.truncate(4096), Refused("")),
    ("half of the file", Base::Rich, |b, _| b.truncate(b.len() / 2 / 512 * 512), OpenedByUs),
    ("all but the last cluster", Base::Rich, |b, _| b.truncate(b.len() - 4096), OpenedByUs),
    ("all but the last sector", Base::Rich, |b, _| b.truncate(b.len() - 512), OpenedByUs),
    ("noise behind the end", Base::Rich, |b, _| b.extend([0x5a; 20_000]), Mended),
];
