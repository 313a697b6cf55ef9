//! The one way in which operations change a guest: what is changed here is reported, and nothing else can be.

use std::collections::BTreeSet;

use guest::path::join;
use guest::{FileKind, Guest, Metadata};

use crate::ledger::{Ledger, is_within, mount_of};
use crate::operation::{Operation, Step, Treatment};
use crate::system_directories::{is_system_directory, may_be_cleared_through_a_link};
use crate::{Action, Change, Edit, Error, GuestPath, Result};

/// A guest in the hands of one operation.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    guest: &'a mut Guest,
    ledger: &'a mut Ledger,
    operation: &'static Operation,
    made: Vec<Change>,
    /// Whether a person named the paths: then links lead where that person wants.
    is_asked_for: bool,
}

impl<'a> Changes<'a> {
    pub(crate) fn new(guest: &'a mut Guest, ledger: &'a mut Ledger, operation: &'static Operation) -> Self {
        Self { guest, ledger, operation, made: Vec::new(), is_asked_for: false }
    }

    /// From now on paths are those that a person named.
    pub(crate) fn ask(&mut self) {
        self.is_asked_for = true;
    }

    /// The changes made, in their order.
    pub(crate) fn into_made(self) -> Vec<Change> {
        self.made
    }

    pub(crate) fn guest(&self) -> &Guest {
        self.guest
    }

    /// For what is asked for by name; whoever uses it records what it did.
    pub(crate) fn guest_mut(&mut self) -> &mut Guest {
        self.guest
    }

    pub(crate) fn ledger(&mut self) -> &mut Ledger {
        self.ledger
    }

    pub(crate) fn note(&mut self, note: String) {
        self.ledger.note(note);
    }

    /// Whether a change of this path was recorded.
    pub(crate) fn is_recorded(&self, path: &[u8]) -> bool {
        self.made.iter().any(|change| change.path.as_bytes() == path)
    }

    /// Says of a file that was created just now how long it became.
    pub(crate) fn set_recorded_bytes(&mut self, path: &[u8], bytes: u64) {
        if let Some(change) = self.made.last_mut()
            && change.action == Action::Created
            && (change.path.as_bytes() == path || name_of(change.path.as_bytes()) == name_of(path))
        {
            change.bytes = bytes;
        }
    }

    /// How many changes were made so far.
    pub(crate) fn count(&self) -> usize {
        self.made.len()
    }

    pub(crate) fn warn(&mut self, warning: String) {
        self.ledger.warn(warning);
    }

    // ---- looking

    /// What is at a path; a link as its last component is not followed.
    pub(crate) fn lstat(&self, path: &[u8]) -> Result<Option<Metadata>> {
        self.guest.lstat(path).map_err(|source| self.failed(source))
    }

    /// Whether a path, all links followed, is a regular file.
    pub(crate) fn is_file(&self, path: &[u8]) -> Result<bool> {
        let metadata = self.guest.stat(path).map_err(|source| self.failed(source))?;
        Ok(metadata.is_some_and(|metadata| metadata.kind == FileKind::File))
    }

    /// Whether a path itself is a regular file.
    pub(crate) fn is_plain_file(&self, path: &[u8]) -> Result<bool> {
        Ok(self.lstat(path)?.is_some_and(|metadata| metadata.kind == FileKind::File))
    }

    /// The path without links; `None` if nothing is there.
    pub(crate) fn resolve(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        self.guest.resolve(path).map_err(|source| self.failed(source))
    }

