//! Members of Linux software RAID: mdadm `super0.c` and `super1.c`.

use super::{Content, ContentKind, Probe, le32, le64, text, uuid_text};
use crate::Result;

const MAGIC: u32 = 0xa92b_4efc;
const SECTOR: u64 = 512;

pub(super) fn linux_raid(device: &Probe<'_>) -> Result<Option<Content>> {
    let sectors = device.len() / SECTOR;
    // 1.1 and 1.2 at the start, 1.0 near the end. Each says where it is, so that a copy in a file is not taken for one.
    let near_end = sectors.saturating_sub(16) & !7;
    for sector in [0, 8, near_end] {
        let Some(superblock) = device.read::<256>(sector * SECTOR)? else { continue };
        if le32(&superblock, 0) == MAGIC && le32(&superblock, 4) == 1 && le64(&superblock, 144) == sector {
            let uuid = superblock[16..].first_chunk().copied().and_then(uuid_text);
            return Ok(Some(Content::new(ContentKind::LinuxRaid, uuid, text(&superblock[32..64]))));
        }
    }
    // 0.90 in the last whole 64 KiB, in the byte order of its host.
    let Some(sector) = (sectors & !127).checked_sub(128) else { return Ok(None) };
    let Some(superblock) = device.read::<64>(sector * SECTOR)? else { return Ok(None) };
    let words: [u32; 16] = std::array::from_fn(|at| le32(&superblock, at * 4));
    for swapped in [false, true] {
        let words = words.map(|word| if swapped { word.swap_bytes() } else { word });
        if words[0] == MAGIC && words[1] == 0 && words[2] <= 91 {
            let mut uuid = [0; 16];
            for (bytes, at) in uuid.as_chunks_mut::<4>().0.iter_mut().zip([5, 13, 14, 15]) {
                *bytes = words[at].to_be_bytes();
            }
            return Ok(Some(Content::new(ContentKind::LinuxRaid, uuid_text(uuid), None)));
        }
    }
    Ok(None)
}
