//! A search for thousands of byte strings at once, at about the speed of reading.
//!
//! Every string is at least 16 bytes long, so wherever one lies, it covers a whole word of eight bytes that begins at a
//! multiple of eight. Only these words are looked at: each is looked up in a table of all words that lie anywhere in the
//! strings; an automaton would look at every byte.

use std::collections::HashMap;

use crate::Trace;

/// The shortest string that the words are sure to meet.
const MIN_LEN: usize = 15;
/// Bits of the filter before the table.
const FILTER_BITS: u32 = 21;

/// What is searched for.
#[derive(Debug)]
pub struct TraceSearch<'a> {
    traces: &'a [Trace],
    filter: Vec<u64>,
    /// For each word: which string has it, and where.
    words: HashMap<u64, Vec<(u32, u32)>>,
    longest: usize,
}

impl<'a> TraceSearch<'a> {
    /// Prepares the search; traces shorter than 15 bytes are passed over.
    #[must_use]
    pub fn new(traces: &'a [Trace]) -> Self {
        let mut search = Self { traces, filter: vec![0; 1 << (FILTER_BITS - 6)], words: HashMap::new(), longest: 0 };
        for (index, trace) in (0_u32..).zip(traces).filter(|(_, trace)| trace.bytes.len() >= MIN_LEN) {
            search.longest = search.longest.max(trace.bytes.len());
            for (offset, word) in (0_u32..8).zip(trace.bytes.windows(8)) {
                let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
                let (cell, bit) = place(word);
                if let Some(cell) = search.filter.get_mut(cell) {
                    *cell |= bit;
                }
                search.words.entry(word).or_default().push((index, offset));
            }
        }
        search
    }

    /// Whether there is anything to search for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// By how much pieces of one whole have to overlap, so that nothing is missed where they meet.
    #[must_use]
    pub fn overlap(&self) -> usize {
        self.longest
    }

    /// Calls `found` with the number of each trace that the haystack holds, and where in it.
    pub fn find(&self, haystack: &[u8], found: &mut dyn FnMut(usize, usize)) {
        for (at, word) in (0_usize..).step_by(8).zip(haystack.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            let (cell, bit) = place(word);
            if word == 0 || self.filter.get(cell).is_none_or(|cell| cell & bit == 0) {
                continue;
            }
            for &(index, offset) in self.words.get(&word).into_iter().flatten() {
                let (index, offset) = (index as usize, offset as usize);
                let start = at.checked_sub(offset);
                let rest = start.and_then(|start| haystack.get(start..));
                let trace = self.traces.get(index).map(|trace| trace.bytes.as_slice());
                if let (Some(start), Some(rest), Some(trace)) = (start, rest, trace)
                    && rest.starts_with(trace)
                {
                    found(index, start);
                }
            }
        }
    }
}

/// The cell of the filter that a word has, and the bit in it.
fn place(word: u64) -> (usize, u64) {
    // Multiplication mixes upwards: the high bits depend on all.
    let hash = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trace(bytes: &[u8]) -> Trace {
        Trace { path: b"/x"[..].into(), bytes: bytes.to_vec() }
    }

    fn all(traces: &[Trace], haystack: &[u8]) -> Vec<(usize, usize)> {
        let mut all = Vec::new();
        TraceSearch::new(traces).find(haystack, &mut |trace, at| all.push((trace, at)));
        all.sort_unstable();
        all.dedup();
        all
    }

    proptest! {
        #[test]
        fn it_finds_what_a_plain_search_finds(
            traces in proptest::collection::vec(proptest::collection::vec(b'a'..b'd', 16..33), 1..20),
            noise in proptest::collection::vec(b'a'..b'd', 0..100),
            chosen in 0..20_usize,
            at in 0..100_usize,
        ) {
            let traces: Vec<_> = traces.iter().map(|bytes| trace(bytes)).collect();
            let mut haystack = noise;
            let at = at.min(haystack.len());
            let planted = traces[chosen % traces.len()].bytes.clone();
            haystack.splice(at..at, planted);
            let mut plain = Vec::new();
            for (index, trace) in traces.iter().enumerate() {
                let windows = haystack.windows(trace.bytes.len()).enumerate();
                plain.extend(windows.filter(|(_, window)| *window == trace.bytes).map(|(at, _)| (index, at)));
            }
            plain.sort_unstable();
            prop_assert!(!plain.is_empty());
            prop_assert_eq!(all(&traces, &haystack), plain);
        }
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        assert_eq!(all(&[trace(b"0123456789abcdef")], &[0; 4096]), []);
        assert!(TraceSearch::new(&[trace(b"short")]).is_empty());
    }
}
