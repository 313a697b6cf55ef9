//! The name of boot entries, which is the old machine ID where nobody chose another.

use crate::changes::{Changes, name_of};
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "boot-entry-token",
    heading: "Keep the names of boot entries when the machine ID goes",
    enabled: true,
    about: "Where boot entries are named after the machine ID, later kernels would be named after another, and a boot \
            loader that sorts by name might prefer an old one. `/etc/kernel/entry-token` keeps the name that the entries \
            have, which from then on is a name like any other. kernel-install before systemd 251 does not read it: \
            then this warns.",
    steps: &[Step::new(Treatment::Create, &["/etc/kernel/entry-token"])
        .source("kernel-install(8), --entry-token; systemd, BUILDING_IMAGES")],
    perform: Some(perform),
};

const TOKEN: &[u8] = b"/etc/kernel/entry-token";

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let id = changes.read_text(b"/etc/machine-id")?.unwrap_or_default();
    let id = id.trim_ascii();
    if id.len() != 32 || !id.iter().all(u8::is_ascii_hexdigit) || changes.stat(TOKEN)?.is_some() {
        return Ok(());
    }
    let mut is_named_so = false;
    for directory in ["/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries"] {
        is_named_so |= changes.names_in(directory.as_bytes())?.iter().any(|name| name.starts_with(id));
    }
    if !is_named_so {
        return Ok(());
    }
    match systemd_version(changes)? {
        Some(version) if version >= 251 => {
            let text = [id, b"\n"].concat();
            changes.create_file(TOKEN, &text)
        }
        _ => {
            changes.warn(
                "boot entries are named after the old machine ID, and this guest's kernel-install knows no \
                 /etc/kernel/entry-token: after an update, GRUB may prefer the old kernel"
                    .to_owned(),
            );
            Ok(())
        }
    }
}

/// The version of systemd, by the name of the library that all its programs share.
fn systemd_version(changes: &Changes<'_>) -> Result<Option<u32>> {
    for pattern in [
        "/usr/lib/systemd/libsystemd-shared-*.so",
        "/usr/lib/*/systemd/libsystemd-shared-*.so",
        "/lib/systemd/libsystemd-shared-*.so",
        "/usr/lib64/systemd/libsystemd-shared-*.so",
    ] {
        for path in changes.glob(pattern)? {
            let name = String::from_utf8_lossy(name_of(&path)).into_owned();
            let rest = name.strip_prefix("libsystemd-shared-").unwrap_or_default();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(version) = digits.parse() {
                return Ok(Some(version));
            }
        }
    }
    Ok(None)
}
