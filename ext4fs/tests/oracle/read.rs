//! Reading what mke2fs copied from a folder, on every kind of file system.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use block::MappedFile;
use ext4fs::{Error, FileSystem, OpenOptions};

use crate::common::{
    LAYOUTS, check, compare_with_folder, e2fsck, has_tool, mke2fs, open, pattern, scratch, with_kernel_mount,
};

fn fill(folder: &Path) {
    for len in [0, 1, 59, 60, 61, 128, 159, 160, 161, 1023, 1024, 1025, 4095, 4096, 4097, 13_000, 300_000, 2_000_000] {
        std::fs::write(folder.join(format!("{len} bytes")), pattern(len, len as u32)).unwrap();
    }
    for len in [1, 59, 60, 61, 500, 1000] {
        std::os::unix::fs::symlink("x".repeat(len), folder.join(format!("link of {len}"))).unwrap();
    }
    std::fs::hard_link(folder.join("4097 bytes"), folder.join("another name")).unwrap();
    std::fs::create_dir_all(folder.join("a/b/c/d")).unwrap();
    std::fs::write(folder.join("a/b/c/short"), "short").unwrap();
    std::fs::create_dir(folder.join("few")).unwrap();
    for n in 0..6 {
        std::fs::write(folder.join(format!("few/some name {n}")), "x").unwrap();
    }
    std::fs::create_dir(folder.join("many")).unwrap();
    for n in 0..700 {
        let path = folder.join("many").join(format!("a name that is long enough to fill blocks, number {n}"));
        std::fs::write(path, n.to_string()).unwrap();
    }
    // No hole at the end: mke2fs 1.47.0 forgets it where there is inline data.
    let sparse = std::fs::File::create(folder.join("sparse")).unwrap();
    for n in 0..40u32 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &pattern(5000, n), u64::from(n) * 300_000 + 77).unwrap();
    }
    let _ = Command::new("setfattr").args(["-n", "user.name", "-v", "value"]).arg(folder.join("a")).status();
}

fn open_mapped(path: &Path) -> FileSystem {
    FileSystem::open_read_only(Arc::new(MappedFile::open(path).unwrap())).unwrap()
}

#[test]
fn everything_reads_as_it_was() {
    if !has_tool("read", "mke2fs") {
        return;
    }
    let (folder, source) = (scratch(), scratch());
    fill(source.path());
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 48, Some(source.path()));
        compare_with_folder(&open_mapped(&path), source.path(), name);
    }
}

#[test]
fn rare_features_are_read_and_written() {
    if !has_tool("read-only features", "mke2fs") {
        return;
    }
    let (folder, source) = (scratch(), scratch());
    fill(source.path());
    for (feature, arguments) in [
        ("16 KiB blocks", "-t ext4 -b 16384"),
        ("64 KiB blocks", "-t ext4 -b 65536 -I 512"),
        ("bigalloc", "-t ext4 -b 4096 -O bigalloc"),
        ("ea_inode", "-t ext4 -b 4096 -O ea_inode"),
        ("encrypt", "-t ext4 -b 4096 -O encrypt"),
        ("casefold", "-t ext4 -b 4096 -O casefold"),
        ("quota", "-t ext4 -b 4096 -O quota"),
        ("project", "-t ext4 -b 4096 -O project"),
        ("verity", "-t ext4 -b 4096 -O verity"),
        ("mmp", "-t ext4 -b 4096 -O mmp"),
        ("inline_data", "-t ext4 -b 4096 -O inline_data"),
        ("inline_data", "-t ext4 -b 4096 -I 1024 -O inline_data"),
    ] {
        let path = mke2fs(folder.path(), arguments, 160, Some(source.path()));
        let device = Arc::new(block::Memory::from(std::fs::read(&path).unwrap()));
        let mut fs = FileSystem::open(device.clone(), &OpenOptions::default()).unwrap();
        compare_with_folder(&fs, source.path(), feature);
        assert_eq!(fs.read_only_reason(), None, "{feature}");
        fs.remove_dir_all(b"/many").unwrap();
        fs.write(b"/1 bytes", &[7; 5000]).unwrap();
        fs.write(b"/new", b"x").unwrap();
        check(&mut fs, &device, &path, feature);
        fs.scrub().unwrap();
        check(&mut fs, &device, &path, feature);
    }
}

