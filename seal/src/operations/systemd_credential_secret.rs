//! The key of systemd's credentials.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "systemd-credential-secret",
    heading: "Remove the secret that encrypts systemd's credentials",
    enabled: true,
    about: "Each machine makes its own. Where credentials are stored that only this secret opens, it stays, with a warning.",
    steps: &[Step::new(Treatment::RemoveFiles, &["/var/lib/systemd/credential.secret"])
        .source("systemd, BUILDING_IMAGES and systemd-creds(1)")],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    if !changes.names_in(b"/etc/credstore.encrypted")?.is_empty()
        && changes.is_file(b"/var/lib/systemd/credential.secret")?
    {
        changes.warn("/var/lib/systemd/credential.secret was left: /etc/credstore.encrypted needs it".to_owned());
        return Ok(());
    }
    changes.take_steps()
}
