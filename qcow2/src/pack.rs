//! What a disk holds, cluster by cluster, compressed where that is wanted: the first half of making an image.

use std::ops::Range;

use block::{ExtentKind, ReadAt};

use crate::Result;
use crate::address::GuestCluster;
use crate::compress::Compressor;
use crate::geometry::Geometry;
use crate::transaction::is_zero;

/// Bytes of the source that are handled together, where clusters are not longer.
pub(crate) const BATCH: u64 = 1 << 20;

/// The next clusters that may hold something, from `at` on, which is moved behind them.
pub(crate) fn next_batch(source: &dyn ReadAt, geometry: &Geometry, at: &mut u64) -> Result<Option<Range<u64>>> {
    let len = source.len();
    while *at < geometry.guest_clusters() {
        let offset = *at << geometry.cluster_bits;
        let extent = source.extent_at(offset, len - offset)?;
        let extent_end = offset + extent.len;
        let whole = extent.len >= geometry.cluster_size() || extent_end == len;
        if extent.kind != ExtentKind::Data && whole {
            *at = if extent_end == len { geometry.guest_clusters() } else { extent_end >> geometry.cluster_bits };
            continue;
        }
        let first = *at;
        let most = (BATCH >> geometry.cluster_bits).max(1);
        *at = extent_end.div_ceil(geometry.cluster_size()).min(first + most);
        return Ok(Some(first..*at));
    }
    Ok(None)
}

/// Reads clusters, and compresses them where that is wanted.
pub(crate) struct Packer<'a> {
    pub(crate) source: &'a dyn ReadAt,
    pub(crate) geometry: Geometry,
    pub(crate) compressor: Option<Compressor>,
    /// Room for what is read.
    pub(crate) input: Vec<u8>,
}

/// Clusters that are not zeros, as they are to be written, one behind the other.
pub(crate) struct Packed {
    /// The cluster after the last of the batch.
    pub(crate) end: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) clusters: Vec<PackedCluster>,
}

pub(crate) struct PackedCluster {
    pub(crate) cluster: GuestCluster,
    /// Bytes that it takes in `Packed::bytes`.
    pub(crate) len: usize,
    pub(crate) compressed: bool,
}

impl Packer<'_> {
    pub(crate) fn pack(&mut self, batch: Range<u64>) -> Result<Packed> {
        let geometry = &self.geometry;
        let (start, size) = (batch.start << geometry.cluster_bits, geometry.cluster_len());
        let on_disk = ((batch.end << geometry.cluster_bits).min(self.source.len()) - start) as usize;
        let whole = (batch.end - batch.start) as usize * size;
        let mut input = std::mem::take(&mut self.input);
        input.resize(whole, 0);
        input[on_disk..].fill(0);
        self.source.read_at(start, &mut input[..on_disk])?;
        let mut packed = Packed { end: batch.end, bytes: Vec::new(), clusters: Vec::new() };
        for (cluster, bytes) in batch.zip(input.chunks(size)).filter(|(_, bytes)| !is_zero(bytes)) {
            let stream = self.compressor.as_mut().and_then(|compressor| compressor.compress(bytes));
            packed.clusters.push(PackedCluster {
                cluster: GuestCluster(cluster),
                len: stream.map_or(size, <[u8]>::len),
                compressed: stream.is_some(),
            });
            packed.bytes.extend_from_slice(stream.unwrap_or(bytes));
        }
        self.input = input;
        Ok(packed)
    }
}
