//! What volumes hold, made by the tools of each format, and judged by blkid.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

mod oracle;

use oracle::{device, file, installed, run};
use volumes::{ContentKind as K, Table, discover, probe};

/// What blkid says: type, UUID, label.
fn blkid(path: &std::path::Path) -> (String, Option<String>, Option<String>) {
    let text = run("blkid", &["-p", "-o", "export", "FILE"], path);
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.replace('\\', ""))
    };
    (value("TYPE").unwrap_or_default(), value("UUID"), value("LABEL"))
}

/// Makes a file, and compares kind, UUID and label with blkid's.
fn check(test: &str, tools: &[&str], mib: u64, make: &[&str], kind: K, blkid_type: &str) {
    if !installed(test, &[&["blkid"], tools].concat()) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "volume", mib << 20);
    run(tools[0], make, &path);
    let content = probe(&device(&path)).unwrap();
    assert_eq!(content.kind, kind);
    assert_eq!(blkid(&path), (blkid_type.to_owned(), content.uuid, content.label));
    // A file system straight on the disk: no table, one volume.
    let layout = discover(&device(&path)).unwrap();
    assert_eq!((layout.table, layout.volumes.len()), (Table::None, 1), "{:?}", layout.warnings);
    assert_eq!((layout.volumes[0].name.as_str(), layout.volumes[0].len), ("disk", mib << 20));
}

#[test]
fn ext2_ext3_ext4() {
    for (tool, kind) in [("ext2", K::Ext2), ("ext3", K::Ext3), ("ext4", K::Ext4)] {
        let make = ["-q", "-t", tool, "-L", "root fs", "FILE"];
        check("ext2_ext3_ext4", &["mke2fs"], 8, &make, kind, tool);
    }
}

#[test]
fn external_journal() {
    check("external_journal", &["mke2fs"], 8, &["-q", "-O", "journal_dev", "FILE"], K::ExtJournal, "jbd");
}

#[test]
fn xfs() {
    check("xfs", &["mkfs.xfs"], 320, &["-q", "-L", "cloudroot", "FILE"], K::Xfs, "xfs");
}

#[test]
fn btrfs() {
    check("btrfs", &["mkfs.btrfs"], 128, &["-q", "-L", "fedora", "FILE"], K::Btrfs, "btrfs");
}

#[test]
fn swap() {
    check("swap", &["mkswap"], 4, &["-L", "swap1", "FILE"], K::Swap, "swap");
    check("swap", &["mkswap"], 4, &["-p", "16384", "FILE"], K::Swap, "swap");
}

#[test]
fn vfat_of_all_three_widths() {
    for (bits, mib) in [("12", 2), ("16", 32), ("32", 64)] {
        let make = ["-F", bits, "-n", "ESP", "FILE"];
        check("vfat_of_all_three_widths", &["mkfs.vfat"], mib, &make, K::Vfat, "vfat");
    }
    check("vfat_of_all_three_widths", &["mkfs.vfat"], 8, &["FILE"], K::Vfat, "vfat");
}

#[test]
fn vfat_that_pretends_to_be_partitioned() {
    let make = ["--mbr=y", "-n", "STICK", "FILE"];
    check("vfat_that_pretends_to_be_partitioned", &["mkfs.vfat"], 64, &make, K::Vfat, "vfat");
}

