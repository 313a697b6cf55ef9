//! The kernel and we, side by side: the same random script of changes to copies of one image, for each of many sets of
//! features, must leave the same tree, and file systems in which `e2fsck` finds nothing.
//!
//! Needs root and loop devices; it is skipped by name elsewhere, and fails where the environment says `CI=true`.
//! `KERNEL_SEEDS=20` takes that many seeds for each set of features instead of one; `KERNEL_ONLY=text` only the sets
//! whose arguments contain the text; `KERNEL_SETS=file` takes the sets from a file, one a line; `KERNEL_KEEP=folder` keeps the images of a failure.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "functions that are parts of tests fail and speak as tests do"
)]

mod by_kernel;
mod by_us;
mod image;
mod matrix;
mod script;
mod tree;
