//! Partition tables that sfdisk and sgdisk wrote, read by us, and judged by what sfdisk reads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

mod oracle;

use block::{Access, HostFile, ReadAt, WriteAt};
use oracle::{device, feed, file, installed, run, try_run};
use volumes::{Layout, Table, discover};

/// What `sfdisk --dump` says of each partition: start and size in sectors, and the rest of the line.
fn dump(path: &std::path::Path) -> Vec<(u32, u64, u64, String)> {
    let text = run("sfdisk", &["--dump", "FILE"], path);
    let number = |line: &str, key: &str| -> u64 {
        let rest = &line[line.find(key).unwrap() + key.len()..];
        rest.trim_start().split(',').next().unwrap().trim().parse().unwrap()
    };
    text.lines()
        .filter(|line| line.contains("start="))
        .map(|line| {
            let name = line.split(" :").next().unwrap();
            let digits = name.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
            (digits.parse().unwrap(), number(line, "start="), number(line, "size="), line.to_ascii_lowercase())
        })
        .collect()
}

fn compare(layout: &Layout, prefix: &str, expected: &[(u32, u64, u64, String)]) {
    let found: Vec<_> = layout.volumes.iter().map(|v| (v.name.clone(), v.start / 512, v.len / 512)).collect();
    let wanted: Vec<_> = expected.iter().map(|(n, start, size, _)| (format!("{prefix}:{n}"), *start, *size)).collect();
    assert_eq!(found, wanted);
}

const GPT_SCRIPT: &str = "label: gpt\n\
    size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=\"bios\"\n\
    size=4MiB, type=U, name=\"EFI System\"\n\
    size=8MiB, type=L, name=\"wurzel-\u{e4}\u{4e2d}\"\n";

#[test]
fn gpt_is_read_as_sfdisk_reads_it() {
    if !installed("gpt_is_read_as_sfdisk_reads_it", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, GPT_SCRIPT);
    let layout = discover(&device(&path)).unwrap();
    assert_eq!((layout.table, &layout.warnings), (Table::Gpt, &Vec::new()));
    let expected = dump(&path);
    assert_eq!(expected.len(), 3);
    compare(&layout, "gpt", &expected);
    for (volume, (.., line)) in layout.volumes.iter().zip(&expected) {
        assert!(line.contains(&format!("uuid={}", volume.part_uuid.as_ref().unwrap())), "{line}");
        assert!(line.contains(&format!("type={}", volume.type_guid.unwrap())), "{line}");
    }
    assert_eq!(layout.volumes[1].part_label.as_deref(), Some("EFI System"));
    assert_eq!(layout.volumes[2].part_label.as_deref(), Some("wurzel-\u{e4}\u{4e2d}"));
}

#[test]
fn gpt_backup_stands_in_for_a_damaged_primary() {
    if !installed("gpt_backup_stands_in_for_a_damaged_primary", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, GPT_SCRIPT);
    let disk = device(&path);
    let good = discover(&disk).unwrap();
    // In the header's checksum, in the array of entries, in the signature, and all of it.
    for (offset, len) in [(512 + 16, 4), (1024 + 40, 1), (512, 8), (512, 33 * 512)] {
        let disk = device(&path);
        disk.write_at(offset, &vec![0x5a; len]).unwrap();
        let layout = discover(&disk).unwrap();
        assert_eq!((layout.table, &layout.volumes), (Table::Gpt, &good.volumes), "damage at {offset}");
        assert!(layout.warnings[0].contains("its backup is used"), "{:?}", layout.warnings);

        disk.write_at(disk.len() - 512 + 16, &[0x5a; 4]).unwrap();
        let error = discover(&disk).unwrap_err().to_string();
        assert!(error.contains("backup: at byte") && error.contains("HeaderCRC32"), "{error}");
    }
    // A disk that was made longer has its backup where the header says, not at its end.
    let mut bytes = disk.to_vec();
    bytes[1024 + 40] ^= 1;
    bytes.resize(40 << 20, 0);
    let layout = discover(&block::Memory::from(bytes)).unwrap();
    assert_eq!(layout.volumes, good.volumes);
}

