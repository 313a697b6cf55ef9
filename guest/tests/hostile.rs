//! File systems whose directories are no trees, and paths without an end: an error or nothing, never a hang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use guest::memory::MemoryFileSystem;
use guest::path::{MAX_DEPTH, MAX_PATH};
use guest::{
    DirEntry, Error, FileKind, FileSystem, Guest, InodeNumber, Metadata, NewNode, Ownership, Result, ScrubReport,
    Timestamp, Walk,
};

/// A file system of directories only, that says what it is told to say: names to inodes.
#[derive(Debug)]
struct Liar(BTreeMap<u64, Vec<(Vec<u8>, u64)>>);

impl Liar {
    fn new(directories: &[(u64, &[(&str, u64)])]) -> Box<Self> {
        let entries =
            |entries: &[(&str, u64)]| entries.iter().map(|(name, to)| (name.as_bytes().to_vec(), *to)).collect();
        Box::new(Self(directories.iter().map(|(inode, names)| (*inode, entries(names))).collect()))
    }

    fn names(&self, inode: InodeNumber) -> Result<&Vec<(Vec<u8>, u64)>> {
        self.0.get(&inode.0).ok_or_else(|| Error::Corrupt(format!("there is no inode {}", inode.0)))
    }
}

impl FileSystem for Liar {
    fn type_name(&self) -> &'static str {
        "liar"
    }
    fn uuid(&self) -> Option<uuid::Uuid> {
        None
    }
    fn label(&self) -> Vec<u8> {
        Vec::new()
    }
    fn root(&self) -> InodeNumber {
        InodeNumber(0)
    }
    fn read_only_reason(&self) -> Option<String> {
        None
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        self.names(inode)?;
        let time = Timestamp::default();
        let (accessed, modified, changed) = (time, time, time);
        let kind = FileKind::Directory;
        Ok(Metadata { inode, kind, mode: 0, uid: 0, gid: 0, size: 0, links: 2, accessed, modified, changed })
    }
    fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>> {
        let found = self.names(directory)?.iter().find(|(one, _)| one == name);
        Ok(found.map(|(_, inode)| InodeNumber(*inode)))
    }
    fn read_dir(&self, directory: InodeNumber) -> Result<Vec<DirEntry>> {
        let entry = |(name, inode): &(Vec<u8>, u64)| DirEntry {
            name: name.clone(),
            inode: InodeNumber(*inode),
            kind: FileKind::Directory,
        };
        Ok(self.names(directory)?.iter().map(entry).collect())
    }
    fn read_link(&self, _: InodeNumber) -> Result<Vec<u8>> {
        Err(Error::NotALink)
    }
    fn read_at(&self, _: InodeNumber, _: u64, _: &mut [u8]) -> Result<usize> {
        Err(Error::NotAFile)
    }
    fn xattr_names(&self, _: InodeNumber) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
    fn xattr(&self, _: InodeNumber, _: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn set_clock(&mut self, _: Timestamp) {}
    fn create(&mut self, _: InodeNumber, _: &[u8], _: NewNode<'_>, _: Ownership) -> Result<InodeNumber> {
        Err(Error::NoSpace)
    }
    fn link(&mut self, _: InodeNumber, _: &[u8], _: InodeNumber) -> Result<()> {
        Err(Error::NoSpace)
    }
    fn unlink(&mut self, _: InodeNumber, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn remove_dir(&mut self, _: InodeNumber, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn rename(&mut self, _: InodeNumber, _: &[u8], _: InodeNumber, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn write_at(&mut self, _: InodeNumber, _: u64, _: &[u8]) -> Result<()> {
        Err(Error::NoSpace)
    }
    fn set_len(&mut self, _: InodeNumber, _: u64) -> Result<()> {
        Err(Error::NoSpace)
    }
    fn set_mode(&mut self, _: InodeNumber, _: u32) -> Result<()> {
        Ok(())
    }
    fn set_owner(&mut self, _: InodeNumber, _: u32, _: u32) -> Result<()> {
        Ok(())
    }
    fn set_times(&mut self, _: InodeNumber, _: Timestamp, _: Timestamp) -> Result<()> {
        Ok(())
    }
    fn set_xattr(&mut self, _: InodeNumber, _: &[u8], _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn remove_xattr(&mut self, _: InodeNumber, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn set_uuid(&mut self, _: uuid::Uuid) -> Result<()> {
        Ok(())
    }
    fn scrub(&mut self) -> Result<ScrubReport> {
        Ok(ScrubReport::default())
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn liar(directories: &[(u64, &[(&str, u64)])]) -> Guest {
    Guest::from_file_systems(Liar::new(directories), Vec::new()).unwrap()
}

fn is_corrupt(result: Result<()>) -> bool {
    matches!(result.unwrap_err().cause(), Error::Corrupt(_))
}

#[test]
fn directories_that_contain_themselves_end_a_walk() {
    for guest in [
        liar(&[(0, &[("a", 0)])]),
        liar(&[(0, &[("a", 1)]), (1, &[("b", 2)]), (2, &[("c", 1)])]),
        // Two names for each: without a check there are 2^30 paths.
        liar(&[(0, &[("a", 1), ("b", 1)]), (1, &[("a", 2), ("b", 2)]), (2, &[])]),
    ] {
        assert!(is_corrupt(guest.walk(b"/", &mut |_, _| Ok(Walk::Continue))));
        assert!(is_corrupt(guest.walk_names(b"/", &mut |_, _| Ok(()))));
    }
    let mut guest = liar(&[(0, &[("a", 1)]), (1, &[("b", 2)]), (2, &[("c", 1)])]);
    assert!(is_corrupt(guest.remove_all(b"/a", &mut |_, _| ())));
}

#[test]
fn a_path_may_lead_in_circles_and_no_deeper_than_it_may() {
    let guest = liar(&[(0, &[("a", 0)])]);
    let deep = "/a".repeat(MAX_DEPTH);
    assert!(guest.stat(deep.as_bytes()).unwrap().is_some());
    assert!(guest.stat(format!("{deep}/a").as_bytes()).unwrap().is_none());
    assert!(guest.stat("/a/..".repeat(10_000).as_bytes()).unwrap().is_some());
    let long = vec![b'/'; MAX_PATH + 1];
    assert!(matches!(guest.stat(&long).unwrap_err().cause(), Error::PathTooLong));
    assert_eq!(guest.glob(&"/*".repeat(500)).unwrap().len(), 1);
}

#[test]
fn names_that_are_paths_are_refused() {
    for name in ["a/b", "..", ".", "", "a\0"] {
        let guest = liar(&[(0, &[(name, 1)]), (1, &[])]);
        assert!(is_corrupt(guest.walk_names(b"/", &mut |_, _| Ok(()))), "{name:?}");
        assert!(is_corrupt(guest.read_dir(b"/").map(|_| ())), "{name:?}");
        assert!(is_corrupt(guest.glob("/*").map(|_| ())), "{name:?}");
    }
}

#[test]
fn deep_trees_are_walked_and_removed() {
    let mut fs = MemoryFileSystem::new();
    let mut here = fs.root();
    let owner = Ownership { mode: 0o755, uid: 0, gid: 0 };
    for _ in 0..MAX_DEPTH + 10 {
        here = fs.create(here, b"d", NewNode::Directory, owner).unwrap();
    }
    let mut guest = Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap();
    let error = guest.walk(b"/", &mut |_, _| Ok(Walk::Continue)).unwrap_err();
    assert!(matches!(error.cause(), Error::PathTooLong));

    let mut fs = MemoryFileSystem::new();
    fs.add_file("/x".repeat(MAX_DEPTH - 1), b"").unwrap();
    guest = Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap();
    let mut count = 0;
    guest.remove_all(b"/x", &mut |_, _| count += 1).unwrap();
    assert_eq!(count, MAX_DEPTH - 1);
}

#[test]
fn links_that_grow_the_path_are_bounded() {
    let mut fs = MemoryFileSystem::new();
    fs.add_symlink("/self", "self").unwrap();
    fs.add_symlink("/a", "b").unwrap();
    fs.add_symlink("/b", "../a").unwrap();
    fs.add_symlink("/grow", "grow/x".repeat(1000)).unwrap();
    fs.add_symlink("/long", "/".repeat(MAX_PATH)).unwrap();
    fs.add_symlink("/nul", b"a\0b").unwrap();
    fs.add_symlink("/empty", b"").unwrap();
    fs.add_symlink("/name", "n".repeat(300)).unwrap();
    fs.add_symlink("/up", "../../../../../..").unwrap();
    let guest = Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap();
    for path in ["/self", "/a", "/b", "/grow", "/nul", "/empty", "/name", "/self/x", "/grow/y/z", "/long/x"] {
        assert_eq!(guest.stat(path.as_bytes()).unwrap(), None, "{path}");
        assert_eq!(guest.resolve(path.as_bytes()).unwrap(), None, "{path}");
        assert!(guest.read(path.as_bytes()).is_err(), "{path}");
        assert!(guest.glob(&format!("{path}/*")).unwrap().is_empty(), "{path}");
    }
    assert_eq!(guest.resolve(b"/up").unwrap().unwrap(), b"/");
    assert_eq!(guest.stat(format!("/{}", "n".repeat(300)).as_bytes()).unwrap(), None);
    for bad in [&b""[..], b"a", b"/a\0"] {
        assert!(matches!(guest.stat(bad).unwrap_err().cause(), Error::InvalidPath(_)));
    }
}

#[test]
fn files_too_long_for_memory_are_not_read_at_once() {
    let mut fs = MemoryFileSystem::new();
    let file = fs.add_file("/var/log/lastlog", b"").unwrap();
    fs.set_len(file, guest::MAX_TEXT + 1).unwrap();
    let guest = Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap();
    let error = guest.read(b"/var/log/lastlog").unwrap_err();
    assert!(matches!(error.cause(), Error::TooLarge { .. }));
    assert_eq!(error.to_string(), "cannot read /var/log/lastlog");
    assert_eq!(guest.read_at(b"/var/log/lastlog", guest::MAX_TEXT, &mut [0; 8]).unwrap(), 1);
}
