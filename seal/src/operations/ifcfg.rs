//! Red Hat's `ifcfg` files, one for each network interface.

use crate::changes::Changes;
use crate::{Result, text};

pub(super) const FILES: &str = "/etc/sysconfig/network-scripts/ifcfg-*";

/// Takes the lines that begin so out of all `ifcfg` files. A file with no such line is not written.
pub(super) fn remove_lines(changes: &mut Changes<'_>, beginnings: &[&str]) -> Result<()> {
    let goes = |line: &[u8]| beginnings.iter().any(|beginning| line.starts_with(beginning.as_bytes()));
    for path in changes.glob(FILES)? {
        if let Some(old) = changes.read_text(&path)? {
            changes.edit(&path, &text::without_lines(&old, goes))?;
        }
    }
    Ok(())
}
