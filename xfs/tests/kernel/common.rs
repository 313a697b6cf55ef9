//! File systems that mkfs.xfs made and the kernel wrote, on loop mounts. Needs root.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::{Access, HostFile};
use xfs::{FileKind, FileSystem};

/// Options of mkfs.xfs: of what age the features are, and the sizes that matter.
pub(crate) const EL7: &str = "-m crc=1,finobt=0,reflink=0,rmapbt=0,bigtime=0,inobtcount=0 -i sparse=0";
pub(crate) const EL8: &str = "-m finobt=1,reflink=1,rmapbt=0,bigtime=0,inobtcount=0 -i sparse=1";
pub(crate) const EL9: &str = "-m finobt=1,reflink=1,rmapbt=0,bigtime=1,inobtcount=1 -i sparse=1";
pub(crate) const ALL: &str = "-m finobt=1,reflink=1,rmapbt=1,bigtime=1,inobtcount=1 -i sparse=1,nrext64=1";

/// An image and the place to mount it.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    mount: PathBuf,
    mounted: bool,
    _directory: tempfile::TempDir,
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(&self.mount).status();
        }
    }
}

impl Image {
    /// A new file system; `None` where the test cannot run.
    pub(crate) fn new(test: &str, options: &str) -> Option<Self> {
        let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        for tool in ["mkfs.xfs", "xfs_repair"] {
            let found = ["/sbin", "/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(tool).exists());
            if !found {
                println!("SKIPPED {test}: {tool} is not installed");
                assert!(!in_ci, "{tool} has to be installed in CI");
                return None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED {test}: mounting needs root");
            assert!(!in_ci, "root is needed in CI");
            return None;
        }
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let path = directory.path().join("image");
        // The largest blocks need a log, and so a file system, that is larger.
        let mib = if options.contains("size=65536") { 640 } else { 320 };
        std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        let args: Vec<&str> = options.split_whitespace().collect();
        run("mkfs.xfs", &[&["-q", "-f", "--unsupported"], &args[..], &[path.to_str().unwrap()]].concat());
        let mount = directory.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        Some(Self { path, mount, mounted: false, _directory: directory })
    }

    /// Runs something on the mounted file system.
    pub(crate) fn mounted<T>(&mut self, action: impl FnOnce(&Path) -> T) -> T {
        run("mount", &["-t", "xfs", "-o", "loop,noatime", self.path.to_str().unwrap(), self.mount.to_str().unwrap()]);
        self.mounted = true;
        let result = action(&self.mount);
        // Children that other tests start may hold its files for a moment.
        let mut tries = 0;
        while !Command::new("umount").arg(&self.mount).stderr(std::process::Stdio::null()).status().unwrap().success() {
            tries += 1;
            assert!(tries < 100, "{} cannot be unmounted", self.mount.display());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.mounted = false;
        result
    }

    /// A copy, as a machine that stops now leaves it.
    pub(crate) fn copy_of(image: &Path) -> Self {
        let directory = tempfile::tempdir_in(image.parent().unwrap().parent().unwrap()).unwrap();
        let (path, mount) = (directory.path().join("image"), directory.path().join("mount"));
        run("cp", &["--sparse=always", image.to_str().unwrap(), path.to_str().unwrap()]);
        std::fs::create_dir(&mount).unwrap();
        Self { path, mount, mounted: false, _directory: directory }
    }

    pub(crate) fn open(&self) -> FileSystem {
        FileSystem::open_read_only(Arc::new(HostFile::open(&self.path, Access::ReadUnlocked).unwrap())).unwrap()
    }

    /// What xfs_repair finds: nothing.
    pub(crate) fn repair_finds_nothing(&self, when: &str) {
        let output = Command::new("xfs_repair").args(["-n", "-f"]).arg(&self.path).output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{when}: {words}");
        // Some things it says, and succeeds.
        for line in words.lines() {
            let harmless = line.starts_with("Phase")
                || line.starts_with("        - ")
                || line.starts_with("No modify flag")
                || line.starts_with("Cannot get host filesystem geometry")
                || line.starts_with("Repair may fail if there is a sector size mismatch")
                || line.starts_with("the image and the host filesystem");
            assert!(harmless || line.trim().is_empty(), "{when}: xfs_repair says {line:?}\n{words}");
        }
    }
}

pub(crate) fn run(tool: &str, args: &[&str]) {
    let output = Command::new(tool).args(args).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?}: {words}");
}

/// All that is told of one path: (kind and mode, uid, gid, size, links, times of change, device, link, attributes, contents).
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Facts {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) modified: (i64, u32),
    pub(crate) link: Vec<u8>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) contents: u64,
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Facts>;

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The tree as the kernel sees it.
pub(crate) fn tree_of_kernel(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let host = top.join(&path);
        let metadata = std::fs::symlink_metadata(&host).unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            pending.extend(std::fs::read_dir(&host).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        let mut attributes = BTreeMap::new();
        let mut list = vec![0; 65536];
        let len = rustix::fs::llistxattr(&host, &mut list).unwrap();
        for name in list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; 65536];
            let len = rustix::fs::lgetxattr(&host, name, &mut value).unwrap();
            value.truncate(len);
            attributes.insert(name.to_vec(), value);
        }
        let facts = Facts {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            size: if kind.is_file() || kind.is_symlink() { metadata.size() } else { 0 },
            links: metadata.nlink(),
            modified: (metadata.mtime(), metadata.mtime_nsec() as u32),
            link: if kind.is_symlink() {
                std::fs::read_link(&host).unwrap().into_os_string().into_vec()
            } else {
                Vec::new()
            },
            attributes,
            contents: if kind.is_file() { hash(&std::fs::read(&host).unwrap()) } else { 0 },
        };
        tree.insert(path.as_os_str().as_bytes().to_vec(), facts);
    }
    tree
}

