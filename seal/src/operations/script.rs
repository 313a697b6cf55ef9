//! Programs of the host that change the guest's files.

use crate::changes::Changes;
use crate::operation::Operation;
use crate::{Options, Result, scripts};

pub(crate) static OPERATION: Operation = Operation {
    name: "script",
    heading: "Run arbitrary scripts against the guest",
    enabled: true,
    about: "Each `--script` is run by the host's bash, with a copy of the guest's files as its current folder, and what it \
            changes there is changed in the guest: contents, names, links and permissions, and, where root runs it, \
            owners. Paths in a script have to be relative: absolute ones are the host's. `--scriptdir` names the folder \
            for the copy. virt-sysprep mounts the guest instead, by FUSE; and it runs scripts in a dry run, which this \
            does not. Nothing happens without `--script`.",
    steps: &[],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, options: &Options) -> Result<()> {
    if options.scripts.is_empty() {
        return Ok(());
    }
    changes.ask();
    scripts::run(changes, &options.scripts, options.script_folder.as_deref())
}
