//! Header extensions: what follows the header, up to the backing file's name or the end of the first cluster.
//!
//! An extension that this crate does not know is kept, byte for byte, wherever the others are written anew.
//! Specification: "Header extensions".

use crate::header::Header;
use crate::{Error, Result};

const END: u32 = 0;
pub(crate) const BACKING_FORMAT: u32 = 0xe279_2aca;
/// `DATA`
pub(crate) const DATA_FILE: u32 = 0x4441_5441;
pub(crate) const BITMAPS: u32 = 0x2385_2875;
const CRYPTO: u32 = 0x0537_be77;
/// What the bits of the feature words are called, for the messages of programs that do not know them.
pub(crate) const FEATURE_NAMES: u32 = 0x6803_f857;

/// The extensions in `area`, which starts at offset `start` of the file: the type and the data of each.
pub(crate) fn split(area: &[u8], start: u64) -> Result<Vec<(u32, Vec<u8>)>> {
    let mut extensions = Vec::new();
    let mut rest = area;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [t0, t1, t2, t3, l0, l1, l2, l3] = *head;
        let (kind, len) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes([l0, l1, l2, l3]) as usize);
        if kind == END {
            break;
        }
        let Some(data) = after.get(..len) else {
            let at = start + (area.len() - rest.len()) as u64;
            let expected = format!("{len} bytes of type {kind:#x} must end within the first cluster");
            return Err(Error::corrupt("header extension", at, expected));
        };
        extensions.push((kind, data.to_vec()));
        rest = after.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(extensions)
}

/// An extension as it lies in the file, padded.
pub(crate) fn encode(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + data.len().next_multiple_of(8));
    bytes.extend(kind.to_be_bytes());
    // Extensions lie within a cluster, of at most 2 MiB.
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// What the extensions say, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// Where they end: the offset of the end marker, or of where it would be.
    pub(crate) end: u64,
    /// Where the bitmaps extension starts, in bytes of the file.
    pub(crate) bitmaps_at: Option<u64>,
    /// The backing file's format: `qcow2`, `raw`.
    pub(crate) backing_format: Option<String>,
    pub(crate) bitmaps: Option<BitmapsExtension>,
    /// The name of the external data file.
    pub(crate) data_file: Option<String>,
    /// Where the header of the encryption is.
    pub(crate) crypto: Option<CryptoExtension>,
    /// Where that is said, in bytes of the file.
    pub(crate) crypto_at: u64,
}

/// Where the LUKS header is, and how long with all key material.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CryptoExtension {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Where the directory of persistent bitmaps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitmapsExtension {
    pub(crate) count: u32,
    /// Must be 0.
    pub(crate) reserved: u32,
    pub(crate) directory_len: u64,
    pub(crate) directory_offset: u64,
}

impl CryptoExtension {
    /// Bytes of the extension, its head included.
    const LEN: usize = 24;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&CRYPTO.to_be_bytes());
        bytes[4..8].copy_from_slice(&16u32.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

impl BitmapsExtension {
    /// Bytes of the extension, its head included.
    pub(crate) const LEN: u64 = 32;

    pub(crate) fn encode(&self) -> [u8; Self::LEN as usize] {
        let mut bytes = [0; Self::LEN as usize];
        bytes[0..4].copy_from_slice(&BITMAPS.to_be_bytes());
        bytes[4..8].copy_from_slice(&24u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reserved.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.directory_len.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.directory_offset.to_be_bytes());
        bytes
    }
}

impl Extensions {
    /// Decodes the extensions in `area`, which starts at offset `start` of the file.
    pub(crate) fn decode(area: &[u8], start: u64) -> Result<Self> {
        let mut found = Self::default();
        let mut rest = area;
        found.end = start;
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let at = start + (area.len() - rest.len()) as u64;
            let [t0, t1, t2, t3, l0, l1, l2, l3] = *head;
            let (kind, len) = (u32::from_be_bytes([t0, t1, t2, t3]), u32::from_be_bytes([l0, l1, l2, l3]) as usize);
            if kind == END {
                break;
            }
            let Some(data) = after.get(..len) else {
                return Err(Error::corrupt(
                    "header extension",
                    at,
                    format!("{len} bytes of type {kind:#x} must end within the first cluster"),
                ));
            };
            match kind {
                BACKING_FORMAT => found.backing_format = Some(String::from_utf8_lossy(data).into_owned()),
                DATA_FILE => {
                    let name = String::from_utf8(data.to_vec());
                    let corrupt = |_| Error::corrupt("data file name", at + 8, "must be valid UTF-8");
                    found.data_file = Some(name.map_err(corrupt)?);
                }
                BITMAPS => found.bitmaps = Some(decode_bitmaps(data, at)?),
                CRYPTO => (found.crypto, found.crypto_at) = (Some(decode_crypto(data, at)?), at),
                _ => {}
            }
            if kind == BITMAPS {
                found.bitmaps_at = Some(at);
            }
            rest = after.get(len.next_multiple_of(8)..).unwrap_or_default();
            found.end = at + 8 + len.next_multiple_of(8) as u64;
        }
        Ok(found)
    }
}

impl Extensions {
    /// Where the header of the encryption is, which there must be if, and only if, the image is encrypted.
    pub(crate) fn crypto_of(&self, header: &Header) -> Result<Option<CryptoExtension>> {
        let corrupt = |expected: String| Err(Error::corrupt("encryption header pointer", self.crypto_at, expected));
        match (self.crypto, header.encrypted) {
            (None, false) => Ok(None),
            (None, true) => corrupt("an encrypted image must have one".to_owned()),
            (Some(_), false) => corrupt("only an encrypted image may have one".to_owned()),
            (Some(CryptoExtension { offset, len }), true) => {
                let end = offset.checked_add(len);
                if offset == 0 || !header.geometry.is_aligned(offset) || end.is_none() {
                    return corrupt(format!("must be aligned and not 0, found {len} bytes at {offset:#x}"));
                }
                Ok(self.crypto)
            }
        }
    }
}

fn decode_bitmaps(data: &[u8], at: u64) -> Result<BitmapsExtension> {
    let Ok(bytes) = <[u8; 24]>::try_from(data) else {
        return Err(Error::corrupt("bitmaps extension", at, format!("must be 24 bytes long, found {}", data.len())));
    };
    let word = |i: usize| u64::from_be_bytes(std::array::from_fn(|k| bytes[i + k]));
    let (count, reserved) = ((word(0) >> 32) as u32, word(0) as u32);
    Ok(BitmapsExtension { count, reserved, directory_len: word(8), directory_offset: word(16) })
}

fn decode_crypto(data: &[u8], at: u64) -> Result<CryptoExtension> {
    let Ok(bytes) = <[u8; 16]>::try_from(data) else {
        let expected = format!("must be 16 bytes long, found {}", data.len());
        return Err(Error::corrupt("encryption header pointer", at, expected));
    };
    let word = |i: usize| u64::from_be_bytes(std::array::from_fn(|k| bytes[i + k]));
    Ok(CryptoExtension { offset: word(0), len: word(8) })
}
