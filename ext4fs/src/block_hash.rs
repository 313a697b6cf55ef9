//! A map by block numbers, hashed by one multiplication.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are block numbers. Their hash is no secret: an image can choose numbers that collide, so this is for
/// maps of a few thousand entries at most.
pub(crate) type BlockMap<T> = HashMap<u64, T, BuildHasherDefault<BlockHasher>>;

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio spreads neighbours; the table looks at both ends of the hash, so both ends get all bits.
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_strides_do_not_collide() {
        for stride in [1, 2, 1024, 32_768, 1 << 20, 1 << 32] {
            let hash = |n: u64| {
                let mut hasher = BlockHasher::default();
                hasher.write_u64(n * stride);
                hasher.finish()
            };
            for bits in [0, 52] {
                let slots: std::collections::HashSet<u64> = (0..4096).map(|n| hash(n) >> bits & 0xFFF).collect();
                assert!(slots.len() > 2200, "stride {stride}, from bit {bits}: {} of 4096", slots.len());
            }
        }
    }
}
