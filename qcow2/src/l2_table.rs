//! An L2 table in memory: what each of a run of clusters of the virtual disk is made of.
//!
//! Specification: "L1 and L2 tables and cluster mappings", "Extended L2 Entries".

use byteorder::{BigEndian, ByteOrder};

use crate::geometry::Geometry;
use crate::l2_entry::RawEntry;

/// The entries of one L2 table, of one word each, or of two where they are extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct L2Table {
    words: Vec<u64>,
    extended: bool,
}

impl L2Table {
    /// A table that leads nowhere.
    pub(crate) fn empty(geometry: &Geometry) -> Self {
        Self { words: vec![0; geometry.cluster_len() / 8], extended: geometry.extended_l2 }
    }

    pub(crate) fn decode(bytes: &[u8], geometry: &Geometry) -> Self {
        let mut words = vec![0; bytes.len() / 8];
        BigEndian::read_u64_into(bytes, &mut words);
        Self { words, extended: geometry.extended_l2 }
    }

    /// The table as it lies in the file, one cluster long.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.words.len() * 8];
        BigEndian::write_u64_into(&self.words, &mut bytes);
        bytes
    }

    /// An entry; beyond the end of the table there are empty ones.
    pub(crate) fn get(&self, index: usize) -> RawEntry {
        let word = |at: usize| self.words.get(at).copied().unwrap_or(0);
        if self.extended {
            RawEntry { descriptor: word(2 * index), bitmap: word(2 * index + 1) }
        } else {
            RawEntry { descriptor: word(index), bitmap: 0 }
        }
    }

    /// Replaces an entry; beyond the end of the table there is none.
    pub(crate) fn set(&mut self, index: usize, entry: RawEntry) {
        let words = if self.extended { &[entry.descriptor, entry.bitmap][..] } else { &[entry.descriptor] };
        if let Some(place) = self.words.get_mut(index * words.len()..(index + 1) * words.len()) {
            place.copy_from_slice(words);
        }
    }

    /// The table as words: one for each entry, unless entries are extended.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> usize {
        self.words.len() / if self.extended { 2 } else { 1 }
    }

    /// Whether it leads nowhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// All entries, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RawEntry> {
        (0..self.len()).map(|index| self.get(index))
    }
}
