//! What is in `~/.ssh`, in two parts.

use guest::path::join;

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static AUTHORIZED_KEYS: Operation = Operation {
    name: "ssh-authorized-keys",
    heading: "Remove the keys that users may log in with",
    enabled: true,
    about: "Whoever has the private key to one of these may log in to every clone. `ssh-userdir` removes them as well, with \
            all else in `.ssh`; without either they stay.",
    steps: &[Step::new(Treatment::RemoveFiles, &["~/.ssh/authorized_keys", "~/.ssh/authorized_keys2"])
        .source("sshd(8), FILES; AuthorizedKeysFile of sshd_config(5)")],
    perform: None,
};

pub(crate) static OPERATION: Operation = Operation {
    name: "ssh-user-keys",
    heading: "Remove users' own SSH keys and known hosts",
    enabled: true,
    about: "All that is in `.ssh` but the keys that others may log in with. `ssh-userdir` removes all of it; a Vagrant box \
            keeps those keys.",
    steps: &[Step::new(Treatment::RemoveTrees, &["~/.ssh"])
        .except(&["authorized_keys", "authorized_keys2"])
        .source("ssh(1), FILES")],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for directory in changes.glob("~/.ssh")? {
        for name in changes.names_in(&directory)? {
            if !matches!(name.as_slice(), b"authorized_keys" | b"authorized_keys2") {
                changes.remove_tree(&join(&directory, &name))?;
            }
        }
    }
    Ok(())
}
