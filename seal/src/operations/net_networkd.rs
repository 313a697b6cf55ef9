//! MAC addresses and DHCP identities in systemd-networkd's files.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{GuestPath, Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-networkd",
    heading: "Remove MAC addresses from the configuration of systemd-networkd",
    enabled: true,
    about: "`MACAddress=`, `PermanentMACAddress=` and `DUIDRawData=`. A `.link` file that matches nothing but an address is \
            removed; a `.network` file that does then matches every Ethernet interface (`Type=ether`).",
    steps: &[
        Step::new(Treatment::Edit, FILES).source("systemd.network(5), systemd.link(5), systemd.netdev(5)"),
        Step::new(Treatment::RemoveRegularFiles, &["/etc/systemd/network/*.link"]).source("systemd.link(5), [Match]"),
    ],
    perform: Some(perform),
};

const FILES: &[&str] =
    &["/etc/systemd/network/*.link", "/etc/systemd/network/*.netdev", "/etc/systemd/network/*.network"];

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for pattern in FILES {
        for path in changes.glob(pattern)? {
            let Some(old) = changes.read_text(&path)? else { continue };
            let Some(new) = without_addresses(&old) else { continue };
            if !matches_nothing(&new) {
                changes.edit(&path, &new)?;
            } else if path.ends_with(b".link") {
                changes.remove_regular_file(&path)?;
            } else if path.ends_with(b".network") {
                let new = text::with_lines(&new, |line| {
                    (line.trim_ascii() == b"[Match]").then(|| b"[Match]\nType=ether\n".to_vec())
                });
                changes.edit(&path, &new)?;
            } else {
                changes.warn(format!("{} matches by MAC address and was left", GuestPath::from(path)));
            }
        }
    }
    Ok(())
}

/// The file without the lines that name an address, if it has any.
fn without_addresses(file: &[u8]) -> Option<Vec<u8>> {
    let goes = |line: &[u8]| {
        let line = line.trim_ascii_start();
        [&b"MACAddress="[..], b"PermanentMACAddress=", b"DUIDRawData="].iter().any(|key| line.starts_with(key))
    };
    text::lines(file).any(goes).then(|| text::without_lines(file, goes))
}

/// Whether `[Match]` is there and empty.
fn matches_nothing(file: &[u8]) -> bool {
    let mut lines =
        text::lines(file).map(<[u8]>::trim_ascii).filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    lines.any(|line| line == b"[Match]") && lines.next().is_none_or(|line| line.starts_with(b"["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_by_address_alone_matches_nothing_afterwards() {
        let new = without_addresses(b"[Match]\nMACAddress=52:54:00:12:34:56\n\n[Network]\nDHCP=yes\n").unwrap();
        assert!(matches_nothing(&new));
        let new = without_addresses(b"[Match]\nMACAddress=52:54:00:12:34:56\nName=en*\n[Network]\n").unwrap();
        assert!(!matches_nothing(&new));
        assert_eq!(without_addresses(b"[Match]\nName=en*\n"), None);
    }
}
