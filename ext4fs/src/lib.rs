//! Reads and writes ext2, ext3 and ext4 file systems on any [`block`] device.
#![forbid(unsafe_code)]

mod address;
mod allocate;
mod attribute;
mod bitmap;
mod block_group;
mod block_map;
mod block_map_edit;
mod checksum;
mod directory;
mod directory_blocks;
mod error;
mod extent_edit;
mod extent_tree;
mod features;
mod file_read;
mod file_system;
mod file_write;
mod group_bitmaps;
mod inline_data;
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
mod orphan;
mod path;
mod recover;
mod scrub;
mod superblock;
mod unlink;
mod xattr;
mod zeros;

pub use error::{Corrupt, Error, Result};
pub use file_system::{FileSystem, OpenOptions};
pub use metadata::{DirEntry, FileKind, Metadata, NewNode, Ownership, Statfs, Timestamp};
pub use scrub::{ScrubOptions, ScrubReport};
