//! A whole qcow2 image from bytes.

use std::sync::Arc;

use block::{ReadAt, WriteAt};
use qcow2::{Image, OpenOptions, Transaction};

use crate::bounded::Bounded;
use crate::input::Input;

/// Opens the input as an image; reads it, changes it in a transaction, and writes to it in place.
///
/// The first 8 bytes say what is written; the rest is the image. After a commit the image must open, account for every
/// cluster, and read as the transaction did.
pub fn qcow2_image(data: &[u8]) {
    let mut input = Input(data);
    let changes = Input(input.bytes(8));
    let bytes = input.0;
    if read(bytes).is_none() {
        return;
    }
    change(bytes, changes, false);
    change(bytes, changes, true);
    write_in_place(bytes, changes);
}

fn open(storage: Arc<Bounded>, writable: bool) -> Option<Image> {
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
fn scribble(device: &dyn WriteAt, mut changes: Input<'_>) {
    let len = device.len();
    let selector = changes.u8();
    for round in 0..u64::from(selector % 4) {
        let at = u64::from(changes.u16()) * 64 % len.max(1);
        let size = (u64::from(selector) * 37 + round).min(len - at);
        let _ = match (u64::from(selector / 4) + round) % 3 {
            0 => device.write_at(at, &vec![selector | 1; size as usize]),
            1 => device.write_zeroes(at, size.saturating_mul(8).min(len - at)),
            _ => device.discard(at / 512 * 512, (size * 512).min(len - at / 512 * 512)),
        };
    }
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
    scribble(&transaction, changes);
    let before = contents(&transaction);
    let _ = transaction.stale_host_bytes();
    transaction.commit().ok()?;
    assert!(same(&before, &contents(&transaction)), "the commit changed what is read");
    drop(transaction);

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
    let image = open(storage.clone(), true)?;
    scribble(&image, changes);
    let _ = image.flush();
    let _ = contents(&image);
    drop(image);
    // What was written need not be an image any more, if the tables led to each other.
    let _ = read(&storage.to_vec());
    Some(())
}
