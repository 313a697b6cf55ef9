//! A guest that asks at its first boot, as an installed one did.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "firstboot-reset",
    heading: "Have systemd ask for the basic settings at the next boot",
    enabled: false,
    about: "Removes what systemd-firstboot sets: locale, keymap, time zone, host name, and the machine ID, without which the \
            next boot is a first boot. Passwords and the kernel's command line, which `systemd-firstboot --reset` takes as \
            well, stay. Nothing is removed from a guest without systemd-firstboot.",
    steps: &[Step::new(
        Treatment::RemoveFiles,
        &["/etc/hostname", "/etc/locale.conf", "/etc/localtime", "/etc/machine-id", "/etc/vconsole.conf"],
    )
    .source("systemd-firstboot(1), --reset")],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for unit in ["/usr/lib/systemd/system/systemd-firstboot.service", "/lib/systemd/system/systemd-firstboot.service"] {
        if changes.is_file(unit.as_bytes())? {
            return changes.take_steps();
        }
    }
    Ok(())
}
