//! The log of an image, as far as tests have to know of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// Where the log ends, and its records, as offsets into the image.
pub(crate) struct Log {
    pub(crate) end: usize,
    pub(crate) records: Vec<usize>,
    /// The LSNs of the last record, and of the oldest one that it needs.
    last: (u64, u64),
}

impl Log {
    pub(crate) fn of(image: &Path) -> Self {
        let image = File::open(image).unwrap();
        let mut head = [0; 512];
        image.read_exact_at(&mut head, 0).unwrap();
        let (size, blocks, group_blocks, fsb) =
            (number(&head, 4, 4), number(&head, 96, 4), number(&head, 84, 4), number(&head, 48, 8));
        let (group, block) = (fsb >> head[124], fsb & ((1 << head[124]) - 1));
        let start = (group * group_blocks + block) * size;
        let mut bytes = vec![0; (blocks * size) as usize];
        image.read_exact_at(&mut bytes, start).unwrap();
        // The kernel puts headers of records without bytes where the log has not come to yet.
        let is_record =
            |at: &usize| bytes[*at..].starts_with(&0xfeed_babe_u32.to_be_bytes()) && number(&bytes, at + 12, 4) > 0;
        let records: Vec<usize> = (0..bytes.len()).step_by(512).filter(is_record).collect();
        let lsns = records.iter().map(|at| (number(&bytes, at + 16, 8), number(&bytes, at + 24, 8)));
        let last = lsns.max().unwrap();
        let start = start as usize;
        Self { end: start + bytes.len(), last, records: records.iter().map(|at| start + at).collect() }
    }

    /// Whether what is not in place lies at the log's end and at its start.
    pub(crate) fn is_around_its_end(&self) -> bool {
        self.last.0 >> 32 != self.last.1 >> 32
    }

    /// The bytes of the record at a place.
    pub(crate) fn record(&self, image: &File, at: usize) -> Vec<u8> {
        let mut head = [0; 512];
        image.read_exact_at(&mut head, at as u64).unwrap();
        let headers = number(&head, 320, 4).div_ceil(32768).max(1) as usize;
        let mut bytes = vec![0; (headers * 512 + number(&head, 12, 4) as usize).min(self.end - at)];
        image.read_exact_at(&mut bytes, at as u64).unwrap();
        bytes
    }

    pub(crate) fn put_checksum(record: &mut [u8]) {
        let headers = (number(record, 320, 4).div_ceil(32768).max(1) as usize * 512).min(record.len());
        let len = (number(record, 12, 4) as usize).min(record.len() - headers);
        record[32..36].fill(0);
        let mut sum = crc32c::crc32c(&record[..328]);
        for more in 1..len.div_ceil(32768) {
            let header = record.get(more * 512..more * 512 + 260).unwrap_or_default();
            sum = crc32c::crc32c_append(sum, header);
        }
        sum = crc32c::crc32c_append(sum, &record[headers..headers + len]);
        record[32..36].copy_from_slice(&sum.to_le_bytes());
    }
}
