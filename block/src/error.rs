//! What can go wrong on a device.

/// The result of a call on a device.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a device. Offsets and lengths are in bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host failed a call.
    #[error("cannot {action} {len} bytes at offset {offset}")]
    Io {
        /// What was tried: `read`, `write`, `flush` and so on.
        action: &'static str,
        /// Where on this device.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The host's own words.
        #[source]
        source: std::io::Error,
    },
    /// The range lies outside the device.
    #[error("{len} bytes at offset {offset} lie outside a device of {device_len} bytes")]
    OutOfBounds {
        /// Where the range starts.
        offset: u64,
        /// How long it is.
        len: u64,
        /// The device's length.
        device_len: u64,
    },
    /// The device was opened for reading only.
    #[error("the device is read-only")]
    ReadOnly,
    /// A file could not be opened.
    #[error("cannot open {path}")]
    Open {
        /// The host's path.
        path: std::path::PathBuf,
        /// The host's own words.
        #[source]
        source: std::io::Error,
    },
    /// Another process, such as a running virtual machine, has the file open in a way that excludes this use.
    #[error("{path} is in use by another process: its {conflict} lock is held")]
    Locked {
        /// The host's path.
        path: std::path::PathBuf,
        /// Which of QEMU's permissions conflicts.
        conflict: &'static str,
    },
    /// The file is not of a kind that holds an image.
    #[error("{path} is not a regular file or block device")]
    NotAFile {
        /// The host's path.
        path: std::path::PathBuf,
    },
    /// A redo log is not what it should be, or does not fit its device.
    #[error("the redo log {0}")]
    RedoLog(String),
    /// A layer that implements a device (an image format, say) failed with an error of its own.
    #[error(transparent)]
    Layer(Box<dyn std::error::Error + Send + Sync + 'static>),
}

impl Error {
    /// Wraps the error of a layer that implements [`crate::ReadAt`] over another device.
    pub fn layer(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Layer(Box::new(error))
    }

    /// Checks that `len` bytes at `offset` lie inside a device of `device_len` bytes.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`] where they do not.
    pub fn check_range(offset: u64, len: u64, device_len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= device_len => Ok(()),
            _ => Err(Self::OutOfBounds { offset, len, device_len }),
        }
    }
}
