//! XFS file systems that are damaged in one place or in several, and logs that say what no kernel would.

use std::sync::{Arc, LazyLock};

use block::{Memory, Overlay, ReadAt, WriteAt};
use xfs::{FileKind, FileSystem, NewNode, OpenOptions, Ownership};

use crate::input::Input;

/// A base, and what is known of it.
struct Base {
    disk: Arc<Memory>,
    /// Sectors of 512 bytes that hold something, but what files hold and the log.
    used: Vec<u64>,
    log: Log,
}

/// Where a base's log is, in bytes, and its records; where the next one goes.
struct Log {
    start: u64,
    end: u64,
    records: Vec<u64>,
    head: u64,
}

const SECTOR: usize = 512;
const BLOCK: usize = 1024;
const RECORD: u32 = 0xfeed_babe;

static IMAGE: LazyLock<Base> = LazyLock::new(|| Base::new(include_bytes!("../bases/xfs.qcow2")));
static DIRTY: LazyLock<Base> = LazyLock::new(|| Base::new(include_bytes!("../bases/xfs-log.qcow2")));

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

impl Base {
    fn new(image: &'static [u8]) -> Self {
        let storage = Arc::new(Memory::from(image.to_vec()));
        let image = qcow2::Image::open_storage(storage, &qcow2::OpenOptions::new()).expect("a base is an image");
        let bytes = block::read_vec(&image, 0, image.len()).expect("a base can be read");
        let (size, group_blocks, fsb) = (number(&bytes, 4, 4), number(&bytes, 84, 4), number(&bytes, 48, 8));
        let (group, block) = (fsb >> bytes[124], fsb & ((1 << bytes[124]) - 1));
        let start = (group * group_blocks + block) * size;
        let end = start + number(&bytes, 96, 4) * size;
        let sectors = || (0..bytes.len() as u64).step_by(SECTOR);
        let at = |sector: u64| &bytes[sector as usize..sector as usize + SECTOR];
        let used = sectors().filter(|sector| {
            let is_contents = at(*sector).iter().all(|byte| *byte == b'c');
            !(start..end).contains(sector) && !is_contents && at(*sector).iter().any(|byte| *byte != 0)
        });
        let used = used.collect();
        let is_record = |sector: &u64| number(at(*sector), 0, 4) == u64::from(RECORD) && number(at(*sector), 12, 4) > 0;
        let records: Vec<u64> = (start..end).step_by(SECTOR).filter(is_record).collect();
        let last = *records.last().expect("a log has records");
        let head = last + SECTOR as u64 + number(at(last), 12, 4).next_multiple_of(SECTOR as u64);
        Self { used, log: Log { start, end, records, head }, disk: Arc::new(Memory::from(bytes)) }
    }
}

/// A file system with up to 15 changes anywhere in its metadata; checksums are put right.
///
/// Input: how many changes (modulo 16), and for each which sector (2 bytes), where in it (2 bytes), how many bytes
/// (modulo 32, and one more), and the bytes.
pub fn xfs_image(data: &[u8]) {
    let mut input = Input(data);
    let base = &*IMAGE;
    let disk = Arc::new(Overlay::new(base.disk.clone()));
    for _ in 0..input.u8() % 16 {
        let sector = base.used[usize::from(input.u16()) % base.used.len()];
        let within = usize::from(input.u16()) % SECTOR;
        let len = usize::from(input.u8()) % 32 + 1;
        let patch = input.bytes(len.min(SECTOR - within));
        let _ = disk.write_at(sector + within as u64, patch);
        put_checksums(&*disk, sector / BLOCK as u64 * BLOCK as u64);
    }
    run(disk);
}