#[test]
fn ntfs() {
    let test = "ntfs";
    if !installed(test, &["mkntfs", "blkid"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "volume", 16 << 20);
    run("mkntfs", &["-F", "-Q", "-q", "-s", "512", "FILE"], &path);
    let content = probe(&device(&path)).unwrap();
    let (kind, uuid, _) = blkid(&path);
    assert_eq!((content.kind, "ntfs"), (K::Ntfs, kind.as_str()));
    assert_eq!(content.uuid, uuid);
}

#[test]
fn exfat() {
    check("exfat", &["mkfs.exfat"], 16, &["FILE"], K::ExFat, "exfat");
}

#[test]
fn f2fs() {
    check("f2fs", &["mkfs.f2fs"], 64, &["-q", "-l", "flash", "FILE"], K::F2fs, "f2fs");
}

#[test]
fn luks() {
    for (kind, name) in [(K::Luks1, "luks1"), (K::Luks2, "luks2")] {
        if !installed("luks", &["cryptsetup", "blkid"]) {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let path = file(&temp, "volume", 32 << 20);
        let mut args =
            vec!["luksFormat", "-q", "--type", name, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        if kind == K::Luks2 {
            args.extend(["--label", "crypt"]);
        }
        args.push("FILE");
        oracle::feed("cryptsetup", &args, &path, "secret");
        let content = probe(&device(&path)).unwrap();
        assert_eq!(content.kind, kind);
        assert_eq!(blkid(&path), ("crypto_LUKS".to_owned(), content.uuid, content.label));
    }
}

#[test]
fn squashfs_and_erofs_and_iso9660() {
    let test = "squashfs_and_erofs_and_iso9660";
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), vec![7; 200_000]).unwrap();
    let tree = tree.to_str().unwrap().to_owned();
    if installed(test, &["mksquashfs", "blkid"]) {
        let path = temp.path().join("squashfs");
        run("mksquashfs", &[&tree, "FILE", "-quiet", "-no-progress"], &path);
        assert_eq!(probe(&device(&path)).unwrap().kind, K::Squashfs);
    }
    if installed(test, &["mkfs.erofs", "blkid"]) {
        let path = temp.path().join("erofs");
        run("mkfs.erofs", &["FILE", &tree], &path);
        let content = probe(&device(&path)).unwrap();
        assert_eq!((content.kind, content.uuid), (K::Erofs, blkid(&path).1));
    }
    if installed(test, &["genisoimage", "blkid"]) {
        let path = temp.path().join("iso");
        run("genisoimage", &["-quiet", "-V", "CIDATA", "-o", "FILE", &tree], &path);
        let content = probe(&device(&path)).unwrap();
        assert_eq!((content.kind, content.label), (K::Iso9660, blkid(&path).2));
    }
}

#[test]
fn nothing_is_unknown() {
    assert_eq!(probe(&block::Memory::new(0)).unwrap().kind, K::Unknown);
    assert_eq!(probe(&block::Memory::new(1 << 20)).unwrap().kind, K::Unknown);
    let layout = discover(&block::Memory::new(0)).unwrap();
    assert_eq!((layout.table, layout.volumes[0].len), (Table::None, 0));
}

/// Formats whose tools need a kernel or are rare: the bytes as their documentation has them.
#[test]
fn magic_numbers_by_hand() {
    let cases: [(usize, &[u8], K); 8] = [
        (3, b"-FVE-FS-", K::BitLocker),
        (4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", K::Bcachefs),
        (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", K::Bcache),
        (65536 + 1372, b"\x19\x01\x54\x19", K::Ufs),
        (131_072 + 4096, b"\x0c\xb1\xba\0\0\0\0\0", K::ZfsMember),
        (4086, b"S1SUSPEND\0", K::SuspendedSwap),
        (65536 + 52, b"ReIsEr2Fs", K::Reiserfs),
        (32, b"NXSB", K::Apfs),
    ];
    for (offset, magic, kind) in cases {
        let mut bytes = vec![0; 1 << 20];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        assert_eq!(probe(&block::Memory::from(bytes)).unwrap().kind, kind);
    }
}

/// As `pvcreate` writes it: the label in the second sector.
#[test]
fn lvm2_physical_volume() {
    let mut bytes = vec![0; 1 << 20];
    bytes[512..520].copy_from_slice(b"LABELONE");
    bytes[512 + 20..512 + 24].copy_from_slice(&32_u32.to_le_bytes());
    bytes[512 + 24..512 + 32].copy_from_slice(b"LVM2 001");
    bytes[512 + 32..512 + 64].copy_from_slice(b"wZ1WpGGSJ5e2xdrNEkQkt9qFmZcBtPNY");
    let content = probe(&block::Memory::from(bytes)).unwrap();
    assert_eq!(content.kind, K::Lvm2Member);
    assert_eq!(content.uuid.as_deref(), Some("wZ1WpG-GSJ5-e2xd-rNEk-Qkt9-qFmZ-cBtPNY"));
}

/// mdadm's superblocks, of each version at its own place, with an ext4 file system's magic number showing through.
#[test]
fn raid_members_come_before_what_shows_through() {
    let len: usize = 8 << 20;
    let sectors = (len / 512) as u64;
    let one = |sector: u64| {
        let mut superblock = vec![0; 256];
        superblock[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        superblock[4] = 1;
        superblock[16..32].copy_from_slice(&[0x11; 16]);
        superblock[32..38].copy_from_slice(b"host:0");
        superblock[144..152].copy_from_slice(&sector.to_le_bytes());
        (sector, superblock)
    };
    let mut zero = vec![0; 64];
    zero[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    zero[8] = 90;
    zero[20..24].copy_from_slice(&0x1111_1111_u32.to_le_bytes());
    zero[52..64].copy_from_slice(&[0x11; 12]);
    let cases = [one(0), one(8), one((sectors - 16) & !7), ((sectors & !127) - 128, zero)];
    for (sector, superblock) in cases {
        let mut bytes = vec![0; len];
        bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
        let at = sector as usize * 512;
        bytes[at..at + superblock.len()].copy_from_slice(&superblock);
        let content = probe(&block::Memory::from(bytes)).unwrap();
        assert_eq!(content.kind, K::LinuxRaid);
        assert_eq!(content.uuid.as_deref(), Some("11111111-1111-1111-1111-111111111111"));
    }
}
