//! Tests judged by programs that we did not write: mke2fs makes the images, e2fsck, debugfs and the kernel judge them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "functions that are parts of tests fail and speak as tests do"
)]

mod casefold;
mod check;
mod common;
mod corrupt;
mod directory;
mod extents;
mod fast_commit;
mod features;
mod identity;
mod inline;
mod io_errors;
mod large_values;
mod model;
mod read;
mod recovery;
mod scrub;
mod second_reader;
mod special;
mod write;
mod xattr;
