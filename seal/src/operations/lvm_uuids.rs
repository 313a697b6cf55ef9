//! The UUIDs of LVM2's groups and physical volumes, with all that names them.

use guest::FileKind;

use super::new_ids::{self, has_groups_to_renew, mount_of};
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::references::{Kind, Reach, References, Renames};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "lvm-uuids",
    heading: "Change LVM2 PV and VG UUIDs",
    enabled: true,
    about: "Volume groups and their physical volumes get new UUIDs in the label and in the metadata, of which older \
            versions go, as do the names of the host and of the disks that they were made on. Names, logical volumes and \
            their UUIDs stay. What names the old ones gets the new: `dm-uuid` entries of fstab (which break without \
            that), boot loaders, devices files, backups. Where something cannot follow, the UUIDs stay, with a warning \
            that says why: `/boot` of a BIOS GRUB on a logical volume, a group that is damaged or not whole, an early root \
            file system with a devices file. A group that was done stays as it is until LVM2 changes it.",
    steps: &[Step::new(
        Treatment::Edit,
        &["/etc/**", "/boot/extlinux/**", "/boot/grub/**", "/boot/grub2/**", "/boot/loader/**", "/efi/loader/**"],
    )
    .if_mounted()],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    if !has_groups_to_renew(changes.guest()) {
        return Ok(());
    }
    if let Some(reason) = renew(changes)? {
        changes.warn(format!("the UUIDs of LVM2 stay: {reason}"));
    }
    Ok(())
}

/// Renews all, or says why not.
fn renew(changes: &mut Changes<'_>) -> Result<Option<String>> {
    if let Some(directory) = grub_on_logical_volume(changes)? {
        return Ok(Some(format!("GRUB's own image may name the group of {directory} by its UUID")));
    }
    let mut old = Vec::new();
    for group in changes.guest().volume_groups() {
        old.push((group.uuid.clone(), group.uuid.clone()));
        old.extend(group.physical_volumes.iter().map(|member| (member.uuid.clone(), member.uuid.clone())));
    }
    let Some(old) = Renames::new(Kind::Lvm, &old) else { return Ok(None) };
    // dracut puts a devices file into the early root file system where there is one; nothing else there names UUIDs.
    let reach = if changes.had_devices_file() { Reach::WithEarlyRoot } else { Reach::Configuration };
    let references = match References::find(changes, &old, reach)? {
        Ok(references) => references,
        Err(reason) => return Ok(Some(reason)),
    };
    let renewed = match new_ids::with_random(|random| changes.guest_mut().renew_lvm_uuids(random)) {
        Ok(renewed) => renewed,
        Err(guest::Error::Volumes(error)) => return Ok(Some(error.to_string())),
        Err(error) => return Err(changes.failed(error)),
    };
    new_ids::record(changes, &renewed, &[str::to_owned, |id| id.replace('-', "")]);
    if let Some(renames) = new_ids::renames(Kind::Lvm, &renewed) {
        references.rewrite(changes, &renames)?;
    }
    Ok(None)
}

/// The directory of a GRUB for BIOS that is on a logical volume: its image has to name that.
fn grub_on_logical_volume(changes: &Changes<'_>) -> Result<Option<&'static str>> {
    for directory in ["/boot/grub", "/boot/grub2"] {
        let Some(resolved) = changes.resolve(directory.as_bytes())? else { continue };
        let mount = mount_of(changes.guest(), &resolved);
        let is_logical = changes.guest().mounts().iter().any(|one| one.path == mount && one.device.starts_with("lvm:"));
        let for_bios = changes.lstat(&[&resolved[..], b"/i386-pc"].concat())?;
        if is_logical && for_bios.is_some_and(|metadata| metadata.kind == FileKind::Directory) {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}
