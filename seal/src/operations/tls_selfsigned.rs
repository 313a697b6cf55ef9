//! Certificates that a guest signed for itself.

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "tls-selfsigned",
    heading: "Remove self-signed certificates that the guest makes anew",
    enabled: true,
    about: "The pair of Apache on Red Hat's distributions, where `httpd-init.service` makes one when it is missing. Debian's \
            `ssl-cert-snakeoil`, which nothing makes anew, stays, and is noted: the same private key is in all clones until \
            `make-ssl-cert generate-default-snakeoil --force-overwrite` is run.",
    steps: &[Step::new(Treatment::RemoveFiles, PAIR).source("Fedora httpd, httpd-init.service: ConditionPathExists")],
    perform: Some(perform),
};

const PAIR: &[&str] = &["/etc/pki/tls/certs/localhost.crt", "/etc/pki/tls/private/localhost.key"];

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    if changes.is_file(b"/usr/lib/systemd/system/httpd-init.service")? {
        for file in PAIR {
            changes.remove_file(file.as_bytes())?;
        }
    }
    if changes.is_file(b"/etc/ssl/private/ssl-cert-snakeoil.key")? {
        changes.note(
            "/etc/ssl/private/ssl-cert-snakeoil.key stays, the same in all clones: nothing in the guest makes another by \
             itself"
                .to_owned(),
        );
    }
    Ok(())
}
