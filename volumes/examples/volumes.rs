//! Prints the volumes of a raw disk image: `cargo run --example volumes -- disk.raw`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: volumes DISK")?;
    let disk = Arc::new(block::Memory::from(std::fs::read(path)?));
    let layout = volumes::discover(&disk)?;
    println!("{:?}", layout.table);
    for volume in &layout.volumes {
        let content = volumes::probe(&volume.device(disk.clone())?)?;
        let (uuid, label) = (content.uuid.unwrap_or_default(), content.label.unwrap_or_default());
        println!("{}\t{}\t{}\t{}\t{uuid}\t{label}", volume.name, volume.start, volume.len, content.kind);
    }
    layout.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    Ok(())
}
