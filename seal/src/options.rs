//! What a caller chooses besides the operations.

use std::path::PathBuf;

use crate::{CustomOperation, Customization, PasswordCrypto};

/// What a caller chooses besides the operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether to go on with a warning where a file system that a selected operation looks into is not mounted.
    /// Without this such a run is refused with [`Error::Unmounted`](crate::Error::Unmounted).
    pub allow_unmounted: bool,
    /// Whether to scrub unused space after the operations. What was removed can be read from the disk until then.
    pub scrub: bool,
    /// Whether a guest that was suspended to disk is made to forget that: its memory is given up, as by a loss of power.
    /// Without this it is refused with [`Error::Suspended`](crate::Error::Suspended).
    pub forget_suspended: bool,
    /// Which accounts operation `user-account` removes.
    pub accounts: Accounts,
    /// What operation `machine-id` leaves.
    pub machine_id: MachineId,
    /// Operations that a profile defines; they come after all others but `log-sweep` and `customize`.
    pub custom_operations: Vec<CustomOperation>,
    /// Programs of the host that operation `script` runs on a copy of the guest's files: lines for bash.
    pub scripts: Vec<String>,
    /// The folder of the host for that copy, absolute and empty; `None`: one that is made, and goes.
    pub script_folder: Option<PathBuf>,
    /// What operation `customize` does, in this order; passwords are set at the end.
    pub customizations: Vec<Customization>,
    /// How passwords are hashed; `None`: as the guest itself would, and by SHA-512 where that cannot be told.
    pub password_crypto: Option<PasswordCrypto>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_unmounted: false,
            scrub: true,
            forget_suspended: false,
            accounts: Accounts::default(),
            machine_id: MachineId::default(),
            custom_operations: Vec::new(),
            scripts: Vec::new(),
            script_folder: None,
            customizations: Vec::new(),
            password_crypto: None,
        }
    }
}

/// What a sealed guest has for a machine ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MachineId {
    /// An empty file: the next boot makes an ID, and is no first boot. Works with every systemd.
    #[default]
    Empty,
    /// The word `uninitialized`: the next boot is a first boot, with all that systemd does then. Needs systemd 247.
    Uninitialized,
    /// No file: as `Uninitialized`, with every systemd, but `/etc` has to be writable early.
    Removed,
}

/// Which of the ordinary accounts are removed. Names that the guest does not have are no error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// These stay, whatever else is said.
    pub keep: Vec<String>,
    /// If not empty: only these go.
    pub remove: Vec<String>,
}

impl Accounts {
    /// Whether an ordinary account of this name is to go.
    pub(crate) fn goes(&self, name: &[u8]) -> bool {
        let is_in = |names: &[String]| names.iter().any(|listed| listed.as_bytes() == name);
        !is_in(&self.keep) && (self.remove.is_empty() || is_in(&self.remove))
    }
}
