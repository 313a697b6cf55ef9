//! The structures of the disk: fields and offsets, no logic.
pub(crate) mod dir_entry;
pub(crate) mod htree;
pub(crate) mod journal;
pub(crate) mod xattr;
