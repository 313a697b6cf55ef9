//! Replaying the log: what it holds is put in place, in memory. "Journaling Log".
//!
//! It is read twice. The first time tells which buffers hold nothing any more, and which work was begun and not done;
//! the second puts buffers, inodes and new chunks of inodes in place, in the order of their transactions. What is in place
//! already, by the LSN that blocks and inodes are stamped with, stays as it is.

use std::collections::{BTreeMap, HashMap};

use super::buffer::{Buffer, Stamp};
use super::create::Create;
use super::inode::InodeChange;
use super::intents::{self, Work};
use super::ring::{Extent, Record, Ring, wrong};
use super::transaction::{Item, Transaction, Transactions, number};
use crate::bytes::{be16, be64, put_checksum, put64};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::{MAX_LEVELS, MAX_REPLAY_BYTES};
use crate::superblock::Superblock;
use crate::{Error, Result};

const INODE: u16 = 0x123b;
const BUFFER: u16 = 0x123c;
const QUOTA: [u16; 2] = [0x123d, 0x123e];
const CREATE: u16 = 0x123f;

/// What makes of an item the work that it announces.
type Decode = fn(&[u8]) -> Result<Vec<Work>, String>;

/// Work that is announced, and done in later transactions: the kinds of both items, what makes work of the first, and the
/// name of work that is not done here.
const INTENTS: [(u16, u16, Result<Decode, &str>); 9] = [
    (0x1236, 0x1237, Ok(intents::frees)),
    (0x1240, 0x1241, Ok(intents::owners)),
    (0x1242, 0x1243, Ok(intents::references)),
    (0x1244, 0x1245, Ok(intents::maps)),
    (0x1246, 0x1247, Err("extended attributes to be set")),
    (0x1248, 0x1249, Err("files to exchange their contents")),
    (0x124a, 0x124b, Err("realtime space to be freed")),
    (0x124c, 0x124d, Err("owners of realtime space to be noted")),
    (0x124e, 0x124f, Err("shared realtime space to be counted")),
];
/// The bytes of all announcements that are kept.
const MAX_ANNOUNCED: usize = 64 << 20;

/// What a replay came upon.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) transactions: u64,
    /// Work that was begun and not done, in the order in which it was begun.
    pub(crate) work: Vec<Work>,
    /// The names of such work that is not done here.
    pub(crate) refused: Vec<&'static str>,
}

/// What the first reading of a log tells.
#[derive(Debug, Default)]
struct Survey {
    /// Buffers that hold nothing any more, by place and length, and how often the log says so.
    cancelled: HashMap<(u64, u64), u32>,
    /// Work that was begun, in order, with what announced it; and its place by kind and number.
    begun: BTreeMap<u64, (u16, Vec<u8>)>,
    places: HashMap<(u16, u64), u64>,
    announced: usize,
    count: u64,
    transactions: u64,
}

impl Survey {
    fn take(&mut self, transaction: &Transaction) -> Result<()> {
        let sector = transaction.lsn & 0xffff_ffff;
        self.transactions += 1;
        for item in &transaction.items {
            let (kind, head) = (item.kind(), item.region(0));
            let id = number(head, 8, 8);
            if kind == BUFFER {
                let buffer = Buffer::decode(item).map_err(|rule| wrong(sector, rule))?;
                if buffer.is_cancel() {
                    *self.cancelled.entry((buffer.sector, buffer.sectors)).or_default() += 1;
                }
            } else if INTENTS.iter().any(|(begun, ..)| *begun == kind) {
                self.finish(kind, id);
                self.count += 1;
                self.announced += head.len();
                self.begun.insert(self.count, (kind, head.to_vec()));
                self.places.insert((kind, id), self.count);
            } else if let Some((kind, ..)) = INTENTS.iter().find(|(_, done, _)| *done == kind) {
                self.finish(*kind, id);
            } else if ![INODE, CREATE].contains(&kind) && !QUOTA.contains(&kind) {
                return Err(wrong(sector, format!("the kind of an item is known, found {kind:#x}")));
            }
        }
        if self.announced > MAX_ANNOUNCED {
            return Err(wrong(sector, format!("announcements of work have at most {MAX_ANNOUNCED} bytes")));
        }
        Ok(())
    }

    /// Notes that work is done.
    fn finish(&mut self, kind: u16, id: u64) {
        let begun = self.places.remove(&(kind, id)).and_then(|place| self.begun.remove(&place));
        self.announced -= begun.map_or(0, |(_, head)| head.len());
    }

    /// What was begun and not done.
    fn unfinished(&self) -> Result<Replayed> {
        let mut replayed = Replayed { transactions: self.transactions, ..Replayed::default() };
        for (kind, head) in self.begun.values() {
            match INTENTS.iter().find(|(begun, ..)| begun == kind).map(|(.., decode)| decode) {
                Some(Ok(decode)) => replayed.work.extend(decode(head).map_err(|rule| wrong(0, rule))?),
                Some(Err(name)) if !replayed.refused.contains(name) => replayed.refused.push(*name),
                _ => {}
            }
        }
        Ok(replayed)
    }
}

