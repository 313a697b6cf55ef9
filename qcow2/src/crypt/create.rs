//! Making a LUKS header, and filling key slots.
//!
//! Specification: LUKS1 on-disk format, "Initialization" and "Adding new passwords".

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::algorithm::CipherSpec;
use super::luks_header::{DIGEST, KeySlot, LuksHeader, SALT, SLOTS, STRIPES};
use super::sector_cipher::{SECTOR, SectorCipher};
use super::unlock::spec_of;
use super::{CipherAlgorithm, CipherMode, Crypt, HashAlgorithm, IvGenerator, Secret};
use crate::{Error, Result};

/// How much work it is to try one passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    /// This much on the processor that makes the key slot.
    Time(Duration),
    Iterations(u32),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Time(Duration::from_secs(2))
    }
}

/// As few as the specification allows.
const MIN_ITERATIONS: u32 = 1000;

/// How a new image is encrypted.
#[derive(Debug, Clone)]
pub struct LuksOptions {
    passphrase: Secret,
    spec: CipherSpec,
    hash: HashAlgorithm,
    cost: Cost,
}

impl LuksOptions {
    /// What QEMU makes: AES-256 in XTS mode with plain64 IVs, SHA-256, and two seconds' work for each try of a passphrase.
    #[must_use]
    pub fn new(passphrase: Secret) -> Self {
        let (algorithm, mode, iv) = (CipherAlgorithm::Aes256, CipherMode::Xts, IvGenerator::Plain64);
        let spec = CipherSpec { algorithm, mode, iv, iv_hash: HashAlgorithm::Sha256 };
        Self { passphrase, spec, hash: HashAlgorithm::Sha256, cost: Cost::default() }
    }

    pub(crate) fn passphrase(&self) -> &Secret {
        &self.passphrase
    }

    /// The cipher.
    #[must_use]
    pub fn cipher(mut self, algorithm: CipherAlgorithm) -> Self {
        self.spec.algorithm = algorithm;
        self
    }

    /// The cipher's mode.
    #[must_use]
    pub fn mode(mut self, mode: CipherMode) -> Self {
        self.spec.mode = mode;
        self
    }

    /// How the IV of a sector is made.
    #[must_use]
    pub fn iv_generator(mut self, iv: IvGenerator) -> Self {
        self.spec.iv = iv;
        self
    }

    /// The hash that [`IvGenerator::Essiv`] needs, by default SHA-256.
    #[must_use]
    pub fn iv_hash(mut self, hash: HashAlgorithm) -> Self {
        self.spec.iv_hash = hash;
        self
    }

    /// The hash that makes keys of passphrases.
    #[must_use]
    pub fn hash(mut self, hash: HashAlgorithm) -> Self {
        self.hash = hash;
        self
    }

    /// The work for each try of a passphrase, as time on this processor. How much that is, is measured.
    #[must_use]
    pub fn iter_time(mut self, time: Duration) -> Self {
        self.cost = Cost::Time(time);
        self
    }

    /// The work for each try of a passphrase, as iterations of PBKDF2: at least 1000.
    #[must_use]
    pub fn iterations(mut self, iterations: u32) -> Self {
        self.cost = Cost::Iterations(iterations);
        self
    }

    /// Bytes of the header with all key material.
    pub(crate) fn header_len(&self) -> u64 {
        LuksHeader::usual_offset(self.spec.key_len() as u32, SLOTS)
    }

