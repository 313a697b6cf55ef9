//! The header: the first bytes of the file, decoded once into checked values.
//!
//! Specification: "Header".

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::features::{Autoclear, Compatible, Incompatible};
use crate::geometry::Geometry;
use crate::{Compression, Error, Result, limits};

/// `QFI\xfb`
const MAGIC: u32 = 0x5146_49fb;

/// The header as it lies in the file. Version 2 ends before `incompatible_features`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: U32,
    pub(crate) version: U32,
    pub(crate) backing_file_offset: U64,
    pub(crate) backing_file_size: U32,
    pub(crate) cluster_bits: U32,
    pub(crate) size: U64,
    pub(crate) crypt_method: U32,
    pub(crate) l1_size: U32,
    pub(crate) l1_table_offset: U64,
    pub(crate) refcount_table_offset: U64,
    pub(crate) refcount_table_clusters: U32,
    pub(crate) nb_snapshots: U32,
    pub(crate) snapshots_offset: U64,
    pub(crate) incompatible_features: U64,
    pub(crate) compatible_features: U64,
    pub(crate) autoclear_features: U64,
    pub(crate) refcount_order: U32,
    pub(crate) header_length: U32,
    pub(crate) compression_type: u8,
    pub(crate) padding: [u8; 7],
}

pub(crate) const RAW_LEN: usize = size_of::<RawHeader>();
pub(crate) const V2_LEN: u32 = 72;
/// Version 3 headers are at least this long: all fields up to `header_length`.
const V3_MIN_LEN: u32 = 104;
const _: () = assert!(RAW_LEN == 112);
const _: () = assert!(std::mem::offset_of!(RawHeader, l1_size) == 36);
const _: () = assert!(std::mem::offset_of!(RawHeader, nb_snapshots) == 60);
const _: () = assert!(std::mem::offset_of!(RawHeader, incompatible_features) == 72);
const _: () = assert!(std::mem::offset_of!(RawHeader, compression_type) == 104);

/// The part of the header that a commit switches: all within the first 512 bytes, which disks write whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: u32,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u32,
    pub(crate) snapshots_offset: u64,
    pub(crate) snapshots: u32,
    pub(crate) incompatible: Incompatible,
    pub(crate) autoclear: Autoclear,
}

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) geometry: Geometry,
    pub(crate) roots: Roots,
    pub(crate) compatible: Compatible,
    pub(crate) compression: Compression,
    /// Whether guest data is encrypted, with LUKS.
    pub(crate) encrypted: bool,
    /// Bytes of the header itself; extensions follow.
    pub(crate) header_len: u32,
    /// Where the backing file's name is, and how long.
    pub(crate) backing_name: Option<(u64, u32)>,
}

