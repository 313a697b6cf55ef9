//! Bounds that we put on what an image may ask of us, each well above what real file systems use.

/// Bytes of clean metadata kept in memory.
pub(crate) const CLEAN_CACHE_BYTES: usize = 32 << 20;
/// The longest run of metadata that one device call reads ahead or writes, in bytes.
pub(crate) const MAX_RUN_BYTES: usize = 1 << 20;
/// The deepest B+tree: the kernel has at most 9 levels.
pub(crate) const MAX_LEVELS: u16 = 9;
/// The longest target of a symbolic link, as in the kernel.
pub(crate) const MAX_SYMLINK_LEN: u64 = 1024;
/// The largest value of an extended attribute.
pub(crate) const MAX_XATTR_LEN: usize = 64 << 10;
/// The longest name in a directory, or of an attribute.
pub(crate) const MAX_NAME_LEN: usize = 255;
/// What a log may change, in bytes of whole blocks, all of them in memory.
pub(crate) const MAX_REPLAY_BYTES: u64 = 512 << 20;
