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
    let json = name.json_file()?;
    let told = json.as_ref().and_then(|(_, format)| format.as_deref());
    let format = match name.format.as_deref().or(told) {
        Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        other => bail!("a backing file of format {:?} cannot be read, only qcow2 and raw", other.unwrap_or_default()),
    };
    let path = json.map_or_else(|| backing_path(image, &name.name), |(path, _)| path);
    open_disk(&path, Some(format), source)
}
