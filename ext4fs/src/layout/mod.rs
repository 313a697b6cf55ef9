//! The structures of the disk: fields and offsets, no logic.
pub(crate) mod dir_entry;
pub(crate) mod extent;
pub(crate) mod group_descriptor;
pub(crate) mod htree;
pub(crate) mod inode;
pub(crate) mod journal;
pub(crate) mod mmp;
pub(crate) mod orphan_file;
pub(crate) mod quota;
pub(crate) mod superblock;
pub(crate) mod xattr;
