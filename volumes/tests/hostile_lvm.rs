//! LVM2 metadata that were damaged or made to do harm, with right checksums: no panic, no hang, nothing outside the disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::sync::Arc;

use block::{Memory, ReadAt, WriteAt};
use proptest::prelude::*;
use volumes::{Layout, discover};

const AREA: u64 = 4096;
const AREA_LEN: u64 = 1 << 20;

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

/// A disk that is one physical volume with this text.
fn disk(text: &[u8]) -> Memory {
    let disk = Memory::new(16 << 20);
    let mut label = b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001".to_vec();
    label.extend(b"abcdefghijklmnopqrstuvwxyz012345");
    for number in [16 << 20, 2 << 20, 0, 0, 0, AREA, AREA_LEN, 0, 0_u64] {
        label.extend(number.to_le_bytes());
    }
    label.resize(512, 0);
    let sum = crc(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut header = b"\0\0\0\0 LVM2 x[5A%r0N*>\x01\0\0\0".to_vec();
    for number in [AREA, AREA_LEN, 512, text.len() as u64] {
        header.extend(number.to_le_bytes());
    }
    header.extend(crc(text).to_le_bytes());
    header.resize(512, 0);
    let sum = crc(&header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    disk.write_at(512, &label).unwrap();
    disk.write_at(AREA, &header).unwrap();
    disk.write_at(AREA + 512, text).unwrap();
    disk
}

fn text(extent_size: &str, physical: &str, segment: &str) -> String {
    format!(
        "vg {{\nid = \"aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa\"\nseqno = 3\nformat = \"lvm2\"\nstatus = [\"READ\"]\n\
         extent_size = {extent_size}\nphysical_volumes {{\npv0 {{\nid = \"abcdef-ghij-klmn-opqr-stuv-wxyz-012345\"\n\
         {physical}\n}}\n}}\nlogical_volumes {{\nroot {{\nid = \"bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb\"\n\
         status = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
         {segment}\n}}\n}}\n}}\n}}\ncontents = \"Text Format Volume Group\"\nversion = 1\n"
    )
}

const EXTENT: &str = "128";
const PHYSICAL: &str = "pe_start = 4096\npe_count = 200";
const SEGMENT: &str = "extent_count = 4\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 0]";

/// All that is found can be read to its end, and says that it lies on the disk.
fn look(disk: Memory) -> Layout {
    let disk = Arc::new(disk);
    let layout = discover(&disk).unwrap();
    for volume in layout.volumes.iter().filter(|volume| volume.logical.is_some()) {
        let device = volume.device(disk.clone()).unwrap();
        assert_eq!(device.len(), volume.len);
        device.read_at(volume.len - 1, &mut [0]).unwrap();
        let mut at = 0;
        while at < device.len() {
            let extent = device.extent_at(at, device.len() - at).unwrap();
            assert!(extent.len > 0);
            at += extent.len;
        }
    }
    renew(disk, &layout);
    layout
}

/// New UUIDs are given to what is sound, and all else stays as it is.
fn renew(disk: Arc<Memory>, layout: &Layout) {
    let before = disk.to_vec();
    let mut state = 1_u64;
    let mut random = |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    };
    match volumes::renew_lvm_uuids(&disk, layout, &mut random) {
        Ok(renewed) => {
            let after = discover(&disk).unwrap();
            assert_eq!(after.warnings, layout.warnings);
            let places = |layout: &Layout| -> Vec<_> {
                layout.volumes.iter().map(|volume| (volume.name.clone(), volume.start, volume.len)).collect()
            };
            assert_eq!(places(&after), places(layout));
            for id in &renewed {
                assert!(after.volume_groups.iter().all(|group| group.uuid != id.old), "{id:?}");
            }
        }
        Err(error) => assert!(disk.to_vec() == before, "{error}, but something was written"),
    }
}

fn refused(text: &str) -> String {
    let layout = look(disk(text.as_bytes()));
    assert_eq!(layout.volumes.len(), 1, "{text}");
    let logical = layout.volume_groups.iter().flat_map(|group| &group.logical_volumes);
    let problems = logical.filter_map(|logical| logical.problem.clone());
    problems.chain(layout.warnings.clone()).collect::<Vec<_>>().join("; ")
}

