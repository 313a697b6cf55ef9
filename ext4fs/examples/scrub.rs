//! Scrubs the ext4 file system of a raw image in place, and tells what it found and how long it took:
//! `cargo run --release --example scrub -- [--no-file-slack] IMAGE [OFFSET LENGTH]`.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use block::{Access, HostFile, ReadAt, Window};
use ext4fs::{FileSystem, OpenOptions, ScrubOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (options, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let mut words = words.into_iter();
    let file =
        HostFile::open(words.next().ok_or("usage: scrub [--no-file-slack] IMAGE [OFFSET LENGTH]")?, Access::ReadWrite)?;
    let offset = words.next().map_or(Ok(0), |word| word.parse())?;
    let len = words.next().map_or(Ok(file.len() - offset), |word| word.parse())?;
    let device = Arc::new(Window::new(file, offset, len)?);

    let start = Instant::now();
    let mut fs = FileSystem::open(device, &OpenOptions::default())?;
    let report = fs.scrub_with(&ScrubOptions { file_slack: options.is_empty() })?;
    fs.flush()?;
    writeln!(std::io::stdout(), "{report:#?}\n{:?}", start.elapsed())?;
    Ok(())
}
