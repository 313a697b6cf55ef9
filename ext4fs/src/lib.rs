//! Reads and writes ext2, ext3 and ext4 file systems on any [`block`] device.
#![forbid(unsafe_code)]

mod address;
mod bitmap;
mod block_group;
mod block_map;
mod checksum;
mod directory;
mod directory_blocks;
mod error;
mod extent_tree;
mod features;
mod file_read;
mod file_system;
mod group_bitmaps;
mod inode;
mod inode_table;
mod journal;
mod layout;
mod limits;
mod look;
mod mapping;
mod metadata;
mod metadata_cache;
mod path;
mod recover;
mod superblock;
mod xattr;

pub use error::{Corrupt, Error, Result};
pub use file_system::{FileSystem, OpenOptions};
pub use metadata::{DirEntry, FileKind, Metadata, NewNode, Ownership, Statfs, Timestamp};
