//! File systems that were not unmounted: the journal is replayed, orphans go.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::Memory;
use ext4fs::{FileSystem, OpenOptions};

use crate::common::{NOW, compare_with_folder, e2fsck, has_tool, mke2fs, pattern, scratch, walk, with_kernel_mount};

const LAYOUTS: &[&str] = &[
    "-t ext4 -b 4096",
    "-t ext4 -b 1024 -O metadata_csum_seed,orphan_file",
    "-t ext4 -b 1024 -O ^metadata_csum,^64bit",
    "-t ext4 -b 1024 -O quota,project",
    "-t ext3 -b 1024",
];

/// An image as a crash would have left it: the kernel has files written and removed, but has not unmounted it. One file
/// was removed while open.
pub(crate) fn crashed(folder: &Path, arguments: &str) -> Option<PathBuf> {
    let path = mke2fs(folder, arguments, 48, None);
    let copy = folder.join("crashed");
    let _ = std::fs::remove_file(&copy);
    with_kernel_mount("recovery", &path, "rw", |point| {
        std::fs::create_dir(point.join("kept")).unwrap();
        for n in 0..200u32 {
            // Without a sync the kernel may not even have chosen the blocks.
            let mut file = std::fs::File::create(point.join(format!("kept/{n}"))).unwrap();
            file.write_all(&pattern(n as usize * 100, n)).unwrap();
            file.sync_all().unwrap();
        }
        let mut open = std::fs::File::create(point.join("removed while open")).unwrap();
        open.write_all(&pattern(900_000, 1)).unwrap();
        open.sync_all().unwrap();
        std::fs::remove_file(point.join("removed while open")).unwrap();
        for n in 0..200 {
            if n % 3 == 0 {
                std::fs::remove_file(point.join(format!("kept/{n}"))).unwrap();
            }
        }
        let last = std::fs::File::create(point.join("last")).unwrap();
        last.sync_all().unwrap();
        std::fs::copy(&path, &copy).unwrap();
        drop(open);
    });
    copy.exists().then_some(copy)
}

#[test]
fn a_crashed_file_system_is_recovered() {
    if !has_tool("recovery", "mke2fs") {
        return;
    }
    let folder = scratch();
    for arguments in LAYOUTS {
        let Some(path) = crashed(folder.path(), arguments) else { return };
        let header = Command::new("dumpe2fs").arg("-h").arg(&path).output().unwrap();
        let header = String::from_utf8_lossy(&header.stdout).into_owned();
        assert!(header.contains("needs_recovery"), "{header}");

        // For reading, nothing is written, and all is there.
        let bytes = std::fs::read(&path).unwrap();
        let device = Arc::new(Memory::from(bytes.clone()));
        let options = OpenOptions { read_only: true, clock: None };
        let seen = walk(&FileSystem::open(device.clone(), &options).unwrap());
        assert!(device.to_vec() == bytes, "{arguments}: written though read only");
        assert_eq!(seen.keys().filter(|path| path.starts_with(b"/kept/")).count(), 133, "{arguments}");
        assert_eq!(seen[b"/kept/199".as_slice()].bytes, pattern(19_900, 199));

        // For writing, what is on the device is as good as new.
        let options = OpenOptions { read_only: false, clock: Some(NOW) };
        let mut fs = FileSystem::open(device.clone(), &options).unwrap();
        assert_eq!(fs.read_only_reason(), None);
        assert_eq!(walk(&fs), seen);
        std::fs::write(folder.path().join("ours"), device.to_vec()).unwrap();
        e2fsck(&folder.path().join("ours"), arguments);
        fs.write(b"/kept/1", b"changed").unwrap();
        fs.flush().unwrap();
        std::fs::write(folder.path().join("ours"), device.to_vec()).unwrap();
        e2fsck(&folder.path().join("ours"), arguments);

        // The kernel comes to the same.
        let kernels = folder.path().join("kernels");
        std::fs::write(&kernels, &bytes).unwrap();
        let unchanged = FileSystem::open_read_only(Arc::new(Memory::from(bytes))).unwrap();
        with_kernel_mount("recovery", &kernels, "rw", |point| compare_with_folder(&unchanged, point, arguments));
        e2fsck(&kernels, &format!("{arguments}, by the kernel"));

        // e2fsck comes to the same.
        let repaired = Command::new("e2fsck").arg("-fy").arg(&path).output().unwrap();
        assert!(repaired.status.code().is_some_and(|code| code <= 1));
        let theirs = FileSystem::open_read_only(Arc::new(Memory::from(std::fs::read(&path).unwrap()))).unwrap();
        assert_eq!(walk(&theirs), seen, "{arguments}");
        let mut again = FileSystem::open(Arc::new(Memory::from(std::fs::read(&path).unwrap())), &options).unwrap();
        again.write(b"/kept/1", b"changed").unwrap();
        assert_eq!(again.statfs(), fs.statfs(), "{arguments}");
    }
}

#[test]
fn a_failing_device_poisons() {
    if !has_tool("poison", "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024", 16, None);
    // Room for the reads of opening and the first write, and then no more.
    struct Failing(Memory, std::sync::atomic::AtomicU32);
    impl block::ReadAt for Failing {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
            self.0.read_at(offset, buf)
        }
    }
    impl block::WriteAt for Failing {
        fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
            if self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 1 {
                return Err(block::Error::ReadOnly);
            }
            self.0.write_at(offset, buf)
        }
        fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
            self.0.write_zeroes(offset, len)
        }
        fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
            self.0.discard(offset, len)
        }
        fn flush(&self) -> block::Result<()> {
            Ok(())
        }
    }
    let device = Arc::new(Failing(Memory::from(std::fs::read(&path).unwrap()), 0.into()));
    let mut fs = FileSystem::open(device, &OpenOptions::default()).unwrap();
    fs.write(b"/file", b"first").unwrap();
    assert!(matches!(fs.write(b"/file", b"second"), Err(ext4fs::Error::Io(_))));
    assert!(matches!(fs.write(b"/file", b"third"), Err(ext4fs::Error::Poisoned)));
    assert!(matches!(fs.flush(), Err(ext4fs::Error::Poisoned)));
}
