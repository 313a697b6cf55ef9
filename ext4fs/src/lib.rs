//! Reads and writes ext2, ext3 and ext4 file systems on any [`block`] device.
#![forbid(unsafe_code)]

mod checksum;
mod directory;
mod error;
mod journal;
mod layout;
mod xattr;

pub use error::{Corrupt, Error, Result};
