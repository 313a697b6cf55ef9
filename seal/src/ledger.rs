//! What a run notes down besides its changes, over all operations.

use std::collections::BTreeMap;

use guest::{Guest, InodeNumber, Metadata};

use crate::GuestPath;
use crate::traces::{Edit, Traces};

/// Warnings and notes, each once, and which removed files have names left elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Home directories as `/etc/passwd` had them before any operation.
    pub(crate) homes: Vec<Vec<u8>>,
    /// Whether there was a devices file of LVM2 before any operation.
    pub(crate) had_devices_file: bool,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// What is to be found nowhere any more.
    pub(crate) traces: Traces,
    /// What was taken out of files that stay.
    pub(crate) edits: Vec<Edit>,
    linked: BTreeMap<(Vec<u8>, InodeNumber), Linked>,
}

/// A file that had several names, of which some were removed.
#[derive(Debug)]
struct Linked {
    path: GuestPath,
    names: u32,
    removed: u32,
}

impl Ledger {
    pub(crate) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A name of a regular file was removed; `mount` is where its file system is mounted. The metadata may be from
    /// before the removal of other names of the same file, or from after it.
    pub(crate) fn unlinked(&mut self, mount: &[u8], path: &[u8], metadata: &Metadata) {
        if metadata.size == 0 {
            return;
        }
        let key = (mount.to_vec(), metadata.inode);
        if let Some(linked) = self.linked.get_mut(&key) {
            linked.removed += 1;
        } else if metadata.links > 1 {
            self.linked.insert(key, Linked { path: path.into(), names: metadata.links, removed: 1 });
        }
    }

    /// Warns of contents that are still in the guest under another name than the one that was removed.
    pub(crate) fn warn_of_names_left(&mut self) {
        for linked in std::mem::take(&mut self.linked).into_values() {
            let left = linked.names.saturating_sub(linked.removed);
            if left > 0 {
                let names = if left == 1 { "another name" } else { "other names" };
                self.warn(format!("{} was removed, but what was in it has {names} in the guest", linked.path));
            }
        }
    }
}

/// Where the file system is mounted that holds what is at a canonical path.
pub(crate) fn mount_of(guest: &Guest, path: &[u8]) -> Vec<u8> {
    let holds = |top: &[u8]| is_within(path, top);
    let mounts = guest.mounts().iter().map(|mount| mount.path.as_slice());
    mounts.filter(|top| holds(top)).max_by_key(|top| top.len()).unwrap_or(b"/").to_vec()
}

/// Whether a path is `top` or below it; both without links.
pub(crate) fn is_within(path: &[u8], top: &[u8]) -> bool {
    top == b"/" || path.strip_prefix(top).is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
}
