//! What can stop a run.

use crate::GuestPath;

/// The result of a run.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stopped a run. What was done before it is in the guest that the caller holds: drop its transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest could not be read or changed while an operation was performed.
    #[error("operation {operation} failed")]
    Guest {
        /// The operation's name.
        operation: &'static str,
        /// What was tried, on which path, and why it failed.
        #[source]
        source: Box<guest::Error>,
    },
    /// A file system is not mounted, and an operation has to look into it.
    #[error(
        "operation {operation} looks at {pattern}, but {} is not mounted at {}: {}",
        missing.spec, GuestPath::from(missing.path.as_slice()), missing.reason
    )]
    Unmounted {
        /// The operation's name.
        operation: &'static str,
        /// The pattern that leads there.
        pattern: &'static str,
        /// The file system, and why it is not mounted.
        missing: Box<guest::Unmounted>,
    },
    /// An option was given that only an operation uses which is not selected.
    #[error("{option} was given, but operation {operation} is not enabled")]
    NotEnabled {
        /// What was given.
        option: &'static str,
        /// The operation's name.
        operation: &'static str,
    },
    /// A customization could not be done.
    #[error("{customization} failed")]
    Customization {
        /// The option, without what may be secret.
        customization: String,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// What was asked for is refused, or cannot be done in this guest.
    #[error("{0}")]
    Refused(String),
    /// The guest would go on, at its next boot, with what it remembers of file systems that were changed meanwhile.
    #[error("the guest is suspended to disk, in {}: start it and shut it down, or have it forget that", places.join(", "))]
    Suspended {
        /// The swap spaces that hold its memory.
        places: Vec<String>,
    },
    /// The guest's swap space could not be looked at, or made plain.
    #[error("cannot tell whether the guest is suspended to disk")]
    Swap(#[source] guest::Error),
    /// The guest's accounts could not be read.
    #[error("cannot read the guest's accounts")]
    Accounts(#[source] guest::Error),
    /// Unused space could not be scrubbed.
    #[error("cannot scrub unused space")]
    Scrub(#[source] guest::Error),
    /// What was done could not be written.
    #[error("cannot write the changes")]
    Flush(#[source] guest::Error),
}

impl Error {
    /// The path that it is about, where it is about one.
    #[must_use]
    pub fn path(&self) -> Option<GuestPath> {
        let source = match self {
            Self::Guest { source, .. } => source,
            Self::Accounts(source) | Self::Swap(source) | Self::Scrub(source) | Self::Flush(source) => source,
            Self::Unmounted { missing, .. } => return Some(missing.path.as_slice().into()),
            Self::Customization { source, .. } => return source.path(),
            Self::NotEnabled { .. } | Self::Suspended { .. } | Self::Refused(_) => return None,
        };
        match source {
            guest::Error::At { path, .. } => Some(path.as_slice().into()),
            _ => None,
        }
    }
}
