//! Seals a qcow2 image in place: `cargo run --release --example seal_image -- a.qcow2`.
//!
//! All that the program does, in a minute's reading: one transaction around the whole image, the guest found on it,
//! the operations, and the commit that makes the old image the new one at a stroke.
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use guest::{Guest, OpenOptions, Timestamp};
use qcow2::Image;
use seal::{Options, Selection};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: seal_image IMAGE")?;

    // Takes the locks that QEMU takes: the image of a running machine is refused.
    let image = Image::open(&path, &qcow2::OpenOptions::new().writable(true))?;
    // Internal snapshots would keep what is removed below.
    if !image.info()?.snapshots.is_empty() {
        return Err("the image has internal snapshots".into());
    }
    let transaction = Arc::new(image.begin()?);

    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let now = Timestamp { seconds, nanoseconds: 0 };
    let mut guest = Guest::open(transaction.clone(), &OpenOptions { root: None, read_only: false, now })?;
    println!("{path}: {}", guest.os().pretty_name);

    let report = seal::run(&mut guest, &Selection::defaults(), &Options::default())?;
    for operation in report.operations.iter().filter(|operation| !operation.changes.is_empty()) {
        println!("{}", operation.name);
        for change in &operation.changes {
            println!("    {:?} {}", change.action, change.path);
        }
    }
    drop(guest);

    // Until here nothing of the image has changed; behind here it is sealed.
    let committed = transaction.commit()?;
    println!("{} clusters written, {} freed", committed.clusters_written, committed.clusters_freed);
    Ok(())
}
