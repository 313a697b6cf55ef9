//! NetworkManager's connection profiles.

use guest::path::join;

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-nmconn",
    heading: "Remove system-local NetworkManager connection profiles (keyfiles)",
    enabled: true,
    about: "Profiles hold MAC addresses, static addresses and Wi-Fi passwords. What has another name than \
            `*.nmconnection` goes if it is a profile by its contents: it has a group `[connection]`. NetworkManager \
            makes profiles for DHCP by itself.",
    steps: &[Step::new(
        Treatment::RemoveFiles,
        &["/etc/NetworkManager/system-connections/*", "/etc/NetworkManager/system-connections/.*"],
    )],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let directory = b"/etc/NetworkManager/system-connections";
    for name in changes.names_in(directory)? {
        let path = join(directory, &name);
        if name.ends_with(b".nmconnection") || (changes.is_plain_file(&path)? && is_profile(changes, &path)?) {
            changes.remove_file(&path)?;
        }
    }
    Ok(())
}

fn is_profile(changes: &Changes<'_>, path: &[u8]) -> Result<bool> {
    let start = changes.read_start(path, MAX_PROFILE)?;
    Ok(text::lines(&start).any(|line| line.trim_ascii() == b"[connection]"))
}

/// As much of a file as a profile can be told by; real ones have less than a hundredth of it.
const MAX_PROFILE: usize = 256 << 10;
