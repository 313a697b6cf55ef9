//! Every operation at every failing call of the device and of the redo log: an error comes back, and once the log is
//! looked at again the device holds, byte for byte, what it held or what the operation makes of it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use block::{Error as BlockError, Extent, Identity, LogPlace, Memory, ReadAt, Staged, Storage, WriteAt, recover};
use ext4fs::{Error, FileSystem, NewNode, OpenOptions, Ownership, Result, Timestamp};

use crate::common::{NOW, check, e2fsck, has_tool, mke2fs, open, pattern, scratch};

const OWNER: Ownership = Ownership { mode: 0o644, uid: 7, gid: 8 };
const IDENTITY: Identity = *b"ext4 test device";

/// How many calls were made on the device and the log together, and from which on they fail.
struct Calls {
    made: AtomicU64,
    fail_from: u64,
}

/// A storage whose calls are counted with those of another.
#[derive(Clone)]
struct Counted {
    memory: Arc<Memory>,
    calls: Arc<Calls>,
}

impl Counted {
    fn pass(&self) -> block::Result<()> {
        if self.calls.made.fetch_add(1, Ordering::Relaxed) < self.calls.fail_from {
            return Ok(());
        }
        let source = std::io::Error::other("injected fault");
        Err(BlockError::Io { action: "use", offset: 0, len: 0, source })
    }
}

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.memory.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        self.pass()?;
        self.memory.read_at(offset, buf)
    }
    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        self.pass()?;
        self.memory.extent_at(offset, max_len)
    }
}

impl WriteAt for Counted {
    fn write_at(&self, offset: u64, buf: &[u8]) -> block::Result<()> {
        self.pass()?;
        self.memory.write_at(offset, buf)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> block::Result<()> {
        self.pass()?;
        self.memory.write_zeroes(offset, len)
    }
    fn discard(&self, offset: u64, len: u64) -> block::Result<()> {
        self.write_zeroes(offset, len)
    }
    fn flush(&self) -> block::Result<()> {
        self.pass()
    }
}

impl Storage for Counted {
    fn set_len(&self, len: u64) -> block::Result<()> {
        self.pass()?;
        self.memory.set_len(len)
    }
}

#[derive(Clone)]
struct Place {
    log: Counted,
    exists: Arc<Mutex<bool>>,
}

impl LogPlace for Place {
    fn open(&self, _: bool) -> block::Result<Option<Box<dyn Storage>>> {
        self.log.pass()?;
        Ok(self.exists.lock().unwrap().then(|| Box::new(self.log.clone()) as Box<dyn Storage>))
    }
    fn create(&self) -> block::Result<Box<dyn Storage>> {
        self.log.pass()?;
        *self.exists.lock().unwrap() = true;
        self.log.memory.set_len(0)?;
        Ok(Box::new(self.log.clone()))
    }
    fn remove(&self) -> block::Result<()> {
        self.log.pass()?;
        *self.exists.lock().unwrap() = false;
        Ok(())
    }
}

/// Where an operation is carried out.
struct Bench {
    device: Counted,
    place: Place,
}

impl Bench {
    fn new(image: &[u8], fail_from: u64) -> Self {
        let calls = Arc::new(Calls { made: AtomicU64::new(0), fail_from });
        let counted = |bytes| Counted { memory: Arc::new(Memory::from(bytes)), calls: calls.clone() };
        Self {
            device: counted(image.to_vec()),
            place: Place { log: counted(Vec::new()), exists: Arc::new(Mutex::new(false)) },
        }
    }

    /// Opens the file system, does one thing, and commits it.
    fn attempt(&self, operation: Operation) -> Result<()> {
        let staged =
            Arc::new(Staged::new(self.device.clone(), IDENTITY, Box::new(self.place.clone()))?.memory_limit(1 << 16));
        let mut fs = FileSystem::open(staged.clone(), &OpenOptions { read_only: false, clock: Some(NOW) })?;
        operation(&mut fs)?;
        fs.flush()?;
        staged.commit()?;
        Ok(())
    }

