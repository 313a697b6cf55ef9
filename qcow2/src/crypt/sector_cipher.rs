//! Encrypting and decrypting sectors of 512 bytes, each on its own.
//!
//! Specification: LUKS1 on-disk format, "Cipher modes"; IEEE 1619 (XTS), without ciphertext stealing, since sectors are
//! whole numbers of blocks.

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser};
use aes::cipher::{InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use cast5::Cast5;
use serpent::Serpent;
use twofish::Twofish;

use super::algorithm::CipherSpec;
use super::{CipherAlgorithm, CipherMode, IvGenerator};
use crate::{Error, Result};

/// Bytes that are encrypted as one.
pub(crate) const SECTOR: usize = 512;
const BLOCK: usize = 16;
const BLOCKS: usize = SECTOR / BLOCK;

/// A cipher with its key. The key is overwritten with zeros when it is dropped.
pub(crate) struct SectorCipher {
    mode: Box<dyn Mode>,
    iv: Iv,
}

enum Iv {
    Plain,
    Plain64,
    Essiv(Box<dyn Mode>),
}

impl Iv {
    fn of(&self, sector: u64) -> [u8; BLOCK] {
        match self {
            Self::Plain => u128::from(sector as u32).to_le_bytes(),
            Self::Plain64 => u128::from(sector).to_le_bytes(),
            Self::Essiv(cipher) => {
                let mut iv = u128::from(sector).to_le_bytes();
                cipher.encrypt_block(&mut iv);
                iv
            }
        }
    }
}

impl SectorCipher {
    /// The cipher with `key`, which must be as long as the cipher wants it.
    pub(crate) fn new(spec: CipherSpec, key: &[u8]) -> Result<Self> {
        spec.check()?;
        let wrong_key = || Error::Unsupported(format!("a key of {} bytes for {}", key.len(), spec.algorithm.name()));
        if key.len() != spec.key_len() {
            return Err(wrong_key());
        }
        let iv = match spec.iv {
            IvGenerator::Plain => Iv::Plain,
            IvGenerator::Plain64 => Iv::Plain64,
            IvGenerator::Essiv => {
                let hashed = spec.iv_hash.digest(key);
                let algorithm = spec.algorithm.with_key_len(hashed.len()).ok_or_else(wrong_key)?;
                Iv::Essiv(mode(algorithm, CipherMode::Ecb, &hashed).ok_or_else(wrong_key)?)
            }
        };
        Ok(Self { mode: mode(spec.algorithm, spec.mode, key).ok_or_else(wrong_key)?, iv })
    }

    /// Encrypts whole sectors, the first of which has the number `sector`.
    pub(crate) fn encrypt(&self, sector: u64, bytes: &mut [u8]) {
        for (number, bytes) in (sector..).zip(bytes.as_chunks_mut().0) {
            self.mode.encrypt(self.iv.of(number), bytes);
        }
    }

    /// Decrypts whole sectors, the first of which has the number `sector`.
    pub(crate) fn decrypt(&self, sector: u64, bytes: &mut [u8]) {
        for (number, bytes) in (sector..).zip(bytes.as_chunks_mut().0) {
            self.mode.decrypt(self.iv.of(number), bytes);
        }
    }
}

/// The cipher in its mode; nothing for a key of another length, and for what does not go together.
fn mode(algorithm: CipherAlgorithm, mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>> {
    fn wide<C: BlockCipher<BlockSize = U16>>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>> {
        match mode {
            CipherMode::Xts => Xts::<C>::boxed(key),
            _ => any::<C>(mode, key),
        }
    }
    fn any<C: BlockCipher>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>> {
        let cipher = C::new_from_slice(key).ok()?;
        match mode {
            CipherMode::Xts => None,
            CipherMode::Cbc => Some(Box::new(Cbc(cipher))),
            CipherMode::Ctr => Some(Box::new(Ctr(cipher))),
            CipherMode::Ecb => Some(Box::new(Ecb(cipher))),
        }
    }
    match algorithm {
        CipherAlgorithm::Aes128 => wide::<Aes128>(mode, key),
        CipherAlgorithm::Aes192 => wide::<Aes192>(mode, key),
        CipherAlgorithm::Aes256 => wide::<Aes256>(mode, key),
        CipherAlgorithm::Serpent128 | CipherAlgorithm::Serpent192 | CipherAlgorithm::Serpent256 => {
            wide::<Serpent>(mode, key)
        }
        CipherAlgorithm::Twofish128 | CipherAlgorithm::Twofish192 | CipherAlgorithm::Twofish256 => {
            wide::<Twofish>(mode, key)
        }
        CipherAlgorithm::Cast5 => any::<Cast5>(mode, key),
    }
}

trait Mode: Send + Sync {
    /// Encrypts one block by itself, as ESSIV does it.
    fn encrypt_block(&self, _: &mut [u8; BLOCK]) {}
    fn encrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]);
    fn decrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]);
}

trait BlockCipher: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + KeyInit + Send + Sync + 'static {}
impl<C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser + KeyInit + Send + Sync + 'static> BlockCipher for C {}

struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: BlockCipher<BlockSize = U16>> Xts<C> {
    fn boxed(key: &[u8]) -> Option<Box<dyn Mode>> {
        let (data, tweak) = key.split_at(key.len() / 2);
        Some(Box::new(Self { data: C::new_from_slice(data).ok()?, tweak: C::new_from_slice(tweak).ok()? }))
    }

    /// The tweak of every block: each is the one before it times x in GF(2^128).
    fn tweaks(&self, iv: [u8; BLOCK]) -> [u128; BLOCKS] {
        let mut first = Array::from(iv);
        self.tweak.encrypt_block(&mut first);
        let mut tweak = u128::from_le_bytes(first.into());
        std::array::from_fn(|_| {
            let this = tweak;
            tweak = (this << 1) ^ ((this >> 127) * 0x87);
            this
        })
    }
}

