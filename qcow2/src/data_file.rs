//! The external data file: clusters of the virtual disk that lie in a file of their own, which the image names.
//!
//! They have no refcounts, and are never shared. QEMU puts each at the offset that it has on the disk, and so do we.
//! Specification: "External data file name string", "Autoclear feature bits".

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use block::{Access, Error as BlockError, HostFile, ReadAt, Storage, WriteAt};

use crate::address::GuestCluster;
use crate::image::{Image, OpenOptions, State};
use crate::{Autoclear, Error, Result, named_file};

/// Which external data files may be opened. As with a backing file, a hostile image names any file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DataFile {
    /// None: an image that names one is refused.
    #[default]
    Deny,
    /// None, but an image that names one is opened: to be described or checked. Reading or writing what its disk holds is an
    /// error.
    LeaveClosed,
    /// Those that lie, all symbolic links followed, in the folder of the image that names them or in (or below) one of
    /// these folders.
    Within(Vec<PathBuf>),
}

/// Opens the data file `name`. `image_path` is the image that names it; `chain` are the images opened so far.
pub(crate) fn open(
    name: Option<&str>,
    image_path: Option<&Path>,
    options: &OpenOptions,
    chain: &[PathBuf],
) -> Result<Arc<dyn Storage>> {
    let Some(name) = name else {
        return Err(Error::Unsupported("an external data file that the image does not name".to_owned()));
    };
    let refused = |reason: String| Error::DataFileRefused { name: name.to_owned(), reason };
    if options.data_file == DataFile::LeaveClosed {
        return Ok(Arc::new(Closed { name: name.to_owned() }));
    }
    let DataFile::Within(folders) = &options.data_file else {
        return Err(refused("external data files are not allowed".to_owned()));
    };
    let real = named_file::resolve(name, image_path, folders).map_err(refused)?;
    if chain.contains(&real) {
        return Err(refused("it is an image of the same chain".to_owned()));
    }
    let access = if options.writable { Access::ReadWrite } else { Access::Read };
    let file = HostFile::open(&real, access)
        .map_err(|e| Error::DataFile { path: real.clone(), source: Box::new(e.into()) })?;
    Ok(Arc::new(file))
}

/// A data file that was left closed.
struct Closed {
    name: String,
}

impl Closed {
    fn refuse(&self) -> BlockError {
        Error::DataFileRefused { name: self.name.clone(), reason: "data files are left closed".to_owned() }.into()
    }
}

impl ReadAt for Closed {
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> block::Result<()> {
        Err(self.refuse())
    }
}

impl WriteAt for Closed {
    fn write_at(&self, _: u64, _: &[u8]) -> block::Result<()> {
        Err(self.refuse())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> block::Result<()> {
        Err(self.refuse())
    }

    fn discard(&self, _: u64, _: u64) -> block::Result<()> {
        Err(self.refuse())
    }

    /// Nothing was written.
    fn flush(&self) -> block::Result<()> {
        Ok(())
    }
}

impl Storage for Closed {
    fn set_len(&self, _: u64) -> block::Result<()> {
        Err(self.refuse())
    }
}

impl Image {
    /// The file that holds clusters of the virtual disk.
    pub(crate) fn data_storage(&self) -> &dyn Storage {
        self.data.as_deref().unwrap_or(&*self.storage)
    }

    /// Whether the data file holds what the disk does, to be read as a raw image.
    pub(crate) fn is_data_file_raw(&self, state: &State) -> bool {
        self.data.is_some() && state.header.roots.autoclear.contains(Autoclear::RAW_EXTERNAL_DATA)
    }

    /// Refuses `what` where clusters lie in an external data file.
    pub(crate) fn refuse_external_data(&self, what: &str) -> Result<()> {
        if self.data.is_some() {
            return Err(Error::Unsupported(format!("{what} of an image with an external data file")));
        }
        Ok(())
    }

    /// Makes sure, once, that each cluster lies in the data file where it lies on the disk: a new one goes there, too,
    /// and there are no refcounts to say whether another is there already.
    pub(crate) fn check_data_layout(&self, state: &State) -> Result<()> {
        if self.data.is_none() || self.data_layout_checked.load(Ordering::Acquire) {
            return Ok(());
        }
        for l1_index in 0..self.l1(state)?.len() {
            let Some((offset, table)) = self.l2_table(state, l1_index)? else { continue };
            for l2_index in 0..table.len() {
                let cluster = GuestCluster(l1_index as u64 * self.geometry.l2_entries() + l2_index as u64);
                let host = self.decode_entry(offset, &table, l2_index)?.host();
                // One beyond the end of the disk is never reached.
                if cluster.0 < self.geometry.guest_clusters()
                    && host.is_some_and(|host| host != self.geometry.guest_offset(cluster))
                {
                    return Err(Error::Unsupported(
                        "writing an external data file that is not laid out as the disk".to_owned(),
                    ));
                }
            }
        }
        self.data_layout_checked.store(true, Ordering::Release);
        Ok(())
    }
}
