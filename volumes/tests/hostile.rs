//! Tables that were damaged or made to do harm: no panic, no hang, no large allocation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use block::{Memory, WriteAt};
use proptest::prelude::*;
use volumes::{Table, discover, probe};

const LEN: usize = 4 << 20;

fn mbr_entry(kind: u8, start: u32, len: u32) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&len.to_le_bytes());
    entry
}

fn record(bytes: &mut [u8], sector: usize, entries: &[[u8; 16]]) {
    let sector = &mut bytes[sector * 512..][..512];
    for (at, entry) in entries.iter().enumerate() {
        sector[446 + at * 16..][..16].copy_from_slice(entry);
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
}

/// A GUID partition table with right checksums for 512-byte sectors.
fn gpt(count: u32, size: u32, entries: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    record(&mut bytes, 0, &[mbr_entry(0xee, 1, u32::MAX)]);
    for (at, (first, last)) in entries.iter().enumerate() {
        let entry = &mut bytes[1024 + at * 128..][..128];
        entry[..16].fill(7);
        entry[16..32].fill(at as u8);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    let array = u64::from(count) * u64::from(size);
    let crc = bytes.get(1024..).and_then(|b| b.get(..array as usize)).map_or(0, crc32fast::hash);
    let header = &mut bytes[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[8..12].copy_from_slice(&0x10000_u32.to_le_bytes());
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[24..32].copy_from_slice(&1_u64.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&count.to_le_bytes());
    header[84..88].copy_from_slice(&size.to_le_bytes());
    header[88..92].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn right_checksums_do_not_make_absurd_counts_right() {
    let good = discover(&Memory::from(gpt(128, 128, &[(2048, 4095)]))).unwrap();
    assert_eq!((good.table, good.volumes.len()), (Table::Gpt, 1));
    for (count, size) in
        [(u32::MAX, 128), (u32::MAX, u32::MAX), (1 << 20, 128), (4096, 4096), (128, 0), (128, 127), (1, 192)]
    {
        let error = discover(&Memory::from(gpt(count, size, &[]))).unwrap_err().to_string();
        assert!(error.contains("OfPartitionEntr"), "{count} of {size}: {error}");
    }
    assert_eq!(discover(&Memory::from(gpt(0, 128, &[]))).unwrap().volumes, []);
}

#[test]
fn partitions_that_are_not_on_the_disk_are_left_out() {
    let all =
        [(0, 10), (2048, 2047), (4096, u64::MAX), (u64::MAX, u64::MAX), (1 << 55, 1 << 56), (100, 1 << 20), (34, 34)];
    let layout = discover(&Memory::from(gpt(128, 128, &all))).unwrap();
    assert_eq!(layout.volumes.len(), 1);
    assert_eq!((layout.volumes[0].name.as_str(), layout.volumes[0].len), ("gpt:7", 512));
    assert_eq!(layout.warnings.len(), 6);
    let overlapping = discover(&Memory::from(gpt(128, 128, &[(100, 4000), (200, 300), (350, 360)]))).unwrap();
    assert_eq!(overlapping.warnings, ["gpt:1 and gpt:2 overlap", "gpt:1 and gpt:3 overlap"]);
}

#[test]
fn chains_that_turn_back_end() {
    let mut bytes = vec![0; LEN];
    record(&mut bytes, 0, &[mbr_entry(5, 64, 4096)]);
    // To itself.
    record(&mut bytes, 64, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 0, 64)]);
    let layout = discover(&Memory::from(bytes.clone())).unwrap();
    assert_eq!((layout.volumes.len(), layout.warnings.len()), (1, 1), "{:?}", layout.warnings);
    // In a circle of two.
    record(&mut bytes, 64, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 64, 64)]);
    record(&mut bytes, 128, &[mbr_entry(0x83, 1, 8), mbr_entry(0x0f, 0, 64)]);
    let layout = discover(&Memory::from(bytes.clone())).unwrap();
    assert_eq!((layout.volumes.len(), layout.warnings.len()), (2, 1), "{:?}", layout.warnings);
    // Out of the extended partition, and to where no record is.
    record(&mut bytes, 64, &[mbr_entry(0x83, 1, 8), mbr_entry(5, u32::MAX, 64)]);
    assert_eq!(discover(&Memory::from(bytes.clone())).unwrap().warnings.len(), 1);
    record(&mut bytes, 64, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 256, 64)]);
    assert_eq!(discover(&Memory::from(bytes)).unwrap().warnings.len(), 1);
}

