//! LVM2 as lvm2's own tools make it, on loop devices and without the device mapper. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

mod oracle;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use block::{Memory, ReadAt, WriteAt};
use volumes::{ContentKind, Layout, discover, probe};

const MIB: u64 = 1 << 20;

/// A disk with physical volumes on partitions, reached through loop devices.
struct Disk {
    path: PathBuf,
    loops: Vec<String>,
    _directory: tempfile::TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        for device in &self.loops {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
    }
}

impl Disk {
    /// A disk of partitions of these lengths in MiB; `None` where the test cannot run.
    fn new(test: &str, partitions: &[u64]) -> Option<Self> {
        if !oracle::installed(test, &["lvm", "losetup", "sfdisk"]) {
            return None;
        }
        let id = Command::new("id").arg("-u").output().unwrap();
        if id.stdout != b"0\n" {
            println!("SKIPPED {test}: it needs root, for loop devices");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "root is needed in CI");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let total: u64 = partitions.iter().sum::<u64>() + 2;
        let path = oracle::file(&directory, "disk", total * MIB);
        let mut script = "label: gpt\n".to_owned();
        for len in partitions {
            script.push_str(&format!("size={len}MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n"));
        }
        oracle::feed("sfdisk", &["-q", "FILE"], &path, &script);
        let mut loops = Vec::new();
        let mut offset = MIB;
        for len in partitions {
            let (at, limit) = (offset.to_string(), (len * MIB).to_string());
            let device = oracle::run("losetup", &["-f", "--show", "-o", &at, "--sizelimit", &limit, "FILE"], &path);
            loops.push(device.trim().to_owned());
            offset += len * MIB;
        }
        Some(Self { path, loops, _directory: directory })
    }

    fn lvm(&self, args: &[&str]) -> String {
        let filter: Vec<String> = self.loops.iter().map(|device| format!("\"a|^{device}$|\"")).collect();
        let config = format!(
            "devices{{ scan=\"/dev\" use_devicesfile=0 global_filter=[{},\"r|.*|\"] obtain_device_list_from_udev=0 \
             external_device_info_source=\"none\" }} activation{{ udev_sync=0 udev_rules=0 }} \
             backup{{ backup=0 archive=0 }} allocation{{ raid_stripe_all_devices=0 }}",
            filter.join(",")
        );
        let mut command = Command::new("lvm");
        command.arg(args[0]).args(["--driverloaded", "n", "--config", &config]).args(&args[1..]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "lvm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn vgcreate(&self, group: &str) {
        let loops: Vec<&str> = self.loops.iter().map(String::as_str).collect();
        self.lvm(&[&["pvcreate", "-y", "-ff"], &loops[..]].concat());
        self.lvm(&[&["vgcreate", "-s", "1M", group], &loops[..]].concat());
    }

    fn lvcreate(&self, args: &[&str]) {
        self.lvm(&[&["lvcreate", "-an", "-Zn", "-Wn", "-y"], args].concat());
    }

    /// Adds logical volumes as text: what cannot be made without the device mapper. LVM2 checks it as it takes it.
    fn add(&self, group: &str, volumes: &str) {
        let file = self.path.with_extension("vg");
        let name = file.to_str().unwrap();
        self.lvm(&["vgcfgbackup", "-f", name, group]);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("logical_volumes {"), "{text}");
        std::fs::write(&file, text.replacen("logical_volumes {", &format!("logical_volumes {{\n{volumes}"), 1))
            .unwrap();
        self.lvm(&["vgcfgrestore", "-y", "--force", "-f", name, group]);
    }

    fn device(&self) -> Arc<Memory> {
        for device in &self.loops {
            assert!(Command::new("blockdev").args(["--flushbufs", device]).status().unwrap().success());
        }
        oracle::device(&self.path)
    }

