//! Whole qcow2 images.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use block::{ReadAt, Storage, WriteAt};
use qcow2::{CreateOptions, Image, MappedKind, Measure, OpenOptions, Repair, Transaction};

use crate::base::subclusters;
use crate::bounded::Bounded;
use crate::input::Input;

/// Opens the input as an image; reads it, changes it in a transaction, and writes to it in place.
///
/// The first 8 bytes say what is written; the rest is the image. After a commit the image must open, account for every
/// cluster, and read as the transaction did.
pub fn qcow2_image(data: &[u8]) {
    let mut input = Input(data);
    let changes = Input(input.bytes(8));
    use_image(input.0, changes);
}

/// An image with extended L2 entries, in which up to 15 places are changed; what is done is as in [`qcow2_image`].
///
/// Input: 8 bytes of what is written, and the changes.
pub fn qcow2_subclusters(data: &[u8]) {
    let mut input = Input(data);
    let changes = Input(input.bytes(8));
    use_image(&subclusters().patched(&mut input), changes);
}

/// Repairs the input: what is left must read as before, and an image without problems must be one that can be changed.
///
/// Input: an image.
pub fn qcow2_repair(data: &[u8]) {
    for how in [Repair::All, Repair::Leaks] {
        repair(data, how);
    }
}

/// Snapshots, lengths and bitmaps of an image.
///
/// Input: how many bytes say what is done (modulo 32), those bytes, and the image.
pub fn qcow2_operations(data: &[u8]) {
    let mut input = Input(data);
    let len = usize::from(input.u8() % 32);
    let operations = Input(input.bytes(len));
    operate(input.0, operations);
}

fn use_image(bytes: &[u8], changes: Input<'_>) {
    if read(bytes).is_none() {
        return;
    }
    change(bytes, changes, false);
    change(bytes, changes, true);
    write_in_place(bytes, changes);
}

pub(crate) fn open(storage: Arc<Bounded>, writable: bool) -> Option<Image> {
    Image::open_storage(storage, &OpenOptions::new().writable(writable)).ok()
}

/// Where on a disk of this length to look: its start, its end, and the places in between where tables begin.
fn places(len: u64) -> impl Iterator<Item = (u64, u64)> {
    let starts = [0, len / 3, len / 2, len.saturating_sub(70_000)];
    starts.into_iter().map(move |start| (start, (len - start).min(70_000))).filter(|(_, len)| *len > 0)
}

fn read(bytes: &[u8]) -> Option<()> {
    let image = open(Arc::new(Bounded::new(bytes.to_vec())), false)?;
    let _ = image.info();
    let _ = image.check(&mut |problem| drop(problem.to_string()));
    for bitmap in image.bitmaps().unwrap_or_default() {
        let _ = image.read_bitmap(&bitmap.name).map(|bits| (bits.count(), bits.ranges().take(1000).count()));
    }
    if image.len() < 1 << 20 {
        let _ = image.map_chain(&mut |_| {});
        let _ = Measure::of_image(&image, &CreateOptions::new());
        let _ = qcow2::compare(&image, &image, &mut |_| {});
    }
    let mut at = 0;
    for _ in 0..200 {
        if at >= image.len() {
            break;
        }
        let Ok(extent) = image.map(at, image.len() - at) else { break };
        assert!(extent.len > 0, "an extent of no bytes at {at}");
        at += extent.len;
    }
    for (start, len) in places(image.len()) {
        let _ = block::read_vec(&image, start, len);
        let _ = image.extent_at(start, len);
    }
    // One that is only read can be filled, not committed.
    let transaction = image.begin().ok()?;
    let _ = transaction.write_at(transaction.len() / 2, &[1; 600][..transaction.len().div_ceil(2).min(600) as usize]);
    assert!(transaction.commit().is_err(), "committed to an image that is only read");
    Some(())
}

/// Writes, zeroes and discards some ranges, as the input says.
fn scribble(device: &dyn WriteAt, mut changes: Input<'_>) -> block::Result<()> {
    let len = device.len();
    let selector = changes.u8();
    for round in 0..u64::from(selector % 4) {
        let at = u64::from(changes.u16()) * 64 % len.max(1);
        let size = (u64::from(selector) * 37 + round).min(len - at);
        match (u64::from(selector / 4) + round) % 3 {
            0 => device.write_at(at, &vec![selector | 1; size as usize]),
            1 => device.write_zeroes(at, size.saturating_mul(8).min(len - at)),
            _ => device.discard(at / 512 * 512, (size * 512).min(len - at / 512 * 512)),
        }?;
    }
    Ok(())
}

