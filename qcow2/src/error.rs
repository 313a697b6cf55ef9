//! What can go wrong with an image.

use std::path::PathBuf;

/// The result of a call on an image.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: the device's fault, the image's, ours for lacking a feature, or the caller's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file that holds the image failed.
    #[error(transparent)]
    Io(#[from] block::Error),
    /// The file does not start with a qcow2 magic.
    #[error("not a qcow2 image")]
    NotQcow2,
    /// The image contradicts itself or the format.
    #[error("{0}")]
    Corrupt(Corrupt),
    /// Something lies, or would have been written, where metadata is.
    #[error("corrupt image: the {structure} lies over the {occupant} at offset {offset:#x}")]
    Overlap {
        /// What was to be written there, or freed, or is there, too.
        structure: &'static str,
        /// The metadata that is there.
        occupant: &'static str,
        /// Where they meet in the file, in bytes.
        offset: u64,
    },
    /// The image uses a feature that this crate does not handle.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// A file that the image names may not be opened.
    #[error("backing file {name:?} is not opened: {reason}")]
    BackingRefused {
        /// The name as the image has it.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The external data file that the image names may not be opened.
    #[error("data file {name:?} is not opened: {reason}")]
    DataFileRefused {
        /// The name as the image has it.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The external data file could not be opened.
    #[error("data file {path}")]
    DataFile {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<Self>,
    },
    /// A backing file could not be opened or read.
    #[error("backing file {path}")]
    Backing {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<Self>,
    },
    /// The image is encrypted, and was opened without a passphrase.
    #[error("the image is encrypted, and no passphrase was given")]
    Encrypted,
    /// The passphrase given fits none of the image's key slots.
    #[error("the passphrase fits no key slot of the image")]
    WrongPassphrase,
    /// The image wants more work done to try a passphrase than the caller allows.
    #[error("trying a passphrase takes {iterations} iterations of PBKDF2, and at most {limit} are allowed")]
    KeyIterations {
        /// What the LUKS header says.
        iterations: u32,
        /// What is allowed.
        limit: u32,
    },
    /// The host gave no randomness, which a new key needs.
    #[error("the operating system gave no random bytes")]
    Random(#[source] std::io::Error),
    /// The image was opened for reading, or is marked corrupt.
    #[error("the image is read-only: {0}")]
    ReadOnly(&'static str),
    /// The transaction is over.
    #[error("the transaction was committed already")]
    Committed,
    /// An earlier write failed, so what is in memory can no longer be trusted.
    #[error("an earlier write to the image failed; it must be opened again")]
    Poisoned,
    /// An argument makes no sense.
    #[error("invalid argument: {0}")]
    Invalid(String),
}

/// A contradiction found in an image: what, where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {structure} at offset {offset:#x}: {expected}")]
pub struct Corrupt {
    /// The structure, as the format's specification names it.
    pub structure: &'static str,
    /// Where it is in the file, in bytes.
    pub offset: u64,
    /// The rule that does not hold, with the value found.
    pub expected: String,
}

impl Error {
    /// A contradiction in `structure` at `offset`: `expected` is the rule with the value found.
    pub(crate) fn corrupt(structure: &'static str, offset: u64, expected: impl Into<String>) -> Self {
        Self::Corrupt(Corrupt { structure, offset, expected: expected.into() })
    }

    /// Whether the metadata itself is wrong, so that nothing more must be written by it. (A compressed stream that cannot be
    /// read is lost data, and leads nowhere.)
    pub(crate) fn is_corruption(&self) -> bool {
        match self {
            Self::Overlap { .. } => true,
            Self::Corrupt(corrupt) => corrupt.structure != "compressed cluster",
            _ => false,
        }
    }
}

impl From<Error> for block::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            Error::ReadOnly(_) => Self::ReadOnly,
            other => Self::layer(other),
        }
    }
}