/// Adds each tweak to its block.
fn add(tweaks: &[u128; BLOCKS], sector: &mut [u8; SECTOR]) {
    for (block, tweak) in sector.as_chunks_mut().0.iter_mut().zip(tweaks) {
        *block = (u128::from_le_bytes(*block) ^ tweak).to_le_bytes();
    }
}

// All blocks of a sector go to the cipher at once, which works on several side by side: ten times as fast as one by one.
impl<C: BlockCipher<BlockSize = U16>> Mode for Xts<C> {
    fn encrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        let tweaks = self.tweaks(iv);
        add(&tweaks, sector);
        self.data.encrypt_blocks(blocks::<C>(sector));
        add(&tweaks, sector);
    }

    fn decrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        let tweaks = self.tweaks(iv);
        add(&tweaks, sector);
        self.data.decrypt_blocks(blocks::<C>(sector));
        add(&tweaks, sector);
    }
}

struct Cbc<C>(C);

impl<C: BlockCipher> Mode for Cbc<C> {
    fn encrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        cbc::Encryptor::inner_iv_init(&self.0, &start::<C>(iv)).encrypt_blocks(blocks::<C>(sector));
    }

    fn decrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        cbc::Decryptor::inner_iv_init(&self.0, &start::<C>(iv)).decrypt_blocks(blocks::<C>(sector));
    }
}

struct Ecb<C>(C);

impl<C: BlockCipher> Mode for Ecb<C> {
    fn encrypt_block(&self, block: &mut [u8; BLOCK]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(block).0);
    }

    fn encrypt(&self, _: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        self.0.encrypt_blocks(blocks::<C>(sector));
    }

    fn decrypt(&self, _: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        self.0.decrypt_blocks(blocks::<C>(sector));
    }
}

/// The IV is the first block's counter, a big-endian number as long as a block.
struct Ctr<C>(C);

impl<C: BlockCipher> Mode for Ctr<C> {
    fn encrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        let mut counter = start::<C>(iv);
        let mut stream = [0; SECTOR];
        for block in blocks::<C>(&mut stream) {
            block.copy_from_slice(&counter);
            for byte in counter.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
        self.0.encrypt_blocks(blocks::<C>(&mut stream));
        sector.iter_mut().zip(stream).for_each(|(byte, with)| *byte ^= with);
    }

    fn decrypt(&self, iv: [u8; BLOCK], sector: &mut [u8; SECTOR]) {
        self.encrypt(iv, sector);
    }
}

/// As much of the IV as a block has.
fn start<C: BlockSizeUser>(iv: [u8; BLOCK]) -> Array<u8, C::BlockSize> {
    iv.iter().copied().chain(std::iter::repeat(0)).take(C::block_size()).collect()
}

fn blocks<C: BlockSizeUser>(sector: &mut [u8; SECTOR]) -> &mut [Array<u8, C::BlockSize>] {
    Array::slice_as_chunks_mut(sector).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HashAlgorithm;

    fn spec(mode: CipherMode, iv: IvGenerator) -> CipherSpec {
        CipherSpec { algorithm: CipherAlgorithm::Aes256, mode, iv, iv_hash: HashAlgorithm::Sha256 }
    }

    /// IEEE 1619, appendix B, vector 10: XTS-AES-256, data unit 0xff, plaintext 00 01 .. ff twice.
    #[test]
    fn xts_is_that_of_the_standard() {
        let key = [
            [
                0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26, 0x62,
                0x49, 0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59, 0x57, 0x49, 0x66, 0x96, 0x76, 0x27,
            ],
            [
                0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95, 0x02,
                0x88, 0x41, 0x97, 0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92,
            ],
        ]
        .concat();
        let cipher = SectorCipher::new(spec(CipherMode::Xts, IvGenerator::Plain64), &key).unwrap();
        let plain: Vec<u8> = (0..512).map(|i| i as u8).collect();
        let mut bytes = plain.clone();
        cipher.encrypt(0xff, &mut bytes);
        assert_eq!(bytes[..8], [0x1c, 0x3b, 0x3a, 0x10, 0x2f, 0x77, 0x03, 0x86]);
        assert_eq!(bytes[508..], [0xe1, 0x48, 0xc1, 0x51]);
        cipher.decrypt(0xff, &mut bytes);
        assert_eq!(bytes, plain);
    }

    #[test]
    fn every_mode_decrypts_what_it_encrypted_and_depends_on_the_sector() {
        for mode in [CipherMode::Xts, CipherMode::Cbc, CipherMode::Ctr] {
            for iv in [IvGenerator::Plain, IvGenerator::Plain64, IvGenerator::Essiv] {
                let spec = spec(mode, iv);
                let key: Vec<u8> = (0..spec.key_len() as u8).collect();
                let cipher = SectorCipher::new(spec, &key).unwrap();
                let mut bytes = vec![7; 1024];
                cipher.encrypt(1 << 32, &mut bytes);
                assert_ne!(bytes[..512], bytes[512..]);
                // `plain` forgets the upper half of the number.
                let mut again = bytes.clone();
                cipher.decrypt(0, &mut again);
                assert_eq!(again == [7; 1024], iv == IvGenerator::Plain);
                cipher.decrypt(1 << 32, &mut bytes);
                assert_eq!(bytes, [7; 1024]);
                assert!(SectorCipher::new(spec, &key[1..]).is_err());
            }
        }
    }
}
