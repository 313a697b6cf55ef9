//! The kernel as the model: random trees and random changes, done in a guest in memory and, with openat2(2) and
//! `RESOLVE_IN_ROOT`, in a directory of the host. Both have to agree on each success, each path and each tree.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use guest::memory::MemoryFileSystem;
use guest::{Error, FileKind, Guest, Walk};
use proptest::prelude::*;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};

#[derive(Debug, Clone)]
enum Change {
    Write(String, Vec<u8>),
    SetLen(String, u64),
    CreateDir(String),
    Symlink(String, String),
    HardLink(String, String),
    Rename(String, String),
    RemoveFile(String),
    RemoveDir(String),
}

/// The host's directory, as a root.
struct Host {
    root: OwnedFd,
    top: std::path::PathBuf,
}

impl Host {
    fn open(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
        fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, ResolveFlags::IN_ROOT)
    }

    fn parent<'a>(&self, path: &'a str) -> rustix::io::Result<(OwnedFd, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    fn apply(&self, change: &Change) -> rustix::io::Result<()> {
        match change {
            Change::Write(path, data) => {
                let file = self.open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
                rustix::io::write(file, data)?;
            }
            Change::SetLen(path, len) => fs::ftruncate(self.open(path, OFlags::WRONLY)?, *len)?,
            Change::CreateDir(path) => {
                let (parent, name) = self.parent(path)?;
                fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            }
            Change::Symlink(target, path) => {
                let (parent, name) = self.parent(path)?;
                fs::symlinkat(target.as_str(), parent, name)?;
            }
            Change::HardLink(from, to) => {
                let ((from, from_name), (to, to_name)) = (self.parent(from)?, self.parent(to)?);
                fs::linkat(from, from_name, to, to_name, AtFlags::empty())?;
            }
            Change::Rename(from, to) => {
                let ((from, from_name), (to, to_name)) = (self.parent(from)?, self.parent(to)?);
                fs::renameat(from, from_name, to, to_name)?;
            }
            Change::RemoveFile(path) => {
                let (parent, name) = self.parent(path)?;
                fs::unlinkat(parent, name, AtFlags::empty())?;
            }
            Change::RemoveDir(path) => {
                let (parent, name) = self.parent(path)?;
                fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    /// Where a path leads, without links.
    fn resolve(&self, path: &str, flags: OFlags) -> Option<Vec<u8>> {
        let fd = self.open(path, OFlags::PATH | flags).ok()?;
        let found = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let below = found.strip_prefix(&self.top).expect("the kernel stays in its root");
        Some(format!("/{}", below.display()).into_bytes())
    }

    /// The names in a directory.
    fn names(&self, path: &str) -> Option<Vec<Vec<u8>>> {
        let fd = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
        let names = fs::Dir::new(fd).unwrap().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
        let mut names: Vec<_> = names.filter(|name| name != b"." && name != b"..").collect();
        names.sort();
        Some(names)
    }

    /// Every path, with its kind, its contents or target, and its number of links.
    fn tree(&self) -> Vec<(Vec<u8>, FileKind, Vec<u8>, u64)> {
        fn descend(top: &Path, directory: &Path, tree: &mut Vec<(Vec<u8>, FileKind, Vec<u8>, u64)>) {
            use std::os::unix::ffi::OsStrExt;
            use std::os::unix::fs::MetadataExt;
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let (kind, bytes) = if metadata.is_dir() {
                    descend(top, &path, tree);
                    (FileKind::Directory, Vec::new())
                } else if metadata.is_symlink() {
                    (FileKind::Symlink, std::fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes())
                } else {
                    (FileKind::File, std::fs::read(&path).unwrap())
                };
                // Not every file system of a host counts the directories in a directory.
                let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
                let below = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
                tree.push(([b"/", below].concat(), kind, bytes, links));
            }
        }
        let mut tree = Vec::new();
        descend(&self.top, &self.top, &mut tree);
        tree.sort_by(|a, b| a.0.cmp(&b.0));
        tree
    }
}

fn apply(guest: &mut Guest, change: &Change) -> guest::Result<()> {
    match change {
        Change::Write(path, data) => guest.write(path.as_bytes(), data),
        Change::SetLen(path, len) => guest.set_len(path.as_bytes(), *len),
        Change::CreateDir(path) => guest.create_dir(path.as_bytes(), 0o755),
        Change::Symlink(target, path) => guest.symlink(target.as_bytes(), path.as_bytes()),
        Change::HardLink(from, to) => guest.hard_link(from.as_bytes(), to.as_bytes()),
        Change::Rename(from, to) => guest.rename(from.as_bytes(), to.as_bytes()),
        Change::RemoveFile(path) => guest.remove_file(path.as_bytes()),
        Change::RemoveDir(path) => guest.remove_dir(path.as_bytes()),
    }
}

fn guest_tree(guest: &Guest) -> Vec<(Vec<u8>, FileKind, Vec<u8>, u64)> {
    let mut tree = Vec::new();
    guest
        .walk(b"/", &mut |path, metadata| {
            let (bytes, links) = match metadata.kind {
                FileKind::Directory => (Vec::new(), 0),
                FileKind::Symlink => (guest.read_link(path)?, metadata.links.into()),
                _ => (guest.read(path)?, metadata.links.into()),
            };
            tree.push((path.to_vec(), metadata.kind, bytes, links));
            Ok(Walk::Continue)
        })
        .unwrap();
    tree.sort_by(|a, b| a.0.cmp(&b.0));
    tree
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(str::to_owned)
}

/// A path that ends in a name.
fn path() -> impl Strategy<Value = String> {
    let part =
        prop_oneof![4 => name(), 1 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just(String::new())];
    (proptest::collection::vec(part, 0..5), name()).prop_map(|(parts, name)| {
        let parts: String = parts.iter().map(|part| format!("/{part}")).collect();
        format!("{parts}/{name}")
    })
}

fn target() -> impl Strategy<Value = String> {
    let relative = proptest::collection::vec(prop_oneof![3 => name(), 2 => Just("..".to_owned())], 1..5)
        .prop_map(|parts| parts.join("/"));
    prop_oneof![1 => path(), 2 => relative, 1 => Just("/".to_owned()), 1 => Just(".".to_owned())]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (path(), proptest::collection::vec(any::<u8>(), 0..9)).prop_map(|(path, data)| Change::Write(path, data)),
        1 => (path(), 0_u64..20).prop_map(|(path, len)| Change::SetLen(path, len)),
        6 => path().prop_map(Change::CreateDir),
        5 => (target(), path()).prop_map(|(target, path)| Change::Symlink(target, path)),
        1 => (path(), path()).prop_map(|(from, to)| Change::HardLink(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        2 => path().prop_map(Change::RemoveFile),
        1 => path().prop_map(Change::RemoveDir),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn paths_and_changes_are_the_kernels(
        steps in proptest::collection::vec((change(), proptest::collection::vec(path(), 1..6)), 1..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let root = fs::open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let host = Host { root, top };
        if matches!(host.open("/", OFlags::PATH), Err(rustix::io::Errno::NOSYS)) {
            println!("SKIPPED paths_and_changes_are_the_kernels: the kernel has no openat2");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs a kernel with openat2");
            return Ok(());
        }
        let mut guest = Guest::from_file_systems(Box::new(MemoryFileSystem::new()), Vec::new()).unwrap();
        for (change, paths) in steps {
            let (theirs, ours) = (host.apply(&change), apply(&mut guest, &change));
            prop_assert_eq!(theirs.is_ok(), ours.is_ok(), "{:?}: kernel {:?}, guest {:?}", change, theirs, ours);
            for path in &paths {
                let followed = guest.resolve(path.as_bytes()).unwrap();
                prop_assert_eq!(host.resolve(path, OFlags::empty()), followed, "{} after {:?}", path, change);
                let exists = guest.lstat(path.as_bytes()).unwrap();
                let theirs = host.open(path, OFlags::PATH | OFlags::NOFOLLOW).map(|fd| fs::fstat(fd).unwrap().st_mode);
                let theirs = theirs.ok().map(fs::FileType::from_raw_mode);
                let ours = exists.map(|metadata| match metadata.kind {
                    FileKind::Directory => fs::FileType::Directory,
                    FileKind::Symlink => fs::FileType::Symlink,
                    _ => fs::FileType::RegularFile,
                });
                prop_assert_eq!(theirs, ours, "{} itself after {:?}", path, change);
                // This also makes the guest remember the names, for all that comes after.
                let names = guest.read_dir(path.as_bytes()).ok();
                let names = names.map(|entries| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>());
                prop_assert_eq!(host.names(path), names, "names in {} after {:?}", path, change);
            }
        }
        prop_assert_eq!(host.tree(), guest_tree(&guest));
    }
}

#[test]
fn forty_links_are_followed_and_not_one_more() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    let root = fs::open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let host = Host { root, top };
    let mut guest = Guest::from_file_systems(Box::new(MemoryFileSystem::new()), Vec::new()).unwrap();
    let mut changes = vec![Change::Write("/0".to_owned(), b"end".to_vec())];
    changes.extend((1..50).map(|at| Change::Symlink(format!("/{}", at - 1), format!("/{at}"))));
    for change in changes {
        host.apply(&change).unwrap();
        apply(&mut guest, &change).unwrap();
    }
    assert_eq!(guest.read(b"/40").unwrap(), b"end");
    assert!(matches!(guest.read(b"/41").unwrap_err().cause(), Error::TooManyLinks));
    for at in 0..50 {
        let path = format!("/{at}");
        assert_eq!(host.resolve(&path, OFlags::empty()), guest.resolve(path.as_bytes()).unwrap(), "{path}");
    }
}
