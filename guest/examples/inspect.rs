//! Prints what a guest on a raw disk image is: `cargo run --example inspect -- disk.raw`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;
use std::time::Instant;

use guest::path::display;
use guest::{Guest, OpenOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: inspect DISK [PATTERN]...")?;
    let disk = Arc::new(block::MappedFile::open(path)?);
    let start = Instant::now();
    let guest = Guest::open_read_only(disk, &OpenOptions::default())?;
    println!("{} (id {}, version {})", guest.os().pretty_name, guest.os().id, guest.os().version_id);
    for volume in guest.volumes() {
        println!("{}: {} bytes at {}: {}", volume.name, volume.len, volume.start, volume.content);
    }
    for mount in guest.mounts() {
        println!("{} on {} ({})", mount.device, display(&mount.path), mount.type_name);
    }
    for unmounted in guest.unmounted() {
        println!("not mounted: {} on {}: {}", unmounted.spec, display(&unmounted.path), unmounted.reason);
    }
    guest.warnings().iter().for_each(|warning| println!("warning: {warning}"));
    println!("opened in {:?}", start.elapsed());

    for pattern in std::env::args().skip(2) {
        guest.glob(&pattern)?.iter().for_each(|path| println!("{}", display(path)));
    }
    let start = Instant::now();
    let mut names = 0;
    guest.walk_names(b"/", &mut |_, _| {
        names += 1;
        Ok(())
    })?;
    println!("{names} names in {:?}", start.elapsed());
    Ok(())
}
