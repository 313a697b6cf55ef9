//! Work that the log announces and that was not done: it is done now. "Extent Freeing Intents", "Reverse Mapping
//! Updates Intent", "Reference Count Updates Intent".

use super::transaction::number;
use crate::file_system::FileSystem;
use crate::rmap::Owner;
use crate::{Error, Result};

/// Work on the space of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// An owner of space is noted, gone, or has written it or not.
    Owner { change: OwnerChange, start: u64, len: u64, owner: Owner },
    /// Space has an owner more or less, or is or is no longer set aside for a copy.
    References { change: ReferenceChange, start: u64, len: u64 },
    /// Space is free.
    Free { start: u64, len: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerChange {
    Add,
    Remove,
    /// It is as the owner says: before it was the other way.
    Convert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReferenceChange {
    Increase,
    Decrease,
    AddCopy,
    RemoveCopy,
}

const HEADER: usize = 16;
const ATTR_FORK: u64 = 1 << 31;
const BMBT_BLOCK: u64 = 1 << 30;
const UNWRITTEN: u64 = 1 << 29;

/// The records behind an item's header, each of some bytes. `Err`: the rule that does not hold.
fn records(item: &[u8], sizes: &[usize]) -> Result<Vec<Vec<u8>>, String> {
    let count = number(item, 4, 4) as usize;
    let behind = item.get(HEADER..).unwrap_or_default();
    // Machines of 32 bits leave no gaps.
    match sizes.iter().find(|size| count.checked_mul(**size) == Some(behind.len())) {
        Some(size) if count > 0 => Ok(behind.chunks_exact(*size).map(<[u8]>::to_vec).collect()),
        _ => Err(format!("announced work has its {count} records, found {} bytes", behind.len())),
    }
}

/// Decodes space that is to be freed.
pub(super) fn frees(item: &[u8]) -> Result<Vec<Work>, String> {
    let free = |record: Vec<u8>| Work::Free { start: number(&record, 0, 8), len: number(&record, 8, 4) };
    Ok(records(item, &[16, 12])?.into_iter().map(free).collect())
}

/// Decodes owners that are to be noted.
pub(super) fn owners(item: &[u8]) -> Result<Vec<Work>, String> {
    let owner = |record: Vec<u8>| {
        let flags = number(&record, 28, 4);
        let change = match flags & 0xff {
            1 | 2 | 7 => OwnerChange::Add,
            3 | 4 | 8 => OwnerChange::Remove,
            5 | 6 => OwnerChange::Convert,
            other => return Err(format!("the kind of a change of owners is known, found {other}")),
        };
        let mut owner = Owner {
            owner: number(&record, 0, 8),
            attr_fork: flags & ATTR_FORK != 0,
            tree: flags & BMBT_BLOCK != 0,
            unwritten: flags & UNWRITTEN != 0,
            offset: number(&record, 16, 8),
        };
        if !owner.has_offsets() {
            owner.offset = 0;
        }
        Ok(Work::Owner { change, start: number(&record, 8, 8), len: number(&record, 24, 4), owner })
    };
    records(item, &[32])?.into_iter().map(owner).collect()
}

/// Decodes shared space that is to be counted.
pub(super) fn references(item: &[u8]) -> Result<Vec<Work>, String> {
    let reference = |record: Vec<u8>| {
        let change = match number(&record, 12, 4) & 0xff {
            1 => ReferenceChange::Increase,
            2 => ReferenceChange::Decrease,
            3 => ReferenceChange::AddCopy,
            4 => ReferenceChange::RemoveCopy,
            other => return Err(format!("the kind of a change of reference counts is known, found {other}")),
        };
        Ok(Work::References { change, start: number(&record, 0, 8), len: number(&record, 8, 4) })
    };
    records(item, &[16])?.into_iter().map(reference).collect()
}

impl FileSystem {
    /// Does what was announced. Owners first, then counts, then what is free: each may have been announced by the
    /// change that the ones before it belong to.
    pub(super) fn finish(&mut self, mut work: Vec<Work>) -> Result<()> {
        work.sort_by_key(|work| match work {
            Work::Owner { .. } => 0,
            Work::References { .. } => 1,
            Work::Free { .. } => 2,
        });
        for work in work {
            match work {
                Work::Owner { change, start, len, owner } => {
                    let (number, start, len) = self.space(start, len)?;
                    let Some(rmap) = &mut self.group_mut(number)?.rmap else { continue };
                    let before = Owner { unwritten: !owner.unwritten, ..owner };
                    match change {
                        OwnerChange::Add => rmap.add(owner, start, len),
                        OwnerChange::Remove => rmap.remove(owner, start, len)?,
                        OwnerChange::Convert => {
                            rmap.remove(before, start, len)?;
                            rmap.add(owner, start, len);
                        }
                    }
                    self.group_mut(number)?.changed = true;
                }
                Work::References { change, start, len } => {
                    let (number, start, len) = self.space(start, len)?;
                    let group = self.group_mut(number)?;
                    match change {
                        ReferenceChange::Increase => group.add_reference(start, len)?,
                        ReferenceChange::Decrease => {
                            for (start, len) in group.drop_reference(start, len)? {
                                self.free_space(number, start, len)?;
                            }
                        }
                        ReferenceChange::AddCopy => group.add_copy(start, len)?,
                        ReferenceChange::RemoveCopy => group.remove_copy(start, len)?,
                    }
                }
                Work::Free { start, len } => {
                    let (number, start, len) = self.space(start, len)?;
                    // Blocks of trees of extents have their owner noted until they are freed; others do not.
                    if let Some(rmap) = &mut self.group_mut(number)?.rmap {
                        rmap.remove_any(start, len);
                    }
                    self.free_space(number, start, len)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn free_space(&mut self, number: u32, start: u32, len: u32) -> Result<()> {
        self.group_mut(number)?.give_free(start, len)?;
        let first = self.linear(number, start);
        self.store.forget(first..first + u64::from(len));
        Ok(())
    }

    /// The group of some blocks, and where in it they are.
    fn space(&self, fsb: u64, len: u64) -> Result<(u32, u32, u32)> {
        let last = self.sb.linear(fsb.saturating_add(len.saturating_sub(1)));
        match self.sb.linear(fsb) {
            Some(first) if len > 0 && last == Some(first + len - 1) => {
                let (number, start) = self.sb.split(first);
                Ok((number, start, len as u32))
            }
            _ => Err(Error::corrupt("log", format_args!("block {fsb}"), format!("{len} blocks lie in one group"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(count: u32, records: &[u8]) -> Vec<u8> {
        [&[0, 0, 1, 0][..], &count.to_le_bytes(), &[9; 8], records].concat()
    }

    #[test]
    fn work_is_decoded() {
        let record = [&7_u64.to_le_bytes()[..], &3_u32.to_le_bytes()].concat();
        let free = vec![Work::Free { start: 7, len: 3 }];
        assert_eq!(frees(&item(1, &record)).unwrap(), free);
        assert_eq!(frees(&item(1, &[&record[..], &[0; 4]].concat())).unwrap(), free);
        let decrease = [&record[..], &2_u32.to_le_bytes()].concat();
        let expected = Work::References { change: ReferenceChange::Decrease, start: 7, len: 3 };
        assert_eq!(references(&item(1, &decrease)).unwrap(), [expected]);
        let mut owner = [131_u64, 7, 40].map(u64::to_le_bytes).concat();
        owner.extend([3_u32.to_le_bytes(), (5_u32 | 1 << 29).to_le_bytes()].concat());
        let expected = Owner { owner: 131, attr_fork: false, tree: false, unwritten: true, offset: 40 };
        let expected = Work::Owner { change: OwnerChange::Convert, start: 7, len: 3, owner: expected };
        assert_eq!(owners(&item(1, &owner)).unwrap(), [expected]);
    }

    #[test]
    fn work_that_lies_is_refused() {
        for bytes in [item(0, &[]), item(2, &[0; 16]), item(u32::MAX, &[0; 16]), vec![0; 3]] {
            assert!(frees(&bytes).is_err() && owners(&bytes).is_err() && references(&bytes).is_err());
        }
        assert!(references(&item(1, &[0; 16])).is_err());
        assert!(owners(&item(1, &[0; 32])).is_err());
    }
}
