//! L2 entries: what one cluster of the virtual disk is made of.
//!
//! Specification: "L1 and L2 tables and cluster mappings", "Standard Cluster Descriptor", "Compressed Clusters
//! Descriptor", "Extended L2 Entries".

use crate::geometry::Geometry;
use crate::{Error, Result};

/// Set where the cluster or table pointed to has a refcount of exactly 1, so that it may be written in place.
pub(crate) const COPIED: u64 = 1 << 63;
/// Set where the cluster is held by a compressed stream.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// Version 3: the cluster reads as zeros.
pub(crate) const ZERO: u64 = 1;
/// Bits 9 to 55: an offset in the file.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// An L2 entry as it lies in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawEntry {
    pub(crate) descriptor: u64,
    /// With extended entries: the subclusters that are allocated (bits 0 to 31) and those that read as zeros (32 to 63).
    pub(crate) bitmap: u64,
}

impl RawEntry {
    /// Nothing: reads from the backing file, or as zeros.
    pub(crate) const UNALLOCATED: Self = Self { descriptor: 0, bitmap: 0 };

    /// A cluster at `host` that nothing else uses, with all of its data.
    pub(crate) fn data(host: u64, geometry: &Geometry) -> Self {
        Self { descriptor: host | COPIED, bitmap: if geometry.extended_l2 { Subclusters::DATA.encode() } else { 0 } }
    }

    /// A cluster at `host` that nothing else uses, of whose subclusters these are held.
    pub(crate) fn subclusters(host: u64, subclusters: Subclusters, geometry: &Geometry) -> Self {
        Self { bitmap: if geometry.extended_l2 { subclusters.encode() } else { 0 }, ..Self::data(host, geometry) }
    }

    /// A cluster that reads as zeros and has no host cluster: what version 2 cannot say.
    pub(crate) fn zero(geometry: &Geometry) -> Self {
        if geometry.extended_l2 {
            Self { descriptor: 0, bitmap: Subclusters::ZERO.encode() }
        } else {
            Self { descriptor: ZERO, bitmap: 0 }
        }
    }

    /// A compressed cluster, of which there are no subclusters.
    pub(crate) fn compressed(descriptor: u64) -> Self {
        Self { descriptor, bitmap: 0 }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::UNALLOCATED
    }

    /// The same entry with its COPIED flag as told.
    pub(crate) fn with_copied(self, copied: bool) -> Self {
        Self { descriptor: if copied { self.descriptor | COPIED } else { self.descriptor & !COPIED }, ..self }
    }
}

/// Which of a cluster's 32 subclusters are held in its host cluster, and which read as zeros; the others read from the
/// backing file. Bit `n` is subcluster `n`, and no bit is set in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subclusters {
    pub(crate) allocated: u32,
    pub(crate) zero: u32,
}

impl Subclusters {
    pub(crate) const COUNT: u32 = 32;
    pub(crate) const DATA: Self = Self { allocated: u32::MAX, zero: 0 };
    pub(crate) const ZERO: Self = Self { allocated: 0, zero: u32::MAX };
    pub(crate) const NONE: Self = Self { allocated: 0, zero: 0 };

    /// The bits of subclusters `first..end`.
    pub(crate) fn mask(first: u32, end: u32) -> u32 {
        let below = |n: u32| if n >= Self::COUNT { u32::MAX } else { (1 << n) - 1 };
        below(end) & !below(first)
    }

    pub(crate) fn decode(bitmap: u64) -> Self {
        Self { allocated: bitmap as u32, zero: (bitmap >> 32) as u32 }
    }

    pub(crate) fn encode(self) -> u64 {
        u64::from(self.zero) << 32 | u64::from(self.allocated)
    }

    /// How many subclusters from `first` on are held as it is.
    pub(crate) fn run(self, first: u32) -> u32 {
        let differs = |bits: u32| if bits >> first & 1 == 0 { bits } else { !bits };
        let end = ((differs(self.allocated) | differs(self.zero)) & Self::mask(first, Self::COUNT)).trailing_zeros();
        end.min(Self::COUNT) - first
    }
}

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
    /// Subclusters that are held in different ways, or a host cluster of which nothing is used.
    Mixed { host: Option<u64>, copied: bool, subclusters: Subclusters },
}

impl L2Entry {
    /// The host cluster of an entry that is not compressed, by its offset.
    pub(crate) fn host(self) -> Option<u64> {
        match self {
            Self::Data { host, .. } => Some(host),
            Self::Zero { host, .. } | Self::Mixed { host, .. } => host,
            Self::Unallocated | Self::Compressed(_) => None,
        }
    }

    /// The host cluster, where nothing else uses it, so that it may be written in place.
    pub(crate) fn own_host(self) -> Option<u64> {
        match self {
            Self::Data { copied: true, .. } | Self::Zero { copied: true, .. } | Self::Mixed { copied: true, .. } => {
                self.host()
            }
            _ => None,
        }
    }

    /// How the subclusters are held. A compressed cluster has none.
    pub(crate) fn subclusters(self) -> Subclusters {
        match self {
            Self::Unallocated | Self::Compressed(_) => Subclusters::NONE,
            Self::Zero { .. } => Subclusters::ZERO,
            Self::Data { .. } => Subclusters::DATA,
            Self::Mixed { subclusters, .. } => subclusters,
        }
    }
}

