//! The two address spaces of an image, so that an offset of one cannot pass for an offset of the other.

/// A cluster of the virtual disk, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GuestCluster(pub(crate) u64);

/// A cluster of the file that holds the image, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostCluster(pub(crate) u64);
