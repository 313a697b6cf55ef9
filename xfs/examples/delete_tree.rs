//! Deletes a folder of an XFS image, all or nothing: `cargo run --release -p goldenseal-xfs --example delete_tree IMAGE PATH`.
//!
//! The changes are staged in memory and committed through a redo log beside the image.
#![allow(clippy::print_stdout, reason = "an example says what it did")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use block::Staged;
use xfs::{FileKind, FileSystem, OpenOptions};

/// Removes what is in a folder, and returns how many names there were.
fn empty(fs: &mut FileSystem, folder: u64) -> xfs::Result<u64> {
    let mut gone = 0;
    for entry in fs.read_dir(folder)? {
        if entry.kind == FileKind::Directory {
            gone += empty(fs, entry.inode)?;
            fs.remove_dir(folder, &entry.name)?;
        } else {
            fs.unlink(folder, &entry.name)?;
        }
        gone += 1;
    }
    Ok(gone)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("delete_tree IMAGE PATH".into());
    };
    let device = Arc::new(Staged::open(Path::new(&image), None)?);
    let mut fs = FileSystem::open(device.clone(), &OpenOptions::default())?;
    let mut folder = fs.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        folder = fs.lookup(folder, name.as_bytes())?.ok_or_else(|| format!("there is no {path}"))?;
    }
    let gone = empty(&mut fs, folder)?;
    fs.flush()?;
    device.commit()?;
    println!("{gone} names are gone");
    Ok(())
}
