//! Bounds that we put on what an image may ask of us, each well above what real file systems use.

/// The most block groups: 256 TiB with 4 KiB blocks.
pub(crate) const MAX_GROUPS: u64 = 1 << 21;
/// The largest `s_log_block_size`: 64 KiB blocks.
pub(crate) const MAX_LOG_BLOCK_SIZE: u32 = 6;
/// The deepest extent tree that the kernel makes or reads.
pub(crate) const MAX_EXTENT_DEPTH: u16 = 5;
/// Symbolic links followed in one path, as in the kernel.
pub(crate) const MAX_SYMLINKS: u32 = 40;
/// The longest target of a symbolic link.
pub(crate) const MAX_SYMLINK_LEN: usize = 4095;
/// The longest name in a directory.
pub(crate) const MAX_NAME_LEN: usize = 255;
/// Names that one inode may have.
pub(crate) const MAX_LINKS: u16 = 65000;
/// Bytes of clean metadata kept in memory.
pub(crate) const CLEAN_CACHE_BYTES: usize = 32 << 20;
/// The longest run of metadata that one device call reads ahead or writes, in bytes.
pub(crate) const MAX_RUN_BYTES: usize = 1 << 20;
/// The largest value of an extended attribute kept in an inode of its own, as in the kernel.
pub(crate) const MAX_EA_INODE_LEN: u64 = 64 << 10;
/// The largest file that the path level reads into memory at once.
pub(crate) const MAX_READ_LEN: u64 = 1 << 30;