    /// Where on the disk each extent of a volume of linear segments is, in the words of `lvs`.
    fn extents(&self, name: &str) -> Vec<u64> {
        let text = self.lvm(&["lvs", "-a", "--segments", "--noheadings", "-o", "seg_pe_ranges", name]);
        let mut extents = Vec::new();
        for range in text.split_whitespace() {
            let (device, range) = range.rsplit_once(':').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let number = self.loops.iter().position(|found| found == device).unwrap();
            let start = self.lvm(&["pvs", "--units", "b", "--nosuffix", "--noheadings", "-o", "pe_start", device]);
            let before: u64 = discover(&self.device()).unwrap().volumes[number].start;
            let start = before + start.trim().parse::<u64>().unwrap();
            extents.extend((first.parse().unwrap()..=last.parse::<u64>().unwrap()).map(|extent| start + extent * MIB));
        }
        extents
    }
}

/// The metadata of a logical volume of one segment.
fn logical(name: &str, status: &str, extents: u64, segment: &str) -> String {
    let id = format!("{name:x<32}").replace('_', "z");
    let groups = [0..6, 6..10, 10..14, 14..18, 18..22, 22..26, 26..32].map(|range| id[range].to_owned());
    format!(
        "{name} {{\nid = \"{}\"\nstatus = [{status}]\nflags = []\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n\
         extent_count = {extents}\n{segment}\n}}\n}}\n",
        groups.join("-")
    )
}

const VISIBLE: &str = "\"READ\", \"WRITE\", \"VISIBLE\"";
const HIDDEN: &str = "\"READ\", \"WRITE\"";

fn linear(physical: u64, first: u64) -> String {
    format!("type = \"striped\"\nstripe_count = 1\nstripes = [\"pv{physical}\", {first}]")
}

/// A raid volume and what it consists of: a metadata extent and an image on each physical volume.
fn raid(name: &str, kind: &str, extents: u64, images: u64, image: u64, first: u64) -> String {
    let legs: Vec<_> = (0..images).map(|leg| format!("\"{name}_rmeta_{leg}\", \"{name}_rimage_{leg}\"")).collect();
    let more = if kind == "raid1" { "" } else { "stripe_size = 128\n" };
    let segment =
        format!("type = \"{kind}\"\ndevice_count = {images}\n{more}region_size = 1024\nraids = [{}]", legs.join(", "));
    let mut text = logical(name, VISIBLE, extents, &segment);
    for leg in 0..images {
        text.push_str(&logical(&format!("{name}_rmeta_{leg}"), HIDDEN, 1, &linear(leg, first)));
        text.push_str(&logical(&format!("{name}_rimage_{leg}"), HIDDEN, image, &linear(leg, first + 1)));
    }
    text
}

fn problem(layout: &Layout, name: &str) -> String {
    let logical = layout.volume_groups.iter().flat_map(|group| &group.logical_volumes);
    let found =
        logical.into_iter().find(|logical| logical.name == name).unwrap_or_else(|| panic!("there is no {name}"));
    found.problem.clone().unwrap_or_default()
}

fn volume<'a>(layout: &'a Layout, name: &str) -> &'a volumes::Volume {
    let found = layout.volumes.iter().find(|volume| volume.name == name);
    found.unwrap_or_else(|| panic!("there is no {name} in {layout:#?}"))
}

