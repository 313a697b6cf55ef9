//! The operations, on guests in memory and on a disk image.

mod accounts;
mod document;
mod end_to_end;
mod files;
mod hostile;
mod identity;
mod network;
mod ssh;
mod support;
mod whole;
