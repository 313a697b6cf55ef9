//! LUKS: guest data is encrypted sector by sector on its way to the file, and nothing else is.
//!
//! The rest of the crate knows three things of it: an image has a [`Crypt`] or has none; what of the disk lies in the file is
//! read and written through it, with where in the file that is; its header takes clusters.
//!
//! Specification: qcow2, "Full disk encryption header pointer" and "Data encryption"; LUKS1 on-disk format.

mod algorithm;
mod create;
mod hash;
mod key_slots;
mod luks_header;
mod secret;
mod sector_cipher;
mod unlock;

use std::sync::{PoisonError, RwLock};

use block::Storage;
use zeroize::Zeroizing;

pub use algorithm::{CipherAlgorithm, CipherMode, HashAlgorithm, IvGenerator};
pub use create::LuksOptions;
pub use key_slots::NewPassphrase;
pub use luks_header::{EncryptInfo, KeySlotInfo};
pub use secret::Secret;

use crate::header_extension::CryptoExtension;
use crate::image::Image;
use crate::{Error, Result};
use luks_header::LuksHeader;
use sector_cipher::{SECTOR, SectorCipher};

/// Iterations of PBKDF2 that are carried out for a key slot unless the caller allows more: three times what QEMU and
/// cryptsetup choose on a fast machine.
pub(crate) const MAX_ITERATIONS: u32 = 1 << 25;
/// Bytes that are encrypted at a time.
const STEP: usize = 1 << 20;

/// How an image is encrypted.
pub(crate) struct Crypt {
    header: LuksHeader,
    /// With the master key; none without a passphrase.
    cipher: Option<(SectorCipher, Zeroizing<Vec<u8>>)>,
    /// Held alone while parts of sectors are written, which means reading the rest of them first.
    sectors: RwLock<()>,
}

impl Crypt {
    /// Reads the LUKS header that `extension` leads to, and unlocks the image if there is a passphrase.
    pub(crate) fn open(
        storage: &dyn Storage,
        extension: CryptoExtension,
        passphrase: Option<&Secret>,
        max_iterations: u32,
    ) -> Result<Self> {
        let CryptoExtension { offset, len } = extension;
        let held = storage.len().saturating_sub(offset).min(luks_header::RAW_LEN as u64);
        // It may be said to begin beyond the end of the file.
        let bytes = if held == 0 { Vec::new() } else { block::read_vec(storage, offset, held)? };
        let header = LuksHeader::decode(&bytes, offset, len)?;
        let cipher = match passphrase {
            Some(passphrase) => Some(unlock::unlock(&header, storage, offset, passphrase, max_iterations)?),
            None => None,
        };
        Ok(Self { header, cipher, sectors: RwLock::new(()) })
    }

    /// What encrypts with the key of a new header.
    fn unlocked(header: LuksHeader, cipher: SectorCipher, key: Zeroizing<Vec<u8>>) -> Self {
        Self { header, cipher: Some((cipher, key)), sectors: RwLock::new(()) }
    }

    /// Facts for people.
    pub(crate) fn info(&self) -> EncryptInfo {
        self.header.info()
    }

    /// The cipher, where a passphrase was given.
    fn cipher(&self) -> Result<&SectorCipher> {
        self.cipher.as_ref().map(|(cipher, _)| cipher).ok_or(Error::Encrypted)
    }

    /// The master key, where a passphrase was given.
    fn key(&self) -> Result<&[u8]> {
        self.cipher.as_ref().map(|(_, key)| &***key).ok_or(Error::Encrypted)
    }

    /// Fails where no passphrase was given.
    pub(crate) fn check_unlocked(&self) -> Result<()> {
        self.cipher().map(|_| ())
    }

    /// Reads and decrypts what lies at an offset of the file that holds data.
    pub(crate) fn read(&self, storage: &dyn Storage, offset: u64, buf: &mut [u8]) -> Result<()> {
        let cipher = self.cipher()?;
        let _shared = self.sectors.read().unwrap_or_else(PoisonError::into_inner);
        if is_aligned(offset, buf.len()) {
            return read_sectors(cipher, storage, offset, buf);
        }
        let within = (offset % SECTOR as u64) as usize;
        let mut sectors = vec![0; (within + buf.len()).next_multiple_of(SECTOR)];
        read_sectors(cipher, storage, offset - within as u64, &mut sectors)?;
        buf.copy_from_slice(&sectors[within..within + buf.len()]);
        Ok(())
    }

    /// Encrypts and writes `bytes` to an offset of the file that holds data, which is made longer where it ends before.
    pub(crate) fn write(&self, storage: &dyn Storage, offset: u64, bytes: &[u8]) -> Result<()> {
        let cipher = self.cipher()?;
        if is_aligned(offset, bytes.len()) {
            let _shared = self.sectors.read().unwrap_or_else(PoisonError::into_inner);
            return write_sectors(cipher, storage, offset, bytes);
        }
        let _alone = self.sectors.write().unwrap_or_else(PoisonError::into_inner);
        let within = (offset % SECTOR as u64) as usize;
        let start = offset - within as u64;
        let end = within + bytes.len();
        let mut sectors = vec![0; end.next_multiple_of(SECTOR)];
        let last = sectors.len() - SECTOR;
        for at in if last == 0 { vec![0] } else { vec![0, last] } {
            let place = start + at as u64;
            // Behind the end of the file is nothing to be kept.
            if place < storage.len() {
                read_sectors(cipher, storage, place, &mut sectors[at..at + SECTOR])?;
            }
        }
        sectors[within..end].copy_from_slice(bytes);
        write_sectors(cipher, storage, start, &sectors)
    }
}

fn is_aligned(offset: u64, len: usize) -> bool {
    offset.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR)
}

fn read_sectors(cipher: &SectorCipher, storage: &dyn Storage, offset: u64, sectors: &mut [u8]) -> Result<()> {
    Image::read_host(storage, offset, sectors)?;
    cipher.decrypt(offset / SECTOR as u64, sectors);
    Ok(())
}

fn write_sectors(cipher: &SectorCipher, storage: &dyn Storage, offset: u64, sectors: &[u8]) -> Result<()> {
    let end = offset + sectors.len() as u64;
    if storage.len() < end {
        storage.set_len(end)?;
    }
    let mut scratch = vec![0; sectors.len().min(STEP)];
    for (step, part) in sectors.chunks(STEP).enumerate() {
        let at = offset + (step * STEP) as u64;
        let encrypted = &mut scratch[..part.len()];
        encrypted.copy_from_slice(part);
        cipher.encrypt(at / SECTOR as u64, encrypted);
        storage.write_at(at, encrypted)?;
    }
    Ok(())
}
