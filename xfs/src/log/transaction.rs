//! Transactions: what the operations of records make when they are put together. "Log Operations".
//!
//! An operation belongs to a transaction by its number, and brings a region of an item, or a part of one where a record
//! had no more room. A transaction counts when its commit is there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::record::HEADER;
use super::ring::{Record, wrong};
use crate::Result;
use crate::bytes::be32;

const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const CONTINUED: u8 = 0x04;
const CONTINUES: u8 = 0x08;
const END: u8 = 0x10;
const UNMOUNT: u8 = 0x20;
/// Who writes operations: transactions, and the log itself.
const CLIENTS: [u8; 2] = [0x69, 0xaa];
/// What the header of a transaction begins with, in the order of the machine that wrote it, and its length.
const TRANSACTION: &[u8; 4] = b"NART";
const TRANSACTION_HEADER: usize = 16;
/// More regions than any item has.
const MAX_REGIONS: u16 = 1024;
/// What transactions that are not committed yet may hold in memory, in bytes: the kernel writes at most an eighth of the
/// largest log at once.
const MAX_PENDING: usize = 256 << 20;

/// One thing that a transaction changed: what it is, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    regions: Vec<Vec<u8>>,
    total: u16,
}

impl Item {
    #[cfg(test)]
    pub(super) fn new(regions: Vec<Vec<u8>>) -> Self {
        Self { total: regions.len() as u16, regions }
    }

    /// What it is.
    pub(super) fn kind(&self) -> u16 {
        number(self.region(0), 0, 2) as u16
    }

    /// A region's bytes; none where it has no such region.
    pub(super) fn region(&self, number: usize) -> &[u8] {
        self.regions.get(number).map_or(&[], Vec::as_slice)
    }

    pub(super) fn regions(&self) -> &[Vec<u8>] {
        &self.regions
    }
}

/// A number of an item: little-endian, of 1 to 8 bytes; 0 outside of them.
pub(super) fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let part = bytes.get(at..at + len).unwrap_or_default();
    part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A transaction whose commit has not been seen yet.
#[derive(Debug, Default)]
struct Pending {
    /// The LSN of the record in which it began.
    lsn: u64,
    header: Vec<u8>,
    items: Vec<Item>,
    bytes: usize,
}

/// A transaction that was committed.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) lsn: u64,
    pub(super) items: Vec<Item>,
}

/// All transactions of a log, as its records are read one after the other.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    pending: HashMap<u32, Pending>,
    bytes: usize,
}

impl Transactions {
    /// Takes a record's operations, and returns the transactions that they commit.
    pub(super) fn take(&mut self, record: &Record) -> Result<Vec<Transaction>> {
        let sector = record.header.lsn & u64::from(u32::MAX);
        self.take_operations(&record.data, record.header.operations, record.header.lsn)
            .map_err(|rule| wrong(sector, rule))
    }

    fn take_operations(&mut self, data: &[u8], count: u32, lsn: u64) -> Result<Vec<Transaction>, String> {
        let mut rest = data;
        let mut committed = Vec::new();
        for _ in 0..count {
            if rest.is_empty() {
                break;
            }
            let (head, behind) = rest.split_at_checked(HEADER).ok_or("an operation's header ends in its record")?;
            let (id, len, client, flags) = (be32(head, 0), be32(head, 4) as usize, head[8], head[9]);
            if !CLIENTS.contains(&client) {
                return Err(format!("an operation is a transaction's or the log's, found {client:#x}"));
            }
            let (region, behind) = behind
                .split_at_checked(len)
                .ok_or_else(|| format!("an operation of {len} bytes ends in its record"))?;
            rest = behind;
            committed.extend(self.take_operation(id, flags, region, lsn)?);
        }
        Ok(committed)
    }

    fn take_operation(&mut self, id: u32, flags: u8, region: &[u8], lsn: u64) -> Result<Option<Transaction>, String> {
        if let Entry::Vacant(place) = self.pending.entry(id) {
            // What belongs to a transaction that began before the tail is in place already.
            if flags & START != 0 {
                place.insert(Pending { lsn, ..Pending::default() });
            }
            return Ok(None);
        }
        let flags = match flags & !END {
            flags if flags & CONTINUES != 0 => flags & !CONTINUED,
            flags => flags,
        };
        match flags {
            COMMIT | UNMOUNT => {
                let Some(pending) = self.pending.remove(&id) else { return Ok(None) };
                self.bytes -= pending.bytes;
                if flags == UNMOUNT {
                    return Ok(None);
                }
                if let Some(item) = pending.items.last().filter(|item| item.regions.len() != usize::from(item.total)) {
                    let (found, total) = (item.regions.len(), item.total);
                    return Err(format!("an item of a transaction has its {total} regions, found {found}"));
                }
                return Ok(Some(Transaction { lsn: pending.lsn, items: pending.items }));
            }
            0 | CONTINUED | CONTINUES => {}
            other => {
                return Err(format!("an operation of a transaction is begun, continued or ended, found {other:#x}"));
            }
        }
        self.bytes += region.len();
        if self.bytes > MAX_PENDING {
            return Err(format!("transactions that are not committed hold at most {MAX_PENDING} bytes"));
        }
        let Some(pending) = self.pending.get_mut(&id) else { return Ok(None) };
        pending.bytes += region.len();
        pending.add(region, flags == CONTINUES)?;
        Ok(None)
    }
}

