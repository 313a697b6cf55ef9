//! Reads and writes ext2, ext3 and ext4 file systems on any [`block`] device.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use block::{Access, HostFile};
//! use ext4fs::{FileSystem, OpenOptions};
//!
//! let device = Arc::new(HostFile::open("root.img", Access::ReadWrite)?);
//! let mut fs = FileSystem::open(device, &OpenOptions::default())?;
//! let release = fs.read(b"/etc/os-release")?;
//! fs.write(b"/etc/hostname", b"localhost\n")?;
//! fs.remove_dir_all(b"/var/tmp/build")?;
//! fs.flush()?;
//! # drop(release);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is read and what is written
//!
//! All that e2fsprogs 1.47 makes is read, but external journals, compression and the contents of encrypted files.
//! Written is what mke2fs makes by default for ext2, ext3 and ext4, with any block and inode size: extents and block maps,
//! `64bit`, `flex_bg`, `meta_bg`, `sparse_super2`, `metadata_csum`, `metadata_csum_seed`, `uninit_bg`, `orphan_file`,
//! `dir_index`, `large_dir`, `huge_file`, `dir_nlink`, `extra_isize`, `bigalloc`, `casefold`, `inline_data`, `ea_inode`, `mmp`, `quota`, `project`, `stable_inodes`, `verity` and `encrypt`
//! (what is sealed or encrypted can be looked at, moved and removed, but not rewritten). With other features, with the mark of errors, and
//! without a journal after a crash, a file system opens for reading and [`FileSystem::read_only_reason`] says why.
//!
//! Checksums are checked as blocks are read and set as they are written. No journal is written: what must happen as a
//! whole belongs on a device that makes it so, such as an overlay with a redo log or an image's transaction.
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod attribute;
mod attribute_store;
mod backup;
mod bitmap;
mod block_group;
mod block_hash;
mod block_map;
mod block_map_edit;
mod check;
mod checksum;
mod clusters;
mod directory;
mod directory_blocks;
mod error;
mod extent_edit;
mod extent_tree;
mod fast_commit;
mod features;
mod file;
mod file_read;
mod file_system;
mod file_write;
mod group_bitmaps;
mod identity;
mod inline_data;
mod inline_write;
mod inode;
mod inode_table;
mod journal;
mod layout;
mod limits;
mod link;
mod look;
mod mapping;
mod metadata;
mod metadata_cache;
mod mmp;
mod names;
mod orphan;
mod path;
mod placement;
mod punch;
mod quota;
mod recover;
mod scrub;
mod superblock;
mod unlink;
mod value_inode;
mod xattr;
mod zeros;

pub use error::{Corrupt, Error, Result};
pub use file::File;
pub use file_system::{FileSystem, OpenOptions};
pub use metadata::{DeviceNumber, DirEntry, FileFlags, FileKind, Metadata, NewNode, Ownership, Statfs, Timestamp};
pub use scrub::{ScrubOptions, ScrubReport};