impl Header {
    /// Decodes and checks the first bytes of a file. `start` may be shorter than a header only if the file is.
    pub(crate) fn decode(start: &[u8]) -> Result<Self> {
        let mut bytes = [0; RAW_LEN];
        let available = start.len().min(RAW_LEN);
        bytes[..available].copy_from_slice(&start[..available]);
        let raw = RawHeader::read_from_bytes(&bytes).map_err(|_| Error::NotQcow2)?;
        if raw.magic.get() != MAGIC || available < V2_LEN as usize {
            return Err(Error::NotQcow2);
        }
        let version = raw.version.get();
        let corrupt = |offset, expected: String| Error::corrupt("header", offset, expected);
        let (incompatible, compatible, autoclear, refcount_order, header_len) = match version {
            2 => (Incompatible::empty(), Compatible::empty(), Autoclear::empty(), 4, V2_LEN),
            3 => (
                Incompatible::from_bits_retain(raw.incompatible_features.get()),
                Compatible::from_bits_retain(raw.compatible_features.get()),
                Autoclear::from_bits_retain(raw.autoclear_features.get()),
                raw.refcount_order.get(),
                raw.header_length.get(),
            ),
            other => return Err(Error::Unsupported(format!("qcow2 version {other}"))),
        };
        if let Some(feature) = incompatible.first_unhandled() {
            return Err(Error::Unsupported(feature));
        }
        match raw.crypt_method.get() {
            0 => {}
            1 => return Err(Error::Unsupported("AES encryption (legacy)".to_owned())),
            2 if cfg!(feature = "luks") => {}
            2 => {
                return Err(Error::Unsupported("LUKS encryption, without the feature `luks` of this crate".to_owned()));
            }
            other => return Err(Error::Unsupported(format!("encryption method {other}"))),
        }
        let cluster_bits = raw.cluster_bits.get();
        if !limits::CLUSTER_BITS.contains(&cluster_bits) {
            return Err(corrupt(20, format!("cluster_bits must be 9 to 21, found {cluster_bits}")));
        }
        if incompatible.contains(Incompatible::EXTENDED_L2) && cluster_bits < limits::EXTENDED_L2_CLUSTER_BITS {
            return Err(corrupt(
                20,
                format!("cluster_bits must be at least 14 with extended L2, found {cluster_bits}"),
            ));
        }
        if refcount_order > 6 {
            return Err(corrupt(96, format!("refcount_order must be at most 6, found {refcount_order}")));
        }
        let cluster_size = 1u64 << cluster_bits;
        if version == 3 && (header_len < V3_MIN_LEN || u64::from(header_len) > cluster_size || header_len % 8 != 0) {
            return Err(corrupt(
                100,
                format!("header_length must be a multiple of 8 from 104 to the cluster size, found {header_len}"),
            ));
        }
        let compression = if incompatible.contains(Incompatible::COMPRESSION_TYPE) {
            if header_len <= 104 {
                return Err(corrupt(
                    100,
                    "the header must hold the compression type that its features announce".to_owned(),
                ));
            }
            match raw.compression_type {
                // "Non-zero (which means non-deflate)", says the specification.
                0 => {
                    return Err(corrupt(104, "the compression type must not be 0 where its feature is set".to_owned()));
                }
                1 => Compression::Zstd,
                other => return Err(Error::Unsupported(format!("compression type {other}"))),
            }
        } else if version == 3 && header_len > 104 && raw.compression_type != 0 {
            let found = raw.compression_type;
            return Err(corrupt(104, format!("the compression type must be 0 without its feature, found {found}")));
        } else {
            Compression::Zlib
        };

        let disk_len = raw.size.get();
        if disk_len > limits::DISK_BYTES {
            return Err(corrupt(24, format!("the disk must be smaller than 2^63 bytes, found {disk_len}")));
        }
        let geometry = Geometry {
            cluster_bits,
            disk_len,
            refcount_order,
            extended_l2: incompatible.contains(Incompatible::EXTENDED_L2),
            external_data: incompatible.contains(Incompatible::EXTERNAL_DATA_FILE),
        };
        let l1_entries = raw.l1_size.get();
        if u64::from(l1_entries) * 8 > limits::L1_BYTES {
            return Err(corrupt(36, format!("the L1 table must take at most 32 MiB, found {l1_entries} entries")));
        }
        if u64::from(l1_entries) < geometry.l1_entries() {
            let needed = geometry.l1_entries();
            return Err(corrupt(36, format!("the L1 table must have at least {needed} entries, found {l1_entries}")));
        }
        let l1_offset = raw.l1_table_offset.get();
        if l1_entries > 0 && (l1_offset == 0 || !geometry.is_aligned(l1_offset)) {
            return Err(corrupt(40, format!("the L1 table's offset must be aligned and not 0, found {l1_offset:#x}")));
        }
        let refcount_table_offset = raw.refcount_table_offset.get();
        let refcount_table_clusters = raw.refcount_table_clusters.get();
        if !geometry.is_aligned(refcount_table_offset) || refcount_table_offset == 0 {
            return Err(corrupt(
                48,
                format!("the refcount table's offset must be aligned and not 0, found {refcount_table_offset:#x}"),
            ));
        }
        if u64::from(refcount_table_clusters) << cluster_bits > limits::REFCOUNT_TABLE_BYTES.max(cluster_size) {
            return Err(corrupt(
                56,
                format!("the refcount table must take at most 8 MiB, found {refcount_table_clusters} clusters"),
            ));
        }
        let snapshots = raw.nb_snapshots.get();
        if snapshots > limits::SNAPSHOTS {
            return Err(corrupt(60, format!("there must be at most 65536 snapshots, found {snapshots}")));
        }
        let snapshots_offset = raw.snapshots_offset.get();
        if snapshots > 0 && (snapshots_offset == 0 || !geometry.is_aligned(snapshots_offset)) {
            return Err(corrupt(
                64,
                format!("the snapshot table's offset must be aligned and not 0, found {snapshots_offset:#x}"),
            ));
        }
        let backing_name = match (raw.backing_file_offset.get(), raw.backing_file_size.get()) {
            (0, _) => None,
            (offset, len) => {
                let end = offset.checked_add(u64::from(len));
                if len == 0 || len > limits::BACKING_NAME || end.is_none_or(|end| end > cluster_size) {
                    return Err(corrupt(
                        8,
                        format!(
                            "the backing file's name must lie in the first cluster, found {len} bytes at {offset:#x}"
                        ),
                    ));
                }
                Some((offset, len))
            }
        };
        Ok(Self {
            version,
            geometry,
            roots: Roots {
                l1_offset,
                l1_entries,
                refcount_table_offset,
                refcount_table_clusters,
                snapshots_offset,
                snapshots,
                incompatible,
                autoclear,
            },
            compatible,
            compression,
            encrypted: raw.crypt_method.get() != 0,
            header_len,
            backing_name,
        })
    }

