//! Fast commits: small changes noted in an area of their own behind the log, on top of its last transaction.
//!
//! <https://docs.kernel.org/filesystems/ext4/journal.html#fast-commits>, kernel `fs/ext4/fast_commit.h`. Unlike the rest of
//! the journal they are little-endian. Each is a list of tags with lengths, from a head to a tail that holds a checksum.

use std::ops::Range;

use super::JournalBlocks;
use crate::checksum::crc32c;
use crate::error::{Error, Result};

const ADD_RANGE: u16 = 1;
const DEL_RANGE: u16 = 2;
const CREATE: u16 = 3;
const LINK: u16 = 4;
const UNLINK: u16 = 5;
const INODE: u16 = 6;
const PAD: u16 = 7;
const TAIL: u16 = 8;
const HEAD: u16 = 9;
/// Bytes before a tag's value: its number and the value's length.
const TAG_LEN: usize = 4;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FastCommit {
    /// A file has this extent: 12 bytes as in a leaf.
    AddRange { inode: u32, extent: Vec<u8> },
    /// A file has no blocks in this range.
    RemoveRange { inode: u32, logical: u32, len: u32 },
    /// A new inode has its first name.
    Create { parent: u32, inode: u32, name: Vec<u8> },
    /// An inode has another name.
    Link { parent: u32, inode: u32, name: Vec<u8> },
    /// An inode has a name less.
    Unlink { parent: u32, inode: u32, name: Vec<u8> },
    /// The bytes of an inode, without the map.
    Inode { inode: u32, bytes: Vec<u8> },
}

/// The changes of all fast commits in `area` that are whole, in order. `sequence` is the number of the transaction that
/// they anticipate.
///
/// # Errors
/// [`Error::Unsupported`] for features that are not known; what the device has against reading.
pub(super) fn scan(journal: &dyn JournalBlocks, area: Range<u32>, sequence: u32) -> Result<Vec<FastCommit>> {
    let mut whole = Vec::new();
    let mut pending = Vec::new();
    let mut sum = 0;
    for number in area {
        let bytes = journal.read(number)?;
        let mut at = 0;
        while let Some((tag, value)) = tag_at(&bytes, at) {
            let end = at + TAG_LEN + value.len();
            match tag {
                HEAD => {
                    let (Some(features), Some(found)) = (word(value, 0), word(value, 4)) else { return Ok(whole) };
                    if found != sequence {
                        return Ok(whole);
                    }
                    if features != 0 {
                        return Err(Error::Unsupported(format!("fast commits with features {features:#x}")));
                    }
                }
                TAIL => {
                    let sum = crc32c(std::mem::take(&mut sum), &bytes[at..end.min(at + TAG_LEN + 4)]);
                    if word(value, 0) != Some(sequence) || word(value, 4) != Some(sum) {
                        return Ok(whole);
                    }
                    whole.append(&mut pending);
                    at = end;
                    continue;
                }
                PAD => {}
                _ => match change(tag, value) {
                    Some(change) => pending.push(change),
                    None => return Ok(whole),
                },
            }
            sum = crc32c(sum, &bytes[at..end]);
            at = end;
        }
        // A block that is not filled to where no tag fits ends the area.
        if at + TAG_LEN <= bytes.len() {
            return Ok(whole);
        }
    }
    Ok(whole)
}

/// The tag at an offset, if it lies in the block with its value.
fn tag_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8])> {
    let head = bytes.get(at..at + TAG_LEN)?;
    let len = usize::from(u16::from_le_bytes([head[2], head[3]]));
    Some((u16::from_le_bytes([head[0], head[1]]), bytes.get(at + TAG_LEN..at + TAG_LEN + len)?))
}

fn word(value: &[u8], at: usize) -> Option<u32> {
    let bytes = value.get(at..at + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn change(tag: u16, value: &[u8]) -> Option<FastCommit> {
    let inode = word(value, 0)?;
    let entry = || Some((inode, word(value, 4)?, value.get(8..).filter(|name| !name.is_empty())?.to_vec()));
    match tag {
        ADD_RANGE => Some(FastCommit::AddRange { inode, extent: value.get(4..16)?.to_vec() }),
        DEL_RANGE => Some(FastCommit::RemoveRange { inode, logical: word(value, 4)?, len: word(value, 8)? }),
        CREATE => entry().map(|(parent, inode, name)| FastCommit::Create { parent, inode, name }),
        LINK => entry().map(|(parent, inode, name)| FastCommit::Link { parent, inode, name }),
        UNLINK => entry().map(|(parent, inode, name)| FastCommit::Unlink { parent, inode, name }),
        INODE => Some(FastCommit::Inode { inode, bytes: value.get(4..)?.to_vec() }),
        _ => None,
    }
}
