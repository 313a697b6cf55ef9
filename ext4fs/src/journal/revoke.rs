//! Revoke records: blocks that were freed or reused for data, to which older transactions must not be replayed.
//!
//! <https://docs.kernel.org/filesystems/ext4/journal.html#revocation-block>, kernel `fs/jbd2/revoke.c`.

use std::collections::HashMap;

use zerocopy::FromBytes;
use zerocopy::big_endian::{U32, U64};

use crate::error::{Error, Result};
use crate::layout::journal::RevokeHeader;

/// For each revoked block the last transaction that revoked it.
#[derive(Debug, Default)]
pub(super) struct Revokes(HashMap<u64, u32>);

impl Revokes {
    /// Takes in a revoke block of transaction `sequence`. `end` is where its checksum begins, or the block's end.
    pub(super) fn read(&mut self, bytes: &[u8], end: usize, wide: bool, sequence: u32, block: u32) -> Result<()> {
        let header = RevokeHeader::read_from_prefix(bytes).ok();
        let used = header.and_then(|(header, _)| usize::try_from(header.r_count.get()).ok()).unwrap_or(usize::MAX);
        let start = size_of::<RevokeHeader>();
        let Some(records) = bytes.get(start..used).filter(|_| used <= end) else {
            let place = format!("journal block {block}");
            return Err(Error::corrupt(
                "revoke block",
                place,
                format!("r_count must be from {start} to {end}, found {used}"),
            ));
        };
        for record in records.chunks_exact(if wide { 8 } else { 4 }) {
            let number = match wide {
                true => U64::read_from_bytes(record).map_or(0, |number| number.get()),
                false => U32::read_from_bytes(record).map_or(0, |number| u64::from(number.get())),
            };
            let last = self.0.entry(number).or_insert(sequence);
            if is_after(sequence, *last) {
                *last = sequence;
            }
        }
        Ok(())
    }

    /// Whether what transaction `sequence` wrote to a block is void.
    pub(super) fn revokes(&self, block: u64, sequence: u32) -> bool {
        self.0.get(&block).is_some_and(|last| !is_after(sequence, *last))
    }
}

/// Whether transaction `a` comes after `b`; numbers wrap around.
pub(super) fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
