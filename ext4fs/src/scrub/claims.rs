//! Which blocks have an owner, and that none has two.

use std::ops::Range;

use crate::{Error, Result};

/// So many ranges are kept before those that touch are made one, and twice as many as were left then.
const MIN_RANGES: usize = 1 << 16;

/// The blocks that inodes and the format itself use, as ranges.
#[derive(Debug, Default)]
pub(super) struct Claims {
    ranges: Vec<Range<u64>>,
    merge_at: usize,
}

impl Claims {
    /// Notes an owner of blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it turns out that a block noted so far has two owners. It may turn out later.
    pub(super) fn add(&mut self, blocks: Range<u64>) -> Result<()> {
        self.ranges.push(blocks);
        if self.ranges.len() >= self.merge_at.max(MIN_RANGES) {
            self.merge()?;
            self.merge_at = self.ranges.len() * 2;
        }
        Ok(())
    }

    /// Sorts the ranges and makes those that touch one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where a block has two owners.
    pub(super) fn merge(&mut self) -> Result<()> {
        self.ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(self.ranges.len() / 2);
        for range in self.ranges.drain(..) {
            match merged.last_mut() {
                Some(last) if range.start < last.end => {
                    return Err(Error::corrupt(
                        "block",
                        format_args!("block {}", range.start),
                        "has one owner, found two",
                    ));
                }
                Some(last) if range.start == last.end => last.end = range.end,
                _ => merged.push(range),
            }
        }
        self.ranges = merged;
        Ok(())
    }

    /// How many clusters have an owner in any of their blocks; the first cluster begins with block `first`, and the ranges
    /// must have been merged since the last was added.
    pub(super) fn clusters(&self, first: u64, blocks_per_cluster: u64) -> u64 {
        let (mut count, mut next) = (0, 0);
        for range in &self.ranges {
            let start = range.start.saturating_sub(first) / blocks_per_cluster;
            let end = range.end.saturating_sub(first).div_ceil(blocks_per_cluster);
            count += end - start.max(next).min(end);
            next = end;
        }
        count
    }

    /// The first block of `blocks` that has an owner. The ranges must have been merged since the last was added.
    pub(super) fn first_in(&self, blocks: &Range<u64>) -> Option<u64> {
        let at = self.ranges.partition_point(|range| range.end <= blocks.start);
        let range = self.ranges.get(at)?;
        (range.start < blocks.end).then(|| range.start.max(blocks.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_and_two_refused() {
        let mut claims = Claims::default();
        for start in (0..200_000).rev() {
            claims.add(start * 3..start * 3 + if start % 2 == 0 { 3 } else { 1 }).unwrap();
        }
        claims.merge().unwrap();
        assert_eq!(claims.first_in(&(0..1)), Some(0));
        assert_eq!(claims.first_in(&(4..6)), None);
        assert_eq!(claims.first_in(&(4..7)), Some(6));
        assert_eq!(claims.first_in(&(700_000..800_000)), None);
        claims.add(8..10).unwrap();
        assert!(matches!(claims.merge(), Err(Error::Corrupt(_))));
    }

    #[test]
    fn two_owners_are_noticed_before_memory_runs_out() {
        let mut claims = Claims::default();
        let added = (0..1 << 20).take_while(|_| claims.add(5..6).is_ok()).count();
        assert!(added <= MIN_RANGES);
    }
}
