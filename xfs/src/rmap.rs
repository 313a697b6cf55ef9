//! Who owns each block of a group. "Reverse-Mapping B+tree".

use std::collections::BTreeMap;

use crate::{Error, Result};

/// What owns blocks that belong to no inode.
pub(crate) const OWN_AG: u64 = (-5_i64).cast_unsigned();
pub(crate) const OWN_INOBT: u64 = (-6_i64).cast_unsigned();
pub(crate) const OWN_INODES: u64 = (-7_i64).cast_unsigned();
pub(crate) const OWN_REFC: u64 = (-8_i64).cast_unsigned();
pub(crate) const OWN_COW: u64 = (-9_i64).cast_unsigned();

const ATTR_FORK: u64 = 1 << 63;
const BMBT_BLOCK: u64 = 1 << 62;
const UNWRITTEN: u64 = 1 << 61;
const OFFSET: u64 = (1 << 54) - 1;

/// An owner of blocks, and for which of its own blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) owner: u64,
    pub(crate) attr_fork: bool,
    /// Blocks of the tree of its extents, rather than what it holds.
    pub(crate) tree: bool,
    pub(crate) unwritten: bool,
    pub(crate) offset: u64,
}

impl Owner {
    /// An owner that is no inode.
    pub(crate) fn special(owner: u64) -> Self {
        Self { owner, attr_fork: false, tree: false, unwritten: false, offset: 0 }
    }

    pub(crate) fn decode(owner: u64, packed: u64) -> Self {
        Self {
            owner,
            attr_fork: packed & ATTR_FORK != 0,
            tree: packed & BMBT_BLOCK != 0,
            unwritten: packed & UNWRITTEN != 0,
            offset: packed & OFFSET,
        }
    }

    /// The offset with its flags, as it is in a record; in a key without that of unwritten blocks.
    pub(crate) fn packed(&self, is_key: bool) -> u64 {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        flag(self.attr_fork, ATTR_FORK)
            | flag(self.tree, BMBT_BLOCK)
            | flag(self.unwritten && !is_key, UNWRITTEN)
            | self.offset
    }

    /// Whether offsets run along with blocks.
    pub(crate) fn has_offsets(&self) -> bool {
        self.owner < 1 << 63 && !self.tree
    }

    fn moved(&self, blocks: u32) -> Self {
        Self { offset: if self.has_offsets() { self.offset + u64::from(blocks) } else { self.offset }, ..*self }
    }
}

/// The owners of a group's blocks: each run of blocks that lies together in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rmap {
    /// By the owner, so that what lies together for it are neighbours; then by the first block. The length.
    runs: BTreeMap<(Owner, u32), u32>,
}

impl Rmap {
    /// Takes a record as the disk has it.
    pub(crate) fn load(&mut self, owner: Owner, start: u32, len: u32) -> Result<(), String> {
        match self.runs.insert((owner, start), len) {
            None => Ok(()),
            Some(_) => Err(format!("no owner has block {start} twice")),
        }
    }

    /// All records in the order of the disk: first block, length, owner.
    pub(crate) fn records(&self) -> Vec<(u32, u32, Owner)> {
        let mut records: Vec<_> = self.runs.iter().map(|((owner, start), len)| (*start, *len, *owner)).collect();
        records.sort_unstable_by_key(|(start, _, owner)| {
            (*start, owner.owner, owner.packed(true) & OFFSET, owner.packed(true))
        });
        records
    }

    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Blocks have an owner (more).
    pub(crate) fn add(&mut self, owner: Owner, start: u32, len: u32) {
        let (mut owner, mut start, mut len) = (owner, start, len);
        if let Some((before, first, run)) = self.ending_at(owner, start) {
            self.runs.remove(&(before, first));
            (owner, start, len) = (before, first, len + run);
        }
        let next = (owner.moved(len), start + len);
        if let Some(run) = self.runs.remove(&next) {
            len += run;
        }
        self.runs.insert((owner, start), len);
    }

    /// The run that ends where another of the same owner starts, and goes on there.
    fn ending_at(&self, owner: Owner, start: u32) -> Option<(Owner, u32, u32)> {
        let ((before, first), run) = self.runs.range(..(owner, start)).next_back()?;
        let follows = before.moved(*run) == owner && first + run == start;
        follows.then_some((*before, *first, *run))
    }

    /// Blocks lose an owner, which they must have had.
    pub(crate) fn remove(&mut self, owner: Owner, start: u32, len: u32) -> Result<()> {
        let wrong = || {
            let place = format_args!("block {start}");
            Error::corrupt("reverse mapping", place, format!("{len} blocks belong to {:#x}", owner.owner))
        };
        let found =
            self.runs.range(..=(owner, start)).next_back().map(|((before, first), run)| (*before, *first, *run));
        let (before, first, run) = found.ok_or_else(wrong)?;
        let into = start.checked_sub(first).filter(|into| into + len <= run && before.moved(*into) == owner);
        let into = into.ok_or_else(wrong)?;
        self.runs.remove(&(before, first));
        if into > 0 {
            self.runs.insert((before, first), into);
        }
        if into + len < run {
            self.runs.insert((before.moved(into + len), start + len), run - into - len);
        }
        Ok(())
    }

    /// Blocks lose all their owners, if they have any.
    pub(crate) fn remove_any(&mut self, start: u32, len: u32) {
        let end = start + len;
        let touches = |((_, first), run): &(&(Owner, u32), &u32)| *first < end && *first + **run > start;
        let found: Vec<_> =
            self.runs.iter().filter(touches).map(|((owner, first), run)| (*owner, *first, *run)).collect();
        for (owner, first, run) in found {
            self.runs.remove(&(owner, first));
            if first < start {
                self.runs.insert((owner, first), start - first);
            }
            if end < first + run {
                self.runs.insert((owner.moved(end - first), end), first + run - end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_joined_and_cut() {
        let file = |offset| Owner { owner: 131, attr_fork: false, tree: false, unwritten: false, offset };
        let mut rmap = Rmap::default();
        rmap.add(file(0), 100, 10);
        rmap.add(file(20), 120, 5);
        rmap.add(file(10), 110, 10);
        assert_eq!(rmap.records(), [(100, 25, file(0))]);
        rmap.remove(file(5), 105, 3).unwrap();
        assert_eq!(rmap.records(), [(100, 5, file(0)), (108, 17, file(8))]);
        assert!(rmap.remove(file(5), 105, 1).is_err());
        assert!(rmap.remove(file(8), 109, 1).is_err());
        let own = Owner::special(OWN_AG);
        rmap.add(own, 7, 1);
        rmap.add(own, 5, 1);
        rmap.add(own, 6, 1);
        assert_eq!(rmap.records()[0], (5, 3, own));
    }
}
