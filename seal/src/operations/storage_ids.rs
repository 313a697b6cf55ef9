//! The names that a machine has for its storage: of iSCSI, NVMe over fabrics and multipath.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "storage-ids",
    heading: "Remove the names of this machine for its storage",
    enabled: true,
    about: "With one name, two machines write to one disk. The iSCSI initiator's goes where the guest has a unit that \
            makes one, and is set to `GenerateName=yes` where Debian's scripts act on that; elsewhere it stays, with a \
            warning. NVMe's host names go, and the disks that multipath saw; its comments stay.",
    steps: &[
        Step::new(Treatment::RemoveFiles, &["/etc/nvme/hostid", "/etc/nvme/hostnqn"])
            .source("nvme-cli, nvme-gen-hostnqn(1); metal-images issue 359"),
        Step::new(Treatment::RemoveFiles, &["/etc/iscsi/initiatorname.iscsi"])
            .source("open-iscsi pull request 207: iscsi-init.service"),
        Step::new(Treatment::Edit, &["/etc/iscsi/initiatorname.iscsi"]).source("Debian open-iscsi, startup-checks.sh"),
        Step::new(Treatment::Edit, &["/etc/multipath/wwids"]).source("multipath(8), FILES"),
    ],
    perform: Some(perform),
};

const INITIATOR: &[u8] = b"/etc/iscsi/initiatorname.iscsi";

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for file in ["/etc/nvme/hostid", "/etc/nvme/hostnqn"] {
        changes.remove_file(file.as_bytes())?;
    }
    reset_initiator(changes)?;
    match changes.read_text(b"/etc/multipath/wwids")? {
        Some(old) => changes.edit(b"/etc/multipath/wwids", &text::without_lines(&old, |line| !line.starts_with(b"#"))),
        None => Ok(()),
    }
}

fn reset_initiator(changes: &mut Changes<'_>) -> Result<()> {
    let Some(old) = changes.read_text(INITIATOR)? else { return Ok(()) };
    if !text::lines(&old).any(|line| line.starts_with(b"InitiatorName=")) {
        return Ok(());
    }
    for unit in ["/usr/lib/systemd/system/iscsi-init.service", "/lib/systemd/system/iscsi-init.service"] {
        if changes.is_file(unit.as_bytes())? {
            return changes.remove_file(INITIATOR);
        }
    }
    for script in ["/usr/lib/open-iscsi/startup-checks.sh", "/lib/open-iscsi/startup-checks.sh"] {
        if changes.read_text(script.as_bytes())?.is_some_and(|script| text::holds(&script, b"GenerateName=yes")) {
            return changes.edit(INITIATOR, b"GenerateName=yes\n");
        }
    }
    changes.warn(
        "/etc/iscsi/initiatorname.iscsi was left: nothing in the guest would make another name for this iSCSI initiator"
            .to_owned(),
    );
    Ok(())
}
