//! The LUKS header: which cipher, how keys are made of passphrases, and where the key slots are.
//!
//! Specification: LUKS1 on-disk format, "Partition header". All numbers are big-endian; offsets count sectors of 512 bytes
//! from the start of this header.

use serde::Serialize;
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::algorithm::Parts;
use super::sector_cipher::SECTOR;
use crate::{Error, Result};

const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;
pub(crate) const SLOTS: usize = 8;
/// Every writer there is splits keys into so many stripes, and QEMU takes no other number.
pub(crate) const STRIPES: u32 = 4000;
/// Two keys of AES-256.
const MAX_KEY_LEN: u32 = 64;
pub(crate) const SALT: usize = 32;
pub(crate) const DIGEST: usize = 20;
/// QEMU aligns key material to this.
const ALIGNMENT: u64 = 4096;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawSlot {
    active: U32,
    iterations: U32,
    salt: [u8; SALT],
    key_material_offset: U32,
    stripes: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawLuksHeader {
    magic: [u8; 6],
    version: U16,
    cipher_name: [u8; 32],
    cipher_mode: [u8; 32],
    hash_spec: [u8; 32],
    payload_offset: U32,
    key_bytes: U32,
    mk_digest: [u8; DIGEST],
    mk_digest_salt: [u8; SALT],
    mk_digest_iterations: U32,
    uuid: [u8; 40],
    slots: [RawSlot; SLOTS],
}

pub(crate) const RAW_LEN: usize = size_of::<RawLuksHeader>();
const SLOT_OFFSET: usize = std::mem::offset_of!(RawLuksHeader, slots);
const _: () = assert!(RAW_LEN == 592);
const _: () = assert!(std::mem::offset_of!(RawLuksHeader, payload_offset) == 104);
const _: () = assert!(std::mem::offset_of!(RawLuksHeader, mk_digest) == 112);
const _: () = assert!(SLOT_OFFSET == 208);

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LuksHeader {
    pub(crate) cipher_name: String,
    pub(crate) cipher_mode: String,
    pub(crate) hash: String,
    /// In sectors. Nothing of a qcow2 image lies there.
    pub(crate) payload_offset: u32,
    /// Bytes of the master key.
    pub(crate) key_len: u32,
    pub(crate) digest: [u8; DIGEST],
    pub(crate) digest_salt: [u8; SALT],
    pub(crate) digest_iterations: u32,
    pub(crate) uuid: String,
    pub(crate) slots: [KeySlot; SLOTS],
}

/// One of the places that may hold the master key, encrypted with a key made of a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeySlot {
    pub(crate) active: bool,
    pub(crate) iterations: u32,
    pub(crate) salt: [u8; SALT],
    /// In sectors.
    pub(crate) offset: u32,
}

impl LuksHeader {
    /// Decodes and checks the header in `bytes`, which lies at offset `at` of the file and has `len` bytes with all key
    /// material.
    pub(crate) fn decode(bytes: &[u8], at: u64, len: u64) -> Result<Self> {
        let corrupt =
            |offset: usize, expected: String| Error::corrupt("LUKS header", at.saturating_add(offset as u64), expected);
        let Ok((raw, _)) = RawLuksHeader::read_from_prefix(bytes) else {
            return Err(corrupt(0, format!("must have {RAW_LEN} bytes, found {}", bytes.len())));
        };
        if raw.magic != MAGIC {
            return Err(corrupt(0, "must start with the magic of LUKS".to_owned()));
        }
        if raw.version.get() != 1 {
            return Err(Error::Unsupported(format!("LUKS version {}", raw.version.get())));
        }
        let text = |offset: usize, what: &str, bytes: &[u8]| {
            let text = bytes.iter().position(|&byte| byte == 0).map(|end| &bytes[..end]);
            match text.filter(|text| text.iter().all(u8::is_ascii_graphic)) {
                Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
                None => Err(corrupt(offset, format!("the {what} must be ASCII that ends with a zero"))),
            }
        };
        let header = Self {
            cipher_name: text(8, "cipher's name", &raw.cipher_name)?,
            cipher_mode: text(40, "cipher's mode", &raw.cipher_mode)?,
            hash: text(72, "hash's name", &raw.hash_spec)?,
            payload_offset: raw.payload_offset.get(),
            key_len: raw.key_bytes.get(),
            digest: raw.mk_digest,
            digest_salt: raw.mk_digest_salt,
            digest_iterations: raw.mk_digest_iterations.get(),
            uuid: text(168, "UUID", &raw.uuid)?,
            slots: [KeySlot { active: false, iterations: 0, salt: [0; SALT], offset: 0 }; SLOTS],
        };
        if header.key_len == 0 || header.key_len > MAX_KEY_LEN {
            return Err(corrupt(108, format!("a master key must have 1 to 64 bytes, found {}", header.key_len)));
        }
        if header.digest_iterations == 0 {
            return Err(corrupt(164, "the master key's digest must have an iteration count".to_owned()));
        }
        header.with_slots(&raw, corrupt, len)
    }

