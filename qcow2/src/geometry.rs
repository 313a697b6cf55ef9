//! The sizes that follow from cluster size, disk size and refcount width.

use crate::address::{GuestCluster, HostCluster};
use crate::l2_entry::Subclusters;

/// The sizes of one image, checked when its header was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// log2 of the cluster size, 9 to 21.
    pub(crate) cluster_bits: u32,
    /// Length of the virtual disk in bytes.
    pub(crate) disk_len: u64,
    /// log2 of the refcount width in bits, 0 to 6.
    pub(crate) refcount_order: u32,
    /// Whether L2 entries take 16 bytes and tell how each of 32 subclusters is held.
    pub(crate) extended_l2: bool,
    /// Whether clusters of the disk lie in a file of their own, where 0 is an offset like any other.
    pub(crate) external_data: bool,
}

impl Geometry {
    pub(crate) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The cluster size as a length in memory: at most 2 MiB.
    pub(crate) fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    pub(crate) fn l2_entry_size(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// log2 of the entries of an L2 table. (Every read asks for them, and shifts are faster than divisions.)
    pub(crate) fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended_l2 { 4 } else { 3 }
    }

    /// Entries of an L2 table, which fills one cluster.
    pub(crate) fn l2_entries(&self) -> u64 {
        1 << self.l2_bits()
    }

    /// The smallest part of a cluster that is held in a way of its own: a cluster, unless entries are extended.
    pub(crate) fn subcluster_size(&self) -> u64 {
        if self.extended_l2 { self.cluster_size() / u64::from(Subclusters::COUNT) } else { self.cluster_size() }
    }

    /// The subclusters that hold `len` bytes from `within` of a cluster on: the first, and the one after the last.
    pub(crate) fn subclusters_of(&self, within: u64, len: u64) -> (u32, u32) {
        let size = self.subcluster_size();
        // At most 32.
        ((within / size) as u32, (within + len).div_ceil(size) as u32)
    }

    /// Clusters of the virtual disk; the last may be in part beyond its end.
    pub(crate) fn guest_clusters(&self) -> u64 {
        self.disk_len.div_ceil(self.cluster_size())
    }

    /// L1 entries that the virtual disk needs.
    pub(crate) fn l1_entries(&self) -> u64 {
        self.guest_clusters().div_ceil(self.l2_entries())
    }

    /// Refcounts in one refcount block, which fills one cluster.
    pub(crate) fn refcounts_per_block(&self) -> u64 {
        (self.cluster_size() * 8) >> self.refcount_order
    }

    /// Greatest refcount that the width can hold.
    pub(crate) fn refcount_max(&self) -> u64 {
        u64::MAX >> (64 - (1u32 << self.refcount_order))
    }

    pub(crate) fn guest_cluster_at(&self, offset: u64) -> GuestCluster {
        GuestCluster(offset >> self.cluster_bits)
    }

    pub(crate) fn guest_offset(&self, cluster: GuestCluster) -> u64 {
        cluster.0 << self.cluster_bits
    }

    pub(crate) fn host_cluster_at(&self, offset: u64) -> HostCluster {
        HostCluster(offset >> self.cluster_bits)
    }

    pub(crate) fn host_offset(&self, cluster: HostCluster) -> u64 {
        cluster.0 << self.cluster_bits
    }

    pub(crate) fn is_aligned(&self, offset: u64) -> bool {
        offset & (self.cluster_size() - 1) == 0
    }

    /// Bytes of `cluster` that lie on the virtual disk: less than a cluster only for the last one.
    pub(crate) fn len_on_disk(&self, cluster: GuestCluster) -> usize {
        self.cluster_size().min(self.disk_len - self.guest_offset(cluster)) as usize
    }

    /// Which L1 entry leads to `cluster`, and which entry of that L2 table.
    pub(crate) fn table_indices(&self, cluster: GuestCluster) -> (usize, usize) {
        ((cluster.0 >> self.l2_bits()) as usize, (cluster.0 & (self.l2_entries() - 1)) as usize)
    }
}
