//! Copies of the superblock and of the group descriptors, for reading where the first are damaged.
//!
//! <https://docs.kernel.org/filesystems/ext4/blockgroup.html#sparse-super-block>

use crate::block_group::Group;
use crate::limits::MAX_LOG_BLOCK_SIZE;
use crate::metadata_cache::{BlockKind, Device, MetadataCache};
use crate::superblock::{self, Superblock};
use crate::{Error, Result};

/// Groups that have copies, whatever the size of the file system.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 9, 25, 27, 49, 81];

/// What was damaged, and the group whose copy is used.
type Damage = Option<(u32, Error)>;

/// The superblock, or a copy with the number of its group where the first is damaged. Copies are looked for where they are
/// when groups are as large as can be, which is what mke2fs makes.
pub(crate) fn read_superblock(device: &Device) -> Result<(Superblock, Damage)> {
    let mut bytes = [0; superblock::LEN];
    device.read_at(superblock::OFFSET, &mut bytes)?;
    let damage = match Superblock::decode(&bytes, device.len()) {
        Ok(superblock) => return Ok((superblock, None)),
        Err(damage @ Error::Corrupt(_)) => damage,
        Err(error) => return Err(error),
    };
    for log in 0..=MAX_LOG_BLOCK_SIZE {
        let size = 1024_u64 << log;
        for group in GROUPS {
            let offset = (u64::from(group) * 8 * size + u64::from(log == 0)) * size;
            if offset.saturating_add(superblock::LEN as u64) > device.len() {
                break;
            }
            device.read_at(offset, &mut bytes)?;
            let copy = Superblock::decode(&bytes, device.len());
            if let Ok(copy) = copy
                && copy.block_size as u64 == size
                && u32::from(copy.raw.s_block_group_nr.get()) == group
                && copy.group_first_block(group) * size == offset
            {
                return Ok((copy, Some((group, damage))));
            }
        }
    }
    Err(damage)
}

/// All groups, decoded from their descriptors, or from copies of these with the number of the copies' group.
pub(crate) fn read_groups(superblock: &Superblock, cache: &MetadataCache) -> Result<(Vec<Group>, Damage)> {
    let damage = match decode_groups(superblock, cache, None) {
        Ok(groups) => return Ok((groups, None)),
        Err(damage @ Error::Corrupt(_)) if !superblock.meta_bg() => damage,
        Err(error) => return Err(error),
    };
    for group in GROUPS {
        if group < superblock.group_count
            && superblock.has_superblock(group)
            && let Ok(groups) = decode_groups(superblock, cache, Some(group))
        {
            return Ok((groups, Some((group, damage))));
        }
    }
    Err(damage)
}

fn decode_groups(superblock: &Superblock, cache: &MetadataCache, copy: Option<u32>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let per_block = superblock.descriptors_per_block();
    for index in 0..superblock.descriptor_blocks() {
        let place = match copy {
            None => superblock.descriptor_block(index),
            Some(group) => superblock.group_first_block(group) + 1 + u64::from(index),
        };
        let block = cache.get(place, BlockKind::GroupDescriptors, |_| Ok(()))?;
        let first = index * per_block;
        for (number, bytes) in (first..superblock.group_count).zip(block.chunks_exact(superblock.descriptor_size)) {
            groups.push(Group::decode(bytes, superblock, number)?);
        }
    }
    Ok(groups)
}