#[test]
fn chains_without_an_end_are_cut() {
    let mut bytes = vec![0; LEN];
    record(&mut bytes, 0, &[mbr_entry(5, 64, 8000)]);
    for at in 0..7000 {
        record(&mut bytes, 64 + at, &[mbr_entry(0x83, 1, 1), mbr_entry(5, at as u32 + 1, 1)]);
    }
    let layout = discover(&Memory::from(bytes)).unwrap();
    assert_eq!(layout.volumes.len(), 256);
    assert!(layout.warnings[0].contains("has no end"), "{:?}", layout.warnings);
}

#[test]
fn partitions_longer_than_the_disk_are_cut_short() {
    let mut bytes = vec![0; LEN];
    record(&mut bytes, 0, &[mbr_entry(0x83, 2048, u32::MAX), mbr_entry(0x83, u32::MAX, u32::MAX)]);
    let layout = discover(&Memory::from(bytes)).unwrap();
    assert_eq!(layout.volumes.len(), 1);
    assert_eq!(layout.volumes[0].len, LEN as u64 - (1 << 20));
    assert_eq!(layout.warnings.len(), 2);
}

fn base() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(gpt(128, 128, &[(2048, 4095), (4096, 8000)])),
        Just({
            let mut bytes = vec![0; LEN];
            record(&mut bytes, 0, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 64, 4096), mbr_entry(0x85, 5000, 500)]);
            record(&mut bytes, 64, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 64, 64)]);
            record(&mut bytes, 128, &[mbr_entry(0x83, 1, 8), mbr_entry(5, 200, 64)]);
            record(&mut bytes, 264, &[mbr_entry(0x83, 1, 8)]);
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the tables say, each volume lies on the disk and can be looked at.
    #[test]
    fn mutated_tables_give_volumes_on_the_disk(
        mut bytes in base(),
        changes in proptest::collection::vec((0_usize..160 * 512, any::<u8>()), 0..24),
        mend in any::<bool>(),
        len in 0_usize..LEN,
        cut in any::<bool>(),
    ) {
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if mend && bytes[512..520] == *b"EFI PART" {
            // Right checksums let the damage through to what lies behind them.
            let crc = crc32fast::hash(&bytes[1024..1024 + 128 * 128]);
            bytes[512 + 88..512 + 92].copy_from_slice(&crc.to_le_bytes());
            bytes[512 + 16..512 + 20].fill(0);
            let crc = crc32fast::hash(&bytes[512..512 + 92]);
            bytes[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
        }
        if cut {
            bytes.truncate(len);
        }
        let disk = std::sync::Arc::new(Memory::from(bytes));
        if let Ok(layout) = discover(&disk) {
            for volume in &layout.volumes {
                let device = volume.device(disk.clone()).unwrap();
                prop_assert_eq!(device.len(), volume.len);
                probe(&device).unwrap();
            }
        }
    }

    /// Boot sectors and superblocks of all kinds with any bytes behind the magic number.
    #[test]
    fn probe_survives_any_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..9000),
        magic in prop_oneof![
            Just((0_usize, &b"\xeb\x3c\x90mkfs.fat\0\x02\x01"[..])),
            Just((0, &b"LUKS\xba\xbe\0\x02"[..])),
            Just((512, &b"LABELONE"[..])),
            Just((1080, &b"\x53\xef"[..])),
            Just((4086, &b"SWAPSPACE2"[..])),
            Just((0, &b"\xfc\x4e\x2b\xa9\x01\0\0\0"[..])),
            Just((1024, &b"\x10\x20\xf5\xf2"[..])),
        ],
        fat in any::<bool>(),
    ) {
        if let Some(place) = bytes.get_mut(magic.0..magic.0 + magic.1.len()) {
            place.copy_from_slice(magic.1);
        }
        if fat && bytes.len() > 512 {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            bytes[21] = 0xf8;
            bytes[16] = 2;
        }
        let device = Memory::from(bytes);
        probe(&device).unwrap();
        let _ = discover(&device);
        let _ = device.flush();
    }
}
