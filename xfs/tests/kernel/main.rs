//! What the kernel writes is read, and what is written the kernel and xfs_repair agree with.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

mod common;
mod dirty;
mod identity;
mod log;
mod read;
mod write;
