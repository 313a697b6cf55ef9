//! Bytes that are zeros: asking and making.

/// Whether all bytes are zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Words of 16 bytes, many at a time before each look, so that the compiler can use wide registers.
    let (chunks, rest) = bytes.as_chunks::<128>();
    chunks.iter().all(|chunk| {
        let (words, _) = chunk.as_chunks::<16>();
        words.iter().fold(0, |sum, word| sum | u128::from_le_bytes(*word)) == 0
    }) && rest.iter().all(|byte| *byte == 0)
}

/// Makes all bytes zeros and returns how many were not.
pub(crate) fn clear(bytes: &mut [u8]) -> u64 {
    if is_zero(bytes) {
        return 0;
    }
    let changed = bytes.iter().filter(|byte| **byte != 0).count();
    bytes.fill(0);
    changed as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for len in [0, 1, 15, 16, 127, 128, 129, 300] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for at in 0..len {
                bytes[at] = 0x10;
                assert!(!is_zero(&bytes));
                assert_eq!(clear(&mut bytes), 1);
            }
        }
    }
}
