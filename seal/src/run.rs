//! A run: the operations one after the other, then the scrub.

use guest::{FileKind, Guest};

use crate::accounts::Account;
use crate::changes::Changes;
use crate::ledger::Ledger;
use crate::operation::Operation;
use crate::{
    CustomOperation, Error, GuestPath, OperationReport, Options, Report, Result, Scrubbed, Selection, reach, relabel,
};

/// What a run is about to do.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Progress {
    /// To perform this operation.
    Operation(&'static Operation),
    /// To scrub unused space.
    Scrub,
    /// To write what is still in memory.
    Flush,
}

/// Performs the selected operations on a guest in the order of their names, scrubs unused space, and flushes.
///
/// Every change is in the report, and nothing else is. A second run over the result changes nothing. A guest whose
/// storage belongs to a transaction that is dropped afterwards gives a dry run, and its report is exact.
///
/// # Errors
/// [`Error`]. What was done before it is done in the guest: let the storage's transaction undo it.
pub fn run(guest: &mut Guest, selection: &Selection, options: &Options) -> Result<Report> {
    run_with_progress(guest, selection, options, &mut |_| {})
}

/// As [`run`], and says beforehand what it is about to do.
///
/// # Errors
/// As [`run`].
pub fn run_with_progress(
    guest: &mut Guest,
    selection: &Selection,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report> {
    check_options(selection, options)?;
    let suspended = guest.suspended().map_err(Error::Swap)?;
    if !suspended.is_empty() {
        if !options.forget_suspended {
            return Err(Error::Suspended { places: suspended });
        }
        guest.forget_suspended().map_err(Error::Swap)?;
    }
    let mut ledger = Ledger::default();
    ledger.homes = homes(guest, &mut ledger)?;
    ledger.had_devices_file = guest.stat(DEVICES_FILE).is_ok_and(|found| found.is_some());
    reach::check_mounts(guest, guest.unmounted(), selection.operations(), options, &mut ledger)?;

    if !suspended.is_empty() {
        ledger.warn(format!("the guest was suspended to disk, in {}: its memory is given up", suspended.join(", ")));
    }
    let mut report = Report { suspended, ..Report::default() };
    let mut custom = Some(&options.custom_operations);
    for operation in selection.operations() {
        if matches!(operation.name, "log-sweep" | "customize") {
            perform_custom(guest, &mut ledger, custom.take(), &mut report)?;
        }
        progress(Progress::Operation(operation));
        let mut changes = Changes::new(guest, &mut ledger, operation);
        match operation.perform {
            Some(perform) => perform(&mut changes, options)?,
            None => changes.take_steps()?,
        }
        report.operations.push(OperationReport { name: operation.name.to_owned(), changes: changes.into_made() });
    }
    perform_custom(guest, &mut ledger, custom.take(), &mut report)?;
    report.operations.extend(relabel::ask_where_guessed(guest, &mut ledger)?);
    ledger.warn_of_names_left();

    if options.scrub {
        progress(Progress::Scrub);
        for mount in guest.mounts() {
            if let Some(reason) = &mount.read_only {
                let path = GuestPath::from(mount.path.as_slice());
                ledger.warn(format!("unused space of {path} was not scrubbed: {reason}"));
            }
        }
        let scrubbed = guest.scrub().map_err(Error::Scrub)?;
        report.scrubbed = Some(Scrubbed { bytes_zeroed: scrubbed.bytes_zeroed });
    }
    progress(Progress::Flush);
    guest.flush().map_err(Error::Flush)?;

    report.warnings = ledger.warnings;
    report.notes = ledger.notes;
    report.edits = ledger.edits;
    report.traces = ledger.traces.into_list();
    Ok(report)
}

/// The operations that a profile defines, if they were not performed yet.
fn perform_custom(
    guest: &mut Guest,
    ledger: &mut Ledger,
    operations: Option<&Vec<CustomOperation>>,
    report: &mut Report,
) -> Result<()> {
    for operation in operations.into_iter().flatten() {
        let mut changes = Changes::new(guest, ledger, &crate::operations::PROFILE);
        let done = operation.perform(&mut changes);
        let failed = |source| Error::Customization { customization: operation.name.clone(), source: Box::new(source) };
        done.map_err(failed)?;
        report.operations.push(OperationReport { name: operation.name.clone(), changes: changes.into_made() });
    }
    Ok(())
}

fn check_options(selection: &Selection, options: &Options) -> Result<()> {
    let given = [
        ("--keep-user-accounts", !options.accounts.keep.is_empty()),
        ("--remove-user-accounts", !options.accounts.remove.is_empty()),
    ];
    let operation = "user-account";
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((option, _)) if !selection.contains(operation) => Err(Error::NotEnabled { option, operation }),
        _ => Ok(()),
    }
}

/// `/root`, and the homes that `/etc/passwd` names.
fn homes(guest: &Guest, ledger: &mut Ledger) -> Result<Vec<Vec<u8>>> {
    let file = guest.stat(PASSWD).map_err(Error::Accounts)?.filter(|metadata| metadata.kind == FileKind::File);
    let passwd = match file {
        Some(metadata) if metadata.size > guest::MAX_TEXT => {
            ledger.warn("/etc/passwd is too large to be read: homes outside /home were not looked at".to_owned());
            Vec::new()
        }
        Some(_) => guest.read(PASSWD).map_err(Error::Accounts)?,
        None => Vec::new(),
    };
    let homes = Account::all(&passwd).filter(Account::has_home).map(|account| account.home.to_vec());
    let mut homes: Vec<_> = homes.chain([b"/root".to_vec()]).collect();
    homes.sort_unstable();
    homes.dedup();
    Ok(homes)
}

/// lvmdevices(8).
const DEVICES_FILE: &[u8] = b"/etc/lvm/devices/system.devices";
const PASSWD: &[u8] = b"/etc/passwd";
