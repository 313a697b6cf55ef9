//! Reads and writes XFS file systems on any [`block`] device.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use block::{Access, HostFile};
//! use xfs::{FileSystem, OpenOptions};
//!
//! let device = Arc::new(HostFile::open("root.img", Access::ReadWrite)?);
//! let mut fs = FileSystem::open(device, &OpenOptions::default())?;
//! let etc = fs.lookup(fs.root(), b"etc")?.ok_or("there is no /etc")?;
//! if let Some(id) = fs.lookup(etc, b"machine-id")? {
//!     fs.set_len(id, 0)?;
//! }
//! fs.flush()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is read and what is written
//!
//! Versions 5 and 4 are read, with all forms of directories, extents and attributes. Version 5 is written: with or without
//! `finobt`, `sparse`, `reflink`, `rmapbt`, `bigtime`, `inobtcount`, `nrext64`, in all sizes of blocks, inodes and
//! directory blocks. Not written, with the reason in [`FileSystem::read_only_reason`], is what
//! needs repair, version 4, parent pointers, a realtime section, an external log, quota accounting, and names without case.
//!
//! A file system that was not unmounted has its log replayed in memory when it is opened ([`FileSystem::log_state`]), for
//! reading, too; the next flush writes all of it. No changes are logged: what must happen as a whole belongs on a device
//! that makes it so, such as an overlay with a redo log or an image's transaction. The groups' B+trees and directories are built anew, as a whole,
//! from what is in memory, and checked before any of it reaches the device.
#![forbid(unsafe_code)]

mod bytes;
mod change;
mod commit;
mod directory;
mod error;
mod extents;
mod file_read;
mod file_system;
mod file_write;
mod fork;
mod group;
mod identity;
mod inode;
mod inode_table;
mod limits;
mod listing;
mod log;
mod look;
mod metadata;
mod placement;
mod rmap;
mod scrub;
mod space;
mod store;
mod superblock;
mod tree;
mod xattr;
mod zeros;

pub use error::{Corrupt, Error, Result};
pub use file_system::{FileSystem, OpenOptions};
pub use log::LogState;
pub use metadata::{DirEntry, FileKind, Metadata, NewNode, Ownership, Timestamp};
pub use scrub::ScrubReport;