    /// Makes a new master key. Returns the header with all key material, and what encrypts with that key.
    pub(crate) fn create(&self) -> Result<(Vec<u8>, Crypt)> {
        let key_len = self.spec.key_len();
        let iterations = self.cost.iterations(self.hash, key_len);
        let mut key = Zeroizing::new(vec![0; key_len]);
        fill_random(&mut key)?;
        let slot = |index| KeySlot {
            active: false,
            iterations: 0,
            salt: [0; SALT],
            // At most 2 MiB.
            offset: (LuksHeader::usual_offset(key_len as u32, index) / SECTOR as u64) as u32,
        };
        let mut header = LuksHeader {
            cipher_name: self.spec.algorithm.family().to_owned(),
            cipher_mode: self.spec.mode_name(),
            hash: self.hash.name().to_owned(),
            payload_offset: (self.header_len() / SECTOR as u64) as u32,
            key_len: key_len as u32,
            digest: [0; DIGEST],
            digest_salt: [0; SALT],
            // The master key cannot be guessed, so that its digest need not be slow.
            digest_iterations: (iterations / 8).max(MIN_ITERATIONS),
            uuid: random_uuid()?,
            slots: std::array::from_fn(slot),
        };
        spec_of(&header)?;
        fill_random(&mut header.digest_salt)?;
        self.hash.pbkdf2(&key, &header.digest_salt, header.digest_iterations, &mut header.digest);
        let material = fill_slot(&mut header, 0, &key, &self.passphrase, iterations)?;
        let mut bytes = vec![0; self.header_len() as usize];
        let place = header.slots[0].offset as usize * SECTOR;
        bytes[place..place + material.len()].copy_from_slice(&material);
        let encoded = header.encode();
        bytes[..encoded.len()].copy_from_slice(&encoded);
        let cipher = SectorCipher::new(self.spec, &key)?;
        Ok((bytes, Crypt::unlocked(header, cipher, key)))
    }
}

impl Cost {
    pub(crate) fn iterations(self, hash: HashAlgorithm, key_len: usize) -> u32 {
        let wanted = match self {
            Self::Iterations(iterations) => u64::from(iterations),
            Self::Time(time) => {
                let (tried, took) = measure(hash, key_len);
                let wanted = u128::from(tried) * time.as_nanos() / took.as_nanos().max(1);
                u64::try_from(wanted).unwrap_or(u64::MAX)
            }
        };
        u32::try_from(wanted).unwrap_or(u32::MAX).max(MIN_ITERATIONS)
    }
}

/// Tries how long some iterations take.
fn measure(hash: HashAlgorithm, key_len: usize) -> (u32, Duration) {
    let mut key = Zeroizing::new(vec![0; key_len]);
    let mut iterations = 1 << 12;
    loop {
        let start = Instant::now();
        hash.pbkdf2(b"passphrase", &[0; SALT], iterations, &mut key);
        let took = start.elapsed();
        if took >= Duration::from_millis(50) || iterations >= 1 << 24 {
            return (iterations, took);
        }
        iterations *= 2;
    }
}

/// Puts the master key into a slot of the header, for this passphrase. Returns the slot's key material as it is to lie in
/// the file.
pub(crate) fn fill_slot(
    header: &mut LuksHeader,
    index: usize,
    key: &[u8],
    passphrase: &Secret,
    iterations: u32,
) -> Result<Vec<u8>> {
    let spec = spec_of(header)?;
    let hash: HashAlgorithm = header.hash.parse()?;
    let slot = &mut header.slots[index];
    fill_random(&mut slot.salt)?;
    (slot.active, slot.iterations) = (true, iterations);
    let mut slot_key = Zeroizing::new(vec![0; key.len()]);
    hash.pbkdf2(passphrase.as_bytes(), &slot.salt, iterations, &mut slot_key);
    let mut material = Zeroizing::new(vec![0; key.len() * STRIPES as usize]);
    fill_random(&mut material)?;
    hash.split(key, &mut material);
    SectorCipher::new(spec, &slot_key)?.encrypt(0, &mut material);
    Ok(std::mem::take(&mut *material))
}

/// Fills `bytes` with randomness of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        let source = error
            .raw_os_error()
            .map_or_else(|| std::io::Error::other(error.to_string()), std::io::Error::from_raw_os_error);
        Error::Random(source)
    })
}

fn random_uuid() -> Result<String> {
    let mut bytes = [0; 16];
    fill_random(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid().hyphenated().to_string())
}