    /// Writes `roots`, the disk's length and the refcount width into `sector`, the first 512 bytes of the file; every other byte stays as it
    /// is.
    pub(crate) fn patch_roots(&self, sector: &mut [u8; 512], roots: &Roots) {
        sector[24..32].copy_from_slice(&self.geometry.disk_len.to_be_bytes());
        sector[36..40].copy_from_slice(&roots.l1_entries.to_be_bytes());
        sector[40..48].copy_from_slice(&roots.l1_offset.to_be_bytes());
        sector[48..56].copy_from_slice(&roots.refcount_table_offset.to_be_bytes());
        sector[56..60].copy_from_slice(&roots.refcount_table_clusters.to_be_bytes());
        sector[60..64].copy_from_slice(&roots.snapshots.to_be_bytes());
        sector[64..72].copy_from_slice(&roots.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            sector[72..80].copy_from_slice(&roots.incompatible.bits().to_be_bytes());
            sector[88..96].copy_from_slice(&roots.autoclear.bits().to_be_bytes());
            sector[96..100].copy_from_slice(&self.geometry.refcount_order.to_be_bytes());
        }
    }
}

/// Encodes the header of a new version 3 image.
pub(crate) fn encode_new(geometry: &Geometry, roots: &Roots, compression: Compression, luks: bool) -> RawHeader {
    RawHeader {
        magic: MAGIC.into(),
        version: 3.into(),
        backing_file_offset: 0.into(),
        backing_file_size: 0.into(),
        cluster_bits: geometry.cluster_bits.into(),
        size: geometry.disk_len.into(),
        crypt_method: if luks { 2 } else { 0 }.into(),
        l1_size: roots.l1_entries.into(),
        l1_table_offset: roots.l1_offset.into(),
        refcount_table_offset: roots.refcount_table_offset.into(),
        refcount_table_clusters: roots.refcount_table_clusters.into(),
        nb_snapshots: roots.snapshots.into(),
        snapshots_offset: roots.snapshots_offset.into(),
        incompatible_features: roots.incompatible.bits().into(),
        compatible_features: 0.into(),
        autoclear_features: roots.autoclear.bits().into(),
        refcount_order: geometry.refcount_order.into(),
        header_length: (RAW_LEN as u32).into(),
        compression_type: match compression {
            Compression::Zlib => 0,
            Compression::Zstd => 1,
        },
        padding: [0; 7],
    }
}