#[test]
fn right_metadata_are_read() {
    let layout = look(disk(text(EXTENT, PHYSICAL, SEGMENT).as_bytes()));
    assert_eq!(layout.warnings, Vec::<String>::new());
    assert_eq!((layout.volumes[1].start, layout.volumes[1].len), (2 << 20, 4 << 16));
    let sound = Arc::new(disk(text(EXTENT, PHYSICAL, SEGMENT).as_bytes()));
    assert_eq!(
        volumes::renew_lvm_uuids(&sound, &discover(&sound).unwrap(), &mut |bytes| bytes.fill(7)).unwrap().len(),
        2
    );
}

#[test]
fn numbers_that_lead_off_the_disk_are_refused() {
    let huge = "9223372036854775807";
    let cases = [
        (text("0", PHYSICAL, SEGMENT), "extent_size is 0"),
        (text("-1", PHYSICAL, SEGMENT), "extent_size is -1, expected 0 or more"),
        (text(huge, PHYSICAL, SEGMENT), "extent_size is 9223372036854775807"),
        (text(EXTENT, &PHYSICAL.replace("200", huge), SEGMENT), "the extents of disk do not lie on it"),
        (text(EXTENT, &PHYSICAL.replace("4096", huge), SEGMENT), "the extents of disk do not lie on it"),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace(", 0]", ", 197]")), "its extents from 197 on do not lie on pv0"),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace(", 0]", &format!(", {huge}]"))), "do not lie on pv0"),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace("count = 4", &format!("count = {huge}"))), "it is too long"),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace("pv0", "pv1")), "it lies on pv1, which is no physical volume"),
        (
            text(EXTENT, PHYSICAL, &SEGMENT.replace("stripe_count = 1", "stripe_count = 2")),
            "it has 1 stripes for 4 extents",
        ),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace("count = 4", "count = 0")), "expected some from 0 on"),
        (text(EXTENT, PHYSICAL, &SEGMENT.replace("striped\"", "striped")), "byte"),
    ];
    for (text, expected) in cases {
        let found = refused(&text);
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}

#[test]
fn extents_that_two_share_are_refused() {
    let two =
        "extent_count = 4\ntype = \"striped\"\nstripe_count = 2\nstripe_size = 16\nstripes = [\"pv0\", 0, \"pv0\", 1]";
    assert!(refused(&text(EXTENT, PHYSICAL, two)).contains("root and root share an extent"));
    let small = two.replace("16", "1").replace("1]", "5]");
    assert!(refused(&text(EXTENT, PHYSICAL, &small)).contains("its stripes are of 1 sectors"));
}

#[test]
fn many_of_anything_take_no_time() {
    let mut volumes = String::new();
    for number in 0..4000 {
        volumes.push_str(&format!("v{number} {{id=\"{number:0>32}\" status=[] segment_count=1 segment1 {{start_extent=0 extent_count=1 type=\"thin\" origin=\"v0\"}}}}\n"));
    }
    let whole = text(EXTENT, PHYSICAL, SEGMENT).replace("logical_volumes {", &format!("logical_volumes {{\n{volumes}"));
    assert!(whole.len() < AREA_LEN as usize - 512, "{}", whole.len());
    assert_eq!(look(disk(whole.as_bytes())).volumes.len(), 2);
    let many = format!("segment_count = {}\n", i64::MAX);
    look(disk(text(EXTENT, PHYSICAL, SEGMENT).replace("segment_count = 1\n", &many).as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_metadata_do_no_harm(changes in prop::collection::vec((0_usize..700, "[0-9{}\\[\\]=\",a-z_\n]{0,3}"), 1..4)) {
        let mut text = text(EXTENT, PHYSICAL, SEGMENT);
        for (at, with) in changes {
            let at = at % text.len();
            text.replace_range(at..(at + with.len()).min(text.len()), &with);
        }
        look(disk(text.as_bytes()));
    }

    #[test]
    fn changed_headers_do_no_harm(at in prop_oneof![512_u64..700, 4096_u64..4300], byte: u8, fix: bool) {
        let disk = disk(text(EXTENT, PHYSICAL, SEGMENT).as_bytes());
        disk.write_at(at, &[byte]).unwrap();
        if fix {
            let label = block::read_vec(&disk, 512, 512).unwrap();
            disk.write_at(512 + 16, &crc(&label[20..]).to_le_bytes()).unwrap();
            let header = block::read_vec(&disk, AREA, 512).unwrap();
            disk.write_at(AREA, &crc(&header[4..]).to_le_bytes()).unwrap();
        }
        look(disk);
    }
}
