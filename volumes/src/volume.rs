//! A volume: one part of a disk that can hold a file system.

use std::sync::Arc;

use block::{ReadAt, Window, WriteAt};
use uuid::Uuid;

use crate::Result;
use crate::lvm2::{Mapped, Mapping};

/// One part of a disk. [`Volume::device`] gives it as a device, whichever way it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// How people and reports call it: `gpt:3`, `mbr:5`, and `disk` for a disk without a partition table; `lvm:group/name`.
    pub name: String,
    /// The partition's number, as in `/dev/sda3`; `None` for a whole disk.
    pub number: Option<u32>,
    /// Where it starts on the disk, in bytes. A logical volume need not lie in one piece.
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
    /// What LVM2 says of it, if it is a logical volume.
    pub logical: Option<Logical>,
}

/// What LVM2 says of a logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// The name of its group.
    pub group: String,
    /// Its name in the group.
    pub name: String,
    /// Its UUID, with LVM2's hyphens.
    pub uuid: String,
    /// The group's UUID, with LVM2's hyphens.
    pub group_uuid: String,
    pub(crate) mapping: Arc<Mapping>,
}

impl Logical {
    /// Its name below `/dev/mapper`: group and name with a hyphen between, and those that they have doubled.
    #[must_use]
    pub fn mapper_name(&self) -> String {
        format!("{}-{}", self.group.replace('-', "--"), self.name.replace('-', "--"))
    }

    /// The UUID that the device mapper knows it by: `LVM-` and both UUIDs without hyphens.
    #[must_use]
    pub fn mapper_uuid(&self) -> String {
        format!("LVM-{}{}", self.group_uuid.replace('-', ""), self.uuid.replace('-', ""))
    }
}

impl Volume {
    /// The volume as a device that can be written.
    ///
    /// # Errors
    /// [`block::Error::OutOfBounds`] where `disk` is not the disk that the volume was found on.
    pub fn device(&self, disk: Arc<dyn WriteAt>) -> Result<Arc<dyn WriteAt>> {
        Ok(match &self.logical {
            Some(logical) => Arc::new(Mapped::new(disk, Arc::clone(&logical.mapping))?),
            None => Arc::new(Window::new(disk, self.start, self.len)?),
        })
    }

    /// Which byte of the volume a byte of the disk is, if it is one of its.
    #[must_use]
    pub fn offset_of(&self, disk_offset: u64) -> Option<u64> {
        match &self.logical {
            Some(logical) => logical.mapping.offset_of(disk_offset),
            None => disk_offset.checked_sub(self.start).filter(|offset| *offset < self.len),
        }
    }

    /// The volume as a device that can be read.
    ///
    /// # Errors
    /// As [`Volume::device`].
    pub fn device_read_only(&self, disk: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
        Ok(match &self.logical {
            Some(logical) => Arc::new(Mapped::new(disk, Arc::clone(&logical.mapping))?),
            None => Arc::new(Window::new(disk, self.start, self.len)?),
        })
    }
}
