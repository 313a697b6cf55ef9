//! Host names in the configuration of network interfaces.

use super::ifcfg;
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-hostname",
    heading: "Remove HOSTNAME and DHCP_HOSTNAME in network interface configuration",
    enabled: true,
    about: "The lines that begin with `HOSTNAME=` or `DHCP_HOSTNAME=` go; every other byte stays. `/etc/hostname` and \
            `/etc/hosts` are left alone.",
    steps: &[Step::new(Treatment::Edit, &[ifcfg::FILES])],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    ifcfg::remove_lines(changes, &["HOSTNAME=", "DHCP_HOSTNAME="])
}