/// As [`scribble`], and then, for one input in two, compresses some clusters.
fn scribble_in_place(image: &Image, changes: Input<'_>) -> block::Result<()> {
    let mut selector = changes;
    let selector = selector.u8();
    scribble(image, changes)?;
    let size = image.allocation_unit().map_or(512, |unit| unit.len);
    if selector & 0x80 == 0 || image.len() == 0 || size > 70_000 {
        return Ok(());
    }
    let first = u64::from(selector) * 7 % image.len().div_ceil(size) * size;
    for round in 0..3 {
        let len = ((round + 1) * size).min(image.len() - first);
        image.write_compressed(first, &vec![selector.wrapping_add(round as u8); len as usize])?;
    }
    Ok(())
}

/// Whether nothing is wrong with the image, nor will be when the file gets longer: refcounts of clusters beyond its end
/// are none of a check's business.
pub(crate) fn is_clean(storage: &Bounded) -> bool {
    let Some(image) = open(Arc::new(Bounded::new(storage.to_vec())), false) else { return false };
    let more = 40 * image.info().map_or(u64::MAX / 64, |info| info.cluster_size);
    let longer = Arc::new(Bounded::new(storage.to_vec()));
    if more > 4 << 20 || longer.set_len(storage.len().next_multiple_of(more) + more).is_err() {
        return false;
    }
    let clean = |image: &Image| image.check(&mut |_| {}).is_ok_and(|report| report.is_clean());
    clean(&image) && open(longer, false).is_some_and(|image| clean(&image))
}

pub(crate) fn assert_clean(storage: &Arc<Bounded>, after: &str) {
    let image = open(storage.clone(), false).unwrap_or_else(|| panic!("the image does not open after {after}"));
    let mut problems = Vec::new();
    let report = image.check(&mut |problem| problems.push(problem.to_string()));
    assert!(report.is_ok_and(|report| report.is_clean()), "{after} damaged the image: {problems:#?}");
}

fn contents(device: &dyn ReadAt) -> Vec<Option<Vec<u8>>> {
    places(device.len()).map(|(start, len)| block::read_vec(device, start, len).ok()).collect()
}

fn change(bytes: &[u8], changes: Input<'_>, delete_snapshots: bool) -> Option<()> {
    let storage = Arc::new(Bounded::new(bytes.to_vec()));
    let transaction = open(storage.clone(), true)?.begin().ok()?;
    // With so little memory most of it has to go to free clusters before the commit.
    let transaction: Transaction = transaction.memory_limit(2000);
    if delete_snapshots {
        transaction.delete_snapshots();
    }
    let was_clean = is_clean(&storage);
    let _ = scribble(&transaction, changes);
    let before = contents(&transaction);
    let _ = transaction.stale_host_bytes();
    transaction.commit().ok()?;
    assert!(same(&before, &contents(&transaction)), "the commit changed what is read");
    drop(transaction);
    if was_clean {
        assert_clean(&storage, "the commit");
    }

    let image = open(storage.clone(), true).expect("the image does not open after the commit");
    assert!(same(&before, &contents(&image)), "after the commit the image reads otherwise");
    let again = image.begin().expect("the image is damaged after the commit");
    let committed = again.commit().expect("nothing to commit, and it fails");
    assert!(!committed.changed, "a commit of nothing changes the image");
    assert!(committed.host_bytes_reclaimed == 0, "the first commit left {committed:?}");
    Some(())
}

/// Whether what could be read before reads the same after.
fn same(before: &[Option<Vec<u8>>], after: &[Option<Vec<u8>>]) -> bool {
    before.iter().zip(after).all(|(before, after)| before.is_none() || before == after)
}

fn write_in_place(bytes: &[u8], changes: Input<'_>) -> Option<()> {
    let storage = Arc::new(Bounded::new(bytes.to_vec()));
    let was_clean = is_clean(&storage);
    let image = open(storage.clone(), true)?;
    let written = scribble_in_place(&image, changes).and_then(|()| image.flush());
    let after = contents(&image);
    drop(image);
    // A write that fails may leave clusters that nobody uses.
    if was_clean && written.is_ok() {
        assert_clean(&storage, "writing in place");
        let image = open(storage.clone(), false).expect("the image does not open after it was written");
        assert!(same(&after, &contents(&image)), "what was written in place reads otherwise");
    }
    // Where the tables led to each other it need not be an image any more.
    let _ = read(&storage.to_vec());
    Some(())
}

