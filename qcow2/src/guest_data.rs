//! Where the disk's bytes meet the file: here they are encrypted and decrypted, in an image that is encrypted.
//!
//! The key of each sector depends on where it lies in the file that holds it, so that clusters are never moved as they are.

use crate::Result;
use crate::address::HostCluster;
use crate::image::Image;

impl Image {
    /// Reads bytes of the disk that lie at `offset` of the file, or of the data file where there is one. The file may end
    /// within them: what lies beyond reads as zeros. A run that starts beyond the end is a damaged mapping.
    pub(crate) fn read_data(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match &self.crypt {
            None => Self::read_host(self.data_storage(), offset, buf),
            Some(crypt) => crypt.read(self.data_storage(), offset, buf),
        }
    }

    /// Writes bytes of the disk to `offset` of the file, or of the data file where there is one, which is made longer where
    /// it ends before.
    pub(crate) fn write_data(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let storage = self.data_storage();
        if let Some(crypt) = &self.crypt {
            return crypt.write(storage, offset, bytes);
        }
        let end = offset + bytes.len() as u64;
        if storage.len() < end {
            storage.set_len(end)?;
        }
        Ok(storage.write_at(offset, bytes)?)
    }

    /// Writes one cluster of the disk.
    pub(crate) fn write_data_cluster(&self, host: HostCluster, bytes: &[u8]) -> Result<()> {
        self.write_data(self.geometry.host_offset(host), bytes)
    }

    /// Whether what the disk holds is encrypted in the file.
    pub fn is_encrypted(&self) -> bool {
        self.crypt.is_some()
    }

    /// Fails where the image is encrypted and no passphrase was given.
    pub(crate) fn check_unlocked(&self) -> Result<()> {
        self.crypt.as_ref().map_or(Ok(()), |crypt| crypt.check_unlocked())
    }
}
