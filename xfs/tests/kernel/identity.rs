//! A UUID that was changed: the kernel, xfs_repair and xfs_admin go on from it.

use std::process::Command;
use std::sync::Arc;

use block::{Access, HostFile};
use xfs::{FileSystem, OpenOptions};

use crate::common::{ALL, EL7, EL9, Image, assert_same, noise, populate, tree_of, tree_of_kernel};

fn uuid_by_xfs_db(image: &Image) -> String {
    let output = Command::new("xfs_db").args(["-r", "-f", "-c", "uuid"]).arg(&image.path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_changed_uuid_is_taken_by_kernel_and_xfs_repair() {
    for (name, options) in [("EL7", EL7), ("EL9", EL9), ("ALL", ALL), ("sectors", "-s size=4096 -m reflink=1")] {
        let Some(mut image) = Image::new("a_changed_uuid_is_taken_by_kernel_and_xfs_repair", options) else { return };
        image.mounted(populate);
        let before = tree_of(&image.open());
        // Twice: what metadata are stamped with stays the first.
        for byte in [0x5a, 0xc3] {
            let device = Arc::new(HostFile::open(&image.path, Access::ReadWrite).unwrap());
            let mut fs = FileSystem::open(device, &OpenOptions::default()).unwrap();
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
