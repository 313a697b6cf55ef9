//! Changes that a person asked for by path: unlike an operation's, they go where links lead, and a thing that is missing
//! is an error.

use std::io::Read;

use guest::path::join;
use guest::{FileKind, Metadata, Walk};

use crate::changes::{Changes, name_of, split};
use crate::ledger::is_within;
use crate::{Action, Error, GuestPath, Result, reach};

/// Bytes that are copied at a time.
const STEP: usize = 1 << 20;

/// What a person asked for cannot be done.
pub(crate) fn refused<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Refused(reason.into()))
}

impl Changes<'_> {
    /// What is at a path, all links followed.
    pub(crate) fn stat(&self, path: &[u8]) -> Result<Option<Metadata>> {
        self.guest().stat(path).map_err(|source| self.failed(source))
    }

    /// Whether a path, all links followed, is a directory.
    pub(crate) fn is_directory(&self, path: &[u8]) -> Result<bool> {
        Ok(self.stat(path)?.is_some_and(|metadata| metadata.kind == FileKind::Directory))
    }

    /// Checks a path that a person gave: absolute, and in a file system that is mounted.
    pub(crate) fn check_path(&self, path: &[u8]) -> Result<()> {
        if !path.starts_with(b"/") {
            return refused(format!("{} is not an absolute path", GuestPath::from(path)));
        }
        match reach::hidden_by(self.guest(), path) {
            Some(missing) => refused(format!(
                "{} lies in {}, which is not mounted: {}",
                GuestPath::from(path),
                GuestPath::from(missing.path.as_slice()),
                missing.reason
            )),
            None => Ok(()),
        }
    }

    /// The contents of a regular file, links followed, which has to exist.
    pub(crate) fn read_existing(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        self.check_path(path)?;
        let what = GuestPath::from(path);
        match self.stat(path)? {
            Some(metadata) if metadata.kind == FileKind::File && metadata.size <= guest::MAX_TEXT => {
                self.guest().read(path).map_err(|source| self.failed(source))
            }
            Some(metadata) if metadata.kind == FileKind::File => {
                refused(format!("{what} is too large to be edited: {} bytes", metadata.size))
            }
            Some(_) => refused(format!("{what} is no regular file")),
            None => refused(format!("{what} does not exist in the guest")),
        }
    }

    /// Makes a regular file hold this, links followed; one that is missing is made, 0644 and root's. Its directory has
    /// to exist.
    pub(crate) fn write_file(&mut self, path: &[u8], contents: &[u8]) -> Result<()> {
        self.check_path(path)?;
        match self.stat(path)? {
            Some(metadata) if metadata.kind == FileKind::File => {
                let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
                self.note_contents(&path, &metadata);
                let holds = metadata.size == contents.len() as u64
                    && metadata.size <= guest::MAX_TEXT
                    && self.guest().read(&path).map_err(|source| self.failed(source))? == contents;
                if !holds {
                    self.guest_mut().write(&path, contents).map_err(|source| self.failed(source))?;
                    let action = if contents.is_empty() { Action::Emptied } else { Action::Edited };
                    self.record(path, action, metadata.size);
                }
                Ok(())
            }
            Some(_) => refused(format!("{} is no regular file", GuestPath::from(path))),
            None => {
                self.needs_directory_of(path)?;
                self.guest_mut().write(path, contents).map_err(|source| self.failed(source))?;
                let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
                self.record(path, Action::Created, contents.len() as u64);
                Ok(())
            }
        }
    }

    /// As [`Changes::write_file`] with the directories that lead there, and with this mode if the file is new.
    pub(crate) fn install_file(&mut self, path: &[u8], contents: &[u8], mode: u32) -> Result<()> {
        self.check_path(path)?;
        if self.lstat(path)?.is_some() {
            self.write_file(path, contents)?;
        } else {
            self.create_file(path, contents)?;
        }
        self.guest_mut().set_mode(path, mode).map_err(|source| self.failed(source))
    }

    /// Makes a regular file hold what `source` gives, however long that is.
    pub(crate) fn write_from(&mut self, path: &[u8], source: &mut dyn Read) -> Result<()> {
        self.write_file(path, b"")?;
        let mut buf = vec![0; STEP];
        let mut offset = 0;
        loop {
            let mut filled = 0;
            while let Some(space) = buf.get_mut(filled..).filter(|space| !space.is_empty()) {
                match source.read(space) {
                    Ok(0) => break,
                    Ok(got) => filled += got,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return refused(format!("cannot read: {error}")),
                }
            }
            let Some(data) = buf.get(..filled).filter(|data| !data.is_empty()) else { break };
            self.guest_mut().write_at(path, offset, data).map_err(|source| self.failed(source))?;
            offset += data.len() as u64;
        }
        self.set_recorded_bytes(path, offset);
        Ok(())
    }

    fn needs_directory_of(&self, path: &[u8]) -> Result<()> {
        match split(path) {
            Some((parent, _)) if self.is_directory(parent)? => Ok(()),
            Some((parent, _)) => {
                refused(format!("the directory {} does not exist in the guest", GuestPath::from(parent)))
            }
            None => refused("the root directory is no file"),
        }
    }

    /// Makes a directory with those above it; one that exists is fine.
    pub(crate) fn make_directories(&mut self, path: &[u8]) -> Result<()> {
        self.check_path(path)?;
        let path = without_slash(path);
        if self.is_directory(path)? {
            return Ok(());
        }
        if self.lstat(path)?.is_some() {
            return refused(format!("{} exists and is no directory", GuestPath::from(path)));
        }
        if let Some((parent, _)) = split(path) {
            self.make_directories(parent)?;
        }
        self.guest_mut().create_dir(path, 0o755).map_err(|source| self.failed(source))?;
        let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
        self.record(path, Action::Created, 0);
        Ok(())
    }

    /// Makes a link as `ln -sf` does: what has its name goes, unless that is a directory, into which it is put then.
    pub(crate) fn force_link(&mut self, target: &[u8], link: &[u8]) -> Result<()> {
        self.check_path(link)?;
        if target.is_empty() || target.contains(&0) {
            return refused("a link needs a target");
        }
        let mut link = without_slash(link).to_vec();
        if self.is_directory(&link)? {
            link = join(&link, name_of(without_slash(target)));
        }
        self.needs_directory_of(&link)?;
        match self.lstat(&link)? {
            Some(metadata) if metadata.kind == FileKind::Directory => {
                return refused(format!("{} is a directory", GuestPath::from(link)));
            }
            Some(metadata) if metadata.kind == FileKind::Symlink && self.read_link(&link)? == target => return Ok(()),
            Some(metadata) => {
                self.note_contents(&link, &metadata);
                self.guest_mut().remove_file(&link).map_err(|source| self.failed(source))?;
                self.guest_mut().symlink(target, &link).map_err(|source| self.failed(source))?;
                let link = self.canonical(&link)?;
                self.record(link, Action::Replaced, if metadata.kind == FileKind::File { metadata.size } else { 0 });
            }
            None => {
                self.guest_mut().symlink(target, &link).map_err(|source| self.failed(source))?;
                let link = self.canonical(&link)?;
                self.record(link, Action::Created, 0);
            }
        }
        Ok(())
    }

    /// Sets the mode of what is at a path, links followed.
    pub(crate) fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<()> {
        let metadata = self.existing(path)?;
        if metadata.mode != mode & 0o7777 {
            self.guest_mut().set_mode(path, mode).map_err(|source| self.failed(source))?;
            self.record_attributes(path)?;
        }
        Ok(())
    }

    /// Sets owner and group of what is at a path, links followed.
    pub(crate) fn set_owner(&mut self, path: &[u8], uid: u32, gid: u32) -> Result<()> {
        let metadata = self.existing(path)?;
        if (metadata.uid, metadata.gid) != (uid, gid) {
            self.guest_mut().set_owner(path, uid, gid).map_err(|source| self.failed(source))?;
            self.record_attributes(path)?;
        }
        Ok(())
    }

    fn record_attributes(&mut self, path: &[u8]) -> Result<()> {
        let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
        // What was made or written in the same breath is told of already.
        if !self.is_recorded(&path) {
            self.record(path, Action::Attributes, 0);
        }
        Ok(())
    }

    /// What is at a path, all links followed, which has to exist.
    pub(crate) fn existing(&self, path: &[u8]) -> Result<Metadata> {
        self.check_path(path)?;
        match self.stat(path)? {
            Some(metadata) => Ok(metadata),
            None => refused(format!("{} does not exist in the guest", GuestPath::from(path))),
        }
    }

    /// Removes what a pattern matches, with all below it; nothing that matches is fine.
    pub(crate) fn delete(&mut self, pattern: &str) -> Result<()> {
        self.check_path(pattern.as_bytes())?;
        for path in self.glob(pattern)? {
            if path == b"/" {
                return refused("the root directory cannot be removed");
            }
            self.remove_tree(&path)?;
        }
        Ok(())
    }

    /// Overwrites a regular file with zeros in its place, then removes it.
    pub(crate) fn scrub_file(&mut self, path: &[u8]) -> Result<()> {
        let metadata = self.existing(path)?;
        if metadata.kind != FileKind::File {
            return refused(format!("{} is no regular file", GuestPath::from(path)));
        }
        let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
        self.note_contents(&path, &metadata);
        let zeros = vec![0; STEP];
        let mut buf = vec![0; STEP];
        let mut offset = 0;
        while offset < metadata.size {
            let got = self.guest().read_at(&path, offset, &mut buf).map_err(|source| self.failed(source))?;
            let Some(held) = buf.get(..got).filter(|held| !held.is_empty()) else { break };
            // A hole stays one.
            if held.iter().any(|&byte| byte != 0) {
                let zeros = zeros.get(..got).unwrap_or(&zeros);
                self.guest_mut().write_at(&path, offset, zeros).map_err(|source| self.failed(source))?;
            }
            offset += got as u64;
        }
        self.remove_file(&path)
    }

    /// Cuts a regular file to length 0, links followed.
    pub(crate) fn truncate(&mut self, path: &[u8]) -> Result<()> {
        let metadata = self.existing(path)?;
        if metadata.kind != FileKind::File {
            return refused(format!("{} is no regular file", GuestPath::from(path)));
        }
        let path = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
        self.empty_file(&path)
    }

    /// Cuts every regular file at a path or below it to length 0.
    pub(crate) fn truncate_below(&mut self, path: &[u8]) -> Result<()> {
        let metadata = self.existing(path)?;
        if metadata.kind != FileKind::Directory {
            return self.truncate(path);
        }
        let top = self.resolve(path)?.unwrap_or_else(|| path.to_vec());
        let mut files = Vec::new();
        self.walk_names(&top, &mut |path, kind| {
            if kind == FileKind::File {
                files.push(path.to_vec());
            }
        })?;
        files.iter().try_for_each(|file| self.empty_file(file))
    }

    /// Makes an empty file; one that exists gets the current time.
    pub(crate) fn touch(&mut self, path: &[u8]) -> Result<()> {
        self.check_path(path)?;
        match self.lstat(path)? {
            None => self.write_file(path, b""),
            Some(metadata) if metadata.kind == FileKind::File => {
                let now = self.guest().now();
                self.guest_mut().set_times(path, now, now).map_err(|source| self.failed(source))?;
                self.record_attributes(path)
            }
            Some(_) => refused(format!("{} exists and is no regular file", GuestPath::from(path))),
        }
    }

    /// Where `cp` and `mv` put something: into the directory if `to` is one, else under that name.
    fn destination(&self, from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        self.check_path(to)?;
        let to = without_slash(to);
        if self.is_directory(to)? { Ok(join(to, name_of(without_slash(from)))) } else { Ok(to.to_vec()) }
    }

    /// Copies as `cp -a` does: with all below, links as links, mode, owner, times and extended attributes.
    pub(crate) fn copy(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.check_path(from)?;
        let from = without_slash(from);
        let to = self.destination(from, to)?;
        let Some(metadata) = self.lstat(from)? else {
            return refused(format!("{} does not exist in the guest", GuestPath::from(from)));
        };
        let (source, target) = (self.canonical(from)?, self.canonical(&to)?);
        if is_within(&target, &source) {
            return refused("a directory cannot be copied into itself");
        }
        self.copy_one(&source, &target, &metadata)?;
        if metadata.kind != FileKind::Directory {
            return Ok(());
        }
        let mut below = Vec::new();
        let walked = self.guest().walk(&source, &mut |path, metadata| {
            below.push((path.to_vec(), metadata.clone()));
            Ok(Walk::Continue)
        });
        walked.map_err(|source| self.failed(source))?;
        for (path, metadata) in &below {
            let relative = path.get(source.len()..).unwrap_or_default();
            self.copy_one(path, &[target.as_slice(), relative].concat(), metadata)?;
        }
        // What was put into a directory changed its time.
        for (path, metadata) in below.iter().rev().chain([&(source.clone(), metadata)]) {
            if metadata.kind == FileKind::Directory {
                let relative = path.get(source.len()..).unwrap_or_default();
                let copy = [target.as_slice(), relative].concat();
                let set = self.guest_mut().set_times(&copy, metadata.accessed, metadata.modified);
                set.map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    fn copy_one(&mut self, from: &[u8], to: &[u8], metadata: &Metadata) -> Result<()> {
        match metadata.kind {
            FileKind::Directory => self.make_directories(to)?,
            FileKind::Symlink => {
                let target = self.read_link(from)?;
                self.needs_directory_of(to)?;
                if self.lstat(to)?.is_some() {
                    self.force_link(&target, to)?;
                } else {
                    self.guest_mut().symlink(&target, to).map_err(|source| self.failed(source))?;
                    self.record(to.to_vec(), Action::Created, 0);
                }
                let set = self.guest_mut().set_link_owner(to, metadata.uid, metadata.gid);
                return set.map_err(|source| self.failed(source));
            }
            FileKind::File => {
                self.write_file(to, b"")?;
                let mut buf = vec![0; STEP];
                let mut offset = 0;
                loop {
                    let got = self.guest().read_at(from, offset, &mut buf).map_err(|source| self.failed(source))?;
                    let Some(data) = buf.get(..got).filter(|data| !data.is_empty()) else { break };
                    self.guest_mut().write_at(to, offset, data).map_err(|source| self.failed(source))?;
                    offset += got as u64;
                }
                self.set_recorded_bytes(to, offset);
            }
            _ => {
                self.warn(format!("{} is a device, pipe or socket and was not copied", GuestPath::from(from)));
                return Ok(());
            }
        }
        self.copy_attributes(from, to, metadata)
    }

    fn copy_attributes(&mut self, from: &[u8], to: &[u8], metadata: &Metadata) -> Result<()> {
        let mut copy = || {
            for name in self.guest().xattr_names(from)? {
                if let Some(value) = self.guest().xattr(from, &name)? {
                    self.guest_mut().set_xattr(to, &name, &value)?;
                }
            }
            self.guest_mut().set_owner(to, metadata.uid, metadata.gid)?;
            self.guest_mut().set_mode(to, metadata.mode)?;
            self.guest_mut().set_times(to, metadata.accessed, metadata.modified)
        };
        copy().map_err(|source| self.failed(source))
    }

    /// Moves as `mv` does: by renaming, and between file systems by copying.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.check_path(from)?;
        let from = without_slash(from);
        let to = self.destination(from, to)?;
        let Some(metadata) = self.lstat(from)? else {
            return refused(format!("{} does not exist in the guest", GuestPath::from(from)));
        };
        self.needs_directory_of(&to)?;
        let (source, target) = (self.canonical(from)?, self.canonical(&to)?);
        let replaced = self.lstat(&target)?;
        if let Some(replaced) = &replaced {
            self.note_contents(&target, replaced);
        }
        match self.guest_mut().rename(&source, &target) {
            Ok(()) => {
                self.record(source, Action::Removed, 0);
                let action = if replaced.is_some() { Action::Replaced } else { Action::Created };
                self.record(target, action, if metadata.kind == FileKind::File { metadata.size } else { 0 });
                Ok(())
            }
            Err(error) if matches!(error.cause(), guest::Error::CrossesFileSystems) => {
                self.copy(&source, &target)?;
                self.remove_tree(&source)
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}

/// A path without slashes at its end; the root stays.
pub(crate) fn without_slash(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(1, |last| last + 1);
    path.get(..end).unwrap_or(path)
}
