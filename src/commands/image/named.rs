//! Backing files that the user names, as an image that names them would find them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use block::ReadAt;
use qcow2::BackingName;

use super::info::backing_path;
use super::open_disk;
use crate::args::Format;
use crate::args::image::Source;

/// Opens the disk that is to be the backing file of the image at `image`. The user's word allows it; what it names itself goes by
/// the rules.
pub(super) fn open(image: &Path, name: &BackingName, source: &Source) -> Result<Arc<dyn ReadAt>> {
    let format = match name.format.as_deref() {
        Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        other => bail!("a backing file of format {:?} cannot be read, only qcow2 and raw", other.unwrap_or_default()),
    };
    if name.name.starts_with("json:") {
        bail!("a name in JSON can be written with -u, but is not opened");
    }
    open_disk(&backing_path(image, &name.name), Some(format), source)
}