    pub(crate) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.guest.read_link(path).map_err(|source| self.failed(source))
    }

    /// The names in a directory, sorted; none if it is no directory.
    pub(crate) fn names_in(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let metadata = self.guest.stat(path).map_err(|source| self.failed(source))?;
        if !metadata.is_some_and(|metadata| metadata.kind == FileKind::Directory) {
            return Ok(Vec::new());
        }
        let entries = self.guest.read_dir(path).map_err(|source| self.failed(source))?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// What a pattern matches, and for `~/NAME` each home directory's `NAME`, whether it exists or not.
    pub(crate) fn glob(&self, pattern: &str) -> Result<Vec<Vec<u8>>> {
        match pattern.strip_prefix("~/") {
            Some(name) => Ok(self.homes()?.into_iter().map(|home| join(&home, name.as_bytes())).collect()),
            None => self.guest.glob(pattern).map_err(|source| self.failed(source)),
        }
    }

    /// The directories that accounts are at home in: canonical, each once, none of the system's own.
    fn homes(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut homes = BTreeSet::new();
        let mut candidates = self.glob("/home/*")?;
        candidates.extend_from_slice(&self.ledger.homes);
        for candidate in candidates {
            if let Some(home) = self.resolve(&candidate)?
                && !is_system_directory(&home)
                && self.lstat(&home)?.is_some_and(|metadata| metadata.kind == FileKind::Directory)
            {
                homes.insert(home);
            }
        }
        Ok(homes)
    }

    /// The contents of a regular file, links followed. `None` if there is none, or, with a warning, if it is longer than
    /// any text file that an operation has to do with.
    pub(crate) fn read_text(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.guest.stat(path) {
            Ok(Some(metadata)) if metadata.kind == FileKind::File && metadata.size <= guest::MAX_TEXT => {
                self.guest.read(path).map(Some).map_err(|source| self.failed(source))
            }
            Ok(Some(metadata)) if metadata.kind == FileKind::File => {
                self.warn(format!("{} was not looked into: it has {} bytes", GuestPath::from(path), metadata.size));
                Ok(None)
            }
            Ok(_) => Ok(None),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The contents of a regular file that was looked at.
    pub(crate) fn read_all(&self, path: &[u8]) -> Result<Vec<u8>> {
        self.guest.read(path).map_err(|source| self.failed(source))
    }

    /// As [`Changes::read_text`], but only the first `limit` bytes, so that no length is too much.
    pub(crate) fn read_start(&self, path: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut start = vec![0; limit];
        let mut filled = 0;
        while let Some(space) = start.get_mut(filled..).filter(|space| !space.is_empty()) {
            match self.guest.read_at(path, filled as u64, space).map_err(|source| self.failed(source))? {
                0 => break,
                got => filled += got,
            }
        }
        start.truncate(filled);
        Ok(start)
    }

    /// Calls `visit` with every path below a directory, as [`Guest::walk_names`] does.
    pub(crate) fn walk_names(&self, top: &[u8], visit: &mut dyn FnMut(&[u8], FileKind)) -> Result<()> {
        let mut visit = |path: &[u8], kind| {
            visit(path, kind);
            Ok(())
        };
        self.guest.walk_names(top, &mut visit).map_err(|source| self.failed(source))
    }

    // ---- removing

    /// Takes all steps of the operation.
    pub(crate) fn take_steps(&mut self) -> Result<()> {
        self.operation.steps.iter().try_for_each(|step| self.take_step(step))
    }

    /// Takes a step: one whose treatment needs no more than to be told where.
    pub(crate) fn take_step(&mut self, step: &Step) -> Result<()> {
        for pattern in step.patterns {
            for path in self.glob(pattern)? {
                if step.except.iter().any(|kept| kept.as_bytes() == path) {
                    continue;
                }
                match step.treatment {
                    Treatment::RemoveFiles => self.remove_file(&path)?,
                    Treatment::RemoveRegularFiles => self.remove_regular_file(&path)?,
                    Treatment::RemoveTrees => self.remove_tree(&path)?,
                    Treatment::RemoveFilesBelow => self.remove_files_below(&path, &|_| true)?,
                    Treatment::EmptyDirectories => self.empty_directory(&path)?,
                    Treatment::EmptyFiles => self.empty_file(&path)?,
                    // What to write is known to the operation alone.
                    Treatment::Edit | Treatment::Create | Treatment::ReplaceByLink => {}
                }
            }
        }
        Ok(())
    }

    /// Removes what is at a path, unless it is a directory or missing.
    pub(crate) fn remove_file(&mut self, path: &[u8]) -> Result<()> {
        let Some(metadata) = self.lstat(path)?.filter(|metadata| metadata.kind != FileKind::Directory) else {
            return Ok(());
        };
        let Some(path) = self.way_to_remove(path)? else { return Ok(()) };
        self.note_contents(&path, &metadata);
        self.guest.remove_file(&path).map_err(|source| self.failed(source))?;
        self.removed(&path, &metadata);
        Ok(())
    }

    /// Removes what is at a path if it is a regular file.
    pub(crate) fn remove_regular_file(&mut self, path: &[u8]) -> Result<()> {
        if self.is_plain_file(path)? { self.remove_file(path) } else { Ok(()) }
    }

    /// Removes what is at a path, with all below it. What a file system cannot do without stays: the directory that it
    /// is mounted on, and its `lost+found`.
    pub(crate) fn remove_tree(&mut self, path: &[u8]) -> Result<()> {
        let Some(metadata) = self.lstat(path)? else { return Ok(()) };
        if metadata.kind != FileKind::Directory {
            return self.remove_file(path);
        }
        match self.way_to_remove(path)? {
            Some(path) => self.remove_directory(path),
            None => Ok(()),
        }
    }

    fn remove_directory(&mut self, path: Vec<u8>) -> Result<()> {
        let is_mounted = |path: &[u8]| self.guest.mounts().iter().any(|mount| mount.path == path);
        let holds_mount = self.guest.mounts().iter().any(|mount| is_within(&mount.path, &path));
        let is_lost_and_found = split(&path).is_some_and(|(parent, name)| name == b"lost+found" && is_mounted(parent));
        if holds_mount || is_lost_and_found {
            // Directories that hold a mount point are on its path, so this goes no deeper than that.
            return self.empty_directory(&path);
        }
        self.note_contents_below(&path)?;
        let Self { guest, ledger, made, .. } = self;
        let mount = mount_of(guest, &path);
        let removed = guest.remove_all(&path, &mut |path, metadata| {
            record_removal(made, ledger, &mount, path, metadata);
        });
        removed.map_err(|source| self.failed(source))
    }

    /// Removes all that is in a directory, dot files too. The directory may be reached through links.
    pub(crate) fn empty_directory(&mut self, path: &[u8]) -> Result<()> {
        let Some(directory) = self.way_to_clear(path)? else { return Ok(()) };
        for name in self.names_in(&directory)? {
            self.remove_tree(&join(&directory, &name))?;
        }
        Ok(())
    }

    /// Removes the regular files below a directory whose names `goes` does not spare.
    pub(crate) fn remove_files_below(&mut self, top: &[u8], goes: &dyn Fn(&[u8]) -> bool) -> Result<()> {
        if self.lstat(top)?.is_some_and(|metadata| metadata.kind == FileKind::Symlink) {
            self.warn(format!("{} is a symbolic link; what it leads to was left as it is", GuestPath::from(top)));
            return Ok(());
        }
        let mut files = Vec::new();
        self.walk_names(top, &mut |path, kind| {
            if kind == FileKind::File && goes(name_of(path)) {
                files.push(path.to_vec());
            }
        })?;
        files.iter().try_for_each(|file| self.remove_regular_file(file))
    }

    /// The canonical path of something that is to be removed. `None`, with a warning, where links lead to a directory
    /// in which nothing may be removed.
    fn way_to_remove(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((parent, name)) = split(path) else { return Ok(None) };
        Ok(self.way_to_clear(parent)?.map(|directory| join(&directory, name)))
    }

    /// The canonical path of a directory in which something is to be removed; `None` as above.
    fn way_to_clear(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let way = path.get(..end).unwrap_or(path);
            let Some(directory) = self.resolve(way)? else { return Ok(None) };
            if directory != way && !self.is_asked_for && !may_be_cleared_through_a_link(&directory) {
                let (way, directory) = (GuestPath::from(way), GuestPath::from(directory));
                self.warn(format!("{way} leads to {directory}, where nothing was removed"));
                return Ok(None);
            }
        }
        self.resolve(path)
    }

    fn removed(&mut self, path: &[u8], metadata: &Metadata) {
        let mount = mount_of(self.guest, path);
        record_removal(&mut self.made, self.ledger, &mount, path, metadata);
    }

    // ---- changing

    /// Cuts a regular file to length 0; what is none, or is empty, is left.
    pub(crate) fn empty_file(&mut self, path: &[u8]) -> Result<()> {
        let Some(metadata) = self.lstat(path)?.filter(|file| file.kind == FileKind::File && file.size > 0) else {
            return Ok(());
        };
        let path = self.canonical(path)?;
        self.note_contents(&path, &metadata);
        self.guest.set_len(&path, 0).map_err(|source| self.failed(source))?;
        self.record(path, Action::Emptied, metadata.size);
        Ok(())
    }

    /// Gives a regular file, links followed, other contents, if they are others.
    pub(crate) fn edit(&mut self, path: &[u8], contents: &[u8]) -> Result<()> {
        let Some(path) = self.resolve(path)? else { return Ok(()) };
        let old = self.guest.read(&path).map_err(|source| self.failed(source))?;
        if old != contents {
            self.ledger.traces.add_edit(&path, &old, contents);
            self.ledger.edits.extend(Edit::between(&path, &old, contents));
            self.guest.write(&path, contents).map_err(|source| self.failed(source))?;
            let action = if contents.is_empty() { Action::Emptied } else { Action::Edited };
            self.record(path, action, old.len() as u64);
        }
        Ok(())
    }

    /// Gives what is on a volume another UUID. What names it is not looked at.
    pub(crate) fn set_uuid(&mut self, volume: &str, uuid: uuid::Uuid) -> Result<()> {
        self.guest.set_uuid(volume, uuid).map_err(|source| self.failed(source))?;
        self.record_volume(volume, 16);
        Ok(())
    }

    /// Whether the guest had a devices file of LVM2 before any operation.
    pub(crate) fn had_devices_file(&self) -> bool {
        self.ledger.had_devices_file
    }

    /// Replaces texts in a volume that is not mounted, in place.
    pub(crate) fn replace_in_volume(&mut self, volume: &str, texts: &[(String, String)]) -> Result<()> {
        let count = self.guest.replace_in_volume(volume, texts).map_err(|source| self.failed(source))?;
        if count > 0 {
            self.record_volume(volume, count);
        }
        Ok(())
    }

    /// Notes that something on a volume, outside its files, was replaced.
    pub(crate) fn record_volume(&mut self, volume: &str, bytes: u64) {
        self.record(volume.as_bytes().to_vec(), Action::Replaced, bytes);
    }

    /// Notes an ID that is to be found nowhere any more.
    pub(crate) fn note_id(&mut self, of: &str, id: &str) {
        self.ledger.traces.add_id(of, id);
    }

    /// Creates a regular file where nothing is yet, with the directories that lead to it.
    pub(crate) fn create_file(&mut self, path: &[u8], contents: &[u8]) -> Result<()> {
        let path = self.make_way(path)?;
        self.guest.write(&path, contents).map_err(|source| self.failed(source))?;
        self.record(path, Action::Created, contents.len() as u64);
        Ok(())
    }

    /// Creates a symbolic link where nothing is yet, with the directories that lead to it.
    pub(crate) fn create_link(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let path = self.make_way(path)?;
        self.guest.symlink(target, &path).map_err(|source| self.failed(source))?;
        self.record(path, Action::Created, 0);
        Ok(())
    }

    /// Puts a symbolic link in the place of a regular file.
    pub(crate) fn replace_by_link(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let Some(metadata) = self.lstat(path)?.filter(|metadata| metadata.kind == FileKind::File) else {
            return Ok(());
        };
        let path = self.canonical(path)?;
        self.note_contents(&path, &metadata);
        self.guest.remove_file(&path).map_err(|source| self.failed(source))?;
        self.ledger.unlinked(&mount_of(self.guest, &path), &path, &metadata);
        self.guest.symlink(target, &path).map_err(|source| self.failed(source))?;
        self.record(path, Action::Replaced, metadata.size);
        Ok(())
    }

    /// Creates the directories that lead to a path and gives the path without links.
    fn make_way(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let Some((parent, name)) = split(path) else { return Ok(path.to_vec()) };
        let directory = match self.resolve(parent)? {
            Some(directory) => directory,
            None => {
                // A parent is shorter than its child, so this ends at the root, which exists.
                let directory = self.make_way(parent)?;
                self.guest.create_dir(&directory, 0o755).map_err(|source| self.failed(source))?;
                self.record(directory.clone(), Action::Created, 0);
                directory
            }
        };
        Ok(join(&directory, name))
    }

    /// The path without links in its parents.
    pub(crate) fn canonical(&self, path: &[u8]) -> Result<Vec<u8>> {
        let Some((parent, name)) = split(path) else { return Ok(path.to_vec()) };
        Ok(self.resolve(parent)?.map_or_else(|| path.to_vec(), |directory| join(&directory, name)))
    }

    pub(crate) fn record(&mut self, path: Vec<u8>, action: Action, bytes: u64) {
        self.made.push(Change { path: path.into(), action, bytes });
    }

    pub(crate) fn failed(&self, source: guest::Error) -> Error {
        Error::Guest { operation: self.operation.name, source: Box::new(source) }
    }
}

fn record_removal(made: &mut Vec<Change>, ledger: &mut Ledger, mount: &[u8], path: &[u8], metadata: &Metadata) {
    let is_file = metadata.kind == FileKind::File;
    if is_file {
        ledger.unlinked(mount, path, metadata);
    }
    made.push(Change { path: path.into(), action: Action::Removed, bytes: if is_file { metadata.size } else { 0 } });
}

/// The parent and the name of an absolute path; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    let (parent, name) = path.split_at(slash);
    let name = name.get(1..).filter(|name| !name.is_empty())?;
    Some((if parent.is_empty() { b"/" } else { parent }, name))
}

/// The last name of a path.
pub(crate) fn name_of(path: &[u8]) -> &[u8] {
    split(path).map_or(path, |(_, name)| name)
}