/// Where a compressed stream is: it starts at `offset` and ends before `offset + len`; `len` counts to the
/// end of the last 512-byte sector that the stream touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stream {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Stream {
    /// Decodes a compressed descriptor.
    pub(crate) fn decode(raw: u64, geometry: &Geometry) -> Self {
        let bits = stream_offset_bits(geometry);
        let descriptor = raw & (COMPRESSED - 1);
        let offset = descriptor & ((1 << bits) - 1);
        let sectors = (descriptor >> bits) + 1;
        // At most 62 bits of offset and 13 of sectors, so neither product nor sum can overflow.
        Self { offset, len: (offset & !511) + sectors * 512 - offset }
    }

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
pub(crate) fn decode(entry: RawEntry, version: u32, geometry: &Geometry, at: u64) -> Result<L2Entry> {
    let raw = entry.descriptor;
    if raw & COMPRESSED != 0 {
        if geometry.external_data {
            return Err(Error::corrupt("L2 entry", at, "no cluster may be compressed in an external data file"));
        }
        return Ok(L2Entry::Compressed(Stream::decode(raw, geometry)));
    }
    let offset = raw & OFFSET;
    if !geometry.is_aligned(offset) {
        return Err(Error::corrupt("L2 entry", at, format!("a cluster's offset must be aligned, found {offset:#x}")));
    }
    let copied = raw & COPIED != 0;
    // The first cluster of an external data file is known by the flag that all in use there have.
    let host = (offset != 0 || (geometry.external_data && copied)).then_some(offset);
    if geometry.extended_l2 {
        return decode_extended(host, copied, Subclusters::decode(entry.bitmap), at);
    }
    if version >= 3 && raw & ZERO != 0 {
        return Ok(L2Entry::Zero { host, copied });
    }
    Ok(host.map_or(L2Entry::Unallocated, |host| L2Entry::Data { host, copied }))
}

fn decode_extended(host: Option<u64>, copied: bool, subclusters: Subclusters, at: u64) -> Result<L2Entry> {
    let Subclusters { allocated, zero } = subclusters;
    if allocated & zero != 0 {
        let both = (allocated & zero).trailing_zeros();
        let expected = format!("a subcluster must not be both allocated and zero, as number {both} is");
        return Err(Error::corrupt("L2 entry", at, expected));
    }
    Ok(match (host, subclusters) {
        (None, _) if allocated != 0 => {
            let expected = format!("subclusters must be allocated in a host cluster, found {allocated:#x} without one");
            return Err(Error::corrupt("L2 entry", at, expected));
        }
        (None, Subclusters::NONE) => L2Entry::Unallocated,
        (Some(host), Subclusters::DATA) => L2Entry::Data { host, copied },
        (_, Subclusters::ZERO) => L2Entry::Zero { host, copied },
        _ => L2Entry::Mixed { host, copied, subclusters },
    })
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
            let geometry = Geometry {
                cluster_bits,
                disk_len: 1 << 30,
                refcount_order: 4,
                extended_l2: false,
                external_data: false,
            };
            for (offset, len) in [(512, 1), (1023, 2), (70_001, geometry.cluster_size()), (1 << 40, 300)] {
                let raw = encode_compressed(offset, len, &geometry).unwrap();
                let L2Entry::Compressed(stream) = decode(RawEntry::compressed(raw), 3, &geometry, 0).unwrap() else {
                    panic!("not compressed: {raw:#x}")
                };
                assert_eq!(stream.offset, offset);
                assert!(stream.end() >= offset + len && stream.end() < offset + len + 512);
                assert_eq!(stream.end() % 512, 0);
            }
        }
    }

    fn geometry(extended_l2: bool) -> Geometry {
        Geometry { cluster_bits: 16, disk_len: 1 << 30, refcount_order: 4, extended_l2, external_data: false }
    }

    #[test]
    fn version_2_has_no_zero_flag() {
        let geometry = geometry(false);
        let raw = |descriptor| RawEntry { descriptor, bitmap: 0 };
        assert_eq!(
            decode(raw(0x50000 | ZERO), 2, &geometry, 0).unwrap(),
            L2Entry::Data { host: 0x50000, copied: false }
        );
        assert_eq!(
            decode(raw(0x50000 | ZERO | COPIED), 3, &geometry, 0).unwrap(),
            L2Entry::Zero { host: Some(0x50000), copied: true }
        );
    }

    #[test]
    fn extended_entries_say_how_each_subcluster_is_held() {
        let geometry = geometry(true);
        let decode = |descriptor, bitmap| decode(RawEntry { descriptor, bitmap }, 3, &geometry, 0);
        assert_eq!(decode(0, 0).unwrap(), L2Entry::Unallocated);
        let data = RawEntry::data(0x50000, &geometry);
        assert_eq!((data.descriptor, data.bitmap), (0x50000 | COPIED, 0xffff_ffff));
        assert_eq!(decode(data.descriptor, data.bitmap).unwrap(), L2Entry::Data { host: 0x50000, copied: true });
        let zero = RawEntry::zero(&geometry);
        assert_eq!((zero.descriptor, zero.bitmap), (0, 0xffff_ffff_0000_0000));
        assert_eq!(decode(zero.descriptor, zero.bitmap).unwrap(), L2Entry::Zero { host: None, copied: false });
        let subclusters = Subclusters { allocated: 3, zero: 12 };
        assert_eq!(
            decode(0x50000, 0x0000_000c_0000_0003).unwrap(),
            L2Entry::Mixed { host: Some(0x50000), copied: false, subclusters }
        );
        assert_eq!((subclusters.run(0), subclusters.run(1), subclusters.run(2), subclusters.run(4)), (2, 1, 2, 28));
        assert_eq!((Subclusters::DATA.run(0), Subclusters::NONE.run(31)), (32, 1));
        assert!(decode(0x50000, 0x0000_0001_0000_0001).is_err());
        assert!(decode(0, 1).is_err());
    }
}