/// Reads the records of a log from its tail to its head.
fn records(ring: Ring, log: &Extent) -> impl FnMut(&FileSystem) -> Result<Option<Record>> {
    let (mut at, head) = (log.tail, log.head);
    let mut is_first = true;
    move |fs| {
        // A log may be full: then the tail is where the head is.
        let room = if is_first && at == head { ring.sectors } else { ring.distance(at, head) };
        is_first = false;
        if room == 0 {
            return Ok(None);
        }
        let record = ring.record(&fs.store, at, room)?;
        at = ring.after(at, record.header.sectors());
        Ok(Some(record))
    }
}

/// What the second reading keeps while it changes blocks.
#[derive(Debug)]
struct Replay {
    survey: Survey,
    ring: Ring,
    /// The LSN of the transactions that are being replayed.
    lsn: u64,
    /// Buffers that they changed, by their first sector: the length, and how they are to be stamped. They are stamped
    /// once another LSN's turn comes: until then they must not look newer than the other changes of the same LSN.
    unstamped: BTreeMap<u64, (usize, Stamp)>,
}

impl FileSystem {
    /// Replays the log into blocks in memory.
    pub(super) fn replay(&mut self, ring: Ring, log: &Extent) -> Result<Replayed> {
        let mut survey = Survey::default();
        let mut next = records(ring, log);
        let mut transactions = Transactions::default();
        while let Some(record) = next(self)? {
            for transaction in transactions.take(&record)? {
                survey.take(&transaction)?;
            }
        }
        let replayed = survey.unfinished()?;
        let mut replay = Replay { survey, ring, lsn: 0, unstamped: BTreeMap::new() };
        let mut next = records(ring, log);
        let mut transactions = Transactions::default();
        while let Some(record) = next(self)? {
            for transaction in transactions.take(&record)? {
                self.replay_transaction(&mut replay, &transaction)?;
            }
        }
        self.stamp_all(&mut replay)?;
        Ok(replayed)
    }

    fn replay_transaction(&mut self, replay: &mut Replay, transaction: &Transaction) -> Result<()> {
        if replay.lsn != transaction.lsn {
            self.stamp_all(replay)?;
            replay.lsn = transaction.lsn;
        }
        // Blocks first, new inodes among them; then inodes, which are put into those; then the lists of deleted ones.
        // Cancelled buffers last: what comes before them in the same transaction has to know of them.
        let order = |item: &Item| match (item.kind(), Buffer::decode(item)) {
            (BUFFER, Ok(buffer)) if buffer.is_cancel() => 3,
            (BUFFER, Ok(buffer)) if buffer.is_of_unlinked() => 2,
            (BUFFER | CREATE, _) => 0,
            _ => 1,
        };
        let mut items: Vec<&Item> = transaction.items.iter().collect();
        items.sort_by_key(|item| order(item));
        for item in items {
            match item.kind() {
                BUFFER => self.replay_buffer(replay, item)?,
                INODE => self.replay_inode(replay, item)?,
                CREATE => self.replay_create(replay, item)?,
                _ => {}
            }
            if self.store.changed_bytes() > MAX_REPLAY_BYTES {
                return Err(wrong(
                    transaction.lsn & 0xffff_ffff,
                    format!("what the log changes has at most {MAX_REPLAY_BYTES} bytes"),
                ));
            }
        }
        Ok(())
    }