impl Pending {
    fn add(&mut self, region: &[u8], continues: bool) -> Result<(), String> {
        if region.is_empty() {
            return Ok(());
        }
        if self.header.len() < TRANSACTION_HEADER {
            self.header.extend_from_slice(region);
            let fits = self.header.len() <= TRANSACTION_HEADER;
            return if fits && self.header.starts_with(&TRANSACTION[..self.header.len().min(4)]) {
                Ok(())
            } else {
                Err(format!("a transaction begins with its header of {TRANSACTION_HEADER} bytes"))
            };
        }
        if continues {
            let last = self.items.last_mut().and_then(|item| item.regions.last_mut());
            last.ok_or("what is continued has begun")?.extend_from_slice(region);
            return Ok(());
        }
        match self.items.last_mut().filter(|item| item.regions.len() < usize::from(item.total)) {
            Some(item) => item.regions.push(region.to_vec()),
            None => {
                let total = number(region, 2, 2) as u16;
                if !(1..=MAX_REGIONS).contains(&total) || region.len() < 4 {
                    return Err(format!("an item has 1 to {MAX_REGIONS} regions, found {total}"));
                }
                self.items.push(Item { regions: vec![region.to_vec()], total });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(id: u32, flags: u8, region: &[u8]) -> Vec<u8> {
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend((region.len() as u32).to_be_bytes());
        bytes.extend([0x69, flags, 0, 0]);
        bytes.extend(region);
        bytes
    }

    fn header() -> Vec<u8> {
        [&b"NART"[..], &[0; 12]].concat()
    }

    fn item(kind: u16, regions: u16) -> Vec<u8> {
        [kind.to_le_bytes(), regions.to_le_bytes()].concat()
    }

    fn take(operations: &[Vec<u8>]) -> Result<Vec<Transaction>, String> {
        Transactions::default().take_operations(&operations.concat(), operations.len() as u32, 99)
    }

    #[test]
    fn regions_are_put_together() {
        let found = take(&[
            operation(1, START, &[]),
            operation(2, START, &[]),
            operation(1, CONTINUED, &header()[..7]),
            operation(1, CONTINUES | END, &header()[7..]),
            operation(2, 0, &header()),
            operation(2, 0, &item(5, 1)),
            operation(1, 0, &item(6, 2)),
            operation(1, CONTINUED, b"ab"),
            operation(1, CONTINUES | CONTINUED, b"cd"),
            operation(1, CONTINUES | END, b"ef"),
            operation(1, 0, &item(7, 1)),
            // Of this one nothing is known.
            operation(3, 0, b"gh"),
            operation(1, COMMIT, &[]),
        ])
        .unwrap();
        assert_eq!(found.len(), 1, "the other one is not committed");
        assert_eq!(found[0].lsn, 99);
        let regions = |index: usize| found[0].items[index].regions().to_vec();
        assert_eq!(regions(0), [item(6, 2), b"abcdef".to_vec()]);
        assert_eq!((regions(1), found[0].items[1].kind()), (vec![item(7, 1)], 7));
    }

    #[test]
    fn operations_that_lie_are_refused() {
        let refused = |operations: &[Vec<u8>], rule: &str| {
            let found = take(operations).unwrap_err();
            assert!(found.contains(rule), "{found}");
        };
        let start = operation(1, START, &[]);
        let begun = [start.clone(), operation(1, 0, &header())];
        let with = |more: &[Vec<u8>]| [&begun[..], more].concat();
        refused(&[start.clone(), operation(1, 0, &[0; 16])], "header");
        refused(&[start, operation(1, 0, &[&header()[..], b"x"].concat())], "header");
        refused(&with(&[operation(1, 0, &item(5, 0))]), "regions");
        refused(&with(&[operation(1, 0, &item(5, u16::MAX))]), "regions");
        refused(&with(&[operation(1, 0, b"x")]), "regions");
        refused(&with(&[operation(1, CONTINUES, b"x")]), "has begun");
        refused(&with(&[operation(1, 0, &item(5, 2)), operation(1, COMMIT, &[])]), "its 2 regions");
        refused(&with(&[operation(1, START, &[])]), "found 0x1");
        let mut cut = operation(1, 0, b"abcdef");
        cut.pop();
        refused(&with(&[cut]), "ends in its record");
        refused(&with(&[b"abc".to_vec()]), "ends in its record");
        let mut strange = operation(1, 0, b"");
        strange[8] = 1;
        refused(&with(&[strange]), "found 0x1");
        let mut huge = operation(1, 0, b"");
        huge[4..8].fill(0xff);
        refused(&with(&[huge]), "ends in its record");
    }

    #[test]
    fn what_is_pending_is_bounded() {
        let mut transactions = Transactions::default();
        let mut begin = [operation(1, START, &[]), operation(1, 0, &header()), operation(1, 0, &item(5, 2))].concat();
        begin.extend(operation(1, CONTINUED, b"x"));
        transactions.take_operations(&begin, 4, 1).unwrap();
        let more = operation(1, CONTINUES | CONTINUED, &vec![0; 16 << 20]);
        let found = (0..17).find_map(|_| transactions.take_operations(&more, 1, 1).err()).unwrap();
        assert!(found.contains("at most"), "{found}");
    }
}
