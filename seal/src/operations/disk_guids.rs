//! The identities of the partition table, with all that names them.

use super::new_ids;
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::references::{Kind, Reach, References, Renames};
use crate::{Error, Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "disk-guids",
    heading: "Change the GUIDs of the disk and its partitions",
    enabled: false,
    about: "Every GUID of a GUID partition table, or the signature of an MBR, becomes a new one, and every PARTUUID in \
            `/etc`, in the configuration of boot loaders and in the EFI system partition follows. Refused, with the \
            reason, where one cannot. Boot entries in a machine's firmware are in no image: a clone is booted by the \
            path that all firmware knows. Each run gives other GUIDs, so a guest is never found to be sealed with this \
            enabled.",
    steps: &[Step::new(
        Treatment::Edit,
        &["/etc/**", "/boot/extlinux/**", "/boot/grub/**", "/boot/grub2/**", "/boot/loader/**", "/efi/loader/**"],
    )
    .if_mounted()
    .source("UEFI specification 2.10, section 5.3; udev's rules for /dev/disk/by-partuuid")],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let refuse = |reason: String| Error::Refused(format!("operation {}: {reason}", OPERATION.name));
    let old: Vec<_> = changes.guest().partition_uuids().map(|id| (id.to_owned(), id.to_owned())).collect();
    let references = match Renames::new(Kind::Uuid, &old) {
        Some(old) => References::find(changes, &old, Reach::WithEarlyRoot)?.map_err(refuse)?,
        None => References::default(),
    };
    let renewed = new_ids::with_random(|random| changes.guest_mut().renew_table_ids(random));
    let renewed = renewed.map_err(|error| match error {
        guest::Error::Volumes(error) => refuse(error.to_string()),
        error => changes.failed(error),
    })?;
    new_ids::record(changes, &renewed, &[]);
    // The table's own is named nowhere, and that of an MBR begins all others.
    let partitions: Vec<_> = renewed.into_iter().filter(|id| id.of != "table").collect();
    match new_ids::renames(Kind::Uuid, &partitions) {
        Some(renames) => references.rewrite(changes, &renames),
        None => Ok(()),
    }
}
