//! What can go wrong in a guest.

/// The result of a call on a guest or one of its file systems.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a guest. Calls by path wrap it in [`Error::At`]; [`Error::cause`] looks behind that.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] block::Error),
    /// The partition table is damaged.
    #[error(transparent)]
    Volumes(volumes::Error),
    /// No volume holds the root of a system.
    #[error("no root file system found: {}", list(volumes))]
    NoRoot {
        /// What each volume is instead.
        volumes: Vec<NotRoot>,
    },
    /// More than one volume holds the root of a system.
    #[error("several root file systems found: {}", list(roots))]
    SeveralRoots {
        /// All of them.
        roots: Vec<Root>,
    },
    /// The volume that was asked for is not on the disk.
    #[error("there is no volume {name:?} on the disk, only {}", volumes.join(", "))]
    NoSuchVolume {
        /// What was asked for.
        name: String,
        /// What there is.
        volumes: Vec<String>,
    },
    /// A file system failed with an error of its own.
    #[error(transparent)]
    FileSystem(Box<dyn std::error::Error + Send + Sync + 'static>),
    /// The tree of directories in the image is no tree, or a structure in it contradicts another.
    #[error("corrupt file system: {0}")]
    Corrupt(String),
    /// A call by path failed.
    #[error("cannot {action} {}", crate::path::display(path))]
    At {
        /// What was tried: `read`, `remove` and so on.
        action: &'static str,
        /// The guest's path.
        path: Vec<u8>,
        /// Why it failed.
        #[source]
        source: Box<Self>,
    },

    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The name exists.
    #[error("the name exists already")]
    AlreadyExists,
    /// Not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// A directory, where something else is needed.
    #[error("is a directory")]
    IsADirectory,
    /// Not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// Not a symbolic link.
    #[error("not a symbolic link")]
    NotALink,
    /// The directory is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// More symbolic links than a path may lead through: 40.
    #[error("too many symbolic links")]
    TooManyLinks,
    /// The path or a name in it is too long, or the path leads too deep.
    #[error("the path is too long")]
    PathTooLong,
    /// The path cannot be used for this: it is not absolute, holds a NUL, or ends in `.` or `..`.
    #[error("the path is not fit for this: {0}")]
    InvalidPath(&'static str),
    /// The pattern cannot be used.
    #[error("invalid pattern: {0}")]
    InvalidPattern(&'static str),
    /// The file is larger than what is read at once.
    #[error("the file has {size} bytes, more than the {limit} that are read at once")]
    TooLarge {
        /// Its length.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A file system is mounted there, or below.
    #[error("a file system is mounted there")]
    MountPoint,
    /// The two paths are on different file systems.
    #[error("the paths are on different file systems")]
    CrossesFileSystems,
    /// The file system cannot be written.
    #[error("the file system on {device} is read-only: {reason}")]
    ReadOnly {
        /// Its device.
        device: String,
        /// Why.
        reason: String,
    },
    /// The file system is full.
    #[error("no space left in the file system")]
    NoSpace,
}

/// A volume that holds no root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRoot {
    /// Its name: `gpt:3`.
    pub device: String,
    /// What it is instead.
    pub reason: String,
}

impl std::fmt::Display for NotRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}", self.device, self.reason)
    }
}

/// A volume that holds the root of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name: `gpt:3`.
    pub device: String,
    /// Which system, in its own words; empty where it does not say.
    pub os: String,
}

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.os.as_str() {
            "" => f.write_str(&self.device),
            os => write!(f, "{} ({os})", self.device),
        }
    }
}

fn list(items: &[impl std::fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "there is no volume".to_owned() } else { items.join("; ") }
}

impl From<volumes::Error> for Error {
    fn from(error: volumes::Error) -> Self {
        match error {
            volumes::Error::Io(error) => Self::Io(error),
            error => Self::Volumes(error),
        }
    }
}

impl Error {
    /// Wraps the error of a crate that implements a file system.
    pub fn file_system(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::FileSystem(Box::new(error))
    }

    /// The error itself, without the path and action that calls by path wrap around it.
    #[must_use]
    pub fn cause(&self) -> &Self {
        let mut error = self;
        while let Self::At { source, .. } = error {
            error = source;
        }
        error
    }

    /// Says what was tried, and on which path.
    pub(crate) fn at(self, action: &'static str, path: &[u8]) -> Self {
        match self {
            // Said once, by the innermost call, is enough.
            Self::At { .. } => self,
            error => Self::At { action, path: path.to_vec(), source: Box::new(error) },
        }
    }
}

/// Adds the action and the path to an error.
pub(crate) trait Context<T> {
    /// Says what was tried, and on which path.
    fn at(self, action: &'static str, path: &[u8]) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn at(self, action: &'static str, path: &[u8]) -> Self {
        self.map_err(|error| error.at(action, path))
    }
}
