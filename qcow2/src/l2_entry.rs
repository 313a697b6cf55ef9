//! L2 entries: what one cluster of the virtual disk is made of.
//!
//! Specification: "L1 and L2 tables and cluster mappings", "Standard Cluster Descriptor", "Compressed Clusters
//! Descriptor".

use crate::geometry::Geometry;
use crate::{Error, Result};

/// Set where the cluster or table pointed to has a refcount of exactly 1, so that it may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Version 3: the cluster reads as zeros.
pub(crate) const ZERO: u64 = 1;
/// Bits 9 to 55: an offset in the file.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// What an L2 entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L2Entry {
    /// Nothing: reads from the backing file, or as zeros.
    Unallocated,
    /// Reads as zeros; a host cluster may be set aside.
    Zero { host: Option<u64>, copied: bool },
    /// A host cluster holds the data.
    Data { host: u64, copied: bool },
    /// A compressed stream, somewhere in these bytes of the file.
    Compressed(Stream),
}

/// Where a compressed stream is: it starts at `offset` and ends before `offset + len`; `len` counts to the
/// end of the last 512-byte sector that the stream touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stream {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Stream {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The host clusters that the stream touches, each of which it counts once.
    pub(crate) fn host_clusters(&self, geometry: &Geometry) -> std::ops::RangeInclusive<u64> {
        self.offset >> geometry.cluster_bits..=(self.end() - 1) >> geometry.cluster_bits
    }
}

/// Bits of the offset in a compressed descriptor.
fn stream_offset_bits(geometry: &Geometry) -> u32 {
    62 - (geometry.cluster_bits - 8)
}

/// Decodes an entry. `at` is the entry's own offset in the file, for messages.
pub(crate) fn decode(raw: u64, version: u32, geometry: &Geometry, at: u64) -> Result<L2Entry> {
    if raw & COMPRESSED != 0 {
        let bits = stream_offset_bits(geometry);
        let descriptor = raw & (COMPRESSED - 1);
        let offset = descriptor & ((1 << bits) - 1);
        let sectors = (descriptor >> bits) + 1;
        // At most 62 bits of offset and 13 of sectors, so neither product nor sum can overflow.
        let end = (offset & !511) + sectors * 512;
        return Ok(L2Entry::Compressed(Stream { offset, len: end - offset }));
    }
    let host = raw & OFFSET;
    if !geometry.is_aligned(host) {
        return Err(Error::corrupt("L2 entry", at, format!("a cluster's offset must be aligned, found {host:#x}")));
    }
    let copied = raw & COPIED != 0;
    if version >= 3 && raw & ZERO != 0 {
        return Ok(L2Entry::Zero { host: (host != 0).then_some(host), copied });
    }
    Ok(if host == 0 { L2Entry::Unallocated } else { L2Entry::Data { host, copied } })
}

/// Encodes the descriptor of a compressed stream of `len` bytes at `offset`.
pub(crate) fn encode_compressed(offset: u64, len: u64, geometry: &Geometry) -> Result<u64> {
    let bits = stream_offset_bits(geometry);
    if offset >> bits != 0 {
        return Err(Error::Invalid(format!("a compressed cluster cannot lie at offset {offset:#x} of the file")));
    }
    let sectors = (offset + len - 1) / 512 - offset / 512;
    Ok(COMPRESSED | sectors << bits | offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_descriptors_survive_a_round_trip_at_every_cluster_size() {
        for cluster_bits in 9..=21 {
            let geometry = Geometry { cluster_bits, disk_len: 1 << 30, refcount_order: 4 };
            for (offset, len) in [(512, 1), (1023, 2), (70_001, geometry.cluster_size()), (1 << 40, 300)] {
                let raw = encode_compressed(offset, len, &geometry).unwrap();
                let L2Entry::Compressed(stream) = decode(raw, 3, &geometry, 0).unwrap() else {
                    panic!("not compressed: {raw:#x}")
                };
                assert_eq!(stream.offset, offset);
                assert!(stream.end() >= offset + len && stream.end() < offset + len + 512);
                assert_eq!(stream.end() % 512, 0);
            }
        }
    }

    #[test]
    fn version_2_has_no_zero_flag() {
        let geometry = Geometry { cluster_bits: 16, disk_len: 1 << 30, refcount_order: 4 };
        assert_eq!(decode(0x50000 | ZERO, 2, &geometry, 0).unwrap(), L2Entry::Data { host: 0x50000, copied: false });
        assert_eq!(
            decode(0x50000 | ZERO | COPIED, 3, &geometry, 0).unwrap(),
            L2Entry::Zero { host: Some(0x50000), copied: true }
        );
    }
}
