//! Whether the legs of a raid1 volume hold the same: Linux `drivers/md/dm-raid.c`, `struct dm_raid_superblock`.

use block::ReadAt;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::group::{Group, Logical};
use super::mapping::{Mapped, Mapping};
use crate::error::Result;

/// The start of what each leg's metadata volume holds.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RaidSuperblock {
    /// `DmRd`.
    magic: [u8; 4],
    compat_features: U32,
    num_devices: U32,
    array_position: U32,
    /// Counts changes of the array's state.
    events: U64,
    /// A bit for each leg that failed.
    failed_devices: U64,
    /// How far this leg is rebuilt; all ones when it is.
    disk_recovery_offset: U64,
    /// How far all legs are made alike; all ones when they are.
    array_resync_offset: U64,
    level: U32,
}

const _: () = assert!(size_of::<RaidSuperblock>() == 52);

/// Why a raid1 volume's legs may differ, if they may.
pub(crate) fn not_in_sync(disk: &dyn ReadAt, group: &Group<'_>, logical: &Logical<'_>) -> Result<Option<String>> {
    let legs = match group.raid_legs(logical) {
        Ok(legs) => legs,
        Err(reason) => return Ok(Some(reason)),
    };
    let mut events = None;
    for (position, (meta, _)) in legs.iter().enumerate() {
        let mapping = match group.leg(meta) {
            Ok(leg) => Mapping { len: meta.len(group.extent_size), legs: vec![leg] },
            Err(reason) => return Ok(Some(reason)),
        };
        let mut bytes = [0; size_of::<RaidSuperblock>()];
        Mapped::new(disk, mapping.into())?.read_at(0, &mut bytes)?;
        let Ok(superblock) = RaidSuperblock::ref_from_bytes(&bytes) else { return Ok(None) };
        let expected = &superblock.magic == b"DmRd"
            && superblock.num_devices.get() as usize == legs.len()
            && superblock.array_position.get() as usize == position
            && superblock.failed_devices.get() == 0
            && superblock.disk_recovery_offset.get() == u64::MAX
            && superblock.array_resync_offset.get() == u64::MAX
            && superblock.level.get() == 1
            && events.is_none_or(|events| events == superblock.events.get());
        if !expected {
            return Ok(Some(format!("it is raid1, and its leg {position} is not known to be in sync")));
        }
        events = Some(superblock.events.get());
    }
    Ok(None)
}
