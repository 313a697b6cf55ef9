//! Where a redo log is kept.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::{Access, Error, HostFile, Result, Storage};

/// A place that holds one redo log, or none.
pub trait LogPlace: Send + Sync {
    /// Opens the log, if there is one; `writable` where it may have to be emptied.
    ///
    /// # Errors
    /// What the place says.
    fn open(&self, writable: bool) -> Result<Option<Box<dyn Storage>>>;

    /// Makes a new, empty log. When this returns, a crash does not take its name away.
    ///
    /// # Errors
    /// What the place says; also where there is a log already.
    fn create(&self) -> Result<Box<dyn Storage>>;

    /// Takes the log away. When this returns, a crash does not bring it back.
    ///
    /// # Errors
    /// What the place says. A log that is missing is fine.
    fn remove(&self) -> Result<()>;
}

/// A redo log in a file of its own, readable by its owner only.
#[derive(Debug, Clone)]
pub struct LogFile {
    path: PathBuf,
}

impl LogFile {
    /// The log at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The log of an image: beside it, with `.redo-log` added to its name. Symbolic links are followed first, so that
    /// the log is found again whatever name the image is opened by.
    ///
    /// # Errors
    /// [`Error::Open`] where there is no such image; [`Error::RedoLog`] where it is a block device, beside which
    /// nothing outlasts a restart.
    pub fn beside(image: &Path) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let failed = |source| Error::Open { path: image.to_owned(), source };
        let real = image.canonicalize().map_err(failed)?;
        if real.metadata().map_err(failed)?.file_type().is_block_device() {
            return Err(Error::RedoLog("of a block device needs a place that outlasts a restart".to_owned()));
        }
        let mut name = real.into_os_string();
        name.push(".redo-log");
        Ok(Self { path: name.into() })
    }

    /// Where the log is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let failed = |source| Error::Open { path: folder.to_owned(), source };
        File::open(folder).map_err(failed)?.sync_all().map_err(failed)
    }
}

impl LogPlace for LogFile {
    fn open(&self, writable: bool) -> Result<Option<Box<dyn Storage>>> {
        match HostFile::open(&self.path, if writable { Access::ReadWrite } else { Access::Read }) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(Error::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self) -> Result<Box<dyn Storage>> {
        let file = HostFile::create_private(&self.path)?;
        self.sync_folder()?;
        Ok(Box::new(file))
    }

    fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Open { path: self.path.clone(), source: error })
            }
            _ => self.sync_folder(),
        }
    }
}
