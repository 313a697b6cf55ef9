//! The read-only check beside e2fsck: both find nothing, or both find something.

use std::process::Command;
use std::sync::Arc;

use block::Memory;
use ext4fs::FileSystem;

use crate::common::{LAYOUTS, check, has_tool, mke2fs, open, pattern, scratch};

#[test]
fn the_check_agrees_with_e2fsck() {
    if !has_tool("the_check_agrees_with_e2fsck", "mke2fs") {
        return;
    }
    let folder = scratch();
    let damages = [
        "set_inode_field /d/file links_count 7",
        "set_inode_field /d links_count 9",
        "clear_inode /d/file",
        "freei /d/file",
        "freeb 600 4",
        "setb 9000 3",
        "unlink /d/file",
        "set_bg 0 free_blocks_count 5",
        "link /d /again",
        "set_inode_field /d/file blocks 99",
        "set_inode_field /d/file size 100",
        "set_inode_field /d size 100000",
        "set_inode_field /d/file dtime 1600000000",
        "set_inode_field /short size 3",
        "set_inode_field /long size 90",
        "set_inode_field /d/file file_acl 700",
        "set_bg 0 used_dirs_count 9",
        "set_inode_field /d/file flags 0x1000",
    ];
    for (number, (name, arguments)) in LAYOUTS.iter().enumerate() {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (device, mut fs) = open(&path);
        fs.create_dir(b"/d").unwrap();
        fs.write(b"/d/file", &pattern(500_000, 1)).unwrap();
        fs.hard_link(b"/d/file", b"/d/other").unwrap();
        fs.symlink(b"d/file", b"/short").unwrap();
        fs.symlink(&b"d/../".repeat(30), b"/long").unwrap();
        check(&mut fs, &device, &path, name);
        let problems = |bytes: Vec<u8>| match FileSystem::open_read_only(Arc::new(Memory::from(bytes))) {
            Ok(fs) => fs.check().unwrap(),
            Err(ext4fs::Error::Corrupt(problem)) => vec![problem],
            Err(error) => panic!("{error}"),
        };
        let sound = std::fs::read(&path).unwrap();
        assert_eq!(problems(sound.clone()), [], "{name}");
        // Each damage on a third of the layouts.
        for damage in damages.iter().skip(number % 3).step_by(3) {
            std::fs::write(&path, &sound).unwrap();
            Command::new("debugfs").args(["-w", "-R", damage]).arg(&path).output().unwrap();
            let judged = Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap().status.code() == Some(0);
            let found = problems(std::fs::read(&path).unwrap());
            assert_eq!(found.is_empty(), judged, "{name}, {damage}: we find {found:?}");
        }
    }
}
