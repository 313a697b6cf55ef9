//! What a guest whose policy cannot be read is asked to do at its next boot.

use guest::{Guest, Selinux};

use crate::ledger::Ledger;
use crate::report::{Action, Change, OperationReport};
use crate::{Error, GuestPath, Result};

/// The file whose presence makes an SELinux guest label all its files, and remove it, when it boots.
const AUTORELABEL: &[u8] = b"/.autorelabel";

/// Where new files got a label by guess, has the guest label all its files.
pub(crate) fn ask_where_guessed(guest: &mut Guest, ledger: &mut Ledger) -> Result<Option<OperationReport>> {
    let Selinux::Unreadable(reason) = guest.selinux() else { return Ok(None) };
    if !guest.guessed_labels() {
        return Ok(None);
    }
    let reason = reason.to_owned();
    let failed = |source| Error::Guest { operation: "selinux-relabel", source: Box::new(source) };
    if guest.lstat(AUTORELABEL).map_err(failed)?.is_some() {
        return Ok(None);
    }
    guest.write(AUTORELABEL, b"").map_err(failed)?;
    ledger.warn(format!(
        "the SELinux policy's file contexts cannot be read ({reason}): the guest will label all its files when it boots"
    ));
    let path = GuestPath::from(AUTORELABEL);
    let changes = vec![Change { path, action: Action::Created, bytes: 0 }];
    Ok(Some(OperationReport { name: "selinux-relabel".to_owned(), changes }))
}
