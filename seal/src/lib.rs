//! The operations that turn a used guest into a golden image.
//!
//! A guest that was installed, booted and used holds what makes it one particular machine: host keys, a machine ID,
//! leases, logs, histories. An [`Operation`] knows one kind of these and how it goes. [`run`] performs a [`Selection`]
//! of them on a [`guest::Guest`], scrubs what the file systems no longer use, and gives a [`Report`] of every change.
//!
//! ```
//! use guest::{Guest, memory::MemoryFileSystem};
//! use seal::{Action, Options, Selection};
//!
//! let mut root = MemoryFileSystem::new();
//! root.add_file("/etc/machine-id", "5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n")?;
//! root.add_file("/etc/krb5.keytab", "key")?;
//! root.add_file("/home/ann/essay.txt", "words")?;
//! let mut guest = Guest::from_file_systems(Box::new(root), Vec::new())?;
//!
//! let report = seal::run(&mut guest, &Selection::defaults(), &Options::default())?;
//! let changes: Vec<_> = report.changes().map(|change| (change.path.to_string(), change.action)).collect();
//! assert_eq!(
//!     changes,
//!     [
//!         ("/etc/krb5.keytab".to_owned(), Action::Removed),
//!         ("/etc/machine-id".to_owned(), Action::Emptied),
//!     ]
//! );
//! assert_eq!(guest.read(b"/etc/machine-id")?, b"");
//!
//! // What is sealed stays as it is.
//! assert!(!seal::run(&mut guest, &Selection::defaults(), &Options::default())?.is_changed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing of the guest is run, nothing outside it is touched, and this crate knows no disk and no transaction: a dry
//! run is a run whose storage the caller throws away.

#![forbid(unsafe_code)]

mod accounts;
mod changes;
mod customize;
mod error;
mod guest_path;
mod ledger;
mod markdown;
mod operation;
mod operations;
mod options;
mod profile;
mod reach;
mod references;
mod registry;
mod relabel;
mod report;
mod requested;
mod run;
mod scripts;
mod selection;
mod system_directories;
mod text;
mod trace_search;
mod traces;

pub use customize::{
    CUSTOMIZE_OPTIONS, Customization, CustomizationError, CustomizeOption, OptionKind, PasswordCrypto,
    PasswordSelector, SshKey,
};
pub use error::{Error, Result};
pub use guest_path::GuestPath;
pub use markdown::{customize_markdown, operations_markdown};
pub use operation::{Operation, Step, Treatment};
pub use options::{Accounts, MachineId, Options};
pub use profile::{CustomOperation, Preset, Profile};
pub use registry::{is_of_virt_sysprep, operation, operations};
pub use report::{Action, Change, OperationReport, Report, Scrubbed};
pub use run::{Progress, run, run_with_progress};
pub use selection::{Argument, Selection, SelectionError};
pub use trace_search::TraceSearch;
pub use traces::{Edit, Trace};
