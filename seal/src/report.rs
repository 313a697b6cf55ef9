//! What a run did, in the shape that `--json` prints.

use serde::{Deserialize, Serialize};

use crate::{Edit, GuestPath, Trace};

/// What a run did to a guest.
///
/// ```
/// use seal::{Action, Change, OperationReport, Report, Scrubbed};
///
/// let change = Change { path: b"/etc/krb5.keytab"[..].into(), action: Action::Removed, bytes: 78 };
/// let report = Report {
///     operations: vec![OperationReport { name: "kerberos-hostkeytab".to_owned(), changes: vec![change] }],
///     scrubbed: Some(Scrubbed { bytes_zeroed: 4096 }),
///     ..Report::default()
/// };
/// assert_eq!(
///     serde_json::to_string(&report)?,
///     concat!(
///         r#"{"operations":[{"name":"kerberos-hostkeytab","changes":"#,
///         r#"[{"path":"/etc/krb5.keytab","action":"removed","bytes":78}]}],"#,
///         r#""scrubbed":{"bytes_zeroed":4096},"warnings":[],"notes":[]}"#,
///     )
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// Every operation that was performed, in the order of performance; one that found nothing to do has no changes.
    pub operations: Vec<OperationReport>,
    /// The swap spaces that held the memory of a guest suspended to disk, which was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspended: Vec<String>,
    /// What the scrub did; missing where no scrub was asked for.
    pub scrubbed: Option<Scrubbed>,
    /// What a person should know before trusting the image. `--strict` makes an error of it.
    pub warnings: Vec<String>,
    /// What is good to know and nothing to act on.
    pub notes: Vec<String>,
    /// Lines that operations took out of files, with what may be secret masked.
    #[serde(skip)]
    pub edits: Vec<Edit>,
    /// Bytes of what was removed, to be searched for in the sealed image. They are secrets: no report prints them.
    #[serde(skip)]
    pub traces: Vec<Trace>,
}

impl Report {
    /// All changes, of all operations, in the order in which they were made.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.operations.iter().flat_map(|operation| &operation.changes)
    }

    /// Whether any operation changed anything.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changes().next().is_some()
    }
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReport {
    /// The operation's name.
    pub name: String,
    /// What it changed, in this order.
    pub changes: Vec<Change>,
}

/// One change of one file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where: the path without symbolic links on the way.
    pub path: GuestPath,
    /// What happened to it.
    pub action: Action,
    /// How many bytes the regular file held before, or holds now if it was created; 0 for all that is no regular file.
    pub bytes: u64,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is gone.
    Removed,
    /// It is the same file, of length 0.
    Emptied,
    /// It is the same file with other contents.
    Edited,
    /// It is new.
    Created,
    /// It has another SELinux label.
    Relabelled,
    /// Something else has its name now.
    Replaced,
    /// It has another mode, owner or time.
    Attributes,
}

/// What the scrub of unused space did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Bytes that held something and now read as zeros.
    pub bytes_zeroed: u64,
}