/// Puts the checksums of what begins in a block right.
fn put_checksums(disk: &dyn WriteAt, block: u64) {
    let mut bytes = [0; BLOCK];
    let Ok(()) = disk.read_at(block, &mut bytes) else { return };
    let put = |part: &mut [u8], at: usize| {
        part[at..at + 4].fill(0);
        let sum = crc32c::crc32c(part);
        part[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    };
    for part in bytes.chunks_exact_mut(SECTOR) {
        match &part[..4] {
            b"XFSB" => put(part, 224),
            b"XAGF" => put(part, 216),
            b"XAGI" => put(part, 312),
            b"XAFL" => put(part, 32),
            [b'I', b'N', ..] => put(part, 100),
            _ => {}
        }
    }
    match (&bytes[..4], &bytes[8..10]) {
        (b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC", _) => put(&mut bytes, 52),
        (b"BMA3", _) => put(&mut bytes, 64),
        (b"XDB3" | b"XDD3" | b"XDF3", _) => put(&mut bytes, 4),
        (b"XARM" | b"XSLM", _) | (_, [0x3d, 0xf1 | 0xff] | [0x3e, 0xbe] | [0x3b, 0xee]) => put(&mut bytes, 12),
        _ => {}
    }
    let _ = disk.write_at(block, &bytes);
}

/// A log that waits for its replay: up to 15 changes in its records, whose checksums are put right, and one record
/// more of operations that are the rest of the input.
///
/// Input: how many changes (modulo 16), and for each which of the last records, where in it (2 bytes), how many bytes
/// (modulo 32, and one more), and the bytes; how many operations the last record says that it has, and their bytes.
pub fn xfs_log(data: &[u8]) {
    let mut input = Input(data);
    let Base { disk, log, .. } = &*DIRTY;
    let disk = Arc::new(Overlay::new(disk.clone()));
    for _ in 0..input.u8() % 16 {
        let at = log.records[log.records.len() - 1 - usize::from(input.u8()) % log.records.len()];
        let mut head = [0; SECTOR];
        let Ok(()) = disk.read_at(at, &mut head) else { return };
        let len = (SECTOR as u64 + number(&head, 12, 4)).min(log.end - at) as usize;
        let Ok(mut record) = block::read_vec(&*disk, at, len as u64) else { return };
        let within = usize::from(input.u16()) % len;
        let wanted = usize::from(input.u8()) % 32 + 1;
        let patch = input.bytes(wanted.min(len - within));
        record[within..][..patch.len()].copy_from_slice(patch);
        put_record(&*disk, at, &mut record);
    }
    let (count, operations) = (input.u8(), input.bytes(16 << 10));
    if !operations.is_empty() {
        let last = log.records[log.records.len() - 1];
        let mut head = [0; SECTOR];
        let Ok(()) = disk.read_at(last, &mut head) else { return };
        let len = operations.len().next_multiple_of(SECTOR);
        let mut record = vec![0; SECTOR + len];
        record[..SECTOR].copy_from_slice(&head);
        record[SECTOR..][..operations.len()].copy_from_slice(operations);
        record[12..16].copy_from_slice(&(len as u32).to_be_bytes());
        record[20..24].copy_from_slice(&(((log.head - log.start) / SECTOR as u64) as u32).to_be_bytes());
        record[40..44].copy_from_slice(&u32::from(count).to_be_bytes());
        record[320..324].copy_from_slice(&(32_u32 << 10).to_be_bytes());
        let cycle = [head[4], head[5], head[6], head[7]];
        for sector in 0..len / SECTOR {
            let word: [u8; 4] = std::array::from_fn(|byte| record[SECTOR * (sector + 1) + byte]);
            record[44 + sector * 4..48 + sector * 4].copy_from_slice(&word);
            record[SECTOR * (sector + 1)..][..4].copy_from_slice(&cycle);
        }
        put_record(&*disk, log.head, &mut record);
    }
    run(disk);
}

/// Writes a record with one sector of headers, with a right checksum.
fn put_record(disk: &dyn WriteAt, at: u64, record: &mut [u8]) {
    record[32..36].fill(0);
    let len = (number(record, 12, 4) as usize).min(record.len() - SECTOR);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&record[..328]), &record[SECTOR..SECTOR + len]);
    record[32..36].copy_from_slice(&sum.to_le_bytes());
    let _ = disk.write_at(at, record);
}

/// Looks at everything, changes some of it, and scrubs.
fn run(disk: Arc<Overlay<Arc<Memory>>>) {
    if let Ok(fs) = FileSystem::open_read_only(disk.clone()) {
        walk(&fs);
    }
    let Ok(mut fs) = FileSystem::open(disk, &OpenOptions::default()) else { return };
    let root = fs.root();
    let owner = Ownership { mode: 0o644, uid: 1, gid: 2 };
    for entry in fs.read_dir(root).unwrap_or_default().into_iter().take(20) {
        let _ = fs.set_xattr(entry.inode, b"security.selinux", &[b's'; 300]);
        for inner in fs.read_dir(entry.inode).unwrap_or_default().into_iter().take(10) {
            let _ = fs.write_at(inner.inode, 5000, &[1; 9000]);
            let _ = fs.set_len(inner.inode, 77);
            let _ = fs.unlink(entry.inode, &inner.name);
        }
        let _ = fs.create(entry.inode, &[b'n'; 200], NewNode::Symlink(&[b't'; 900]), owner);
        let _ = fs.rename(root, &entry.name, root, b"renamed");
    }
    let _ = fs.flush();
    let _ = fs.scrub();
    let _ = fs.flush();
}

/// More than the bases have, by far.
const MAX_INODES: usize = 2000;

fn walk(fs: &FileSystem) {
    let mut pending = vec![fs.root()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(inode) = pending.pop() {
        if !seen.insert(inode) || seen.len() > MAX_INODES {
            continue;
        }
        let Ok(metadata) = fs.metadata(inode) else { continue };
        for name in fs.xattr_names(inode).unwrap_or_default() {
            let _ = fs.xattr(inode, &name);
        }
        match metadata.kind {
            FileKind::Directory => {
                pending.extend(fs.read_dir(inode).unwrap_or_default().iter().map(|entry| entry.inode));
            }
            FileKind::File => {
                let mut buf = [0; 3000];
                for at in [0, metadata.size / 2, metadata.size.saturating_sub(2000)] {
                    let read = fs.read_at(inode, at, &mut buf);
                    assert!(read.is_err() || read.is_ok_and(|read| read <= buf.len()), "more was read than asked for");
                }
            }
            FileKind::Symlink => drop(fs.read_link(inode)),
            _ => {}
        }
    }
}
