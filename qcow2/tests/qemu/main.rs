//! The crate beside QEMU's own programs: images that they make and we read, and those that we make and they judge.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

mod amend;
mod bitmaps;
mod check;
mod commit;
mod corruption;
mod crash;
mod data_file;
mod differential;
#[cfg(feature = "luks")]
mod encryption;
mod extended_l2;
mod header;
mod oracle;
mod overlap;
mod parallel;
mod read;
mod rebase;
mod resize;
mod snapshots;
mod write;