#[test]
fn gpt_of_4096_byte_sectors_is_found() {
    if !installed("gpt_of_4096_byte_sectors_is_found", &["sfdisk", "losetup"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 64 << 20);
    // sfdisk takes the size of a sector from the device: a loop device, which only root can make.
    let device_name = match try_run("losetup", &["-f", "--show", "-b", "4096", "FILE"], &path) {
        Ok(name) => name.trim().to_owned(),
        Err(error) => {
            println!("SKIPPED gpt_of_4096_byte_sectors_is_found: no loop device: {error}");
            return;
        }
    };
    let script = "label: gpt\nstart=256, size=1024\nsize=512\n";
    feed("sfdisk", &["-q", "--no-reread", "--no-tell-kernel", &device_name], &path, script);
    run("losetup", &["-d", &device_name], &path);
    let layout = discover(&device(&path)).unwrap();
    assert_eq!((layout.table, &layout.warnings), (Table::Gpt, &Vec::new()));
    let found: Vec<_> = layout.volumes.iter().map(|volume| (volume.start, volume.len)).collect();
    assert_eq!(found, [(256 << 12, 1024 << 12), (1280 << 12, 512 << 12)]);
}

#[test]
fn gpt_of_sgdisk_with_gaps_and_a_hybrid_mbr() {
    if !installed("gpt_of_sgdisk_with_gaps_and_a_hybrid_mbr", &["sgdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 32 << 20);
    // As Debian's cloud images number them: 1, 14, 15.
    run("sgdisk", &["-n14:2048:+1M", "-t14:ef02", "-n15:0:+4M", "-t15:ef00", "-n1:0:0", "-t1:8303", "FILE"], &path);
    let layout = discover(&device(&path)).unwrap();
    let names: Vec<_> = layout.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["gpt:1", "gpt:14", "gpt:15"]);
    assert!(layout.warnings.is_empty(), "{:?}", layout.warnings);

    run("sgdisk", &["-h15", "FILE"], &path);
    let hybrid = discover(&device(&path)).unwrap();
    assert_eq!((hybrid.table, &hybrid.volumes), (Table::Gpt, &layout.volumes));
    assert!(hybrid.warnings[0].contains("hybrid"), "{:?}", hybrid.warnings);
}

#[test]
fn mbr_with_logical_partitions_is_read_as_sfdisk_reads_it() {
    if !installed("mbr_with_logical_partitions_is_read_as_sfdisk_reads_it", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 64 << 20);
    let script = "label: dos\nlabel-id: 0x1234abcd\nsize=8MiB, type=83, bootable\nsize=40MiB, type=5\n\
                  size=4MiB, type=82\nsize=6MiB, type=83\nsize=8MiB, type=8e\nsize=4MiB, type=c\n";
    feed("sfdisk", &["-q", "FILE"], &path, script);
    let layout = discover(&device(&path)).unwrap();
    assert_eq!((layout.table, &layout.warnings), (Table::Mbr, &Vec::new()));
    let expected: Vec<_> = dump(&path).into_iter().filter(|(_, _, _, line)| !line.contains("type=5")).collect();
    assert!(expected.len() >= 5, "{expected:?}");
    compare(&layout, "mbr", &expected);
    assert_eq!(layout.volumes[0].part_uuid.as_deref(), Some("1234abcd-01"));
    assert!(layout.volumes.iter().any(|volume| volume.part_uuid.as_deref() == Some("1234abcd-05")));
    assert_eq!(layout.volumes[0].type_byte, Some(0x83));
}

#[test]
fn a_wiped_gpt_does_not_hide_the_mbr() {
    if !installed("a_wiped_gpt_does_not_hide_the_mbr", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, GPT_SCRIPT);
    let gpt = std::fs::read(&path).unwrap();
    feed("sfdisk", &["-q", "FILE"], &path, "label: dos\nsize=8MiB, type=83\n");
    let disk = device(&path);
    assert_eq!(discover(&disk).unwrap().table, Table::Mbr);
    // Now with what is left of the old one where it was.
    disk.write_at(512, &gpt[512..34 * 512]).unwrap();
    let layout = discover(&disk).unwrap();
    assert_eq!((layout.table, layout.volumes.len()), (Table::Mbr, 1));
    assert!(layout.warnings[0].contains("remains"), "{:?}", layout.warnings);
}

/// Fills what is said to be unused, and asserts that the table is what it was, for sfdisk and for us.
fn fill_unused(path: &std::path::Path) -> Vec<std::ops::Range<u64>> {
    let before = (run("sfdisk", &["--dump", "FILE"], path), discover(&device(path)).unwrap());
    let disk = HostFile::open(path, Access::ReadWrite).unwrap();
    for range in &before.1.unused {
        disk.write_at(range.start, &vec![0xaa; (range.end - range.start) as usize]).unwrap();
    }
    drop(disk);
    let after = (run("sfdisk", &["--dump", "FILE"], path), discover(&device(path)).unwrap());
    assert_eq!(before, after);
    run("sfdisk", &["--verify", "FILE"], path);
    before.1.unused
}

#[test]
fn what_is_unused_can_be_overwritten() {
    if !installed("what_is_unused_can_be_overwritten", &["sfdisk"]) {
        return;
    }
    const MIB: u64 = 1 << 20;
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "gpt", 32 << 20);
    feed(
        "sfdisk",
        &["-q", "FILE"],
        &path,
        "label: gpt\nstart=2MiB, size=1MiB\nstart=8MiB, size=1MiB\nstart=5MiB, size=3MiB\n",
    );
    // The backup of the table takes the last 33 sectors.
    assert_eq!(fill_unused(&path), [3 * MIB..5 * MIB, 9 * MIB..32 * MIB - 33 * 512]);

    let path = file(&temp, "mbr", 32 << 20);
    let script = "label: dos\nstart=2MiB, size=1MiB, type=83\nstart=4MiB, size=16MiB, type=5\n\
                  start=5MiB, size=1MiB, type=83\nstart=9MiB, size=1MiB, type=83\n";
    feed("sfdisk", &["-q", "FILE"], &path, script);
    assert_eq!(fill_unused(&path), [3 * MIB..4 * MIB, 20 * MIB..32 * MIB]);

    let path = file(&temp, "full", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, "label: dos\nstart=1MiB\n");
    assert!(fill_unused(&path).is_empty());
}

#[test]
fn nothing_is_unused_where_the_table_is_odd() {
    if !installed("nothing_is_unused_where_the_table_is_odd", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let script = "label: gpt\nstart=2MiB, size=1MiB\nstart=8MiB, size=1MiB\n";
    // A damaged backup, and a damaged primary.
    for (name, damage) in [("backup", (32 << 20) - 512), ("primary", 512)] {
        let path = file(&temp, name, 32 << 20);
        feed("sfdisk", &["-q", "FILE"], &path, script);
        assert_eq!(discover(&device(&path)).unwrap().unused.len(), 2);
        HostFile::open(&path, Access::ReadWrite).unwrap().write_at(damage, b"EFI FART").unwrap();
        assert!(discover(&device(&path)).unwrap().unused.is_empty(), "{name}");
    }
    let path = file(&temp, "dynamic", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, "label: dos\nstart=2MiB, size=1MiB, type=42\n");
    assert!(discover(&device(&path)).unwrap().unused.is_empty());
    // No table at all.
    let path = file(&temp, "none", 4 << 20);
    assert!(discover(&device(&path)).unwrap().unused.is_empty());
}

#[test]
fn renewed_guids_are_taken_by_sgdisk_and_sfdisk() {
    if !installed("renewed_guids_are_taken_by_sgdisk_and_sfdisk", &["sfdisk", "sgdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for (script, prefix) in [(GPT_SCRIPT, "gpt"), ("label: dos\nsize=4MiB, type=83\nsize=8MiB, type=83\n", "mbr")] {
        let path = file(&temp, prefix, 32 << 20);
        feed("sfdisk", &["-q", "FILE"], &path, script);
        let before = discover(&device(&path)).unwrap();
        let lines_before = dump(&path);
        let disk = HostFile::open(&path, Access::ReadWrite).unwrap();
        let mut byte = 1_u8;
        let mut random = |bytes: &mut [u8]| {
            bytes.iter_mut().for_each(|one| (*one, byte) = (byte, byte.wrapping_mul(5).wrapping_add(3)))
        };
        let renewed = volumes::renew_table_ids(&disk, &before, &mut random).unwrap();
        disk.flush().unwrap();
        drop(disk);

        let after = discover(&device(&path)).unwrap();
        assert_eq!((after.table, &after.warnings), (before.table, &Vec::new()));
        let text = run("sfdisk", &["--dump", "FILE"], &path).to_ascii_lowercase();
        assert_eq!(renewed[0].of, "table");
        assert!(
            text.contains(&format!("label-id: {}", renewed[0].new))
                || text.contains(&format!("label-id: 0x{}", renewed[0].new)),
            "{text}"
        );
        assert_eq!(renewed.len(), 1 + before.volumes.len());
        for ((old, new), id) in before.volumes.iter().zip(&after.volumes).zip(&renewed[1..]) {
            assert_eq!(
                (&id.of, Some(&id.old), Some(&id.new)),
                (&old.name, old.part_uuid.as_ref(), new.part_uuid.as_ref())
            );
            assert_ne!(id.old, id.new);
            assert_eq!(id.old.len(), id.new.len());
            let same = volumes::Volume { part_uuid: old.part_uuid.clone(), ..new.clone() };
            assert_eq!(&same, old, "all else is as it was");
        }
        for (line, old) in dump(&path).iter().zip(&lines_before) {
            assert_eq!((line.0, line.1, line.2), (old.0, old.1, old.2));
        }
        if prefix == "gpt" {
            let said = run("sgdisk", &["-v", "FILE"], &path);
            assert!(said.contains("No problems found"), "{said}");
        }
    }
}

#[test]
fn guids_of_a_damaged_table_stay() {
    if !installed("guids_of_a_damaged_table_stay", &["sfdisk"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let path = file(&temp, "disk", 32 << 20);
    feed("sfdisk", &["-q", "FILE"], &path, GPT_SCRIPT);
    for (at, copy) in [(512 + 60, "primary"), ((32 << 20) - 512 + 60, "backup")] {
        let disk = device(&path);
        disk.write_at(at, &[0xa5; 4]).unwrap();
        let layout = discover(&disk).unwrap();
        let before = block::read_vec(&disk, 0, disk.len()).unwrap();
        let error = volumes::renew_table_ids(&disk, &layout, &mut |_| ()).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("the partition table cannot be changed: its {copy} copy is damaged")),
            "{error}"
        );
        assert!(block::read_vec(&disk, 0, disk.len()).unwrap() == before);
    }
}