    fn replay_buffer(&mut self, replay: &mut Replay, item: &Item) -> Result<()> {
        let refuse = |rule: String| wrong(replay.lsn & 0xffff_ffff, rule);
        let buffer = Buffer::decode(item).map_err(refuse)?;
        let place = (buffer.sector, buffer.sectors);
        if buffer.is_cancel() {
            if let Some(count) = replay.survey.cancelled.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    replay.survey.cancelled.remove(&place);
                }
            }
            return Ok(());
        }
        if replay.survey.cancelled.contains_key(&place) || buffer.is_of_quota() {
            return Ok(());
        }
        let mut bytes = self.buffer(replay, buffer.sector, buffer.len())?;
        if buffer.is_in_place(&bytes, replay.lsn, &self.sb) {
            return Ok(());
        }
        buffer.apply(&mut bytes, self.sb.inode_size).map_err(refuse)?;
        if !buffer.is_of_unlinked()
            && let Some(stamp) = buffer.stamp(&bytes, &self.sb).map_err(refuse)?
        {
            replay.unstamped.insert(buffer.sector, (buffer.len(), stamp));
        }
        if buffer.is_superblock() {
            self.take_superblock(&bytes)?;
        }
        self.store.put_bytes(buffer.sector * 512, &bytes)
    }

    /// Goes on with a superblock that was replayed: the file system may have grown.
    fn take_superblock(&mut self, bytes: &[u8]) -> Result<()> {
        let mut raw = bytes.to_vec();
        put_checksum(&mut raw, 224);
        let sb = Superblock::decode(&raw, self.store.device().reader().len())?;
        let fixed = |sb: &Superblock| {
            (sb.block_size, sb.sector_size, sb.inode_size, sb.ag_blocks, sb.log_start, sb.log_blocks, sb.meta_uuid)
        };
        if fixed(&sb) != fixed(&self.sb) || sb.blocks < self.sb.blocks || sb.dir_block_size != self.sb.dir_block_size {
            return Err(Error::corrupt(
                "superblock",
                "the log",
                "a replayed one changes no sizes, and nothing shrinks",
            ));
        }
        self.sb = sb;
        Ok(())
    }

    fn replay_inode(&mut self, replay: &Replay, item: &Item) -> Result<()> {
        let refuse = |rule: String| wrong(replay.lsn & 0xffff_ffff, rule);
        let change = InodeChange::decode(item).map_err(refuse)?;
        if replay.survey.cancelled.contains_key(&(change.sector, change.sectors)) {
            return Ok(());
        }
        let place = self.sb.inode_place(change.number).map(|(block, at)| block * self.sb.block_size as u64 + at as u64);
        let offset = change.sector * 512 + change.offset as u64;
        if place != Some(offset) {
            return Err(refuse(format!("inode {} lies where its number says, found {offset}", change.number)));
        }
        let mut slot = self.buffer(replay, offset / 512, self.sb.inode_size)?;
        if be16(&slot, 0) != 0x494e || !InodeChange::is_in_place(&slot, replay.lsn) {
            change.apply(&mut slot, replay.lsn).map_err(refuse)?;
            self.store.put_bytes(offset, &slot)?;
        }
        match change.owners_changed() {
            Some(fork) => self.change_owners(change.number, fork),
            None => Ok(()),
        }
    }

    /// Tells all blocks of the tree of a fork's extents that they are this inode's: two have exchanged their extents.
    fn change_owners(&mut self, number: u64, fork: Fork) -> Result<()> {
        let inode = self.inode_slot(number)?;
        if inode.mode() == 0 || inode.format(fork) != Format::Btree {
            return Ok(());
        }
        let bytes = inode.fork(fork);
        let room = crate::extents::root_capacity(bytes.len());
        let pointers = |bytes: &[u8], at: usize, room: usize, count: usize| -> Vec<u64> {
            (0..count).map(|index| be64(bytes, at + room * 8 + index * 8)).collect()
        };
        let mut level = be16(bytes, 0);
        let mut blocks = pointers(bytes, 4, room, be16(bytes, 2).into());
        let mut left = inode.blocks();
        while level > 0 && level <= MAX_LEVELS {
            level -= 1;
            let mut below = Vec::new();
            for fsb in blocks {
                let tree_is_wrong = |inode: &Inode| inode.corrupt("the tree of its extents lies in the file system");
                let block = self.sb.linear(fsb).filter(|_| left > 0).ok_or_else(|| tree_is_wrong(&inode))?;
                left -= 1;
                let mut bytes = self.store.block(block)?.to_vec();
                let room = (bytes.len() - 72) / 16;
                let count = usize::from(be16(&bytes, 6));
                if !bytes.starts_with(b"BMA3") || be16(&bytes, 4) != level || count > room {
                    return Err(tree_is_wrong(&inode));
                }
                if level > 0 {
                    below.extend(pointers(&bytes, 72, room, count));
                }
                put64(&mut bytes, 56, number);
                put_checksum(&mut bytes, 64);
                self.store.put(block, bytes)?;
            }
            blocks = below;
        }
        Ok(())
    }

    fn replay_create(&mut self, replay: &Replay, item: &Item) -> Result<()> {
        let create = Create::decode(item, &self.sb).map_err(|rule| wrong(replay.lsn & 0xffff_ffff, rule))?;
        // Chunks that were given back again.
        if create.buffers(&self.sb).any(|place| replay.survey.cancelled.contains_key(&place)) {
            return Ok(());
        }
        for (offset, bytes) in create.blocks(&self.sb) {
            self.check_outside_log(replay, offset, bytes.len())?;
            self.store.put_bytes(offset, &bytes)?;
        }
        Ok(())
    }

    /// The bytes of a buffer, which must not lie in the log.
    fn buffer(&self, replay: &Replay, sector: u64, len: usize) -> Result<Vec<u8>> {
        self.check_outside_log(replay, sector * 512, len)?;
        self.store.bytes(sector * 512, len)
    }

    fn check_outside_log(&self, replay: &Replay, offset: u64, len: usize) -> Result<()> {
        let (start, end) = (replay.ring.start, replay.ring.start + replay.ring.sectors * 512);
        if offset < end && offset + len as u64 > start {
            return Err(wrong(
                replay.lsn & 0xffff_ffff,
                format!("the log changes nothing in itself, found byte {offset}"),
            ));
        }
        Ok(())
    }

    fn stamp_all(&mut self, replay: &mut Replay) -> Result<()> {
        for (sector, (len, stamp)) in std::mem::take(&mut replay.unstamped) {
            let mut bytes = self.store.bytes(sector * 512, len)?;
            stamp.put(&mut bytes, replay.lsn);
            self.store.put_bytes(sector * 512, &bytes)?;
        }
        Ok(())
    }
}
