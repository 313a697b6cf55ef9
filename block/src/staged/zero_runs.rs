//! A set of chunks, kept as runs.

use std::collections::BTreeMap;
use std::ops::Range;

/// Runs of chunks, none touching another, by their first chunk.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: BTreeMap<u64, u64>,
}

impl Runs {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &its_end)) = self.runs.range(..start).next_back()
            && its_end >= start
        {
            start = before;
            end = end.max(its_end);
        }
        while let Some((&next, &its_end)) = self.runs.range(start..=end).next() {
            self.runs.remove(&next);
            end = end.max(its_end);
        }
        self.runs.insert(start, end);
    }

    /// The parts of runs that lie in `range`.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.runs.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        self.runs
            .range(first..range.end.max(first))
            .map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|run| !run.is_empty())
    }

    pub(crate) fn contains(&self, chunk: u64) -> bool {
        self.within(chunk..chunk + 1).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_behave_as_a_set_of_chunks() {
        let mut state = 7u64;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for _ in 0..50 {
            let (mut runs, mut model) = (Runs::default(), [false; 64]);
            for _ in 0..below(12) {
                let start = below(64);
                let end = start + below(65 - start);
                runs.insert(start..end);
                model[start as usize..end as usize].fill(true);
            }
            let (from, to) = (below(32), 32 + below(32));
            let found: Vec<u64> = runs.within(from..to).flatten().collect();
            let wanted: Vec<u64> = (from..to).filter(|chunk| model[*chunk as usize]).collect();
            assert_eq!(found, wanted);
            (0..64).for_each(|chunk| assert_eq!(runs.contains(chunk), model[chunk as usize]));
            assert!(runs.runs.iter().zip(runs.runs.iter().skip(1)).all(|(run, next)| run.1 < next.0));
        }
    }
}
