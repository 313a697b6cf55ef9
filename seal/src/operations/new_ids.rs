//! What the operations that give out new IDs share.

use guest::{Guest, RenewedId};
use uuid::Uuid;

use crate::changes::Changes;
pub(crate) use crate::ledger::mount_of;
use crate::references::{Kind, Renames};

/// A random UUID, of version 4.
pub(crate) fn random_uuid() -> Result<Uuid, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// Random numbers for [`Guest::renew_lvm_uuids`] and [`Guest::renew_table_ids`], which ask for more where some do not fit.
pub(crate) fn with_random(
    renew: impl FnOnce(&mut dyn FnMut(&mut [u8])) -> guest::Result<Vec<RenewedId>>,
) -> guest::Result<Vec<RenewedId>> {
    let mut failure = None;
    // Most operating systems cannot fail here. Where one does, what was made of a counter is thrown away.
    let mut counter = 0_u8;
    let renewed = renew(&mut |bytes| {
        if let Err(error) = getrandom::fill(bytes) {
            failure = Some(error);
            for byte in bytes {
                counter = counter.wrapping_add(1);
                *byte = counter;
            }
        }
    });
    match failure {
        Some(error) => Err(guest::Error::FileSystem(format!("no random numbers: {error}").into())),
        None => renewed,
    }
}

/// What was renewed, for rewriting what names it.
pub(crate) fn renames(kind: Kind, renewed: &[RenewedId]) -> Option<Renames> {
    let pairs: Vec<_> = renewed.iter().map(|id| (id.old.clone(), id.new.clone())).collect();
    Renames::new(kind, &pairs)
}

/// Notes what was renewed: in the report, and for the search for residue.
pub(crate) fn record(changes: &mut Changes<'_>, renewed: &[RenewedId], spellings: &[fn(&str) -> String]) {
    for id in renewed {
        changes.record_volume(&id.of, id.old.len() as u64);
        for spell in spellings {
            changes.note_id(&id.of, &spell(&id.old));
        }
        changes.note(format!("{}: {} is now {}", id.of, id.old, id.new));
    }
}

/// Whether the guest has volume groups that were not renewed yet.
pub(crate) fn has_groups_to_renew(guest: &Guest) -> bool {
    guest.volume_groups().iter().any(|group| group.description != guest::SEALED_GROUP)
}
