//! Addresses that were set by hand: the guest asks for one by DHCP instead.

mod files;

use crate::changes::{Changes, name_of};
use crate::operation::{Operation, Step, Treatment};
use crate::{GuestPath, Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-static",
    heading: "Have network interfaces ask for their addresses by DHCP",
    enabled: false,
    about: "Addresses, gateways and name servers that were set by hand go from the files of ifupdown, netplan, \
            systemd-networkd, and Red Hat's and SUSE's `ifcfg`, and interfaces that had one use DHCP. Loopback interfaces and \
            those without an address stay as they are. `/etc/resolv.conf` is emptied if it is a file. Profiles of \
            NetworkManager go as a whole with `net-nmconn`.",
    steps: &[
        Step::new(
            Treatment::Edit,
            &[
                "/etc/netplan/*.yaml",
                "/etc/network/interfaces",
                "/etc/network/interfaces.d/*",
                "/etc/sysconfig/network-scripts/ifcfg-*",
                "/etc/sysconfig/network/ifcfg-*",
                "/etc/systemd/network/*.network",
            ],
        )
        .source("interfaces(5), netplan(5), systemd.network(5), Red Hat's sysconfig.txt, ifcfg(5) of wicked"),
        Step::new(Treatment::EmptyFiles, &["/etc/resolv.conf"]).source("resolv.conf(5)"),
    ],
    perform: Some(perform),
};

/// How a kind of file is made to use DHCP: the new contents, `None` if there is nothing to change, and an error that says
/// why it was not understood.
type Rewrite = fn(&[u8]) -> Result<Option<Vec<u8>>, &'static str>;

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let kinds: [(&str, Rewrite); 6] = [
        ("/etc/netplan/*.yaml", files::netplan),
        ("/etc/network/interfaces", files::interfaces),
        ("/etc/network/interfaces.d/*", files::interfaces),
        ("/etc/sysconfig/network-scripts/ifcfg-*", files::ifcfg),
        ("/etc/sysconfig/network/ifcfg-*", files::ifcfg),
        ("/etc/systemd/network/*.network", files::networkd),
    ];
    for (pattern, rewrite) in kinds {
        for path in changes.glob(pattern)? {
            if name_of(&path) == b"ifcfg-lo" {
                continue;
            }
            let Some(old) = changes.read_text(&path)? else { continue };
            match rewrite(&old) {
                Ok(Some(new)) => changes.edit(&path, &new)?,
                Ok(None) => {}
                Err(reason) => {
                    changes.warn(format!("{} keeps its addresses: {reason}", GuestPath::from(path.as_slice())))
                }
            }
        }
    }
    changes.empty_file(b"/etc/resolv.conf")
}
