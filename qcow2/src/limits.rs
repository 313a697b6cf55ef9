//! Bounds that keep a hostile header from costing memory or time. They are QEMU's, so what it opens, we open.

/// Cluster sizes are 2^9 to 2^21 bytes.
pub(crate) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// With extended L2 entries: a subcluster, which is 1/32 of a cluster, has at least 512 bytes.
pub(crate) const EXTENDED_L2_CLUSTER_BITS: u32 = 14;
/// An L1 table takes at most 32 MiB.
pub(crate) const L1_BYTES: u64 = 32 << 20;
/// A virtual disk is no longer, so that every offset of it, rounded up to a cluster, is far from overflow.
pub(crate) const DISK_BYTES: u64 = i64::MAX as u64 - (1 << 21);
/// A refcount table takes at most 8 MiB.
pub(crate) const REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// Internal snapshots.
pub(crate) const SNAPSHOTS: u32 = 65_536;
/// The table of internal snapshots, with all names and extra data.
pub(crate) const SNAPSHOT_TABLE_BYTES: u64 = 1024 * SNAPSHOTS as u64;
/// Persistent bitmaps.
pub(crate) const BITMAPS: u32 = 65_535;
/// The directory of persistent bitmaps.
pub(crate) const BITMAP_DIRECTORY_BYTES: u64 = 1024 * BITMAPS as u64;
/// One persistent bitmap's table.
pub(crate) const BITMAP_TABLE_BYTES: u64 = 0x20_0000 * 8;
/// The bits of one persistent bitmap.
pub(crate) const BITMAP_BYTES: u64 = 0x2000_0000;
/// The name of a backing file.
pub(crate) const BACKING_NAME: u32 = 1023;
/// Images behind one another in a backing chain.
pub(crate) const BACKING_DEPTH: usize = 16;
/// Clusters of the host file that a transaction can keep account of: 4 bytes of memory each, once touched.
pub(crate) const HOST_CLUSTERS: u64 = 1 << 27;
