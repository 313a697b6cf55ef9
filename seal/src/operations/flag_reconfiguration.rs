//! The flag that asks for a reconfiguration at the next boot.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "flag-reconfiguration",
    heading: "Flag the system for reconfiguration",
    enabled: false,
    about: "Only the initscripts of old Red Hat distributions ask for it; systemd takes no notice.",
    steps: &[Step::new(Treatment::Create, &["/.unconfigured"])],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let flag = b"/.unconfigured";
    if changes.lstat(flag)?.is_none() {
        changes.create_file(flag, b"")?;
    }
    Ok(())
}
