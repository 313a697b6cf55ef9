//! From a passphrase to the master key, through the key slot that it fits.
//!
//! Specification: LUKS1 on-disk format, "Master key recovery".

use block::Storage;
use zeroize::Zeroizing;

use super::algorithm::CipherSpec;
use super::luks_header::{DIGEST, KeySlot, LuksHeader, STRIPES};
use super::sector_cipher::{SECTOR, SectorCipher};
use super::{HashAlgorithm, Secret};
use crate::{Error, Result};

/// The cipher with the master key, and that key.
pub(crate) fn unlock(
    header: &LuksHeader,
    storage: &dyn Storage,
    at: u64,
    passphrase: &Secret,
    max_iterations: u32,
) -> Result<(SectorCipher, Zeroizing<Vec<u8>>)> {
    let spec = spec_of(header)?;
    let key = master_key(header, spec, storage, at, passphrase, max_iterations)?;
    Ok((SectorCipher::new(spec, &key)?, key))
}

/// Whether a passphrase opens a key slot.
pub(crate) fn slot_opens(
    header: &LuksHeader,
    slot: &KeySlot,
    storage: &dyn Storage,
    at: u64,
    passphrase: &Secret,
) -> Result<bool> {
    Ok(try_slot(header, slot, spec_of(header)?, storage, at, passphrase)?.is_some())
}

/// The cipher that the header names, which must be one that we have.
pub(crate) fn spec_of(header: &LuksHeader) -> Result<CipherSpec> {
    let spec = CipherSpec::parse(&header.cipher_name, &header.cipher_mode, header.key_len)?;
    // QEMU cannot use such an image either: it encrypts key material in whole sectors.
    if spec.key_len() as u32 != header.key_len
        || !(u64::from(header.key_len) * u64::from(STRIPES)).is_multiple_of(SECTOR as u64)
    {
        let name = spec.algorithm.name();
        return Err(Error::Unsupported(format!("{name} in {} mode", header.cipher_mode)));
    }
    Ok(spec)
}

/// Tries the passphrase on every active slot.
fn master_key(
    header: &LuksHeader,
    spec: CipherSpec,
    storage: &dyn Storage,
    at: u64,
    passphrase: &Secret,
    limit: u32,
) -> Result<Zeroizing<Vec<u8>>> {
    let mut too_many = None;
    let within_limit =
        |iterations| if iterations > limit { Err(Error::KeyIterations { iterations, limit }) } else { Ok(()) };
    within_limit(header.digest_iterations)?;
    for slot in header.slots.iter().filter(|slot| slot.active) {
        if let Err(error) = within_limit(slot.iterations) {
            too_many = Some(error);
            continue;
        }
        if let Some(key) = try_slot(header, slot, spec, storage, at, passphrase)? {
            return Ok(key);
        }
    }
    Err(too_many.unwrap_or(Error::WrongPassphrase))
}

fn try_slot(
    header: &LuksHeader,
    slot: &KeySlot,
    spec: CipherSpec,
    storage: &dyn Storage,
    at: u64,
    passphrase: &Secret,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let hash = header.hash.parse::<HashAlgorithm>()?;
    let mut slot_key = Zeroizing::new(vec![0; spec.key_len()]);
    hash.pbkdf2(passphrase.as_bytes(), &slot.salt, slot.iterations, &mut slot_key);
    let place = at.saturating_add(u64::from(slot.offset) * SECTOR as u64);
    let mut material = Zeroizing::new(block::read_vec(storage, place, header.material_len())?);
    SectorCipher::new(spec, &slot_key)?.decrypt(0, &mut material);
    let key = hash.merge(&material, spec.key_len());
    let mut digest = [0; DIGEST];
    hash.pbkdf2(&key, &header.digest_salt, header.digest_iterations, &mut digest);
    Ok((digest == header.digest).then_some(key))
}
