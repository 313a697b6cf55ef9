//! The active L1 table in memory: which L2 table leads to which run of the virtual disk.
//!
//! Specification: "L1 and L2 tables and cluster mappings".

use std::sync::OnceLock;

use block::{Error as BlockError, Storage};
use byteorder::{BigEndian, ByteOrder};

use crate::Result;
use crate::header::Roots;
use crate::read::read_structure;

/// The entries of an L1 table, read when they are first looked at, so that opening an image costs the same
/// whatever the length of its disk. At most 32 MiB.
#[derive(Debug, Default)]
pub(crate) struct L1Table {
    words: OnceLock<Vec<u64>>,
}

impl L1Table {
    /// A table that is still to be read. It must start within the file.
    pub(crate) fn unread(storage: &dyn Storage, roots: &Roots) -> Result<Self> {
        if roots.l1_entries > 0 {
            BlockError::check_range(roots.l1_offset, 1, storage.len())?;
        }
        Ok(Self::default())
    }

    /// The entries of the table that `roots` leads to.
    pub(crate) fn get(&self, storage: &dyn Storage, roots: &Roots) -> Result<&[u64]> {
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let bytes = read_structure(storage, roots.l1_offset, u64::from(roots.l1_entries) * 8)?;
        let mut words = vec![0; bytes.len() / 8];
        BigEndian::read_u64_into(&bytes, &mut words);
        Ok(self.words.get_or_init(|| words))
    }

    /// Replaces one entry, in memory; beyond the end of the table there is none.
    pub(crate) fn set(&mut self, index: usize, raw: u64) {
        if let Some(word) = self.words.get_mut().and_then(|words| words.get_mut(index)) {
            *word = raw;
        }
    }
}

impl From<Vec<u64>> for L1Table {
    fn from(words: Vec<u64>) -> Self {
        Self { words: words.into() }
    }
}
