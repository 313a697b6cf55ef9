//! Key slots of an image: passphrases added and taken away.
//!
//! Specification: LUKS1 on-disk format, "Adding new passwords", "Revocation".

use block::WriteAt as _;
use zeroize::Zeroizing;

use super::create::{Cost, fill_random, fill_slot};
use super::luks_header::SLOTS;
use super::sector_cipher::SECTOR;
use super::unlock::{slot_opens, spec_of};
use super::{MAX_ITERATIONS, Secret};
use crate::header_extension::CryptoExtension;
use crate::image::Image;
use crate::{Error, Result};

/// A passphrase that is to be added to an encrypted image.
#[derive(Debug, Clone)]
pub struct NewPassphrase {
    passphrase: Secret,
    slot: Option<usize>,
    replace: bool,
    cost: Cost,
}

impl NewPassphrase {
    /// In the first key slot that is free, with two seconds' work for each try of it.
    #[must_use]
    pub fn new(passphrase: Secret) -> Self {
        Self { passphrase, slot: None, replace: false, cost: Cost::default() }
    }

    /// The key slot, 0 to 7.
    #[must_use]
    pub fn slot(mut self, slot: usize) -> Self {
        self.slot = Some(slot);
        self
    }

    /// Whether what the slot holds may be replaced: the passphrase that it is for does not open the image any more, and if the
    /// new one cannot be written as a whole, neither does.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// The work for each try of the passphrase, as time on this processor.
    #[must_use]
    pub fn iter_time(mut self, time: std::time::Duration) -> Self {
        self.cost = Cost::Time(time);
        self
    }

    /// The work for each try of the passphrase, as iterations of PBKDF2: at least 1000.
    #[must_use]
    pub fn iterations(mut self, iterations: u32) -> Self {
        self.cost = Cost::Iterations(iterations);
        self
    }
}

impl Image {
    /// Adds a passphrase to an encrypted image that was opened for writing with one of its passphrases. The key material is safe on
    /// the disk before the header says that it is there, so that a crash leaves the passphrases there were, or those and the new one.
    /// Returns the key slot.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the image is not encrypted, where there is no such slot or it is in use, and where no slot is
    /// free; [`Error::Encrypted`] where it was opened without a passphrase; [`Error::ReadOnly`], [`Error::Io`].
    pub fn add_passphrase(&mut self, new: &NewPassphrase) -> Result<usize> {
        let at = self.key_slots_at()?;
        let crypt = self.crypt.as_ref().ok_or(Error::Encrypted)?;
        let key = Zeroizing::new(crypt.key()?.to_vec());
        let mut header = crypt.header.clone();
        let index = match new.slot {
            Some(slot) if slot < SLOTS => slot,
            Some(slot) => return Err(Error::Invalid(format!("there is no key slot {slot}, but 0 to 7"))),
            None => {
                let free = header.slots.iter().position(|slot| !slot.active);
                free.ok_or_else(|| Error::Invalid("all key slots are in use".to_owned()))?
            }
        };
        if header.slots[index].active && !new.replace {
            return Err(Error::Invalid(format!("key slot {index} is in use")));
        }
        let hash = header.hash.parse()?;
        let iterations = new.cost.iterations(hash, spec_of(&header)?.key_len());
        if header.slots[index].active {
            // Half of it is never to be taken for the whole.
            header.slots[index].active = false;
            self.write_luks_header(at, &header)?;
        }
        let material = fill_slot(&mut header, index, &key, &new.passphrase, iterations)?;
        self.write_key_material(at, header.slots[index].offset, &material)?;
        self.write_luks_header(at, &header)?;
        Ok(index)
    }

    /// Erases a key slot: its key material is overwritten, so that the passphrase that it was for does not open the image any
    /// more. The last one is erased only by `even_the_last`: then nothing opens the image ever again.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the image is not encrypted, where the slot is not in use, and where it is the last one;
    /// [`Error::ReadOnly`], [`Error::Io`].
    pub fn erase_key_slot(&mut self, slot: usize, even_the_last: bool) -> Result<()> {
        let at = self.key_slots_at()?;
        let crypt = self.crypt.as_ref().ok_or(Error::Encrypted)?;
        let mut header = crypt.header.clone();
        let Some(found) = header.slots.get_mut(slot).filter(|slot| slot.active) else {
            return Err(Error::Invalid(format!("key slot {slot} is not in use")));
        };
        found.active = false;
        let offset = found.offset;
        if !even_the_last && header.slots.iter().all(|slot| !slot.active) {
            return Err(Error::Invalid(format!("key slot {slot} is the last one in use")));
        }
        let mut noise = vec![0; header.material_len() as usize];
        fill_random(&mut noise)?;
        self.write_key_material(at, offset, &noise)?;
        self.write_luks_header(at, &header)
    }

    /// The key slots that a passphrase opens.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the image is not encrypted; [`Error::Io`].
    pub fn key_slots_of(&self, passphrase: &Secret) -> Result<Vec<usize>> {
        let at = self.crypto_place()?;
        let crypt = self.crypt.as_ref().ok_or(Error::Encrypted)?;
        let header = &crypt.header;
        let mut found = Vec::new();
        for (index, slot) in header.slots.iter().enumerate().filter(|(_, slot)| slot.active) {
            if slot.iterations <= MAX_ITERATIONS && slot_opens(header, slot, &*self.storage, at, passphrase)? {
                found.push(index);
            }
        }
        Ok(found)
    }

    /// Where the LUKS header is.
    fn crypto_place(&self) -> Result<u64> {
        let found: Option<CryptoExtension> = self.extensions.crypto_of(&self.state().header)?;
        found.map(|found| found.offset).ok_or_else(|| Error::Invalid("the image is not encrypted".to_owned()))
    }

    /// Where the LUKS header is that is to be changed.
    fn key_slots_at(&self) -> Result<u64> {
        self.check_writable()?;
        let at = self.crypto_place()?;
        let _turn = self.allocating();
        self.prepare(0)?;
        Ok(at)
    }

    fn write_key_material(&self, at: u64, offset: u32, material: &[u8]) -> Result<()> {
        self.poison_on_error(|| {
            self.storage.write_at(at + u64::from(offset) * SECTOR as u64, material)?;
            Ok(self.storage.flush()?)
        })
    }

    fn write_luks_header(&mut self, at: u64, header: &super::luks_header::LuksHeader) -> Result<()> {
        self.poison_on_error(|| {
            self.storage.write_at(at, &header.encode())?;
            Ok(self.storage.flush()?)
        })?;
        if let Some(crypt) = &mut self.crypt {
            crypt.header = header.clone();
        }
        Ok(())
    }
}
