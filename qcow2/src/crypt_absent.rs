//! Without the feature `luks` no image is encrypted: the header refuses one that is.

use block::Storage;

use crate::Result;

/// Never.
#[derive(Debug)]
pub(crate) enum Crypt {}

impl Crypt {
    pub(crate) fn check_unlocked(&self) -> Result<()> {
        match *self {}
    }

    pub(crate) fn read(&self, _: &dyn Storage, _: u64, _: &mut [u8]) -> Result<()> {
        match *self {}
    }

    pub(crate) fn write(&self, _: &dyn Storage, _: u64, _: &[u8]) -> Result<()> {
        match *self {}
    }
}
