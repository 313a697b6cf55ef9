//! How often each cluster of the file is used: a byte for each cluster, so that a terabyte costs 16 MiB.

use std::collections::HashMap;

use crate::{Error, Result, limits};

/// References to each cluster of the file.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    counts: Vec<u8>,
    /// The counts that do not fit.
    large: HashMap<u64, u64>,
}

impl Tally {
    /// None, for a file of `clusters` clusters.
    pub(super) fn none(clusters: u64) -> Result<Self> {
        if clusters > limits::HOST_CLUSTERS {
            return Err(Error::Unsupported(format!("checking a file of {clusters} clusters")));
        }
        Ok(Self { counts: vec![0; clusters as usize], large: HashMap::new() })
    }

    pub(super) fn len(&self) -> u64 {
        self.counts.len() as u64
    }

    pub(super) fn get(&self, cluster: u64) -> u64 {
        match usize::try_from(cluster).ok().and_then(|index| self.counts.get(index)) {
            None => 0,
            Some(&u8::MAX) => self.large.get(&cluster).copied().unwrap_or(u64::from(u8::MAX)),
            Some(&count) => u64::from(count),
        }
    }

    /// Adds a reference to a cluster, which may lie behind the last one so far; the caller bounds how far.
    pub(super) fn add(&mut self, cluster: u64) {
        let index = cluster as usize;
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        match &mut self.counts[index] {
            &mut u8::MAX => *self.large.entry(cluster).or_insert(u64::from(u8::MAX)) += 1,
            count => *count += 1,
        }
    }

    /// Adds a reference to each of `clusters`, if none of them is used `limit` times or more, or very often; says whether it did.
    pub(super) fn add_run(&mut self, clusters: std::ops::Range<u64>, limit: u64) -> bool {
        let (Ok(start), Ok(end)) = (usize::try_from(clusters.start), usize::try_from(clusters.end)) else {
            return false;
        };
        let Some(counts) = self.counts.get_mut(start..end) else { return false };
        let most = counts.iter().copied().max().unwrap_or(0);
        if most == u8::MAX || u64::from(most) >= limit {
            return false;
        }
        counts.iter_mut().for_each(|count| *count += 1);
        true
    }

    /// Whether the counts of `clusters` are those that `found` says, big-endian and two bytes each, and no count is large.
    pub(super) fn equals(&self, clusters: std::ops::Range<u64>, found: &[u8]) -> bool {
        let held = self.counts.get(clusters.start as usize..clusters.end as usize).unwrap_or_default();
        let (pairs, _) = found.as_chunks::<2>();
        let differ = |(&held, pair): (&u8, &[u8; 2])| held == u8::MAX || u16::from_be_bytes(*pair) != u16::from(held);
        // By blocks, which the compiler turns into wide comparisons.
        held.len() as u64 == clusters.end - clusters.start
            && held.len() <= pairs.len()
            && held
                .chunks(256)
                .zip(pairs.chunks(256))
                .all(|(held, pairs)| !held.iter().zip(pairs).fold(false, |differs, pair| differs | differ(pair)))
    }

    /// The cluster after the last of `clusters` that is used, if one is.
    pub(super) fn last_used(&self, clusters: std::ops::Range<u64>) -> Option<u64> {
        let held = self.counts.get(clusters.start as usize..clusters.end as usize)?;
        held.iter().rposition(|&count| count != 0).map(|last| clusters.start + last as u64 + 1)
    }

    /// Lowers a count to at most `limit`.
    pub(super) fn lower_to(&mut self, cluster: u64, limit: u64) {
        if self.get(cluster) > limit {
            self.large.remove(&cluster);
            self.counts[cluster as usize] = u8::try_from(limit).unwrap_or(u8::MAX);
            if limit >= u64::from(u8::MAX) {
                self.large.insert(cluster, limit);
            }
        }
    }

    /// The cluster after the last one that is used.
    pub(super) fn end(&self) -> u64 {
        self.counts.iter().rposition(|&count| count != 0).map_or(0, |last| last as u64 + 1)
    }

    /// Whether none of these clusters is used.
    pub(super) fn is_unused(&self, clusters: std::ops::Range<u64>) -> bool {
        let len = self.len();
        self.counts[clusters.start.min(len) as usize..clusters.end.min(len) as usize].iter().all(|&count| count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_beyond_two_bytes_are_kept() {
        let mut tally = Tally::none(3).unwrap();
        for _ in 0..70_000 {
            tally.add(1);
        }
        tally.add(4);
        assert_eq!((tally.get(0), tally.get(1), tally.get(4), tally.get(9)), (0, 70_000, 1, 0));
        tally.lower_to(1, 66_000);
        assert_eq!(tally.get(1), 66_000);
        tally.lower_to(1, 255);
        assert_eq!(tally.get(1), 255);
        assert!(!tally.add_run(0..3, u64::MAX));
        tally.lower_to(1, 3);
        assert_eq!((tally.get(1), tally.end()), (3, 5));
        assert!(tally.is_unused(2..4) && !tally.is_unused(0..2));
        assert!(!tally.add_run(0..3, 3) && !tally.add_run(3..6, 9) && tally.add_run(0..3, 4));
        assert!(tally.equals(0..5, &[0, 1, 0, 4, 0, 1, 0, 0, 0, 1, 9, 9]));
        assert!(!tally.equals(0..5, &[0, 1, 0, 4, 1, 1, 0, 0, 0, 1]) && !tally.equals(0..5, &[0, 1, 0, 4]));
        assert_eq!((tally.last_used(0..4), tally.last_used(3..4)), (Some(3), None));
    }
}