#[test]
fn extents_are_where_lvs_says() {
    let Some(disk) = Disk::new("extents_are_where_lvs_says", &[20, 20]) else { return };
    disk.vgcreate("my-vg");
    disk.lvcreate(&["-l", "4", "-n", "ro-ot", "my-vg", &disk.loops[1]]);
    disk.lvcreate(&["-l", "3", "-n", "swap", "my-vg", &disk.loops[1]]);
    disk.lvm(&["lvextend", "-l", "+3", "my-vg/ro-ot", &disk.loops[0]]);
    disk.lvm(&["lvextend", "-l", "+2", "my-vg/ro-ot", &disk.loops[1]]);

    let device = disk.device();
    let layout = discover(&device).unwrap();
    assert_eq!(layout.warnings, Vec::<String>::new());
    let [group] = layout.volume_groups.as_slice() else { panic!("{layout:#?}") };
    assert_eq!((group.name.as_str(), group.extent_size), ("my-vg", MIB));
    let uuid = disk.lvm(&["vgs", "--noheadings", "-o", "vg_uuid,vg_seqno"]);
    assert_eq!(uuid.split_whitespace().collect::<Vec<_>>(), [&group.uuid, &group.seqno.to_string()]);
    let members: Vec<_> = group.physical_volumes.iter().map(|member| member.volume.clone().unwrap()).collect();
    assert_eq!(members, ["gpt:1", "gpt:2"]);

    let root = volume(&layout, "lvm:my-vg/ro-ot");
    let logical = root.logical.as_ref().unwrap();
    assert_eq!(logical.mapper_name(), "my--vg-ro--ot");
    let extents = disk.extents("my-vg/ro-ot");
    assert_eq!(extents.len(), 9);
    assert_eq!((root.len, root.start), (9 * MIB, extents[0]));

    // What is written to the volume is where lvs says, and nothing else has changed.
    let before = block::read_vec(&device, 0, device.len()).unwrap();
    let bytes: Vec<u8> = (0..9 * MIB).map(|at| (at / 4096 + at * 7) as u8).collect();
    let opened = root.device(device.clone()).unwrap();
    opened.write_at(0, &bytes).unwrap();
    let mut expected = before;
    for (number, place) in extents.iter().enumerate() {
        expected[*place as usize..][..MIB as usize].copy_from_slice(&bytes[number * MIB as usize..][..MIB as usize]);
    }
    assert!(block::read_vec(&device, 0, device.len()).unwrap() == expected);
    let mut read = vec![0; 3 * MIB as usize];
    root.device_read_only(device.clone()).unwrap().read_at(3 * MIB + 77, &mut read).unwrap();
    assert!(read == bytes[3 * MIB as usize + 77..][..read.len()]);
    // A range over a border is discarded on both sides of it.
    opened.discard(3 * MIB, 2 * MIB).unwrap();
    assert_eq!(block::read_vec(&device, extents[3], MIB).unwrap(), vec![0; MIB as usize]);
    assert_eq!(block::read_vec(&device, extents[4], MIB).unwrap(), vec![0; MIB as usize]);
    assert_eq!(opened.extent_at(3 * MIB + 5, 3 * MIB).unwrap().len, MIB - 5, "an extent ends where the segment does");

    assert_eq!(
        probe(&volume(&layout, "lvm:my-vg/swap").device(device.clone()).unwrap()).unwrap().kind,
        ContentKind::Unknown
    );
    let swap = volume(&layout, "lvm:my-vg/swap").device(device).unwrap();
    swap.write_at(4086, b"SWAPSPACE2").unwrap();
    assert_eq!(probe(&swap).unwrap().kind, ContentKind::Swap);
}

#[test]
fn stripes_hold_what_a_striped_device_does() {
    let Some(disk) = Disk::new("stripes_hold_what_a_striped_device_does", &[20, 20]) else { return };
    disk.vgcreate("vg");
    disk.lvcreate(&["-l", "6", "-i", "2", "-I", "64", "-n", "striped", "vg"]);
    let device = disk.device();
    let layout = discover(&device).unwrap();
    let striped = volume(&layout, "lvm:vg/striped").device(device.clone()).unwrap();
    assert_eq!(striped.len(), 6 * MIB);
    let bytes: Vec<u8> = (0..6 * MIB).map(|at| (at >> 16) as u8 + 1).collect();
    striped.write_at(0, &bytes).unwrap();
    // Stripes of 64 KiB, in turn on both physical volumes.
    let places = disk.extents("vg/striped");
    let areas = [places[0], places[3]];
    for chunk in 0..96 {
        let place = areas[chunk % 2] + (chunk as u64 / 2) * 65536;
        assert_eq!(block::read_vec(&device, place, 65536).unwrap(), vec![chunk as u8 + 1; 65536], "chunk {chunk}");
    }
}

