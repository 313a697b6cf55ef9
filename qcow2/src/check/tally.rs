//! How often each cluster of the file is used: two bytes a cluster, so that a terabyte costs 32 MiB.

use std::collections::HashMap;

use crate::{Error, Result, limits};

/// References to each cluster of the file.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    counts: Vec<u16>,
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
            Some(&u16::MAX) => self.large.get(&cluster).copied().unwrap_or(u64::from(u16::MAX)),
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
            &mut u16::MAX => *self.large.entry(cluster).or_insert(u64::from(u16::MAX)) += 1,
            count => *count += 1,
        }
    }

    /// Lowers a count to at most `limit`.
    pub(super) fn lower_to(&mut self, cluster: u64, limit: u64) {
        if self.get(cluster) > limit {
            self.large.remove(&cluster);
            self.counts[cluster as usize] = u16::try_from(limit).unwrap_or(u16::MAX);
            if limit >= u64::from(u16::MAX) {
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
        tally.lower_to(1, 65_535);
        assert_eq!(tally.get(1), 65_535);
        tally.lower_to(1, 3);
        assert_eq!((tally.get(1), tally.end()), (3, 5));
        assert!(tally.is_unused(2..4) && !tally.is_unused(0..2));
    }
}