    fn with_slots(mut self, raw: &RawLuksHeader, corrupt: impl Fn(usize, String) -> Error, len: u64) -> Result<Self> {
        let payload = u64::from(self.payload_offset) * SECTOR as u64;
        let mut taken: Vec<(u64, u64)> = Vec::with_capacity(SLOTS);
        for (index, slot) in raw.slots.iter().enumerate() {
            let place = SLOT_OFFSET + index * size_of::<RawSlot>();
            let wrong =
                |within: usize, expected: String| corrupt(place + within, format!("key slot {index}: {expected}"));
            let active = match slot.active.get() {
                ACTIVE => true,
                INACTIVE => false,
                other => return Err(wrong(0, format!("must be marked active or not, found {other:#x}"))),
            };
            if slot.stripes.get() != STRIPES {
                return Err(wrong(44, format!("must have 4000 stripes, found {}", slot.stripes.get())));
            }
            let iterations = slot.iterations.get();
            if active && iterations == 0 {
                return Err(wrong(4, "must have an iteration count".to_owned()));
            }
            let offset = slot.key_material_offset.get();
            let start = u64::from(offset) * SECTOR as u64;
            let end = start + self.material_len();
            if start < RAW_LEN as u64 || end > len || end > payload {
                return Err(wrong(40, format!("key material must lie between header and payload, found {start:#x}")));
            }
            if taken.iter().any(|&(other, other_end)| start < other_end && other < end) {
                return Err(wrong(40, format!("key material must not overlap another slot's, found {start:#x}")));
            }
            taken.push((start, end));
            self.slots[index] = KeySlot { active, iterations, salt: slot.salt, offset };
        }
        Ok(self)
    }

    /// The header as it lies in the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        fn text<const N: usize>(text: &str) -> [u8; N] {
            let mut bytes = [0; N];
            // The last byte stays a zero.
            bytes.iter_mut().take(N - 1).zip(text.bytes()).for_each(|(to, from)| *to = from);
            bytes
        }
        let raw = RawLuksHeader {
            magic: MAGIC,
            version: 1.into(),
            cipher_name: text(&self.cipher_name),
            cipher_mode: text(&self.cipher_mode),
            hash_spec: text(&self.hash),
            payload_offset: self.payload_offset.into(),
            key_bytes: self.key_len.into(),
            mk_digest: self.digest,
            mk_digest_salt: self.digest_salt,
            mk_digest_iterations: self.digest_iterations.into(),
            uuid: text(&self.uuid),
            slots: self.slots.map(|slot| RawSlot {
                active: if slot.active { ACTIVE } else { INACTIVE }.into(),
                iterations: slot.iterations.into(),
                salt: slot.salt,
                key_material_offset: slot.offset.into(),
                stripes: STRIPES.into(),
            }),
        };
        raw.as_bytes().to_vec()
    }

    /// Bytes of one slot's key material, up to the end of the last sector.
    pub(crate) fn material_len(&self) -> u64 {
        (u64::from(self.key_len) * u64::from(STRIPES)).next_multiple_of(SECTOR as u64)
    }

    /// Where QEMU puts the key material of a slot, and, for the one after the last, the payload.
    pub(crate) fn usual_offset(key_len: u32, slot: usize) -> u64 {
        let material = (u64::from(key_len) * u64::from(STRIPES)).next_multiple_of(ALIGNMENT);
        ALIGNMENT + slot as u64 * material
    }

    /// Facts for people, as QEMU reports them.
    pub(crate) fn info(&self) -> EncryptInfo {
        let parts = Parts::of(&self.cipher_name, &self.cipher_mode, self.key_len);
        EncryptInfo {
            ivgen_alg: parts.iv.to_owned(),
            ivgen_hash_alg: parts.iv_hash.map(str::to_owned),
            detached_header: false,
            hash_alg: self.hash.clone(),
            cipher_alg: parts.algorithm,
            uuid: self.uuid.clone(),
            format: "luks",
            cipher_mode: parts.mode.to_owned(),
            slots: self.slots.iter().map(KeySlotInfo::of).collect(),
            payload_offset: u64::from(self.payload_offset) * SECTOR as u64,
            master_key_iters: self.digest_iterations,
        }
    }
}