#[test]
fn a_mirror_is_written_on_all_legs_once_it_is_in_sync() {
    let Some(disk) = Disk::new("a_mirror_is_written_on_all_legs_once_it_is_in_sync", &[20, 20]) else { return };
    disk.vgcreate("vg");
    disk.lvcreate(&["-l", "1", "-n", "other", "vg", &disk.loops[0]]);
    disk.add("vg", &raid("mirror", "raid1", 4, 2, 4, 5));
    let device = disk.device();
    let layout = discover(&device).unwrap();
    assert_eq!(problem(&layout, "mirror"), "it is raid1, and its leg 0 is not known to be in sync");
    assert_eq!(layout.volumes.len(), 3);

    // What the kernel writes there when all legs are alike.
    let metas = [disk.extents("vg/mirror_rmeta_0")[0], disk.extents("vg/mirror_rmeta_1")[0]];
    for (position, meta) in (0_u32..).zip(metas) {
        let mut superblock = b"DmRd\0\0\0\0\x02\0\0\0".to_vec();
        superblock.extend(position.to_le_bytes());
        superblock.extend(7_u64.to_le_bytes());
        superblock.extend(0_u64.to_le_bytes());
        superblock.extend([0xff; 16]);
        superblock.extend(1_u32.to_le_bytes());
        device.write_at(meta, &superblock).unwrap();
    }
    let layout = discover(&device).unwrap();
    let mirror = volume(&layout, "lvm:vg/mirror").device(device.clone()).unwrap();
    mirror.write_at(MIB + 9, b"on both").unwrap();
    for leg in ["vg/mirror_rimage_0", "vg/mirror_rimage_1"] {
        assert_eq!(block::read_vec(&device, disk.extents(leg)[1] + 9, 7).unwrap(), b"on both");
    }
    // One leg that failed, or is behind.
    for (at, value) in [(24, 2), (16, 8), (32, 0)] {
        let held = block::read_vec(&device, metas[1] + at, 1).unwrap();
        device.write_at(metas[1] + at, &[value]).unwrap();
        assert_eq!(
            problem(&discover(&device).unwrap(), "mirror"),
            "it is raid1, and its leg 1 is not known to be in sync"
        );
        device.write_at(metas[1] + at, &held).unwrap();
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let Some(disk) = Disk::new("what_is_not_supported_is_refused_by_name", &[30, 30, 30, 30]) else { return };
    disk.vgcreate("vg");
    disk.lvcreate(&["-l", "2", "-n", "plain", "vg"]);
    disk.lvcreate(&["-l", "2", "-n", "read", "-pr", "vg"]);
    disk.lvcreate(&["-l", "2", "-n", "origin", "vg"]);
    disk.add("vg", &raid("five", "raid5_ls", 4, 3, 2, 15));
    let thin = "type = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = 0\ndevice_id = 1";
    let pool = "type = \"thin-pool\"\nmetadata = \"pool_tmeta\"\npool = \"pool_tdata\"\ntransaction_id = 1\n\
                chunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1";
    let snapshot = "type = \"snapshot\"\nchunk_size = 8\norigin = \"origin\"\ncow_store = \"cow\"";
    disk.add(
        "vg",
        &[
            logical("thin", VISIBLE, 9, thin),
            logical("pool", VISIBLE, 2, pool),
            logical("pool_tmeta", HIDDEN, 2, &linear(3, 20)),
            logical("pool_tdata", HIDDEN, 2, &linear(3, 22)),
            logical("cow", VISIBLE, 1, &linear(3, 25)),
            logical("snapshot0", VISIBLE, 2, snapshot),
        ]
        .concat(),
    );
    let layout = discover(&disk.device()).unwrap();
    for (name, kind) in [("five", "raid5_ls"), ("thin", "thin"), ("pool", "thin-pool"), ("snapshot0", "snapshot")] {
        assert_eq!(problem(&layout, name), format!("its segment 1 is of the type {kind}, which is not supported"));
    }
    assert_eq!(problem(&layout, "origin"), "snapshot0 is a snapshot that needs it, which is not supported");
    assert_eq!(problem(&layout, "read"), "read is read-only");
    assert_eq!(problem(&layout, "plain"), "");
    let names: Vec<_> = layout.volumes.iter().skip(4).map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["lvm:vg/plain"]);

    // Without the first physical volume: what lies on the others can still be used.
    let device = disk.device();
    let start = layout.volumes[0].start;
    disk.lvcreate(&["-l", "2", "-n", "other", "vg", &disk.loops[3]]);
    let device_after = disk.device();
    drop(device);
    device_after.write_zeroes(start, 4096).unwrap();
    let layout = discover(&device_after).unwrap();
    assert!(problem(&layout, "plain").ends_with(" is missing"), "{}", problem(&layout, "plain"));
    assert_eq!(problem(&layout, "other"), "");
    assert_eq!(layout.volume_groups[0].physical_volumes[0].volume, None);
}

