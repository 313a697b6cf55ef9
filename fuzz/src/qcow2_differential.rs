//! A qcow2 image that is written, beside plain bytes.

use std::sync::Arc;

use block::{ReadAt, WriteAt, read_vec};
use qcow2::Image;

use crate::bounded::Bounded;
use crate::input::Input;
use crate::qcow2_image::{assert_clean, is_clean, open};

/// Longer disks are not compared as a whole.
const LONGEST: u64 = 1 << 20;

/// Writes, zeroes and discards, in place and in transactions, what is done to plain bytes, too.
///
/// Input: how many bytes say what is done (modulo 96), those bytes (six for each operation), and the image. Where a check of the
/// image finds nothing, the disk must hold what the bytes hold, after each operation and when opened again, and a check
/// must find nothing afterwards. Whatever the image, it opens afterwards: data does not overwrite what leads to it.
pub fn qcow2_differential(data: &[u8]) {
    let mut input = Input(data);
    let len = usize::from(input.u8() % 96);
    let operations = Input(input.bytes(len));
    differ(input.0, operations);
}

fn differ(bytes: &[u8], mut operations: Input<'_>) -> Option<()> {
    let storage = Arc::new(Bounded::new(bytes.to_vec()));
    let was_clean = is_clean(&storage);
    let mut image = open(storage.clone(), true)?;
    if image.len() > LONGEST || image.len() == 0 {
        return None;
    }
    let mut model = if was_clean { read_vec(&image, 0, image.len()).ok() } else { None };
    let mut failed = false;
    while !operations.is_empty() && !failed {
        let kind = operations.u8();
        let (place, size, fill) = (operations.u16(), operations.u16(), operations.u8());
        let grain = [1, 64, 512][usize::from(kind / 8) % 3];
        let at = u64::from(place) * grain % image.len();
        let change = Change { kind: kind % 8, at, len: u64::from(size).min(image.len() - at), fill };
        match change.kind {
            6 => match open(storage.clone(), true) {
                Some(again) => image = again,
                // It may be marked as corrupt by now.
                None => {
                    assert!(!was_clean, "a written image does not open");
                    break;
                }
            },
            7 => {
                let Ok(transaction) = image.begin() else {
                    assert!(!was_clean, "an image without problems cannot be changed");
                    open(storage, false).expect("a written image does not open");
                    return None;
                };
                failed = change.apply(&transaction).is_err() || transaction.commit().is_err();
                drop(transaction);
                image = open(storage.clone(), true).expect("a committed image does not open");
            }
            _ => failed = change.apply(&image).is_err(),
        }
        if let Some(model) = model.as_mut().filter(|_| !failed) {
            change.apply_to(model);
            assert!(read_vec(&image, 0, image.len()).expect("what was written cannot be read") == *model, "{change:?}");
        }
    }
    let closed = Image::close(image);
    let again = open(storage.clone(), false).expect("a closed image does not open");
    if let Some(model) = model.filter(|_| !failed) {
        closed.expect("what was written is not safe");
        assert!(read_vec(&again, 0, again.len()).expect("a closed image cannot be read") == model, "when opened again");
        assert_clean(&storage, "all of it");
    }
    Some(())
}

#[derive(Debug)]
struct Change {
    kind: u8,
    at: u64,
    len: u64,
    fill: u8,
}

impl Change {
    fn apply(&self, device: &dyn WriteAt) -> block::Result<()> {
        match self.kind {
            3 => device.write_zeroes(self.at, self.len),
            4 => device.discard(self.at, self.len),
            5 | 6 => device.flush(),
            _ => device.write_at(self.at, &vec![self.fill; self.len as usize]),
        }
    }

    fn apply_to(&self, model: &mut [u8]) {
        let part = &mut model[self.at as usize..][..self.len as usize];
        match self.kind {
            3 | 4 => part.fill(0),
            5 | 6 => {}
            _ => part.fill(self.fill),
        }
    }
}
