//! SELinux: the label of what is made new. Without the right one, a guest in enforcing mode may not be able to read it.

mod file_contexts;
mod label;
mod specification;
mod substitution;

use std::sync::OnceLock;

use crate::path;
use crate::{Error, FileKind, Guest, Result};

use file_contexts::FileContexts;
pub(crate) use label::{LABEL, for_new};

/// Where a guest says which policy it has.
const CONFIG: &[u8] = b"/etc/selinux/config";

/// What a guest's SELinux asks of files that are made new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selinux<'a> {
    /// The guest has no SELinux, or has it switched off: labels do not matter.
    Off,
    /// New files get the labels that this policy gives them.
    Policy(&'a str),
    /// SELinux is on, and the policy's file contexts cannot be read: new files have their directory's type, and the
    /// guest should label all its files at its next boot.
    Unreadable(&'a str),
}

/// The policy of a guest, read when the first file is made.
#[derive(Debug, Default)]
pub(crate) struct Policy(OnceLock<State>);

#[derive(Debug)]
enum State {
    Off,
    Policy(String, Box<FileContexts>),
    Unreadable(String),
}

impl Guest {
    /// What the guest's SELinux asks of new files. Reads the policy at the first call.
    pub fn selinux(&self) -> Selinux<'_> {
        match self.policy() {
            State::Off => Selinux::Off,
            State::Policy(name, _) => Selinux::Policy(name),
            State::Unreadable(reason) => Selinux::Unreadable(reason),
        }
    }

    /// The label that the guest's policy gives a path if it is a `kind`: what matchpathcon(8) prints. `None` without a
    /// policy, and where the policy gives none.
    ///
    /// ```
    /// # let guest = guest::Guest::from_file_systems(Box::new(guest::memory::MemoryFileSystem::new()), Vec::new())?;
    /// assert_eq!(guest.selinux_label(b"/etc/shadow", guest::FileKind::File), None);
    /// # Ok::<(), guest::Error>(())
    /// ```
    pub fn selinux_label(&self, path: &[u8], kind: FileKind) -> Option<Vec<u8>> {
        match self.policy() {
            State::Policy(_, contexts) => contexts.lookup(path, kind),
            State::Off | State::Unreadable(_) => None,
        }
    }

    /// Whether a new file was labelled with its directory's type because the policy could not be read: such a guest
    /// should label all its files at its next boot (`/.autorelabel`).
    #[must_use]
    pub fn guessed_labels(&self) -> bool {
        self.guessed_labels
    }

    fn policy(&self) -> &State {
        self.selinux.0.get_or_init(|| match read(self) {
            Ok(state) => state,
            Err(error) => State::Unreadable(error.to_string()),
        })
    }
}

/// Reads the configuration and the policy that it names.
fn read(guest: &Guest) -> Result<State> {
    let config = match guest.read(CONFIG) {
        Ok(config) => config,
        Err(error) if matches!(error.cause(), Error::NotFound | Error::NotADirectory) => return Ok(State::Off),
        Err(error) => return Err(error),
    };
    if setting(&config, b"SELINUX").is_some_and(|mode| mode.eq_ignore_ascii_case(b"disabled")) {
        return Ok(State::Off);
    }
    let Some(name) = setting(&config, b"SELINUXTYPE").filter(|name| !name.is_empty() && !name.contains(&b'/')) else {
        return Ok(State::Unreadable(format!("{} names no policy", path::display(CONFIG))));
    };
    let contexts = FileContexts::read(guest, &[b"/etc/selinux/", name, b"/contexts/files/file_contexts"].concat())?;
    Ok(State::Policy(path::display(name), Box::new(contexts)))
}

/// The value of `NAME=value`; the last one counts. Blanks around it do not.
fn setting<'a>(config: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut values = config.split(|&byte| byte == b'\n').filter_map(|line| {
        let value = line.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        Some(value.trim_ascii())
    });
    values.next_back()
}