#[test]
fn the_newest_of_several_copies_counts() {
    let Some(disk) = Disk::new("the_newest_of_several_copies_counts", &[8, 8]) else { return };
    let loops: Vec<&str> = disk.loops.iter().map(String::as_str).collect();
    disk.lvm(&[&["pvcreate", "-y", "-ff", "--metadatacopies", "2", "--metadatasize", "8k"], &loops[..]].concat());
    disk.lvm(&[&["vgcreate", "-s", "1M", "vg"], &loops[..]].concat());
    disk.lvcreate(&["-l", "1", "-n", "one", "vg"]);
    // The texts go round in the ring of their area several times.
    for round in 0..24 {
        let layout = discover(&disk.device()).unwrap();
        assert_eq!(layout.warnings, Vec::<String>::new(), "round {round}");
        assert_eq!(layout.volumes.len(), 3);
        disk.lvm(&[
            "vgchange",
            if round % 2 == 0 { "--addtag" } else { "--deltag" },
            &"t".repeat(20 * (1 + round / 2)),
            "vg",
        ]);
    }
    let device = disk.device();
    let layout = discover(&device).unwrap();
    let newest = layout.volume_groups[0].seqno;
    // One copy is damaged: another is used, and it is said.
    device.write_at(layout.volumes[0].start + 4096 + 40, &[1]).unwrap();
    let damaged = discover(&device).unwrap();
    assert_eq!(damaged.volume_groups[0].seqno, newest);
    assert!(
        damaged.warnings[0].starts_with("gpt:1: corrupt LVM2 metadata area at byte 4096: "),
        "{:?}",
        damaged.warnings
    );
    // The label, too, has a checksum.
    device.write_at(layout.volumes[1].start + 512 + 40, b"x").unwrap();
    let damaged = discover(&device).unwrap();
    assert!(
        damaged.warnings.iter().any(|warning| warning.contains("the label's checksum is")),
        "{:?}",
        damaged.warnings
    );
    assert!(problem(&damaged, "one").is_empty() || problem(&damaged, "one").ends_with(" is missing"));
}

/// Random bytes that are the same in every run.
fn numbers() -> impl FnMut(&mut [u8]) {
    let mut state = 7_u64;
    move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    }
}