    /// What the device holds once an unfinished commit was finished, on a device that works.
    fn settled(self) -> Vec<u8> {
        let calls = Arc::new(Calls { made: AtomicU64::new(0), fail_from: u64::MAX });
        let works = |storage: Counted| Counted { calls: calls.clone(), ..storage };
        let device = works(self.device);
        let place = Place { log: works(self.place.log), exists: self.place.exists };
        recover(&device, &IDENTITY, &place).unwrap();
        assert!(!*place.exists.lock().unwrap(), "the log is gone once it was looked at");
        device.memory.to_vec()
    }
}

type Operation = fn(&mut FileSystem) -> Result<()>;

fn inode(fs: &FileSystem, path: &[u8]) -> Result<u32> {
    fs.resolve(path)
}

/// What is asked of a file system, each as someone would ask it who has just opened it.
const OPERATIONS: &[(&str, Operation)] = &[
    ("nothing", |_| Ok(())),
    ("read", |fs| fs.read(b"/pieces").map(drop)),
    ("read_at", |fs| fs.read_at(inode(fs, b"/d/file 7")?, 3, &mut [0; 9]).map(drop)),
    ("read_dir", |fs| fs.read_dir_path(b"/d").map(drop)),
    ("metadata", |fs| fs.metadata_path(b"/d/file 11").map(drop)),
    ("read_link", |fs| fs.read_link_path(b"/link").map(drop)),
    ("exists", |fs| fs.exists(b"/d/nothing").map(drop)),
    ("xattr", |fs| fs.xattr(inode(fs, b"/d/file 3")?, b"user.large").map(drop)),
    ("xattr_names", |fs| fs.xattr_names(inode(fs, b"/d/file 3")?).map(drop)),
    ("free_extents", |fs| fs.free_extents(|_| Ok(()))),
    ("check", |fs| fs.check().map(drop)),
    ("create", |fs| fs.create(inode(fs, b"/d")?, b"new", NewNode::File, OWNER).map(drop)),
    ("create_dir", |fs| fs.create_dir(b"/d/new")),
    ("create_dir_all", |fs| fs.create_dir_all(b"/d/new/and/below")),
    ("symlink", |fs| fs.symlink(&[b't'; 300], b"/d/new")),
    ("hard_link", |fs| fs.hard_link(b"/pieces", b"/d/again")),
    ("write a new file", |fs| fs.write(b"/d/new", &pattern(30_000, 3))),
    ("write over a file", |fs| fs.write(b"/pieces", &pattern(3000, 3))),
    ("write_at", |fs| fs.write_at(inode(fs, b"/pieces")?, 3000, &pattern(9000, 4))),
    ("write far behind the end", |fs| fs.write_at(inode(fs, b"/d/file 4")?, 3_000_000, b"far")),
    ("set_len", |fs| fs.set_len(inode(fs, b"/pieces")?, 5000)),
    ("punch_hole", |fs| fs.punch_hole(inode(fs, b"/pieces")?, 10_000, 20_000)),
    ("rename", |fs| fs.rename_path(b"/d", b"/e/moved")),
    ("rename over a file", |fs| fs.rename_path(b"/d/file 1", b"/pieces")),
    ("remove_file", |fs| fs.remove_file(b"/pieces")),
    ("remove_dir", |fs| fs.remove_dir_path(b"/empty")),
    ("remove_dir_all", |fs| fs.remove_dir_all(b"/d")),
    ("set_permissions", |fs| fs.set_permissions(b"/d/file 2", 0o600)),
    ("set_owner", |fs| fs.set_owner(inode(fs, b"/d/file 3")?, 1000, 1000)),
    ("set_times", |fs| fs.set_times(inode(fs, b"/d/file 2")?, NOW, Timestamp::default())),
    ("set_xattr", |fs| fs.set_xattr(inode(fs, b"/d/file 2")?, b"user.new", &pattern(500, 5))),
    ("remove_xattr", |fs| fs.remove_xattr(inode(fs, b"/d/file 3")?, b"user.large")),
    ("a file's handle", |fs| {
        let mut file = fs.create_file(b"/d/handle")?;
        file.write_at(100, b"text")?;
        file.set_len(2000)?;
        file.sync()
    }),
    ("set_label", |fs| fs.set_label(b"label")),
    ("set_uuid", |fs| fs.set_uuid([9; 16])),
    ("scrub", |fs| fs.scrub().map(drop)),
];

/// An image with something for each operation.
fn image(folder: &Path, arguments: &str, mebibytes: u64) -> Vec<u8> {
    let path = mke2fs(folder, arguments, mebibytes, None);
    let (device, mut fs) = open(&path);
    for directory in [&b"/d"[..], b"/e", b"/empty"] {
        fs.create_dir(directory).unwrap();
    }
    for n in 0..40u32 {
        fs.write(format!("/d/file {n}").as_bytes(), &pattern(n as usize * 60, n)).unwrap();
    }
    let pieces = fs.create(fs.root(), b"pieces", NewNode::File, OWNER).unwrap();
    for n in 0..24u32 {
        fs.write_at(pieces, u64::from(n) * 2048, &pattern(1024, n)).unwrap();
    }
    fs.set_xattr(fs.resolve(b"/d/file 3").unwrap(), b"user.large", &pattern(600, 1)).unwrap();
    fs.symlink(&[b'x'; 200], b"/link").unwrap();
    fs.remove_file(b"/d/file 20").unwrap();
    check(&mut fs, &device, &path, arguments);
    device.to_vec()
}

#[test]
fn every_operation_at_every_error_leaves_the_old_or_the_new() {
    if !has_tool("io errors", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (arguments, mebibytes) in [
        ("-t ext4 -b 1024 -N 64 -O ^has_journal,^resize_inode", 1),
        ("-t ext3 -b 1024 -N 64 -J size=1", 3),
        ("-t ext4 -b 1024 -N 64 -I 256 -O inline_data,ea_inode,quota,^has_journal,^resize_inode", 1),
        ("-t ext4 -b 1024 -C 2048 -N 64 -O bigalloc,^has_journal", 2),
    ] {
        let old = image(folder.path(), arguments, mebibytes);
        for (name, operation) in OPERATIONS {
            let what = format!("mke2fs {arguments}: {name}");
            let sound = Bench::new(&old, u64::MAX);
            sound.attempt(*operation).unwrap_or_else(|error| panic!("{what}: {error}"));
            let calls = sound.device.calls.made.load(Ordering::Relaxed);
            let new = sound.settled();
            let after = folder.path().join("after");
            std::fs::write(&after, &new).unwrap();
            e2fsck(&after, &what);
            let mut changed_all = false;
            // All of the first calls and the last ones, in which it is decided; of many between, some.
            let step = (calls / 120).max(1);
            for fail_from in (0..calls).filter(|call| call % step == 0 || call + 24 >= calls) {
                let bench = Bench::new(&old, fail_from);
                let result = bench.attempt(*operation);
                let returned = matches!(result, Err(Error::Io(_)));
                assert!(returned, "{what}, call {fail_from} of {calls} fails: {result:?}");
                let found = bench.settled();
                let is_new = found == new;
                assert!(
                    is_new || found == old,
                    "{what}, call {fail_from} of {calls} fails: neither the old nor the new"
                );
                assert!(is_new || !changed_all, "{what}, call {fail_from} of {calls} fails: what was done is undone");
                changed_all |= is_new && old != new;
            }
            assert!(old == new || changed_all, "{what}: no error came late enough to find the new");
        }
    }
}

/// Without a log below there is no going back; but there is an error, and nothing more is changed.
#[test]
fn in_place_every_error_is_told_and_nothing_follows_it() {
    if !has_tool("io errors in place", "mke2fs") {
        return;
    }
    let folder = scratch();
    let old = image(folder.path(), "-t ext4 -b 1024 -N 64 -O ^has_journal,^resize_inode", 1);
    for (name, operation) in OPERATIONS {
        let run = |fail_from| {
            let bench = Bench::new(&old, fail_from);
            let options = OpenOptions { read_only: false, clock: Some(NOW) };
            let result = FileSystem::open(Arc::new(bench.device.clone()), &options).and_then(|mut fs| {
                let done = operation(&mut fs).and_then(|()| fs.flush());
                let changed = bench.device.memory.to_vec() != old;
                if done.is_err() && changed {
                    let before = bench.device.memory.to_vec();
                    let refused = fs.write(b"/after the error", b"x");
                    assert!(refused.is_err(), "{name}, call {fail_from}: a change after an error");
                    assert!(fs.flush().is_err() && bench.device.memory.to_vec() == before, "{name}, call {fail_from}");
                }
                done
            });
            (result, bench.device.calls.made.load(Ordering::Relaxed))
        };
        let (sound, calls) = run(u64::MAX);
        sound.unwrap_or_else(|error| panic!("{name}: {error}"));
        for fail_from in 0..calls {
            let (result, _) = run(fail_from);
            assert!(matches!(result, Err(Error::Io(_))), "{name}, call {fail_from} of {calls} fails: {result:?}");
        }
    }
}
