//! The UUID. "Superblocks", `sb_meta_uuid`.

use crate::bytes::{be32, le32, put, put_checksum, put32};
use crate::file_system::FileSystem;
use crate::log::SECTOR;
use crate::superblock::{self, incompat};
use crate::{Error, Result};

/// Where the superblock has these.
const UUID: usize = 32;
const FEATURES_INCOMPAT: usize = 216;
const META_UUID: usize = 248;
/// Where the header of a log record has these. "Journaling Log".
const RECORD_CRC: usize = 32;
const RECORD_UUID: usize = 304;
/// How long that header is for its checksum: Linux on 64 bits pads it, on 32 bits it does not.
const RECORD_HEADERS: [usize; 2] = [328, 324];

impl FileSystem {
    /// Sets the UUID. Metadata go on being stamped with the one that they have: the feature `META_UUID`, which Linux knows
    /// since 4.3, keeps it. The copies of the superblock follow, and the record in the log that says that it is clean.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], and what the image or the device has against it.
    pub fn set_uuid(&mut self, uuid: [u8; 16]) -> Result<()> {
        if uuid == [0; 16] {
            return Err(Error::Invalid("a UUID is not all zeros"));
        }
        let stamped = self.sb.meta_uuid;
        self.change(|fs| {
            for ag in 0..fs.sb.ag_count {
                let block = u64::from(ag) * u64::from(fs.sb.ag_blocks);
                let offset = block * fs.sb.block_size as u64;
                let mut sector = vec![0; fs.sb.sector_size];
                fs.store.read(offset, &mut sector)?;
                // A copy that is not there, or broken, is no help to anybody; xfs_repair makes it anew.
                if sector.get(..4) != Some(b"XFSB") {
                    continue;
                }
                put(&mut sector, UUID, &uuid);
                let features = be32(&sector, FEATURES_INCOMPAT) | incompat::META_UUID;
                put32(&mut sector, FEATURES_INCOMPAT, features);
                put(&mut sector, META_UUID, &stamped);
                put_checksum(&mut sector, superblock::CRC);
                fs.put_header_sector(ag, 0, &sector)?;
                if ag == 0 {
                    fs.sb.set_identity(sector, uuid);
                }
            }
            fs.set_uuid_of_log(uuid)
        })
    }

    /// Sets the UUID in the log's last record, which is all of the log that counts while it is clean.
    fn set_uuid_of_log(&mut self, uuid: [u8; 16]) -> Result<()> {
        let log = match self.clean_log()? {
            Ok(log) => log,
            Err(reason) => return Err(Error::ReadOnly(reason.to_owned())),
        };
        let offset = log.start + log.last_record.start * SECTOR as u64;
        // At most a few sectors: a record that was found has one operation.
        let mut record = vec![0; (log.last_record.end - log.last_record.start) as usize * SECTOR];
        self.store.read(offset, &mut record)?;
        let crc = |record: &[u8], header_len: usize| {
            let mut header = record[..header_len].to_vec();
            put32(&mut header, RECORD_CRC, 0);
            let data = SECTOR..SECTOR + (be32(record, 12) as usize).min(record.len() - SECTOR);
            crc32c::crc32c_append(crc32c::crc32c(&header), &record[data])
        };
        // mkfs.xfs makes records without a checksum.
        let found = le32(&record, RECORD_CRC);
        let header_len = RECORD_HEADERS.into_iter().find(|header_len| crc(&record, *header_len) == found);
        put(&mut record, RECORD_UUID, &uuid);
        if let Some(header_len) = header_len {
            let sum = crc(&record, header_len);
            put(&mut record, RECORD_CRC, &sum.to_le_bytes());
        }
        self.store.write(offset, &record)
    }
}