#[test]
fn renewed_uuids_are_ones_that_lvm_takes() {
    let Some(disk) = Disk::new("renewed_uuids_are_ones_that_lvm_takes", &[20, 20]) else { return };
    disk.vgcreate("vg");
    disk.lvcreate(&["-l", "6", "-i", "2", "-I", "64", "-n", "striped", "vg"]);
    disk.lvcreate(&["-l", "3", "-n", "root", "vg", &disk.loops[1]]);
    disk.lvm(&["vgchange", "--addtag", "site-17", "vg"]);
    let report = |columns: &str, what: &str| disk.lvm(&[what, "--noheadings", "-o", columns]);
    let before = [report("lv_name,lv_uuid,lv_size,seg_pe_ranges", "lvs"), report("vg_name,vg_size,vg_tags", "vgs")];

    let device = disk.device();
    let mut random = numbers();
    let layout = discover(&device).unwrap();
    let (group, seqno) = (layout.volume_groups[0].uuid.clone(), layout.volume_groups[0].seqno);
    let opened = volume(&layout, "lvm:vg/striped").device(device.clone()).unwrap();
    opened.write_at(123_456, b"what is in it").unwrap();
    let renewed = volumes::renew_lvm_uuids(&device, &layout, &mut random).unwrap();
    assert_eq!(renewed.iter().map(|id| id.of.as_str()).collect::<Vec<_>>(), ["lvm:vg", "gpt:1", "gpt:2"]);
    assert_eq!(renewed[0].old, group);

    // By ourselves, then by LVM2.
    let layout = discover(&device).unwrap();
    assert_eq!(layout.warnings, Vec::<String>::new());
    let found = &layout.volume_groups[0];
    assert_eq!((&found.uuid, found.seqno, found.description.as_str()), (&renewed[0].new, seqno + 1, volumes::SEALED));
    let mut read = [0; 13];
    let opened = volume(&layout, "lvm:vg/striped").device_read_only(device.clone()).unwrap();
    opened.read_at(123_456, &mut read).unwrap();
    assert_eq!(&read, b"what is in it");
    let bytes = block::read_vec(&device, 0, device.len()).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for old in &renewed {
        for spelt in [old.old.clone(), old.old.replace('-', "")] {
            assert!(!text.contains(&spelt), "{spelt} of {}", old.of);
        }
    }
    std::fs::write(&disk.path, &bytes).unwrap();
    disk.device();
    disk.lvm(&["vgck", "vg"]);
    let after = [report("lv_name,lv_uuid,lv_size,seg_pe_ranges", "lvs"), report("vg_name,vg_size,vg_tags", "vgs")];
    assert_eq!(after, before);
    assert_eq!(report("vg_uuid", "vgs").trim(), renewed[0].new);
    let physical = report("pv_uuid", "pvs");
    assert_eq!(physical.split_whitespace().collect::<Vec<_>>(), [&renewed[1].new, &renewed[2].new]);

    // What was renewed stays as it is, until LVM2 changes the group.
    assert_eq!(volumes::renew_lvm_uuids(&device, &layout, &mut random).unwrap(), []);
    disk.lvcreate(&["-l", "1", "-n", "more", "vg"]);
    let device = disk.device();
    let layout = discover(&device).unwrap();
    assert_eq!(volumes::renew_lvm_uuids(&device, &layout, &mut random).unwrap().len(), 3);
}

#[test]
fn uuids_of_a_group_that_is_not_whole_stay() {
    let Some(disk) = Disk::new("uuids_of_a_group_that_is_not_whole_stay", &[20, 20]) else { return };
    disk.vgcreate("vg");
    disk.lvcreate(&["-l", "2", "-n", "one", "vg"]);
    let refused = |device: &Arc<Memory>| {
        let before = block::read_vec(device, 0, device.len()).unwrap();
        let layout = discover(device).unwrap();
        let error = volumes::renew_lvm_uuids(device, &layout, &mut numbers()).unwrap_err().to_string();
        assert!(block::read_vec(device, 0, device.len()).unwrap() == before, "{error}, but something was written");
        error
    };
    let device = disk.device();
    let layout = discover(&device).unwrap();
    device.write_at(layout.volumes[0].start + 4096 + 40, &[1]).unwrap();
    let error = refused(&device);
    assert!(error.starts_with("LVM2 cannot be changed: gpt:1: corrupt LVM2 metadata area at byte 4096: "), "{error}");
    let device = disk.device();
    device.write_zeroes(layout.volumes[0].start, 4096).unwrap();
    let error = refused(&device);
    assert!(error.ends_with(" is missing"), "{error}");
    disk.lvm(&["vgexport", "vg"]);
    assert_eq!(refused(&disk.device()), "LVM2 cannot be changed: group vg: the group is exported");
}
