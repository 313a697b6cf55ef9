//! A guest whose file systems are on logical volumes, found by all the names that fstab may call them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::process::Command;
use std::sync::Arc;

use block::{Memory, WriteAt};
use guest::{Guest, OpenOptions};

const MIB: u64 = 1 << 20;
const AREA: u64 = 4096;
const GROUP_ID: &str = "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

/// An ext4 file system of 4 MiB that holds these files.
fn ext4(files: &[(&str, &str)]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    for (path, contents) in files {
        let path = tree.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }
    for name in ["data", "dm", "log", "thin"] {
        std::fs::create_dir_all(tree.join(name)).unwrap();
    }
    let image = directory.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(4 * MIB).unwrap();
    let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap());
    let mut command = Command::new("mke2fs");
    command.env("PATH", path).args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(&tree).arg(&image);
    match command.status() {
        Ok(status) => assert!(status.success()),
        Err(_) => {
            println!("SKIPPED lvm: mke2fs is not installed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "mke2fs has to be installed in CI");
            return None;
        }
    }
    Some(std::fs::read(image).unwrap())
}

fn logical(name: &str, letter: &str, segment: &str) -> String {
    let id = GROUP_ID.replace('a', letter);
    format!(
        "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {{\n\
         start_extent = 0\nextent_count = 4\n{segment}\n}}\n}}\n"
    )
}

/// A disk that is one physical volume of a group `my-vg`.
fn disk(volumes: &[(&str, &[u8])]) -> Memory {
    let disk = Memory::new(64 << 20);
    let mut text = format!(
        "my-vg {{\nid = \"{GROUP_ID}\"\nseqno = 3\nstatus = [\"READ\"]\nextent_size = 2048\nphysical_volumes {{\npv0 {{\n\
         id = \"abcdef-ghij-klmn-opqr-stuv-wxyz-012345\"\npe_start = 2048\npe_count = 60\n}}\n}}\nlogical_volumes {{\n"
    );
    for (number, (name, bytes)) in (0..).zip(volumes) {
        let letter = char::from(b'b' + number as u8).to_string();
        // From the disk's end: that they lie in order is not what finds them.
        let extent = 50 - 4 * number;
        text.push_str(&logical(
            name,
            &letter,
            &format!("type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", {extent}]"),
        ));
        disk.write_at(MIB + extent * MIB, bytes).unwrap();
    }
    text.push_str(&logical("thin", "t", "type = \"thin\"\nthin_pool = \"pool\""));
    text.push_str("}\n}\ncontents = \"Text Format Volume Group\"\nversion = 1\n");
    let mut label = b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001".to_vec();
    label.extend(b"abcdefghijklmnopqrstuvwxyz012345");
    for number in [64 << 20, MIB, 0, 0, 0, AREA, MIB - AREA, 0, 0] {
        label.extend(number.to_le_bytes());
    }
    label.resize(512, 0);
    let sum = crc(&label[20..]);
    label[16..20].copy_from_slice(&sum.to_le_bytes());
    let mut header = b"\0\0\0\0 LVM2 x[5A%r0N*>\x01\0\0\0".to_vec();
    for number in [AREA, MIB - AREA, 512, text.len() as u64] {
        header.extend(number.to_le_bytes());
    }
    header.extend(crc(text.as_bytes()).to_le_bytes());
    header.resize(512, 0);
    let sum = crc(&header[4..]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
    disk.write_at(512, &label).unwrap();
    disk.write_at(AREA, &header).unwrap();
    disk.write_at(AREA + 512, text.as_bytes()).unwrap();
    disk
}

#[test]
fn logical_volumes_are_mounted_by_all_their_names() {
    let plain = |letter: &str| GROUP_ID.replace('a', letter).replace('-', "");
    let fstab = format!(
        "/dev/mapper/my--vg-ro--ot / ext4 defaults 0 0\n/dev/my-vg/data /data ext4 defaults 0 0\n\
         /dev/disk/by-id/dm-uuid-LVM-{}{} /dm ext4 defaults 0 0\n/dev/disk/by-id/dm-name-my--vg-log /log ext4 defaults 0 0\n\
         /dev/mapper/my--vg-swap swap swap defaults 0 0\n/dev/my-vg/thin /thin ext4 defaults 0 0\n\
         /dev/mapper/luks-1 /thin ext4 defaults 0 0\n",
        plain("a"),
        plain("d"),
    );
    let files = [("/etc/fstab", fstab.as_str()), ("/etc/os-release", "ID=lvm\n")];
    let Some(root) = ext4(&files) else { return };
    let mut swap = vec![0; 8192];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let [data, dm, log] = ["data", "dm", "log"].map(|name| ext4(&[("is", name)]).unwrap());
    let disk = Arc::new(disk(&[("ro-ot", &root), ("data", &data), ("dm-uuid", &dm), ("log", &log), ("swap", &swap)]));

    let mut guest = Guest::open(disk.clone(), &OpenOptions::default()).unwrap();
    let mounts: Vec<_> = guest.mounts().iter().map(|mount| (mount.path.clone(), mount.device.clone())).collect();
    let expected = [
        ("/", "lvm:my-vg/ro-ot"),
        ("/dm", "lvm:my-vg/dm-uuid"),
        ("/log", "lvm:my-vg/log"),
        ("/data", "lvm:my-vg/data"),
    ];
    assert_eq!(mounts, expected.map(|(path, device)| (path.as_bytes().to_vec(), device.to_owned())));
    assert_eq!(guest.read(b"/dm/is").unwrap(), b"dm");
    let unmounted: Vec<_> = guest.unmounted().iter().map(|unmounted| unmounted.reason.as_str()).collect();
    assert_eq!(
        unmounted,
        [
            "lvm:my-vg/thin: its segment 1 is of the type thin, which is not supported",
            "no LVM2 volume of this disk has that name, and what else the device mapper makes is not supported",
        ]
    );
    let swap = guest.volumes().iter().find(|volume| volume.name == "lvm:my-vg/swap").unwrap();
    assert_eq!(swap.content, "swap");
    assert!(guest.warnings()[0].starts_with("lvm:my-vg/thin is left as it is: it is a logical volume: "));

    guest.write(b"/data/new", b"written").unwrap();
    guest.flush().unwrap();
    let options = OpenOptions { root: Some("lvm:my-vg/ro-ot".to_owned()), ..OpenOptions::default() };
    assert_eq!(Guest::open(disk, &options).unwrap().read(b"/data/new").unwrap(), b"written");
}
