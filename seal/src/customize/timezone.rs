//! `--timezone`.

use crate::changes::Changes;
use crate::requested::refused;
use crate::{GuestPath, Result};

/// Sets the time zone, which the guest has to know.
pub(super) fn set(changes: &mut Changes<'_>, zone: &str) -> Result<()> {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !zone.split('/').all(is_part) || zone.contains(char::is_whitespace) {
        return refused(format!("'{zone}' is no time zone"));
    }
    let file = format!("/usr/share/zoneinfo/{zone}");
    changes.check_path(file.as_bytes())?;
    if !changes.is_file(file.as_bytes())? {
        return refused(format!("the guest has no {}", GuestPath::from(file.into_bytes())));
    }
    changes.force_link(file.as_bytes(), b"/etc/localtime")?;
    // Debian's name of it, which its own programs keep in step.
    if changes.is_plain_file(b"/etc/timezone")? {
        changes.write_file(b"/etc/timezone", format!("{zone}\n").as_bytes())?;
    }
    Ok(())
}
