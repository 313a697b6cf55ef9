//! What the tests share: images made by mke2fs, and the judges e2fsck, debugfs and the kernel.

use std::collections::BTreeMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use block::Memory;
use ext4fs::{FileKind, FileSystem, Metadata, OpenOptions, Timestamp};

/// Feature sets that all tests go through: a name, and mke2fs's arguments.
pub(crate) const LAYOUTS: &[(&str, &str)] = &[
    ("ext4", "-t ext4 -b 4096 -g 4096"),
    ("ext4 of 1.47", "-t ext4 -b 4096 -g 4096 -O metadata_csum_seed,orphan_file"),
    ("ext4 in one group", "-t ext4 -b 4096"),
    ("ext4 with 1 KiB blocks", "-t ext4 -b 1024"),
    ("ext4 with 2 KiB blocks", "-t ext4 -b 2048 -g 4096"),
    ("ext4 without 64bit", "-t ext4 -b 1024 -O ^64bit"),
    ("ext4 without metadata_csum", "-t ext4 -b 4096 -g 4096 -O ^metadata_csum"),
    ("ext4 with uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"),
    ("ext4 with uninit_bg and 64bit", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,64bit"),
    ("ext4 without extents", "-t ext4 -b 1024 -O ^extents,^64bit"),
    ("ext4 without flex_bg", "-t ext4 -b 1024 -O ^flex_bg,^resize_inode"),
    ("ext4 without journal", "-t ext4 -b 4096 -g 4096 -O ^has_journal"),
    ("ext4 without dir_index", "-t ext4 -b 1024 -O ^dir_index"),
    ("ext4 without filetype", "-t ext4 -b 1024 -O ^filetype"),
    ("ext4 with large_dir", "-t ext4 -b 1024 -O large_dir"),
    ("ext4 with 128-byte inodes", "-t ext4 -b 1024 -I 128"),
    ("ext4 with 1 KiB inodes", "-t ext4 -b 4096 -g 4096 -I 1024"),
    ("ext4 with meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
    ("ext4 with sparse_super2", "-t ext4 -b 1024 -O sparse_super2"),
    ("ext4 with inline data", "-t ext4 -b 1024 -I 256 -O inline_data"),
    ("ext4 with much inline data", "-t ext4 -b 4096 -g 4096 -I 1024 -O inline_data,ea_inode,quota"),
    ("ext4 with ea_inode", "-t ext4 -b 1024 -I 256 -O ea_inode"),
    ("ext4 with clusters", "-t ext4 -b 1024 -C 16384 -O bigalloc"),
    ("ext4 with clusters of two blocks", "-t ext4 -b 4096 -C 8192 -O bigalloc,quota,inline_data"),
    ("ext4 with casefold", "-t ext4 -b 1024 -O casefold"),
    ("ext4 with quotas", "-t ext4 -b 1024 -I 256 -O quota,project"),
    ("ext3", "-t ext3 -b 1024"),
    ("ext3 with 4 KiB blocks", "-t ext3 -b 4096 -g 4096"),
    ("ext2", "-t ext2 -b 1024"),
    ("ext2 with 128-byte inodes", "-t ext2 -b 1024 -I 128"),
    ("ext2 of revision 0", "-t ext2 -b 1024 -r 0"),
];

/// The moment that the tests' changes are stamped with.
pub(crate) const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };

/// Whether a tool is there. One that is missing is an error where the environment says `CI=true`.
pub(crate) fn has_tool(test: &str, tool: &str) -> bool {
    if Command::new(tool).arg("-V").output().is_ok() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{tool} is not installed");
    println!("SKIPPED {test}: {tool} is not installed");
    false
}

/// A folder that goes when the test ends, in memory where the host has such a place.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn run(command: &mut Command) -> Output {
    command.env("MKE2FS_DETERMINISTIC", "1").env("E2FSPROGS_FAKE_TIME", "1600000000").env("LC_ALL", "C");
    command.output().unwrap()
}

/// An image of `mebibytes` made by mke2fs, holding a copy of `from` where given.
pub(crate) fn mke2fs(folder: &Path, arguments: &str, mebibytes: u64, from: Option<&Path>) -> PathBuf {
    let path = folder.join("image");
    let _ = std::fs::remove_file(&path);
    std::fs::File::create(&path).unwrap().set_len(mebibytes << 20).unwrap();
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-U", "11111111-2222-3333-4444-555555555555"]).args(arguments.split(' '));
    if !arguments.contains("-r 0") {
        command.args(["-E", "hash_seed=11111111-2222-3333-4444-555555555555"]);
    }
    if let Some(from) = from {
        command.arg("-d").arg(from);
    }
    let output = run(command.arg(&path));
    assert!(output.status.success(), "mke2fs {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    if from.is_some() && arguments.contains("quota") {
        // mke2fs writes the quota files before it fills the file system.
        run(Command::new("e2fsck").args(["-fy"]).arg(&path));
    }
    path
}