fn repair(bytes: &[u8], how: Repair) -> Option<()> {
    let storage = Arc::new(Bounded::new(bytes.to_vec()));
    let old = open(storage.clone(), false)?;
    let (before, shows_header) = (contents(&old), shows_header(&old));
    let image = Image::open_storage(storage.clone(), &OpenOptions::new().repair(true)).ok()?;
    // Where a table is also a cluster of the disk, putting flags right in it changes what is read.
    let mut flags = shows_header;
    let concerns_flags = |fault: &str| {
        fault.contains("COPIED") || (fault.contains("used") && !fault.contains("used 0") && !fault.contains("used 1 "))
    };
    let report = image.repair(how, &mut |problem| flags |= concerns_flags(&problem.fault)).ok()?;
    drop(image);
    let image = open(storage.clone(), false).expect("the image does not open after the repair");
    assert!(flags || same(&before, &contents(&image)), "after the repair the image reads otherwise");
    drop(image);
    if report.is_clean() {
        assert_clean(&storage, "a repair that leaves nothing");
        let image = open(storage.clone(), true).expect("a repaired image cannot be written");
        image.begin().expect("a repaired image is damaged");
    }
    Some(())
}

/// Whether the disk reads the image's own header somewhere.
fn shows_header(image: &Image) -> bool {
    let mut at = 0;
    for _ in 0..1000 {
        let Ok(extent) = image.map(at, image.len().saturating_sub(at)) else { break };
        if matches!(extent.kind, MappedKind::Data { host_offset } if host_offset < 512) {
            return true;
        }
        at += extent.len;
    }
    false
}

/// Contents of a disk that snapshots hold on to: its length, and some of its bytes.
type Held = (u64, Vec<Option<Vec<u8>>>);

fn operate(bytes: &[u8], mut operations: Input<'_>) -> Option<()> {
    let storage = Arc::new(Bounded::new(bytes.to_vec()));
    // What an image that contradicts itself turns into is not told by anything.
    if !is_clean(&storage) {
        return None;
    }
    let mut held: BTreeMap<String, Held> = BTreeMap::new();
    for round in 0..6 {
        if operations.is_empty() {
            break;
        }
        let (what, argument) = (operations.u8(), operations.u8());
        let mut image = open(storage.clone(), true)?;
        let len = image.len();
        let (known, before) = (image.snapshots().unwrap_or_default(), contents(&image));
        let snapshot = known.get(usize::from(argument) % known.len().max(1)).map(|snapshot| snapshot.id.clone());
        let bitmaps = image.bitmaps().unwrap_or_default();
        let bitmap = bitmaps.get(usize::from(argument) % bitmaps.len().max(1)).map(|bitmap| bitmap.name.clone());
        let bitmap = bitmap.unwrap_or_default();
        let done = match what % 12 {
            0 => image.create_snapshot(&format!("snapshot {round}"), SystemTime::UNIX_EPOCH).map(|made| {
                held.insert(made.id, (len, before.clone()));
            }),
            1 => match &snapshot {
                Some(id) => image.apply_snapshot(id).map(|()| {
                    if let Some((len, before)) = held.get(id) {
                        assert!(
                            *len == image.len() && same(before, &contents(&image)),
                            "snapshot {id} reads otherwise"
                        );
                    }
                }),
                None => Ok(()),
            },
            2 => snapshot.map_or(Ok(()), |id| image.delete_snapshot(&id)),
            3 => image.delete_all_snapshots(),
            4 => image.resize(u64::from(argument) << (9 + what % 8)).map(|()| {
                assert!(image.len() == u64::from(argument) << (9 + what % 8), "the length is not what was asked for");
            }),
            5 => image.add_bitmap(&format!("bitmap {round}"), Some(512 << (argument % 10))),
            6 => image.remove_bitmap(&bitmap),
            7 => image.clear_bitmap(&bitmap),
            8 => {
                let same = image.enable_bitmap(&bitmap).is_ok() && argument & 1 == 0;
                if same { image.disable_bitmap(&bitmap) } else { Ok(()) }
            }
            9 => image.merge_bitmap(&bitmap, &bitmaps.first().map(|first| first.name.clone()).unwrap_or_default()),
            10 => {
                let written = scribble_in_place(&image, operations).and_then(|()| image.flush());
                operations.bytes(4);
                written.map_err(Into::into)
            }
            _ => {
                let transaction = image.begin().expect("an image without problems cannot be changed");
                let _ = scribble(&transaction, operations);
                operations.bytes(4);
                transaction.commit().map(drop)
            }
        };
        assert_clean(&storage, &format!("operation {}: {done:?}", what % 12));
        if matches!(what % 12, 0 | 2 | 3 | 5..=9) {
            let image = open(storage.clone(), false).expect("the image does not open");
            assert!(same(&before, &contents(&image)), "operation {} changed what is read", what % 12);
        }
        for (id, (len, before)) in &held {
            let image = open(storage.clone(), false).expect("the image does not open");
            if let Ok(snapshot) = image.into_snapshot(id) {
                assert!(*len == snapshot.len() && same(before, &contents(&snapshot)), "snapshot {id} was changed");
            }
        }
    }
    Some(())
}
