//! Swap space: Linux `include/linux/swap.h`, `union swap_header`.

use super::{Content, ContentKind, Probe};
use crate::Result;

/// The magic number is at the end of the first page, whatever the guest's pages are.
const PAGE_SIZES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
const MAGICS: [&[u8; 10]; 2] = [b"SWAPSPACE2", b"SWAP-SPACE"];
/// What takes its place while a suspended system is in the swap space.
const SUSPENDED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];

pub(super) fn swap(device: &Probe<'_>) -> Result<Option<Content>> {
    for page in PAGE_SIZES {
        let Some(magic) = device.read::<10>(page - 10)? else { break };
        let kind = if MAGICS.contains(&&magic) {
            ContentKind::Swap
        } else if SUSPENDED.iter().any(|suspended| magic.starts_with(suspended)) {
            ContentKind::SuspendedSwap
        } else {
            continue;
        };
        return Ok(Some(Content::new(kind, device.uuid(1036)?, device.label(1052, 16)?)));
    }
    Ok(None)
}
