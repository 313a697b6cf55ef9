//! The hashes of names that order an htree: legacy, half MD4 and TEA, over signed or unsigned bytes.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html#hash-tree-directories>, kernel `fs/ext4/hash.c`
//! (`ext4fs_dirhash`). Which signedness a file system uses is in the superblock's `s_flags`: it is that of `char` on
//! the machine that made it.

/// One of the hashes, as [`hash_name`] takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashKind {
    Legacy,
    HalfMd4,
    Tea,
}

impl HashKind {
    /// The hash with this number in `dx_root_info` or `s_def_hash_version`.
    pub(super) fn from_version(version: u8) -> Option<Self> {
        match version {
            0 => Some(Self::Legacy),
            1 => Some(Self::HalfMd4),
            2 => Some(Self::Tea),
            _ => None,
        }
    }
}

/// The hash of `name`, always even: bit 0 marks collisions that continue in a further block.
pub(super) fn hash_name(kind: HashKind, unsigned: bool, seed: [u32; 4], name: &[u8]) -> u32 {
    let widen = |byte: u8| if unsigned { u32::from(byte) } else { i32::from(byte.cast_signed()).cast_unsigned() };
    // The initial state of MD4 stands in for a file system without a seed.
    let mut state = if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let hash = match kind {
        HashKind::Legacy => legacy(name, widen),
        HashKind::HalfMd4 => {
            for start in (0..name.len()).step_by(32) {
                half_md4(&mut state, &words::<8>(&name[start..], widen));
            }
            state[1]
        }
        HashKind::Tea => {
            for start in (0..name.len()).step_by(16) {
                tea(&mut state, words::<4>(&name[start..], widen));
            }
            state[0]
        }
    } & !1;
    // The highest value marks the end of a directory for readdir.
    if hash == 0xffff_fffe { 0xffff_fffc } else { hash }
}

fn legacy(name: &[u8], widen: impl Fn(u8) -> u32) -> u32 {
    let (mut newest, mut older) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for &byte in name {
        let mut next = older.wrapping_add(newest ^ widen(byte).wrapping_mul(7_152_373));
        if next >> 31 == 1 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        older = newest;
        newest = next;
    }
    newest << 1
}

/// The next `N` words of a name: bytes are shifted in from the right, over a filling that repeats the length that is left.
fn words<const N: usize>(rest: &[u8], widen: impl Fn(u8) -> u32) -> [u32; N] {
    // Names have at most 255 bytes, so the length fits a byte.
    let filling = u32::from_le_bytes([rest.len().to_le_bytes()[0]; 4]);
    let mut words = [filling; N];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for &byte in bytes {
            *word = (*word << 8).wrapping_add(widen(byte));
        }
    }
    words
}

/// MD4's three rounds on eight words instead of sixteen.
fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    const ORDERS: [[usize; 8]; 3] = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 3, 5, 7, 0, 2, 4, 6], [3, 7, 2, 6, 1, 5, 0, 4]];
    const SHIFTS: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];
    // The square roots of 2 and 3, as in MD4.
    const CONSTANTS: [u32; 3] = [0, 0x5a82_7999, 0x6ed9_eba1];

    let [mut a, mut b, mut c, mut d] = *state;
    for round in 0..3 {
        for step in 0..8 {
            let mixed = match round {
                0 => (b & c) | (!b & d),
                1 => (b & c) | (b & d) | (c & d),
                _ => b ^ c ^ d,
            };
            let sum = a.wrapping_add(mixed).wrapping_add(input[ORDERS[round][step]]).wrapping_add(CONSTANTS[round]);
            (a, b, c, d) = (d, sum.rotate_left(SHIFTS[round][step % 4]), b, c);
        }
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}

/// Sixteen cycles of the Tiny Encryption Algorithm, with the name as the key.
fn tea(state: &mut [u32; 4], key: [u32; 4]) {
    let (mut left, mut right, mut sum) = (state[0], state[1], 0_u32);
    let mix = |word: u32, sum: u32, low: u32, high: u32| {
        (word << 4).wrapping_add(low) ^ word.wrapping_add(sum) ^ (word >> 5).wrapping_add(high)
    };
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        left = left.wrapping_add(mix(right, sum, key[0], key[1]));
        right = right.wrapping_add(mix(left, sum, key[2], key[3]));
    }
    state[0] = state[0].wrapping_add(left);
    state[1] = state[1].wrapping_add(right);
}