/// The tree as this crate sees it.
pub(crate) fn tree_of(fs: &FileSystem) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(Vec::new(), fs.root())];
    while let Some((path, inode)) = pending.pop() {
        let metadata = fs.metadata(inode).unwrap();
        if metadata.kind == FileKind::Directory {
            for entry in fs.read_dir(inode).unwrap() {
                assert_eq!(fs.lookup(inode, &entry.name).unwrap(), Some(entry.inode));
                assert_eq!(fs.metadata(entry.inode).unwrap().kind, entry.kind);
                let name = if path.is_empty() { entry.name } else { [&path[..], b"/", &entry.name].concat() };
                pending.push((name, entry.inode));
            }
        }
        let kind = match metadata.kind {
            FileKind::File => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            FileKind::CharDevice => 0o020_000,
            FileKind::BlockDevice => 0o060_000,
            FileKind::Fifo => 0o010_000,
            FileKind::Socket => 0o140_000,
        };
        let names = fs.xattr_names(inode).unwrap();
        let is_file = metadata.kind == FileKind::File;
        let mut contents = vec![0; if is_file { metadata.size as usize } else { 0 }];
        if is_file {
            assert_eq!(fs.read_at(inode, 0, &mut contents).unwrap(), contents.len());
        }
        let facts = Facts {
            mode: kind | metadata.mode,
            owner: (metadata.uid, metadata.gid),
            size: if is_file || metadata.kind == FileKind::Symlink { metadata.size } else { 0 },
            links: metadata.links.into(),
            modified: (metadata.modified.seconds, metadata.modified.nanoseconds),
            link: if metadata.kind == FileKind::Symlink { fs.read_link(inode).unwrap() } else { Vec::new() },
            attributes: names.iter().map(|name| (name.clone(), fs.xattr(inode, name).unwrap().unwrap())).collect(),
            contents: if is_file { hash(&contents) } else { 0 },
        };
        tree.insert(path, facts);
    }
    tree
}

/// That two trees are the same, or where they differ.
pub(crate) fn assert_same(found: &Tree, expected: &Tree, what: &str) {
    for (path, facts) in expected {
        let name = String::from_utf8_lossy(path);
        assert_eq!(found.get(path), Some(facts), "{what}: {name}");
    }
    if let Some(path) = found.keys().find(|path| !expected.contains_key(*path)) {
        panic!("{what}: {} should not be there", String::from_utf8_lossy(path));
    }
}

/// Bytes that are the same in every run.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Files of every shape.
pub(crate) fn populate(top: &Path) {
    fill(top, &[0, 3, 20, 60, 300, 3000], 400);
}