#[test]
fn errors_noted_in_the_superblock_forbid_writing() {
    if !has_tool("error state", "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024", 16, None);
    let set = Command::new("debugfs").args(["-w", "-R", "ssv state 3"]).arg(&path).output().unwrap();
    assert!(set.status.success());
    let device = Arc::new(block::Memory::from(std::fs::read(&path).unwrap()));
    let fs = FileSystem::open(device, &OpenOptions::default()).unwrap();
    assert!(fs.read_only_reason().unwrap_or_default().contains("errors"));
}

#[test]
fn the_kernel_reads_what_we_wrote() {
    if !has_tool("kernel", "mke2fs") {
        return;
    }
    let (folder, source) = (scratch(), scratch());
    fill(source.path());
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 48, Some(source.path()));
        let (device, mut fs) = open(&path);
        fs.create_dir_all(b"/new/directory").unwrap();
        for n in 0..200u32 {
            fs.write(format!("/new/directory/file {n}").as_bytes(), &pattern(n as usize * 50, n)).unwrap();
            fs.remove_file(format!("/many/a name that is long enough to fill blocks, number {}", n * 3).as_bytes())
                .unwrap();
        }
        fs.rename_path(b"/new/directory", b"/a/b/c/directory").unwrap();
        let sparse = fs.resolve(b"/sparse").unwrap();
        fs.write_at(sparse, 150_000, &pattern(100_000, 3)).unwrap();
        // Inline where there is inline data.
        fs.remove_file(b"/link of 61").unwrap();
        fs.set_owner(fs.lookup(fs.root(), b"link of 500").unwrap().unwrap(), 5, 6).unwrap();
        fs.set_len(sparse, 9_000_001).unwrap();
        fs.symlink(&[b'y'; 300], b"/a/long").unwrap();
        fs.flush().unwrap();
        std::fs::write(&path, device.to_vec()).unwrap();
        e2fsck(&path, name);
        with_kernel_mount("kernel", &path, "ro", |point| compare_with_folder(&fs, point, name));
        // And the kernel goes on from there.
        with_kernel_mount("kernel", &path, "rw", |point| {
            std::fs::remove_dir_all(point.join("many")).unwrap();
            std::fs::write(point.join("a/b/c/directory/kernel"), pattern(100_000, 5)).unwrap();
            std::fs::rename(point.join("sparse"), point.join("a/sparse")).unwrap();
        });
        e2fsck(&path, name);
    }
}

#[test]
fn damaged_superblocks_and_descriptors_are_read_by_their_copies() {
    if !has_tool("copies", "mke2fs") {
        return;
    }
    let (folder, source) = (scratch(), scratch());
    fill(source.path());
    for arguments in
        ["-t ext4 -b 1024", "-t ext4 -b 1024 -O sparse_super2,^metadata_csum", "-t ext4 -b 4096", "-t ext3 -b 2048"]
    {
        let path = mke2fs(folder.path(), arguments, 160, Some(source.path()));
        let bytes = std::fs::read(&path).unwrap();
        for (what, damage) in [("superblock", 1024..2048), ("group descriptor", 2048..4096 + 128)] {
            let mut damaged = bytes.clone();
            // With blocks of 4 KiB the descriptors begin behind the first block.
            damaged[damage].fill(0xFF);
            let device = Arc::new(block::Memory::from(damaged));
            let Ok(mut fs) = FileSystem::open(device, &OpenOptions::default()) else {
                panic!("{arguments}: {what} is not read by its copy");
            };
            let reason = fs.read_only_reason().unwrap().to_owned();
            assert!(reason.contains(what) && reason.contains("group 1"), "{arguments}: {reason}");
            compare_with_folder(&fs, source.path(), arguments);
            assert!(matches!(fs.write(b"/1 bytes", b"x"), Err(Error::ReadOnly(_))));
        }
    }
}
