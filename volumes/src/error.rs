//! What can go wrong with a partition table.

/// The result of a call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] block::Error),
    /// The disk says that it has a GUID partition table, and neither its primary nor its backup is usable.
    #[error("corrupt GUID partition table: primary: {primary}; backup: {backup}")]
    Gpt {
        /// What is wrong with the primary.
        primary: Corrupt,
        /// What is wrong with the backup.
        backup: Corrupt,
    },
    /// A FAT file system contradicts itself. Nothing was written.
    #[error("corrupt FAT file system: {0}")]
    Fat(String),
    /// LVM2's metadata are not as they have to be to be changed. Nothing was written.
    #[error("LVM2 cannot be changed: {0}")]
    Lvm(String),
    /// The partition table is not as it has to be to be changed. Nothing was written.
    #[error("the partition table cannot be changed: {0}")]
    Table(String),
}

/// What is wrong with one copy of a GUID partition table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {field} is {found}, expected {expected}")]
pub struct Corrupt {
    /// Where on the disk the header or the array of entries is.
    pub offset: u64,
    /// The field, as the specification names it.
    pub field: &'static str,
    /// What it holds.
    pub found: u64,
    /// What it has to hold.
    pub expected: String,
}
