//! What a crash left: the orphans, and the journal.

use crate::file_system::{FileSystem, OpenOptions};
use crate::{Error, Result};

impl FileSystem {
    pub(crate) fn recover(self, _options: &OpenOptions) -> Result<Self> {
        Err(Error::Unsupported("journal".into()))
    }
    pub(crate) fn process_orphans(&mut self) -> Result<()> {
        Ok(())
    }
}