/// Files of every shape, and few of each.
pub(crate) fn populate_a_little(top: &Path) {
    fill(top, &[0, 3, 20, 60, 300], 40);
}

/// Directories of so many entries, a file of so many pieces, and others.
fn fill(top: &Path, directories: &[usize], pieces: u64) {
    for (number, count) in directories.iter().copied().enumerate() {
        let folder = top.join(format!("dir{number}"));
        std::fs::create_dir(&folder).unwrap();
        for entry in 0..count {
            let name = format!("entry-{entry}-{}", "x".repeat(entry * 7 % 60));
            std::fs::write(folder.join(name), if entry % 9 == 0 { noise(entry, 3) } else { Vec::new() }).unwrap();
        }
        // Names that are gone.
        for entry in (0..count).filter(|entry| entry % 5 == 0 && count > 20) {
            std::fs::remove_file(folder.join(format!("entry-{entry}-{}", "x".repeat(entry * 7 % 60)))).unwrap();
        }
    }
    let files = top.join("files");
    std::fs::create_dir(&files).unwrap();
    for len in [1, 511, 4096, 5000, 65536, 1 << 20, 3_000_001] {
        std::fs::write(files.join(format!("len{len}")), noise(len, len as u64)).unwrap();
    }
    let sparse = std::fs::File::create(files.join("sparse")).unwrap();
    for at in 0..pieces {
        sparse.write_at(&noise(3000, at), at * 65536 * 2).unwrap();
        sparse.sync_data().unwrap();
    }
    sparse.set_len(pieces * 65536 * 2 + 12345).unwrap();
    run("fallocate", &["-l", "300000", files.join("unwritten").to_str().unwrap()]);
    std::fs::OpenOptions::new().write(true).open(files.join("unwritten")).unwrap().write_at(b"here", 70_000).unwrap();
    // Where blocks can be shared, some are.
    let _ = Command::new("cp").arg("--reflink=always").arg(files.join("len1048576")).arg(files.join("shared")).output();
    if let Ok(shared) = std::fs::OpenOptions::new().write(true).open(files.join("shared")) {
        shared.write_at(b"own", 500_000).unwrap();
    }
    for number in 0..5 {
        std::fs::hard_link(files.join("len5000"), files.join(format!("hard{number}"))).unwrap();
    }
    for len in [1, 60, 150, 330, 500, 1000, 1023] {
        std::os::unix::fs::symlink("s".repeat(len), files.join(format!("link{len}"))).unwrap();
    }
    for (name, args) in [("fifo", &["p"][..]), ("char", &["c", "1", "3"]), ("block", &["b", "7", "9"])] {
        run("mknod", &[&[files.join(name).to_str().unwrap()], args].concat());
    }
    let attributes = top.join("attributes");
    std::fs::create_dir(&attributes).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    for (number, lens) in
        [&[10][..], &[0, 30, 100], &[200, 200, 200], &[1000, 1000], &[3000], &[60_000, 5]].iter().enumerate()
    {
        let path = attributes.join(format!("file{number}"));
        std::fs::write(&path, b"x").unwrap();
        for (at, len) in lens.iter().enumerate() {
            set(&path, &format!("user.attribute{at}"), &noise(*len, at as u64));
        }
        set(&path, "security.selinux", b"system_u:object_r:etc_t:s0\0");
        set(&path, "trusted.root", b"1");
    }
    let many = attributes.join("many");
    std::fs::create_dir(&many).unwrap();
    for number in 0..150 {
        set(&many, &format!("user.{number}{}", "n".repeat(number % 50)), &noise(number * 13 % 200, number as u64));
    }
    for number in (0..150).step_by(3) {
        rustix::fs::lremovexattr(&many, format!("user.{number}{}", "n".repeat(number % 50))).unwrap();
    }
    let owners = top.join("owners");
    std::fs::write(&owners, b"mine").unwrap();
    std::os::unix::fs::chown(&owners, Some(70_000), Some(4_000_000_000)).unwrap();
    std::fs::set_permissions(&owners, std::fs::Permissions::from_mode(0o6711)).unwrap();
    for (name, time) in [("past", "1930-01-02 03:04:05.678"), ("future", "2036-02-03 04:05:06.789")] {
        run("touch", &["-d", time, top.join(name).to_str().unwrap()]);
    }
}
