//! What can stop a run.

use crate::GuestPath;

/// The result of a run.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stopped a run. What was done before it is in the guest that the caller holds: drop its transaction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest could not be read or changed while an operation was performed.
    #[error("operation {operation} failed at {path}")]
    Guest {
        /// The operation's name.
        operation: &'static str,
        /// What it was looking at or changing.
        path: GuestPath,
        /// Why.
        #[source]
        source: guest::Error,
    },
    /// A file system is not mounted, and an operation has to look into it.
    #[error(
        "operation {operation} looks at {pattern}, but what belongs at {mount_point} ({spec}) is not mounted: {reason}"
    )]
    Unmounted {
        /// The operation's name.
        operation: &'static str,
        /// The pattern that leads there.
        pattern: &'static str,
        /// Where it should be mounted.
        mount_point: GuestPath,
        /// What `/etc/fstab` calls it.
        spec: String,
        /// Why it is not mounted.
        reason: String,
    },
    /// An option was given that only an operation uses which is not selected.
    #[error("{option} was given, but operation {operation} is not enabled")]
    NotEnabled {
        /// What was given.
        option: &'static str,
        /// The operation's name.
        operation: &'static str,
    },
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
