//! A volume: one part of a disk that can hold a file system.

use std::sync::Arc;

use block::{ReadAt, Window, WriteAt};
use uuid::Uuid;

use crate::Result;

/// One part of a disk. [`Volume::device`] gives it as a device, whichever way it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// How people and reports call it: `gpt:3`, `mbr:5`, and `disk` for a disk without a partition table.
    pub name: String,
    /// The partition's number, as in `/dev/sda3`; `None` for a whole disk.
    pub number: Option<u32>,
    /// Where it starts on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// What the GUID partition table says it is for.
    pub type_guid: Option<Uuid>,
    /// What the MBR says it is for.
    pub type_byte: Option<u8>,
    /// Its PARTUUID, as blkid spells it: the partition's GUID, or the MBR's disk signature and the number.
    pub part_uuid: Option<String>,
    /// Its PARTLABEL: the name in the GUID partition table.
    pub part_label: Option<String>,
}

impl Volume {
    /// The volume as a device that can be written.
    ///
    /// # Errors
    /// [`block::Error::OutOfBounds`] where `disk` is not the disk that the volume was found on.
    pub fn device(&self, disk: Arc<dyn WriteAt>) -> Result<Arc<dyn WriteAt>> {
        Ok(Arc::new(Window::new(disk, self.start, self.len)?))
    }

    /// The volume as a device that can be read.
    ///
    /// # Errors
    /// As [`Volume::device`].
    pub fn device_read_only(&self, disk: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(Window::new(disk, self.start, self.len)?))
    }
}
