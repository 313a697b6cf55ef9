//! Certificates and keys of a certificate authority and of TLS.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "ca-certificates",
    heading: "Remove CA certificates in the guest",
    enabled: false,
    about: "Certificates and private keys in the places of Red Hat's distributions. The bundles of public authorities \
            stay. The guest has to refresh its store of trusted certificates afterwards; the report says how.",
    steps: &[Step::new(
        Treatment::RemoveFiles,
        &[
            "/etc/pki/CA/certs/*.crt",
            "/etc/pki/CA/crl/*.crt",
            "/etc/pki/CA/newcerts/*.crt",
            "/etc/pki/CA/private/*.key",
            "/etc/pki/tls/private/*.key",
            "/etc/pki/tls/certs/*.crt",
        ],
    )
    .except(&["/etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/tls/certs/ca-bundle.trust.crt"])],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    changes.take_steps()?;
    if changes.count() > 0 {
        warn_of_stale_store(changes, "ca-certificates")?;
    }
    Ok(())
}

/// Warns that the guest has to run its own program to forget certificates that were removed.
pub(super) fn warn_of_stale_store(changes: &mut Changes<'_>, operation: &str) -> Result<()> {
    let mut command = "the command that refreshes its store of trusted certificates";
    for (program, refresh) in REFRESHERS {
        if changes.is_file(program.as_bytes())? {
            command = refresh;
            break;
        }
    }
    changes.warn(format!("operation {operation} removed certificates: the guest must run {command}"));
    Ok(())
}

const REFRESHERS: &[(&str, &str)] = &[
    ("/usr/bin/update-ca-trust", "'update-ca-trust extract'"),
    ("/usr/sbin/update-ca-certificates", "'update-ca-certificates --fresh'"),
    ("/usr/bin/trust", "'trust extract-compat'"),
];
