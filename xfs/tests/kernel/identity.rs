//! Another UUID, and what is free.

use std::os::unix::fs::FileExt;
use std::process::Command;

use xfs::LogState;

use crate::common::{ALL, EL7, EL9, Image, assert_same, noise, populate_a_little, run, tree_of, tree_of_kernel};
use crate::dirty::{open, replayed_alike, synced};

/// With another UUID the log is the file system's own: for the kernel that goes on, and for us after it.
#[test]
fn a_new_uuid_is_the_logs_too() {
    for options in [format!("{EL7} -b size=1024 -l su=64k"), ALL.to_owned()] {
        let Some(mut image) = Image::new("a_new_uuid_is_the_logs_too", &options) else { return };
        let before = image.mounted(|top| {
            populate_a_little(top);
            tree_of_kernel(top)
        });
        for number in 1..3 {
            let mut fs = open(&image);
            fs.set_uuid([number; 16]).unwrap();
            fs.flush().unwrap();
            assert!(matches!(fs.set_uuid([0; 16]), Err(xfs::Error::Invalid(_))));
            drop(fs);
            image.repair_finds_nothing(&options);
            assert_eq!(image.open().uuid(), [number; 16]);
            assert_same(&tree_of(&image.open()), &before, &options);
        }
        let blkid = Command::new("blkid").args(["-o", "value", "-s", "UUID"]).arg(&image.path).output();
        assert_eq!(blkid.unwrap().stdout, b"02020202-0202-0202-0202-020202020202\n");
        image.mounted(|top| {
            std::fs::write(top.join("more"), noise(100_000, 1)).unwrap();
            synced(top);
            run("xfs_io", &["-x", "-c", "shutdown -f", top.to_str().unwrap()]);
        });
        let state = replayed_alike(&mut image, &options);
        assert!(matches!(state, LogState::Replayed { transactions: 1.., .. }), "{options}: {state:?}");
    }
}

#[test]
fn free_extents_are_those_of_the_groups() {
    let Some(mut image) = Image::new("free_extents_are_those_of_the_groups", EL9) else { return };
    image.mounted(populate_a_little);
    let output = Command::new("xfs_db").args(["-r", "-c", "sb 0", "-c", "p fdblocks"]).arg(&image.path).output();
    let words = String::from_utf8(output.unwrap().stdout).unwrap();
    let counted: u64 = words.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let mut fs = open(&image);
    let free = fs.free_extents().unwrap();
    assert!(free.windows(2).all(|pair| pair[0].end < pair[1].start));
    assert_eq!(free.iter().map(|run| run.end - run.start).sum::<u64>(), counted * 4096);
    // What is free can be overwritten.
    let file = std::fs::OpenOptions::new().write(true).open(&image.path).unwrap();
    for run in &free {
        file.write_all_at(&noise(((run.end - run.start) as usize).min(1 << 20), 9), run.start).unwrap();
    }
    image.repair_finds_nothing("free extents that were overwritten");
}

fn uuid_by_xfs_db(image: &Image) -> String {
    let output = Command::new("xfs_db").args(["-r", "-f", "-c", "uuid"]).arg(&image.path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_changed_uuid_is_taken_by_kernel_and_xfs_repair() {
    for (name, options) in [("EL7", EL7), ("EL9", EL9), ("ALL", ALL), ("sectors", "-s size=4096 -m reflink=1")] {
        let Some(mut image) = Image::new("a_changed_uuid_is_taken_by_kernel_and_xfs_repair", options) else { return };
        image.mounted(populate_a_little);
        let before = tree_of(&image.open());
        // Twice: what metadata are stamped with stays the first.
        for byte in [0x5a, 0xc3] {
            let mut fs = open(&image);
            fs.set_uuid([byte; 16]).unwrap();
            assert_eq!(fs.uuid(), [byte; 16]);
            // What is written afterwards is stamped as all else is.
            let root = fs.root();
            let directory = fs.read_dir(root).unwrap().into_iter().find(|entry| entry.name == b"many");
            if let Some(entry) = directory {
                fs.set_mode(entry.inode, 0o750).unwrap();
            }
            fs.flush().unwrap();
            drop(fs);
            image.repair_finds_nothing(name);
            let hex = format!("{byte:02x}");
            let spelt = [4, 2, 2, 2, 6].map(|count| hex.repeat(count)).join("-");
            assert_eq!(uuid_by_xfs_db(&image), format!("UUID = {spelt}"), "{name}");
        }
        let fs = image.open();
        assert_eq!(fs.uuid(), [0xc3; 16]);
        let after = tree_of(&fs);
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "{name}");
        assert_same(&image.mounted(tree_of_kernel), &after, name);

        // The kernel writes, and is cut off with its log full; it recovers from that by itself.
        image.mounted(|top| {
            for number in 0..200 {
                std::fs::write(top.join(format!("new-{number}")), noise(5000, number)).unwrap();
            }
            let done = Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(top).status().unwrap();
            assert!(done.success());
        });
        image.mounted(|top| assert!(top.join("new-199").exists(), "{name}"));
        image.repair_finds_nothing(name);
        assert_eq!(image.open().uuid(), [0xc3; 16]);
    }
}
