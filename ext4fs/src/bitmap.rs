//! Bitmaps: bit `n` is bit `n % 8` of byte `n / 8`; a set bit says in use.
//!
//! <https://docs.kernel.org/filesystems/ext4/bitmaps.html>

use std::ops::Range;

/// Whether bit `n` is set. A bit outside the bitmap counts as set: nothing there can be given out.
pub(crate) fn is_set(bitmap: &[u8], n: u32) -> bool {
    bitmap.get(n as usize / 8).is_none_or(|byte| byte >> (n % 8) & 1 == 1)
}

/// Sets all bits of `range` that lie inside the bitmap.
pub(crate) fn set(bitmap: &mut [u8], range: Range<u32>) {
    change(bitmap, range, |byte, mask| *byte |= mask);
}

/// Clears all bits of `range` that lie inside the bitmap.
pub(crate) fn clear(bitmap: &mut [u8], range: Range<u32>) {
    change(bitmap, range, |byte, mask| *byte &= !mask);
}

fn change(bitmap: &mut [u8], range: Range<u32>, apply: impl Fn(&mut u8, u8)) {
    let mut n = range.start;
    while n < range.end {
        let Some(byte) = bitmap.get_mut(n as usize / 8) else { return };
        let bits = (8 - n % 8).min(range.end - n);
        apply(byte, (0xFFu8 >> (8 - bits)) << (n % 8));
        n += bits;
    }
}

/// The first clear bit in `range`.
pub(crate) fn find_clear(bitmap: &[u8], range: Range<u32>) -> Option<u32> {
    find(bitmap, range, 0xFF)
}

/// The first set bit in `range`, or its end.
pub(crate) fn find_set(bitmap: &[u8], range: Range<u32>) -> u32 {
    let end = range.end;
    find(bitmap, range, 0).unwrap_or(end)
}

/// The first bit that is not as all bits of `skip` are.
fn find(bitmap: &[u8], range: Range<u32>, skip: u8) -> Option<u32> {
    let skip = u64::from_le_bytes([skip; 8]);
    let mut n = range.start;
    while n < range.end {
        let at = n as usize / 8;
        // Eight bytes at once where there are as many; what lies before bit `n` is shifted out.
        let (word, bits) = match bitmap.get(at..at + 8).and_then(<[u8]>::first_chunk) {
            Some(bytes) => (u64::from_le_bytes(*bytes), 64),
            None => (u64::from(*bitmap.get(at)?) | skip & !0xFF, 8),
        };
        let rest = (word ^ skip) >> (n % 8);
        if rest != 0 {
            let found = n + rest.trailing_zeros();
            return (found < range.end).then_some(found);
        }
        n += bits - n % 8;
    }
    None
}

/// All runs of clear bits in `range`, in order.
pub(crate) fn clear_runs(bitmap: &[u8], range: Range<u32>) -> impl Iterator<Item = Range<u32>> + '_ {
    let mut from = range.start;
    std::iter::from_fn(move || {
        let start = find_clear(bitmap, from..range.end)?;
        let end = find_set(bitmap, start..range.end);
        from = end;
        Some(start..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_vector_of_bools(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xFF), any::<u8>()], 1..40),
            from in 0u32..330, len in 0u32..330, set_them: bool,
        ) {
            let bits = bytes.len() as u32 * 8;
            let range = from.min(bits)..(from + len).min(bits);
            let mut bitmap = bytes.clone();
            let mut model: Vec<bool> = (0..bits).map(|n| bytes[n as usize / 8] >> (n % 8) & 1 == 1).collect();
            let expected: Vec<u32> = range.clone().filter(|n| !model[*n as usize]).collect();
            let found: Vec<u32> = clear_runs(&bitmap, range.clone()).flatten().collect();
            prop_assert_eq!(&found, &expected);
            if set_them { set(&mut bitmap, range.clone()) } else { clear(&mut bitmap, range.clone()) }
            range.for_each(|n| model[n as usize] = set_them);
            for n in 0..bits {
                prop_assert_eq!(is_set(&bitmap, n), model[n as usize]);
            }
            prop_assert!(is_set(&bitmap, bits));
        }
    }
}
