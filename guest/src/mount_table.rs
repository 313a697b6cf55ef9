//! Which file systems there are, and which directory each one covers.

use std::collections::HashMap;

use crate::{DirEntry, Error, FileSystem, InodeNumber, Metadata, Result};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Mount {
    /// Where it is mounted: an absolute path without links.
    pub path: Vec<u8>,
    /// What it is on: `gpt:3`.
    pub device: String,
    /// Its type, as mount(8) names it.
    pub type_name: String,
    /// Why it cannot be written, if it cannot.
    pub read_only: Option<String>,
}

/// An inode of one of the file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) mount: usize,
    pub(crate) inode: InodeNumber,
}

/// All mounted file systems. The first is the root.
#[derive(Debug)]
pub(crate) struct MountTable {
    file_systems: Vec<Box<dyn FileSystem>>,
    mounts: Vec<Mount>,
    /// The directory that each mount but the first covers.
    covered: HashMap<Location, usize>,
}

impl MountTable {
    pub(crate) fn new(root: Box<dyn FileSystem>, device: String) -> Self {
        let mount = describe(root.as_ref(), b"/", device);
        Self { file_systems: vec![root], mounts: vec![mount], covered: HashMap::new() }
    }

    pub(crate) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    pub(crate) fn root(&self) -> Location {
        self.uncovered(Location { mount: 0, inode: self.file_systems[0].root() })
    }

    /// Mounts over `at`, a directory that nothing covers and whose canonical path is `path`.
    pub(crate) fn mount(&mut self, path: &[u8], at: Location, file_system: Box<dyn FileSystem>, device: String) {
        self.mounts.push(describe(file_system.as_ref(), path, device));
        self.file_systems.push(file_system);
        self.covered.insert(at, self.file_systems.len() - 1);
    }

    /// What is seen at a directory: the root of the file system that covers it, if one does.
    pub(crate) fn uncovered(&self, mut location: Location) -> Location {
        // Each step leads to a file system that was mounted later, so this ends.
        while let Some(&mount) = self.covered.get(&location) {
            location = Location { mount, inode: self.file_systems[mount].root() };
        }
        location
    }

    /// Whether a file system is mounted at a canonical path or below it.
    pub(crate) fn has_mount_within(&self, path: &[u8]) -> bool {
        self.mounts.iter().any(|mount| crate::path::is_within(&mount.path, path))
    }

    // A location only ever comes from this table, and no file system is ever taken out: the index is valid.
    pub(crate) fn file_system(&self, location: Location) -> &dyn FileSystem {
        self.file_systems[location.mount].as_ref()
    }

    pub(crate) fn file_systems(&self) -> impl Iterator<Item = (&Mount, &dyn FileSystem)> {
        self.mounts.iter().zip(self.file_systems.iter().map(AsRef::as_ref))
    }

    pub(crate) fn file_systems_mut(&mut self) -> impl Iterator<Item = (&Mount, &mut Box<dyn FileSystem>)> {
        self.mounts.iter().zip(self.file_systems.iter_mut())
    }

    /// The file system of `location`, to be written.
    pub(crate) fn writable(&mut self, location: Location) -> Result<&mut dyn FileSystem> {
        let mount = &self.mounts[location.mount];
        match &mount.read_only {
            Some(reason) => Err(Error::ReadOnly { device: mount.device.clone(), reason: reason.clone() }),
            None => Ok(self.file_systems[location.mount].as_mut()),
        }
    }

    pub(crate) fn metadata(&self, location: Location) -> Result<Metadata> {
        self.file_system(location).metadata(location.inode)
    }

    /// What `name` in a directory leads to: never a covered directory.
    pub(crate) fn lookup(&self, directory: Location, name: &[u8]) -> Result<Option<Location>> {
        let inode = self.file_system(directory).lookup(directory.inode, name)?;
        Ok(inode.map(|inode| self.uncovered(Location { mount: directory.mount, inode })))
    }

    /// What an entry of a directory leads to: never a covered directory.
    pub(crate) fn entry(&self, directory: Location, entry: &DirEntry) -> Location {
        self.uncovered(Location { mount: directory.mount, inode: entry.inode })
    }

    /// The entries of a directory as its file system has them, sorted by name.
    pub(crate) fn read_dir(&self, directory: Location) -> Result<Vec<DirEntry>> {
        let mut entries = self.file_system(directory).read_dir(directory.inode)?;
        // A name that cannot be in a path would lead elsewhere once it were put into one.
        if let Some(bad) = entries.iter().find(|entry| !is_name(&entry.name)) {
            let name = crate::path::display(&bad.name);
            return Err(Error::Corrupt(format!("directory inode {} holds the name {name:?}", directory.inode.0)));
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

fn describe(file_system: &dyn FileSystem, path: &[u8], device: String) -> Mount {
    Mount {
        path: path.to_vec(),
        device,
        type_name: file_system.type_name().to_owned(),
        read_only: file_system.read_only_reason(),
    }
}
