//! The cache that reading goes through: slices of L2 tables, found without a lock.

use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwapOption, Guard};

use crate::geometry::Geometry;
use crate::l2_table::L2Table;

/// Slices kept at most; with 4 KiB each that is 16 MiB, which map 128 GiB at the usual 64 KiB clusters.
const SLOTS: u64 = 4096;
/// log2 of the bytes of a slice at most.
const SLICE_BITS: u32 = 12;

/// Part of an L2 table.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Which of all slices of the disk, counted from its start.
    number: u64,
    /// Where in the file the L2 table is.
    table_offset: u64,
    pub(crate) entries: L2Table,
}

/// A slice that is being looked at.
pub(crate) type SliceGuard = Guard<Option<Arc<Slice>>>;

/// The slices read last. Each has one place where it may be, so that neighbours never push each other out.
#[derive(Debug, Default)]
pub(crate) struct SliceCache {
    /// Made with the first slice, so that an image that is opened and not read costs nothing.
    slots: OnceLock<Box<[ArcSwapOption<Slice>]>>,
}

/// log2 of the entries of a slice.
pub(crate) fn slice_bits(geometry: &Geometry) -> u32 {
    geometry.l2_bits().min(SLICE_BITS - if geometry.extended_l2 { 4 } else { 3 })
}

/// Entries of a slice.
pub(crate) fn entries_per_slice(geometry: &Geometry) -> u64 {
    1 << slice_bits(geometry)
}

impl SliceCache {
    /// The slice `number`, if it is here and is of the table at `table_offset`.
    pub(crate) fn get(&self, number: u64, table_offset: u64) -> Option<SliceGuard> {
        let slice = self.slots.get()?.get((number % SLOTS) as usize)?.load();
        let found = slice.as_ref().is_some_and(|slice| slice.number == number && slice.table_offset == table_offset);
        found.then_some(slice)
    }

    /// Keeps a slice in place of the one that had its place.
    pub(crate) fn insert(&self, number: u64, table_offset: u64, entries: L2Table) -> SliceGuard {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| ArcSwapOption::empty()).collect());
        let slice = Some(Arc::new(Slice { number, table_offset, entries }));
        if let Some(slot) = slots.get((number % SLOTS) as usize) {
            slot.store(slice.clone());
        }
        Guard::from_inner(slice)
    }

    /// Forgets the slices `numbers`.
    pub(crate) fn remove(&self, numbers: std::ops::Range<u64>) {
        let Some(slots) = self.slots.get() else { return };
        for number in numbers.start..numbers.end.min(numbers.start.saturating_add(SLOTS)) {
            if let Some(slot) = slots.get((number % SLOTS) as usize) {
                slot.store(None);
            }
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.remove(0..SLOTS);
    }
}
