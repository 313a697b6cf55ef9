//! The guest's membership in an IPA domain.

use super::ca_certificates::warn_of_stale_store;
use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "ipa-client",
    heading: "Remove the IPA files",
    enabled: true,
    about: "Configuration, keys and certificates of an IPA client. Where a certificate goes that the whole guest trusts, \
            the guest has to refresh its store afterwards; the report says how.",
    steps: &[CLIENT, TRUSTED],
    perform: Some(perform),
};

const CLIENT: Step = Step::new(
    Treatment::RemoveFiles,
    &["/etc/ipa/ca.crt", "/etc/ipa/default.conf", "/var/lib/ipa-client/sysrestore/*", "/var/lib/ipa-client/pki/*"],
);

/// What the guest's store of trusted certificates is made from.
const TRUSTED: Step = Step::new(
    Treatment::RemoveFiles,
    &[
        "/etc/pki/ca-trust/source/anchors/ipa-ca.crt",
        "/usr/local/share/ca-certificates/ipa-ca.crt",
        "/etc/pki/ca-trust/source/ipa.p11-kit",
    ],
);

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    changes.take_step(&CLIENT)?;
    let before = changes.count();
    changes.take_step(&TRUSTED)?;
    if changes.count() > before {
        warn_of_stale_store(changes, "ipa-client")?;
    }
    Ok(())
}
