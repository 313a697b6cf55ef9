//! The header of an encrypted qcow2 image.

use std::sync::Arc;

use block::{Memory, ReadAt, WriteAt};
use qcow2::{CreateOptions, Error, Image, OpenOptions, Secret};

use crate::bounded::Bounded;
use crate::input::Input;

/// Where the header lies: behind an image that holds nothing.
const AT: usize = 1 << 20;

/// Opens an image with the input as its LUKS header, and tries a passphrase.
///
/// Input: how long the image says that the header is with all key material (4 bytes), and the header. Key material is what
/// follows the header in the input, and zeros behind that.
pub fn qcow2_luks(data: &[u8]) {
    let mut input = Input(data);
    let len = u64::from(input.u32());
    let Some(bytes) = image(input.0, len) else { return };
    let open = |options: OpenOptions| Image::open_storage(Arc::new(Bounded::new(bytes.clone())), &options);
    let Ok(closed) = open(OpenOptions::new()) else { return };
    let encrypt = closed.info().ok().and_then(|info| info.encrypt);
    let Some(encrypt) = encrypt else { panic!("an encrypted image that says nothing of it") };
    for slot in &encrypt.slots {
        assert!(slot.key_offset >= 592 && slot.key_offset < len, "key material outside of its place");
    }
    assert!(closed.map(0, closed.len()).is_ok());
    let _ = closed.check(&mut |problem| drop(problem.to_string()));
    let writable = OpenOptions::new().writable(true);
    if let Ok(locked) = open(writable) {
        assert!(locked.write_at(0, &[1; 512]).is_err(), "written without a key");
    }
    // Any more iterations are only the same once more.
    match open(OpenOptions::new().passphrase(Secret::from("passphrase")).max_key_iterations(4)) {
        Ok(image) => drop(block::read_vec(&image, 0, image.len().min(4096))),
        Err(Error::WrongPassphrase | Error::KeyIterations { .. } | Error::Unsupported(_) | Error::Io(_)) => {}
        Err(error) => panic!("opened without a passphrase, and with one: {error}"),
    }
}

/// An empty image that says to be encrypted.
fn image(header: &[u8], len: u64) -> Option<Vec<u8>> {
    let storage = Memory::new(0);
    qcow2::create(&storage, &Memory::new(1 << 16), &CreateOptions::new(), &mut |_| {}).ok()?;
    let mut bytes = block::read_vec(&storage, 0, storage.len()).ok()?;
    bytes[35] = 2;
    bytes[112..116].copy_from_slice(&0x0537_be77u32.to_be_bytes());
    bytes[116..120].copy_from_slice(&16u32.to_be_bytes());
    bytes[120..128].copy_from_slice(&(AT as u64).to_be_bytes());
    bytes[128..136].copy_from_slice(&len.to_be_bytes());
    bytes.resize(AT, 0);
    bytes.extend(&header[..header.len().min(1 << 20)]);
    bytes.resize(AT + (1 << 21), 0);
    Some(bytes)
}
