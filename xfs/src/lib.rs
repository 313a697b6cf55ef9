//! Reads XFS file systems on any [`block`] device.
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "what writes comes next and uses it")]

mod bytes;
mod directory;
mod error;
mod extents;
mod file_read;
mod file_system;
mod inode;
mod inode_table;
mod limits;
mod listing;
mod log;
mod look;
mod metadata;
mod store;
mod superblock;
mod xattr;
mod zeros;

pub use error::{Corrupt, Error, Result};
pub use file_system::{FileSystem, OpenOptions};
pub use metadata::{DirEntry, FileKind, Metadata, NewNode, Ownership, Statfs, Timestamp};
