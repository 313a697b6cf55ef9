//! What can go wrong with a file system.

/// The result of a call on a file system.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. The first three say whose fault it is: the device's, the image's, or ours for lacking a
/// feature; the others are the caller's, named as POSIX names them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device below failed.
    #[error(transparent)]
    Io(#[from] block::Error),
    /// The image contradicts itself or the format.
    #[error("{0}")]
    Corrupt(Corrupt),
    /// The image uses a feature that this crate does not handle.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// No such name.
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken.
    #[error("file exists")]
    AlreadyExists,
    /// A directory was needed.
    #[error("inode {0} is not a directory")]
    NotADirectory(u64),
    /// Something other than a directory was needed.
    #[error("inode {0} is a directory")]
    IsADirectory(u64),
    /// The directory still has entries.
    #[error("directory not empty")]
    DirectoryNotEmpty,
    /// A regular file was needed.
    #[error("inode {0} is not a regular file")]
    NotAFile(u64),
    /// A symbolic link was needed.
    #[error("inode {0} is not a symbolic link")]
    NotASymlink(u64),
    /// More than 40 symbolic links in one path.
    #[error("too many levels of symbolic links")]
    TooManySymlinks,
    /// The name is empty, too long, `.` or `..`, or holds a `/` or NUL.
    #[error("invalid file name")]
    InvalidName,
    /// The inode has all the names it can have.
    #[error("too many links to inode {0}")]
    TooManyLinks(u64),
    /// No block, inode or room for an attribute is left.
    #[error("no space left: {0}")]
    NoSpace(&'static str),
    /// The file would be longer than the format allows.
    #[error("file too large: {0} bytes")]
    FileTooLarge(u64),
    /// The file system was opened for reading, or must not be written.
    #[error("read-only file system: {0}")]
    ReadOnly(String),
    /// An argument makes no sense (a directory moved into itself, say).
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// An earlier write failed, so what is in memory can no longer be trusted.
    #[error("an earlier write failed; the file system must be opened again")]
    Poisoned,
}

/// A contradiction found in an image: what, where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {structure} at {place}: {expected}")]
pub struct Corrupt {
    /// The structure, as the format's documentation names it: `inode`, `directory block`.
    pub structure: &'static str,
    /// Where: `inode 131`, `block 8195`, `group 3`.
    pub place: String,
    /// The rule that does not hold, with the value found.
    pub expected: String,
}

impl Error {
    /// A contradiction in `structure` at `place`: `expected` is the rule with the value found.
    pub(crate) fn corrupt(structure: &'static str, place: impl std::fmt::Display, expected: impl Into<String>) -> Self {
        Self::Corrupt(Corrupt { structure, place: place.to_string(), expected: expected.into() })
    }
}
