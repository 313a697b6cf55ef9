//! The UUIDs of file systems and swap space, with all that names them.

use guest::UuidHolder;
use uuid::Uuid;

use super::new_ids::{self, random_uuid};
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::references::{Kind, Reach, References, Renames};
use crate::{Error, GuestPath, Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "fs-uuids",
    heading: "Change filesystem UUIDs",
    enabled: false,
    about: "Every mounted ext2, ext3, ext4 and XFS file system and every swap volume gets a new random UUID, and \
            everything that names the old one gets the new: fstab, crypttab, systemd's units, the configuration of boot \
            loaders, initramfs-tools and dracut, whatever else is a text in `/etc` and `/boot`, and the EFI system \
            partition. Refused, with the reason, where one cannot: an early root file system (initramfs) that holds the \
            old UUID, GRUB's own image for BIOS, a GRUB that cannot read the feature that a file system then needs. \
            virt-sysprep changes the UUIDs alone, after which few guests boot. Each run gives other UUIDs, so a guest \
            is never found to be sealed with this enabled.",
    steps: &[Step::new(
        Treatment::Edit,
        &["/etc/**", "/boot/extlinux/**", "/boot/grub/**", "/boot/grub2/**", "/boot/loader/**", "/efi/loader/**"],
    )
    .if_mounted()],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let refuse = |reason: String| Error::Refused(format!("operation {}: {reason}", OPERATION.name));
    let mut renewed: Vec<(UuidHolder, Uuid)> = Vec::new();
    for holder in changes.guest().uuid_holders() {
        let place = place(&holder);
        if let Some(problem) = &holder.problem {
            changes.warn(format!("{place} keeps its UUID: {problem}"));
            continue;
        }
        if let Some(feature) = holder.adds_feature
            && let Some(reason) = who_cannot_read(changes, &holder)?
        {
            return Err(refuse(format!("{place} would get the feature {feature}, and {reason}")));
        }
        let uuid = random_uuid().map_err(|error| refuse(error.to_string()))?;
        renewed.push((holder, uuid));
    }
    let pairs: Vec<_> = renewed.iter().map(|(holder, new)| (holder.uuid.clone(), new.to_string())).collect();
    let Some(renames) = Renames::new(Kind::Uuid, &pairs) else { return Ok(()) };
    let references = References::find(changes, &renames, Reach::WithEarlyRoot)?.map_err(refuse)?;
    for (holder, new) in &renewed {
        changes.note_id(&holder.device, &holder.uuid);
        changes.set_uuid(&holder.device, *new)?;
        changes.note(format!("{}: UUID {} is now {new}", place(holder), holder.uuid));
    }
    references.rewrite(changes, &renames)
}

/// How a person finds it.
fn place(holder: &UuidHolder) -> String {
    match &holder.path {
        Some(path) => format!("{} ({} on {})", holder.device, holder.kind, GuestPath::from(path.as_slice())),
        None => format!("{} ({})", holder.device, holder.kind),
    }
}

/// Who has to read a file system and could not, with the feature that keeps the seed of its checksums.
fn who_cannot_read(changes: &Changes<'_>, holder: &UuidHolder) -> Result<Option<&'static str>> {
    let Some(mount) = &holder.path else { return Ok(None) };
    for directory in [&b"/boot/grub"[..], b"/boot/grub2"] {
        let Some(directory) = changes.resolve(directory)? else { continue };
        if new_ids::mount_of(changes.guest(), &directory) != *mount {
            continue;
        }
        let modules = String::from_utf8_lossy(&directory).into_owned() + "/*/ext2.mod";
        for module in changes.glob(&modules)? {
            if !knows_checksum_seed(&changes.read_start(&module, MAX_MODULE)?) {
                return Ok(Some("this guest's GRUB, which reads it, does not know that"));
            }
        }
    }
    Ok(None)
}

/// More than GRUB's module for ext2 has.
const MAX_MODULE: usize = 1 << 20;

/// Whether GRUB's module for ext2, in machine code, allows for the feature. It tests a file system's incompatible
/// features against one constant, all bits of which are set but for those that it knows: `filetype` (0x2), `meta_bg`
/// (0x10), `extents` (0x40), `64bit` (0x80) and `flex_bg` (0x200) at least. Where no such constant is found, nothing is
/// known, and the newer GRUBs are the more common ones.
fn knows_checksum_seed(module: &[u8]) -> bool {
    const KNOWN_BY_ALL: u32 = 0x2d2;
    const CHECKSUM_SEED: u32 = 0x2000;
    const KNOWN_BY_NONE: u32 = 0xffe0_0000;
    let masks = module.windows(4).filter_map(|bytes| {
        let known = !u32::from_le_bytes(*bytes.first_chunk()?);
        (known & KNOWN_BY_ALL == KNOWN_BY_ALL && known & KNOWN_BY_NONE == 0).then_some(known)
    });
    let mut masks = masks.peekable();
    masks.peek().is_none() || masks.any(|known| known & CHECKSUM_SEED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grubs_are_told_apart_by_what_they_test_for() {
        let module = |known: u32| [&b"\x7fELF code "[..], &(!known).to_le_bytes(), b" more"].concat();
        assert!(knows_checksum_seed(&module(0x163d6)), "2.06 of Debian 12, and 2.12");
        assert!(!knows_checksum_seed(&module(0x103d6)), "2.06 as it was released");
        assert!(knows_checksum_seed(b"nothing like it in here"));
    }
}
