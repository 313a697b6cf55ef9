//! The file system's UUID.

use crate::bytes::{be32, put, put_checksum, put32};
use crate::file_system::FileSystem;
use crate::superblock::incompat;
use crate::{Error, Result};

/// Where the superblock has its UUID, its features, its checksum, and the UUID that metadata are stamped with.
const UUID: usize = 32;
const INCOMPAT: usize = 216;
const CRC: usize = 224;
const META_UUID: usize = 248;

impl FileSystem {
    /// Sets the UUID. Metadata stay stamped with the old one: the feature `META_UUID`, which Linux knows since 4.3, keeps
    /// it. The copies of the superblock and the log follow.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a UUID of zeros, and what the image or the device has against it.
    pub fn set_uuid(&mut self, uuid: [u8; 16]) -> Result<()> {
        if uuid == [0; 16] {
            return Err(Error::Invalid("a UUID is not all zeros"));
        }
        self.change(|fs| {
            fs.stamp_log(uuid)?;
            for group in 0..fs.sb.ag_count {
                // The first is the one that counts, and has been checked.
                let mut raw = if group == 0 { fs.sb.raw.clone() } else { fs.header_sector(group, 0)? };
                if !raw.starts_with(b"XFSB") {
                    let place = format_args!("group {group}");
                    return Err(Error::corrupt("superblock", place, "a copy's magic number is XFSB"));
                }
                put(&mut raw, UUID, &uuid);
                put(&mut raw, META_UUID, &fs.sb.meta_uuid);
                let features = be32(&raw, INCOMPAT) | incompat::META_UUID;
                put32(&mut raw, INCOMPAT, features);
                put_checksum(&mut raw, CRC);
                fs.put_header_sector(group, 0, &raw)?;
                if group == 0 {
                    fs.sb.raw = raw;
                    fs.sb.uuid = uuid;
                    fs.sb.incompat |= incompat::META_UUID;
                }
            }
            Ok(())
        })
    }
}