/// Lets e2fsck look at an image without changing it: any finding fails the test.
pub(crate) fn e2fsck(path: &Path, what: &str) {
    let output = run(Command::new("e2fsck").args(["-fn"]).arg(path));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(0), "{what}: e2fsck -fn says\n{text}");
    // Things that e2fsck would like to mend without calling them errors are asked, too. Only that an extent tree could
    // be packed more tightly is no finding: the kernel leaves such trees as well.
    let asked = text.lines().any(|line| line.contains("? no") && !line.contains("Optimize? no"));
    assert!(!asked, "{what}: e2fsck -fn says\n{text}");
    let ours = FileSystem::open_read_only(Arc::new(block::MappedFile::open(path).unwrap())).unwrap();
    assert_eq!(ours.check().unwrap(), [], "{what}: our own check");
}

/// What debugfs prints for a request.
pub(crate) fn debugfs(path: &Path, request: &str) -> Vec<u8> {
    run(Command::new("debugfs").args(["-R", request]).arg(path)).stdout
}

/// Opens an image's copy in memory for writing.
pub(crate) fn open(path: &Path) -> (Arc<Memory>, FileSystem) {
    let device = Arc::new(Memory::from(std::fs::read(path).unwrap()));
    let fs = FileSystem::open(device.clone(), &OpenOptions { read_only: false, clock: Some(NOW) }).unwrap();
    assert_eq!(fs.read_only_reason(), None);
    (device, fs)
}

/// Flushes, stores what the device holds in `path`, and lets e2fsck look at it.
pub(crate) fn check(fs: &mut FileSystem, device: &Memory, path: &Path, what: &str) {
    fs.flush().unwrap();
    std::fs::write(path, device.to_vec()).unwrap();
    e2fsck(path, what);
}

/// Bytes that differ from place to place and are the same each time.
pub(crate) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// Walks everything from the root: each path with its metadata, its contents or target, and its attributes.
pub(crate) fn walk(fs: &FileSystem) -> BTreeMap<Vec<u8>, Found> {
    let mut found = BTreeMap::new();
    let mut pending = vec![(Vec::new(), fs.root())];
    while let Some((path, directory)) = pending.pop() {
        for entry in fs.read_dir(directory).unwrap() {
            let path = [path.as_slice(), b"/", &entry.name].concat();
            let metadata = fs.metadata(entry.inode).unwrap();
            assert_eq!(metadata.kind, entry.kind);
            assert_eq!(fs.lookup(directory, &entry.name).unwrap(), Some(entry.inode));
            let bytes = match entry.kind {
                FileKind::File => {
                    let mut bytes = vec![0; metadata.size as usize];
                    assert_eq!(fs.read_at(entry.inode, 0, &mut bytes).unwrap(), bytes.len());
                    bytes
                }
                FileKind::Symlink => fs.read_link(entry.inode).unwrap(),
                FileKind::Directory => {
                    pending.push((path.clone(), entry.inode));
                    Vec::new()
                }
                _ => Vec::new(),
            };
            let names = fs.xattr_names(entry.inode).unwrap();
            let attributes =
                names.into_iter().map(|name| (name.clone(), fs.xattr(entry.inode, &name).unwrap().unwrap())).collect();
            found.insert(path, Found { metadata, bytes, attributes });
        }
    }
    found
}

/// What [`walk`] found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) metadata: Metadata,
    pub(crate) bytes: Vec<u8>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Compares all that `fs` holds below its root with a folder of the host that holds the same.
pub(crate) fn compare_with_folder(fs: &FileSystem, folder: &Path, what: &str) {
    let mut ours = walk(fs);
    ours.remove(b"/lost+found".as_slice());
    let mut pending = vec![folder.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let inside = [b"/", path.strip_prefix(folder).unwrap().as_os_str().as_bytes()].concat();
            let host = path.symlink_metadata().unwrap();
            if inside == b"/lost+found" {
                continue;
            }
            let found = ours.remove(&inside).unwrap_or_else(|| panic!("{what}: {path:?} is missing"));
            let of_host = (host.mode() & 0o7777, host.uid(), host.gid(), host.mtime());
            let metadata = &found.metadata;
            assert_eq!(
                (metadata.mode, metadata.uid, metadata.gid, metadata.modified.seconds),
                of_host,
                "{what}: {path:?}"
            );
            if host.is_dir() {
                pending.push(path);
                continue;
            }
            assert_eq!(u64::from(metadata.links), host.nlink(), "{what}: {path:?}");
            let bytes = if host.is_symlink() {
                std::fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else {
                std::fs::read(&path).unwrap()
            };
            assert!(found.bytes == bytes, "{what}: {path:?} differs");
        }
    }
    assert!(ours.is_empty(), "{what}: only ours: {:?}", ours.keys());
}

/// Mounts an image with the kernel, if this process may, and calls `look` with the mount point.
pub(crate) fn with_kernel_mount(test: &str, image: &Path, options: &str, look: impl FnOnce(&Path)) {
    let point = scratch();
    let mounted = Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(image).arg(point.path()).output();
    match mounted {
        Ok(output) if output.status.success() => {}
        _ => {
            println!("SKIPPED {test}: the kernel does not let us mount the image");
            return;
        }
    }
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(point.path())));
    // A process that another test has just forked may hold the mount for a moment.
    let unmount = || Command::new("umount").arg(point.path()).output().unwrap().status.success();
    let unmounted = (0..50).any(|_| {
        let done = unmount();
        if !done {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        done
    });
    assert!(unmounted, "{test}: cannot unmount");
    if let Err(panic) = looked {
        std::panic::resume_unwind(panic);
    }
}
