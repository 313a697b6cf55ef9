//! Process accounting.

use crate::changes::{Changes, name_of};
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "pacct-log",
    heading: "Remove the process accounting log files",
    enabled: true,
    about: "Which programs ran, when, and for whom. The current log is emptied, for accounting needs the file; the \
            rotated ones go.",
    steps: &[
        Step::new(Treatment::EmptyFiles, &["/var/account/pacct", "/var/log/account/pacct"]),
        Step::new(Treatment::RemoveFiles, &["/var/account/pacct*", "/var/log/account/pacct*"])
            .except(&["/var/account/pacct", "/var/log/account/pacct"]),
    ],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for pattern in ["/var/account/pacct*", "/var/log/account/pacct*"] {
        for path in changes.glob(pattern)? {
            if name_of(&path) == b"pacct" && changes.is_plain_file(&path)? {
                changes.empty_file(&path)?;
            } else {
                changes.remove_file(&path)?;
            }
        }
    }
    Ok(())
}
