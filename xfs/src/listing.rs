//! Directories in memory. All changes to a directory are made here; it is written anew, once, when changes are flushed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Result;
use crate::directory::Entry;
use crate::extents::Extents;
use crate::file_system::FileSystem;
use crate::inode::{Fork, Inode};

/// Entries of clean directories that are kept.
const MAX_CLEAN_ENTRIES: usize = 500_000;

/// A directory: its entries in order, and by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub(crate) parent: u64,
    /// What was removed leaves a gap.
    slots: Vec<Option<Entry>>,
    by_name: HashMap<Vec<u8>, usize>,
    pub(crate) has_leftovers: bool,
}

impl Directory {
    pub(crate) fn new(parent: u64) -> Self {
        Self { parent, ..Self::default() }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<&Entry> {
        self.slots[*self.by_name.get(name)?].as_ref()
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.by_name.insert(entry.name.clone(), self.slots.len());
        self.slots.push(Some(entry));
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let slot = self.by_name.remove(name)?;
        let entry = self.slots.get_mut(slot)?.take();
        if self.slots.len() > 64 && self.by_name.len() < self.slots.len() / 2 {
            self.slots.retain(Option::is_some);
            self.by_name =
                self.slots.iter().flatten().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
        }
        entry
    }
}

/// What is known of directories and of files' extents. What was changed stays until it is written.
#[derive(Debug, Default)]
pub(crate) struct Known {
    clean: Mutex<(HashMap<u64, Arc<Directory>>, usize)>,
    pub(crate) changed: BTreeMap<u64, Arc<Directory>>,
    extents: Mutex<Option<(Inode, Arc<Extents>)>>,
}

impl Known {
    /// Drops what is known of a directory that has not changed.
    pub(crate) fn forget(&mut self, number: u64) {
        let clean = self.clean.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = clean.0.remove(&number) {
            clean.1 -= directory.len() + 1;
        }
    }
}

impl FileSystem {
    /// A directory, as it is now.
    pub(crate) fn listing(&self, number: u64) -> Result<Arc<Directory>> {
        if let Some(directory) = self.known.changed.get(&number) {
            return Ok(Arc::clone(directory));
        }
        if let Some(directory) = self.known.clean.lock().unwrap_or_else(PoisonError::into_inner).0.get(&number) {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(self.load_directory(number)?);
        let mut clean = self.known.clean.lock().unwrap_or_else(PoisonError::into_inner);
        if clean.1 > MAX_CLEAN_ENTRIES {
            *clean = Default::default();
        }
        clean.1 += directory.len() + 1;
        clean.0.insert(number, Arc::clone(&directory));
        Ok(directory)
    }

    /// A directory, to be changed.
    pub(crate) fn listing_mut(&mut self, number: u64) -> Result<&mut Directory> {
        if !self.known.changed.contains_key(&number) {
            let directory = self.listing(number)?;
            self.known.forget(number);
            self.known.changed.insert(number, directory);
        }
        self.store.note_change();
        let directory = self.known.changed.get_mut(&number).ok_or(crate::Error::Poisoned)?;
        Ok(Arc::make_mut(directory))
    }

    fn load_directory(&self, number: u64) -> Result<Directory> {
        let inode = self.directory_inode(number)?;
        let listing = self.read_listing(&inode)?;
        let mut directory =
            Directory { parent: listing.parent, has_leftovers: listing.has_leftovers, ..Directory::default() };
        directory.slots = listing.entries.into_iter().map(Some).collect();
        directory.by_name =
            directory.slots.iter().flatten().enumerate().map(|(at, entry)| (entry.name.clone(), at)).collect();
        if directory.by_name.len() != directory.slots.len() {
            return Err(inode.corrupt("no name is in a directory twice"));
        }
        Ok(directory)
    }

    /// The extents of a file that is read: those of the last one are kept.
    pub(crate) fn cached_extents(&self, inode: &Inode) -> Result<Arc<Extents>> {
        let mut kept = self.known.extents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((found, extents)) = kept.as_ref()
            && found == inode
        {
            return Ok(Arc::clone(extents));
        }
        let extents = Arc::new(self.extents(inode, Fork::Data)?);
        *kept = Some((inode.clone(), Arc::clone(&extents)));
        Ok(extents)
    }
}
