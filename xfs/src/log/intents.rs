//! Work that the log announces and that was not done: it is done now. "Extent Freeing Intents", "Reverse Mapping
//! Updates Intent", "Reference Count Updates Intent".

use super::transaction::number;
use crate::extents::{Extent, MAX_OFFSET};
use crate::file_system::FileSystem;
use crate::inode::Fork;
use crate::rmap::Owner;
use crate::{Error, Result};

/// Work on the space of groups, and on what files have of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// A file gets space, or loses it. It belongs to another one then, or is counted and freed by other work.
    Map { is_added: bool, start: u64, len: u64, owner: Owner },
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

/// Who owns the space that a record tells of, the start and length of that, and the kind of its change.
fn owned(record: &[u8]) -> (Owner, u64, u64, u64) {
    let flags = number(record, 28, 4);
    let mut owner = Owner {
        owner: number(record, 0, 8),
        attr_fork: flags & ATTR_FORK != 0,
        tree: flags & BMBT_BLOCK != 0,
        unwritten: flags & UNWRITTEN != 0,
        offset: number(record, 16, 8),
    };
    if !owner.has_offsets() {
        owner.offset = 0;
    }
    (owner, number(record, 8, 8), number(record, 24, 4), flags & 0xff)
}

/// Decodes space that files are to get or lose.
pub(super) fn maps(item: &[u8]) -> Result<Vec<Work>, String> {
    let map = |record: Vec<u8>| match owned(&record) {
        (owner, start, len, kind @ (1 | 2)) => Ok(Work::Map { is_added: kind == 1, start, len, owner }),
        (.., other) => Err(format!("the kind of a change of a file's space is known, found {other}")),
    };
    records(item, &[32])?.into_iter().map(map).collect()
}

/// Decodes owners that are to be noted.
pub(super) fn owners(item: &[u8]) -> Result<Vec<Work>, String> {
    let owner = |record: Vec<u8>| {
        let (owner, start, len, kind) = owned(&record);
        let change = match kind {
            1 | 2 | 7 => OwnerChange::Add,
            3 | 4 | 8 => OwnerChange::Remove,
            5 | 6 => OwnerChange::Convert,
            other => return Err(format!("the kind of a change of owners is known, found {other}")),
        };
        Ok(Work::Owner { change, start, len, owner })
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
    /// Does what was announced. What files get and lose comes first, in its order; then owners, then counts, then what
    /// is free: each may have been announced by the change that the ones before it belong to.
    pub(super) fn finish(&mut self, mut work: Vec<Work>) -> Result<()> {
        work.sort_by_key(|work| match work {
            Work::Map { .. } => 0,
            Work::Owner { .. } => 1,
            Work::References { .. } => 2,
            Work::Free { .. } => 3,
        });
        for work in work {
            match work {
                Work::Map { is_added, start, len, owner } => self.finish_map(is_added, start, len, owner)?,
                Work::Owner { change, start, len, owner } => {
                    let (number, start, len) = self.space(start, len)?;
                    self.finish_owner(number, change, start, len, owner)?;
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

    fn finish_owner(&mut self, number: u32, change: OwnerChange, start: u32, len: u32, owner: Owner) -> Result<()> {
        let group = self.group_mut(number)?;
        let Some(rmap) = &mut group.rmap else { return Ok(()) };
        match change {
            OwnerChange::Add => rmap.add(owner, start, len),
            OwnerChange::Remove => rmap.remove(owner, start, len)?,
            OwnerChange::Convert => {
                rmap.remove(Owner { unwritten: !owner.unwritten, ..owner }, start, len)?;
                rmap.add(owner, start, len);
            }
        }
        group.changed = true;
        Ok(())
    }

    /// Gives space to a file, or takes it from it.
    fn finish_map(&mut self, is_added: bool, start: u64, len: u64, owner: Owner) -> Result<()> {
        let (group, first, count) = self.space(start, len)?;
        let block = self.linear(group, first);
        let fork = if owner.attr_fork { Fork::Attr } else { Fork::Data };
        let mut inode = self.inode(owner.owner)?;
        let old = self.extents(&inode, fork)?;
        let (from, end) = (owner.offset, owner.offset.saturating_add(len));
        if end > MAX_OFFSET {
            return Err(inode.corrupt(format!("files have at most {MAX_OFFSET} blocks, found {len} at {from}")));
        }
        let around = |extent: &&Extent| extent.offset < end && extent.end() > from;
        let mut list: Vec<Extent> = old.list.iter().filter(|extent| !around(extent)).copied().collect();
        let touched: Vec<Extent> = old.list.iter().filter(around).copied().collect();
        let change = if is_added {
            if !touched.is_empty() {
                return Err(inode.corrupt(format!("there is nothing where {len} blocks at {from} are put")));
            }
            list.push(Extent { offset: from, block, len, unwritten: owner.unwritten });
            OwnerChange::Add
        } else {
            let fits = |extent: &Extent| {
                extent.offset <= from
                    && extent.end() >= end
                    && extent.block + (from - extent.offset) == block
                    && extent.unwritten == owner.unwritten
            };
            let [extent] = touched[..] else {
                return Err(inode.corrupt(format!("{len} blocks at {from} that are taken are there")));
            };
            if !fits(&extent) {
                return Err(inode.corrupt(format!("{len} blocks at {from} that are taken lie at block {block}")));
            }
            let behind = Extent {
                offset: end,
                block: extent.block + (end - extent.offset),
                len: extent.end() - end,
                unwritten: extent.unwritten,
            };
            list.extend([Extent { len: from - extent.offset, ..extent }, behind].iter().filter(|part| part.len > 0));
            OwnerChange::Remove
        };
        list.sort_unstable_by_key(|extent| extent.offset);
        let list = self.coalesce(list.into_iter());
        self.finish_owner(group, change, first, count, owner)?;
        self.put_extents(&mut inode, fork, &old, &list)?;
        self.put_inode(&mut inode)
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
        owner[28] = 2;
        let expected = Owner { owner: 131, attr_fork: false, tree: false, unwritten: true, offset: 40 };
        let expected = Work::Map { is_added: false, start: 7, len: 3, owner: expected };
        assert_eq!(maps(&item(1, &owner)).unwrap(), [expected]);
    }

    #[test]
    fn work_that_lies_is_refused() {
        for bytes in [item(0, &[]), item(2, &[0; 16]), item(u32::MAX, &[0; 16]), vec![0; 3]] {
            assert!(frees(&bytes).is_err() && owners(&bytes).is_err() && references(&bytes).is_err());
        }
        assert!(references(&item(1, &[0; 16])).is_err());
        assert!(owners(&item(1, &[0; 32])).is_err());
        assert!(maps(&item(1, &[0; 32])).is_err());
    }
}
