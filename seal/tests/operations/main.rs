//! The operations, on guests in memory and on a disk image.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what fails in a test has to fail the test, and a test that is skipped says so"
)]

mod accounts;
mod customize;
mod document;
mod end_to_end;
mod files;
mod hostile;
mod identity;
mod layouts;
mod network;
mod new_ids;
mod relabel;
mod script;
mod ssh;
mod state;
mod support;
mod whole;