/// How an image is encrypted, with the names of `qemu-img info --output=json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct EncryptInfo {
    /// How the IV of a sector is made.
    pub ivgen_alg: String,
    /// The hash that this needs, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ivgen_hash_alg: Option<String>,
    /// Whether the header lies in a file of its own: never.
    pub detached_header: bool,
    /// The hash of PBKDF2.
    pub hash_alg: String,
    /// The cipher and the length of its key.
    pub cipher_alg: String,
    /// The UUID in the LUKS header.
    pub uuid: String,
    /// `luks`
    pub format: &'static str,
    /// The cipher's mode.
    pub cipher_mode: String,
    /// The eight key slots.
    pub slots: Vec<KeySlotInfo>,
    /// Where the payload of a LUKS partition would start.
    pub payload_offset: u64,
    /// Iterations of the master key's digest.
    pub master_key_iters: u32,
}

/// A key slot. One that is not active says only where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct KeySlotInfo {
    /// Whether it holds a key.
    pub active: bool,
    /// Iterations of PBKDF2 from the passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iters: Option<u32>,
    /// Where its key material lies, in bytes of the LUKS header.
    pub key_offset: u64,
    /// Stripes that the key is split into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripes: Option<u32>,
}

impl KeySlotInfo {
    fn of(slot: &KeySlot) -> Self {
        Self {
            active: slot.active,
            iters: slot.active.then_some(slot.iterations),
            key_offset: u64::from(slot.offset) * SECTOR as u64,
            stripes: slot.active.then_some(STRIPES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::{LuksOptions, Secret};

    /// Where the header is in the file, and how long it is with all key material.
    const AT: u64 = 0x4_0000;
    const LEN: u64 = 2_068_480;

    fn header() -> Vec<u8> {
        let (bytes, _) = LuksOptions::new(Secret::from("x")).iterations(1000).create().unwrap();
        assert_eq!(bytes.len() as u64, LEN);
        bytes[..RAW_LEN].to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<LuksHeader> {
        LuksHeader::decode(bytes, AT, LEN)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = header();
        let decoded = decode(&bytes).unwrap();
        assert_eq!(decoded.encode(), bytes);
        let info = decoded.info();
        assert_eq!((info.cipher_alg.as_str(), info.cipher_mode.as_str()), ("aes-256", "xts"));
        assert_eq!((info.ivgen_alg.as_str(), info.ivgen_hash_alg), ("plain64", None));
        let offsets: Vec<u64> = info.slots.iter().map(|slot| slot.key_offset).collect();
        assert_eq!(offsets[..3], [4096, 262_144, 520_192]);
        assert_eq!(info.payload_offset, LEN);
    }

    #[test]
    fn what_is_damaged_is_an_error_with_its_place() {
        for (offset, new, place, expected) in [
            (0, &b"L"[..], 0, None),
            (0, b"X", 0, Some("magic")),
            (7, &[2], u64::MAX, Some("unsupported: LUKS version 2")),
            (8, &[0xff], 8, Some("cipher's name")),
            (8, &[b'a'; 32], 8, Some("cipher's name")),
            (40, b"\n", 40, Some("cipher's mode")),
            (72, &[b's'; 32], 72, Some("hash's name")),
            (108, &[0; 4], 108, Some("1 to 64 bytes, found 0")),
            (108, &[0xff; 4], 108, Some("1 to 64 bytes")),
            (164, &[0; 4], 164, Some("iteration count")),
            (168, &[1], 168, Some("UUID")),
            (208, &[0; 4], 208, Some("key slot 0: must be marked")),
            (212, &[0; 4], 212, Some("key slot 0: must have an iteration count")),
            (248, &[0; 4], 248, Some("between header and payload")),
            (248, &[0xff; 4], 248, Some("between header and payload")),
            (252, &[0xff; 4], 252, Some("4000 stripes")),
            (256 + 40, &[0, 0, 0, 9], 296, Some("key slot 1: key material must not overlap")),
            (208 + 7 * 48 + 44, &[0; 4], 588, Some("key slot 7: must have 4000 stripes")),
            (104, &[0; 4], 248, Some("between header and payload")),
        ] {
            let mut bytes = header();
            bytes[offset..offset + new.len()].copy_from_slice(new);
            match (decode(&bytes), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => {
                    let text = error.to_string();
                    assert!(text.contains(expected), "{offset}: {text}");
                    if let Error::Corrupt(found) = error {
                        assert_eq!(found.offset, AT + place, "{text}");
                    }
                }
                (found, _) => panic!("{offset}: {found:?}"),
            }
        }
        let bytes = header();
        assert!(decode(&bytes[..RAW_LEN - 1]).is_err());
        assert!(LuksHeader::decode(&bytes, u64::MAX, 4096).is_err());
    }

    #[test]
    fn no_changed_bit_makes_it_fail_otherwise() {
        let bytes = header();
        for bit in 0..RAW_LEN * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(header) = decode(&changed) {
                let _ = header.info();
                assert!(header.slots.iter().all(|slot| u64::from(slot.offset) * 512 + header.material_len() <= LEN));
            }
        }
    }
}
