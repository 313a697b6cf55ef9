//! Refcounts: how often each cluster of the file is used. A table leads to blocks, and each block holds the
//! refcounts of as many clusters as fit one cluster.
//!
//! Specification: "Host cluster management".

use block::Storage;
use byteorder::{BigEndian, ByteOrder};

use crate::geometry::Geometry;
use crate::header::Roots;
use crate::read::read_structure;
use crate::{Error, Result};

/// The refcount table: the offset of each refcount block, or 0 where there is none.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefcountTable {
    pub(crate) blocks: Vec<u64>,
}

impl RefcountTable {
    pub(crate) fn read(storage: &dyn Storage, roots: &Roots, geometry: &Geometry) -> Result<Self> {
        let len = u64::from(roots.refcount_table_clusters) << geometry.cluster_bits;
        let bytes = read_structure(storage, roots.refcount_table_offset, len)?;
        let mut blocks = vec![0; bytes.len() / 8];
        BigEndian::read_u64_into(&bytes, &mut blocks);
        for (index, offset) in blocks.iter().enumerate() {
            let at = roots.refcount_table_offset + index as u64 * 8;
            // Bits 0 to 8 are reserved; a block is a cluster.
            if !geometry.is_aligned(*offset) {
                return Err(Error::corrupt(
                    "refcount table entry",
                    at,
                    format!("a refcount block's offset must be aligned, found {offset:#x}"),
                ));
            }
        }
        Ok(Self { blocks })
    }

    /// The refcounts in block `index`: zeros where there is no such block.
    pub(crate) fn read_block(&self, storage: &dyn Storage, geometry: &Geometry, index: usize) -> Result<Vec<u64>> {
        let entries = geometry.refcounts_per_block() as usize;
        match self.blocks.get(index) {
            None | Some(0) => Ok(vec![0; entries]),
            Some(&offset) => {
                let bytes = read_structure(storage, offset, geometry.cluster_size())?;
                Ok(decode_block(&bytes, geometry.refcount_order))
            }
        }
    }
}

/// Decodes a refcount block. Widths below a byte are packed from the low bits of each byte.
pub(crate) fn decode_block(bytes: &[u8], order: u32) -> Vec<u64> {
    match order {
        0..=2 => {
            let width = 1u32 << order;
            let mask = (1u8 << width) - 1;
            let per_byte = 8 / width;
            bytes.iter().flat_map(|&byte| (0..per_byte).map(move |i| u64::from(byte >> (i * width) & mask))).collect()
        }
        _ => bytes.chunks_exact(1 << (order - 3)).map(|chunk| BigEndian::read_uint(chunk, chunk.len())).collect(),
    }
}

/// Encodes refcounts, each of which must fit the width.
pub(crate) fn encode_block(counts: &[u64], order: u32) -> Vec<u8> {
    match order {
        0..=2 => {
            let width = 1u32 << order;
            let per_byte = 8 / width as usize;
            let pack =
                |group: &[u64]| (0u32..).zip(group).fold(0, |byte, (i, &count)| byte | (count as u8) << (i * width));
            counts.chunks(per_byte).map(pack).collect()
        }
        _ => {
            let size = 1usize << (order - 3);
            let mut bytes = vec![0; counts.len() * size];
            for (chunk, &count) in bytes.chunks_exact_mut(size).zip(counts) {
                BigEndian::write_uint(chunk, count, size);
            }
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width_survive_a_round_trip() {
        for order in 0..=6 {
            let max = u64::MAX >> (64 - (1u32 << order));
            let counts: Vec<u64> =
                (0..(512 * 8) >> order).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & max).collect();
            let bytes = encode_block(&counts, order);
            assert_eq!(bytes.len(), 512);
            assert_eq!(decode_block(&bytes, order), counts, "order {order}");
        }
        assert_eq!(encode_block(&[1, 0, 0, 0, 0, 0, 0, 1], 0), [0x81]);
        assert_eq!(encode_block(&[1, 2], 4), [0, 1, 0, 2]);
    }
}
