//! Hashing, PBKDF2, and the splitting and merging of keys that hinders the recovery of deleted ones.
//!
//! Specification: LUKS1 on-disk format, sections 2.4 "Anti-forensic splitter" and 3 "PBKDF2".

use sha2::Digest;
use zeroize::Zeroizing;

use super::HashAlgorithm;

impl HashAlgorithm {
    /// Bytes of a digest.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 | Self::Ripemd160 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Sm3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `parts`, one after the other, in the first bytes of `out`.
    fn digest_into(self, parts: [&[u8]; 2], out: &mut [u8]) {
        fn digest<D: Digest>(parts: [&[u8]; 2], out: &mut [u8]) {
            let digest = parts.iter().fold(D::new(), D::chain_update).finalize();
            let len = out.len().min(digest.len());
            out[..len].copy_from_slice(&digest[..len]);
        }
        match self {
            Self::Md5 => digest::<md5::Md5>(parts, out),
            Self::Sm3 => digest::<sm3::Sm3>(parts, out),
            Self::Sha1 => digest::<sha1::Sha1>(parts, out),
            Self::Sha224 => digest::<sha2::Sha224>(parts, out),
            Self::Sha256 => digest::<sha2::Sha256>(parts, out),
            Self::Sha384 => digest::<sha2::Sha384>(parts, out),
            Self::Sha512 => digest::<sha2::Sha512>(parts, out),
            Self::Ripemd160 => digest::<ripemd::Ripemd160>(parts, out),
        }
    }

    /// The digest of `data`.
    pub(crate) fn digest(self, data: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(vec![0; self.len()]);
        self.digest_into([data, &[]], &mut out);
        out
    }

    /// Fills `out` with a key made of a passphrase.
    pub(crate) fn pbkdf2(self, passphrase: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
        use pbkdf2::pbkdf2_hmac;
        match self {
            Self::Md5 => pbkdf2_hmac::<md5::Md5>(passphrase, salt, iterations, out),
            Self::Sm3 => pbkdf2_hmac::<sm3::Sm3>(passphrase, salt, iterations, out),
            Self::Sha1 => pbkdf2_hmac::<sha1::Sha1>(passphrase, salt, iterations, out),
            Self::Sha224 => pbkdf2_hmac::<sha2::Sha224>(passphrase, salt, iterations, out),
            Self::Sha256 => pbkdf2_hmac::<sha2::Sha256>(passphrase, salt, iterations, out),
            Self::Sha384 => pbkdf2_hmac::<sha2::Sha384>(passphrase, salt, iterations, out),
            Self::Sha512 => pbkdf2_hmac::<sha2::Sha512>(passphrase, salt, iterations, out),
            Self::Ripemd160 => pbkdf2_hmac::<ripemd::Ripemd160>(passphrase, salt, iterations, out),
        }
    }

    /// Makes every bit of `block` depend on those of the same digest-sized piece.
    fn diffuse(self, block: &mut [u8]) {
        for (index, piece) in block.chunks_mut(self.len()).enumerate() {
            let mut digest = Zeroizing::new([0; 64]);
            // Keys have at most 64 bytes.
            self.digest_into([&(index as u32).to_be_bytes(), piece], &mut *digest);
            let len = piece.len();
            piece.copy_from_slice(&digest[..len]);
        }
    }

    /// The key of `key_len` bytes that was split into the stripes in `material`.
    pub(crate) fn merge(self, material: &[u8], key_len: usize) -> Zeroizing<Vec<u8>> {
        let mut key = Zeroizing::new(vec![0; key_len]);
        let mut stripes = material.chunks_exact(key_len).peekable();
        while let Some(stripe) = stripes.next() {
            xor(&mut key, stripe);
            if stripes.peek().is_some() {
                self.diffuse(&mut key);
            }
        }
        key
    }

    /// Splits `key` into the stripes of `material`, which is filled with randomness, and has a whole number of them: the last
    /// is set so that they merge to the key.
    pub(crate) fn split(self, key: &[u8], material: &mut [u8]) {
        let last = material.len() - key.len();
        let mut mixed = Zeroizing::new(vec![0; key.len()]);
        for stripe in material[..last].chunks_exact(key.len()) {
            xor(&mut mixed, stripe);
            self.diffuse(&mut mixed);
        }
        material[last..].copy_from_slice(key);
        xor(&mut material[last..], &mixed);
    }
}

fn xor(to: &mut [u8], with: &[u8]) {
    to.iter_mut().zip(with).for_each(|(to, with)| *to ^= with);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [HashAlgorithm; 8] = [
        HashAlgorithm::Md5,
        HashAlgorithm::Sm3,
        HashAlgorithm::Sha1,
        HashAlgorithm::Sha224,
        HashAlgorithm::Sha256,
        HashAlgorithm::Sha384,
        HashAlgorithm::Sha512,
        HashAlgorithm::Ripemd160,
    ];

    #[test]
    fn what_is_split_merges_again_and_needs_every_stripe() {
        for hash in ALL {
            for key_len in [16, 32, 48, 64] {
                let key: Vec<u8> = (0..key_len).map(|i| i as u8 ^ 0x5a).collect();
                let mut material: Vec<u8> = (0..key_len * 11).map(|i| (i * 7 + 3) as u8).collect();
                hash.split(&key, &mut material);
                assert_eq!(*hash.merge(&material, key_len), key);
                for at in (0..material.len()).step_by(key_len / 2) {
                    material[at] ^= 1;
                    assert_ne!(*hash.merge(&material, key_len), key);
                    material[at] ^= 1;
                }
            }
        }
    }

    /// The vectors of RFC 6070 (PBKDF2 with SHA-1).
    #[test]
    fn pbkdf2_is_that_of_the_standard() {
        let mut out = [0; 20];
        HashAlgorithm::Sha1.pbkdf2(b"password", b"salt", 4096, &mut out);
        assert_eq!(out[..8], [0x4b, 0x00, 0x79, 0x01, 0xb7, 0x65, 0x48, 0x9a]);
        assert_eq!(HashAlgorithm::Sha256.digest(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        for hash in ALL {
            assert_eq!(hash.digest(b"").len(), hash.len());
        }
    }
}
