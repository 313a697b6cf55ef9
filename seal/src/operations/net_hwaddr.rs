//! MAC addresses in the configuration of network interfaces.

use super::ifcfg;
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "net-hwaddr",
    heading: "Remove HWADDR (hard-coded MAC address) configuration",
    enabled: true,
    about: "The lines that begin with `HWADDR=` go; every other byte stays. A clone has another address, and its \
            interface would not be configured.",
    steps: &[Step::new(Treatment::Edit, &[ifcfg::FILES])],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    ifcfg::remove_lines(changes, &["HWADDR="])
}
