//! What an operation is: a documented record.

use serde::Serialize;

use crate::changes::Changes;
use crate::{Options, Result};

/// An operation: one kind of trace that a machine leaves in a guest, and how it goes.
///
/// All of them are in [`operations`](crate::operations()). Serialized, it is what `goldenseal operations --json` prints.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Operation {
    /// Its name: virt-sysprep's where virt-sysprep has it.
    pub name: &'static str,
    /// One line of what it does.
    pub heading: &'static str,
    /// Whether it is performed when nothing is said.
    pub enabled: bool,
    /// What goes, what stays, and what to know.
    pub about: &'static str,
    /// All that it may touch. Nothing else in the guest is changed by it.
    pub steps: &'static [Step],
    /// How it is performed, where that is more than to take its steps.
    #[serde(skip)]
    pub(crate) perform: Option<Perform>,
}

/// How an operation with a logic of its own is performed.
pub(crate) type Perform = fn(&mut Changes<'_>, &Options) -> Result<()>;

/// One way of treating the files that some patterns match.
///
/// Patterns are those of a shell: `*` stands for any characters but `/`, and for no leading dot. `**` stands for any
/// number of directories, and a leading `~` for the home directory of each account.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// What is done.
    pub treatment: Treatment,
    /// To what.
    pub patterns: &'static [&'static str],
    /// But not to these.
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    pub except: &'static [&'static str],
    /// Whether it is no fault if the file system that the patterns lead to cannot be mounted.
    pub if_mounted: bool,
    /// Where it is written down that what goes is there; empty for what virt-sysprep does, too.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub source: &'static str,
}

impl Step {
    pub(crate) const fn new(treatment: Treatment, patterns: &'static [&'static str]) -> Self {
        Self { treatment, patterns, except: &[], if_mounted: false, source: "" }
    }

    pub(crate) const fn except(self, except: &'static [&'static str]) -> Self {
        Self { except, ..self }
    }

    pub(crate) const fn source(self, source: &'static str) -> Self {
        Self { source, ..self }
    }

    pub(crate) const fn if_mounted(self) -> Self {
        Self { if_mounted: true, ..self }
    }
}

/// What is done to what a pattern matches. No symbolic link that a pattern ends at is ever followed to remove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// It is removed, unless it is a directory.
    RemoveFiles,
    /// It is removed if it is a regular file.
    RemoveRegularFiles,
    /// It is removed; a directory with all that is in it.
    RemoveTrees,
    /// If it is a directory, the regular files below it are removed. Directories stay, as do links and sockets.
    RemoveFilesBelow,
    /// If it is a directory, all that is in it is removed.
    EmptyDirectories,
    /// If it is a regular file, it is cut to length 0 and stays the same file.
    EmptyFiles,
    /// The contents are changed; it stays the same file.
    Edit,
    /// It is created where it is missing.
    Create,
    /// A symbolic link takes its place.
    ReplaceByLink,
}

impl Treatment {
    /// What happens, to be read before a list of patterns.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::RemoveFiles => "Removes the files",
            Self::RemoveRegularFiles => "Removes the regular files",
            Self::RemoveTrees => "Removes, with all below",
            Self::RemoveFilesBelow => "Removes all regular files below",
            Self::EmptyDirectories => "Removes all that is in",
            Self::EmptyFiles => "Empties",
            Self::Edit => "Edits",
            Self::Create => "Creates",
            Self::ReplaceByLink => "Replaces by a link",
        }
    }
}
