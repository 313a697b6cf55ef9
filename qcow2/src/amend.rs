//! Changing what an image is without changing what its disk holds: version, refcount width, features.

use std::collections::BTreeMap;

use crate::address::GuestCluster;
use crate::commit::{Changes, Relayout};
use crate::features::{Autoclear, Compatible, Incompatible};
use crate::header_area::HeaderArea;
use crate::header_extension;
use crate::image::Image;
use crate::l2_entry::{COMPRESSED, L2Entry, OFFSET, ZERO};
use crate::references::Accounting;
use crate::transaction::Content;
use crate::{Error, Result};

/// What is to be different about an image; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AmendOptions {
    version: Option<u32>,
    lazy_refcounts: Option<bool>,
    refcount_bits: Option<u32>,
    data_file: Option<String>,
    data_file_raw: Option<bool>,
}

impl AmendOptions {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version: 2 (`compat=0.10`) or 3 (`compat=1.1`).
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Whether whoever writes the image may put off refcount updates. Version 3 only.
    #[must_use]
    pub fn lazy_refcounts(mut self, lazy: bool) -> Self {
        self.lazy_refcounts = Some(lazy);
        self
    }

    /// The width of a refcount in bits: a power of two up to 64; 16 in version 2.
    #[must_use]
    pub fn refcount_bits(mut self, bits: u32) -> Self {
        self.refcount_bits = Some(bits);
        self
    }

    /// The external data file's name, for an image that has one. The file itself is neither moved nor opened.
    #[must_use]
    pub fn data_file(mut self, name: impl Into<String>) -> Self {
        self.data_file = Some(name.into());
        self
    }

    /// Whether the external data file is to be kept so that it can be read as a raw image. It can be given up, but not be
    /// promised of an image that was not made so.
    #[must_use]
    pub fn data_file_raw(mut self, raw: bool) -> Self {
        self.data_file_raw = Some(raw);
        self
    }
}

impl Image {
    /// Changes the image as told. New refcounts, and zeros that version 2 can only say by zeros, are written beside the old
    /// ones; then one sector of the header switches, so that a crash leaves the image as it was or as it is to be.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what the format does not have: another version than 2 and 3, refcounts of another width, and in
    /// version 2 lazy refcounts and refcounts of other than 16 bits. [`Error::Unsupported`] for version 2 where the image has
    /// anything that version 2 does not: incompatible features (compression by zstd, extended L2, an external data file),
    /// bitmaps, snapshots of another length or with zeros; also for refcounts that their new width cannot hold.
    /// [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn amend(&mut self, options: &AmendOptions) -> Result<()> {
        self.check_writable()?;
        self.settle()?;
        let version = options.version.unwrap_or(self.version);
        let refcount_order = self.check_amend(options, version)?;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let mut area = HeaderArea::read(self)?;
        area.version = version;
        let lazy = options.lazy_refcounts.unwrap_or(area.compatible.contains(Compatible::LAZY_REFCOUNTS));
        area.compatible.set(Compatible::LAZY_REFCOUNTS, lazy && version >= 3);
        if let Some(name) = &options.data_file {
            area.set_extension(header_extension::DATA_FILE, Some(name.clone().into_bytes()));
        }
        if options.data_file_raw == Some(false) {
            self.state_mut().header.roots.autoclear.remove(Autoclear::RAW_EXTERNAL_DATA);
        }
        let clusters = if version < self.version { self.zeros_written_out()? } else { BTreeMap::new() };
        let (counts, disk_len) = (accounting.references.clone(), self.geometry.disk_len);
        let relayout = Some(Relayout { counts, l1: None, snapshots: None, disk_len });
        let header = Some(area.plan(self)?);
        let changes = Changes { clusters, relayout, header, ..Changes::default() };
        self.relayout_at_width(&accounting, changes, refcount_order)
    }

    /// What speaks against a change; else the refcount width that there is to be, as a power of two.
    fn check_amend(&self, options: &AmendOptions, version: u32) -> Result<u32> {
        let invalid = |what: &str| Err(Error::Invalid(what.to_owned()));
        if !(2..=3).contains(&version) {
            return Err(Error::Invalid(format!("the version must be 2 or 3, not {version}")));
        }
        let bits = options.refcount_bits.unwrap_or(1 << self.geometry.refcount_order);
        if !bits.is_power_of_two() || bits > 64 {
            return Err(Error::Invalid(format!("refcounts must be 1, 2, 4, 8, 16, 32 or 64 bits wide, not {bits}")));
        }
        if version < 3 && bits != 16 {
            return invalid("refcounts of other than 16 bits need version 3 (compat=1.1)");
        }
        if version < 3 && options.lazy_refcounts == Some(true) {
            return invalid("lazy refcounts need version 3 (compat=1.1)");
        }
        if (options.data_file.is_some() || options.data_file_raw == Some(true)) && !self.geometry.external_data {
            return invalid("the image has no external data file");
        }
        if options.data_file.as_ref().is_some_and(String::is_empty) {
            return invalid("an external data file must have a name");
        }
        if options.data_file_raw == Some(true)
            && !self.state().header.roots.autoclear.contains(Autoclear::RAW_EXTERNAL_DATA)
        {
            return invalid("data_file_raw cannot be set on an image that was made without it");
        }
        if version < self.version {
            self.check_downgrade()?;
        } else if version > self.version {
            self.check_upgrade()?;
        }
        Ok(bits.trailing_zeros())
    }

    fn check_downgrade(&self) -> Result<()> {
        let unsupported = |what: &str| Err(Error::Unsupported(format!("version 2 (compat=0.10) with {what}")));
        let features = self.state().header.roots.incompatible - Incompatible::DIRTY;
        if self.geometry.external_data {
            return unsupported("an external data file");
        }
        if self.crypt.is_some() {
            return unsupported("encryption");
        }
        if features.contains(Incompatible::EXTENDED_L2) {
            return unsupported("extended L2 entries");
        }
        if features.contains(Incompatible::COMPRESSION_TYPE) {
            return unsupported("compression by zstd");
        }
        if !features.is_empty() {
            return unsupported("incompatible features");
        }
        if self.has_bitmaps() {
            return unsupported("persistent bitmaps");
        }
        for snapshot in self.snapshots()? {
            if snapshot.vm_state_size > u64::from(u32::MAX)
                || snapshot.disk_size.is_some_and(|len| len != self.geometry.disk_len)
            {
                return unsupported("internal snapshots of another length");
            }
            let says_zero = |entry| matches!(entry, L2Entry::Zero { .. });
            for table in snapshot.read_l1(&*self.storage)?.iter().map(|raw| raw & OFFSET).filter(|&table| table != 0) {
                let entries = self.read_l2_table(table)?;
                for index in 0..entries.len() {
                    if says_zero(self.decode_entry(table, &entries, index)?) {
                        return unsupported("zeros in an internal snapshot");
                    }
                }
            }
        }
        Ok(())
    }

    /// Version 2 ignores the bit by which version 3 says that a cluster reads as zeros.
    fn check_upgrade(&self) -> Result<()> {
        let mut tables = self.l1(&self.state())?.to_vec();
        for snapshot in self.snapshots()? {
            tables.extend(snapshot.read_l1(&*self.storage)?);
        }
        for table in tables.iter().map(|raw| raw & OFFSET).filter(|&table| table != 0) {
            for (index, entry) in self.read_l2_table(table)?.iter().enumerate() {
                if entry.descriptor & (COMPRESSED | ZERO) == ZERO {
                    let at = table + index as u64 * self.geometry.l2_entry_size();
                    return Err(Error::corrupt("L2 entry", at, "bit 0 is reserved, and must not be set, in version 2"));
                }
            }
        }
        Ok(())
    }

    /// All clusters whose entry says that they are zeros.
    fn zeros_written_out(&self) -> Result<BTreeMap<u64, Content>> {
        let state = self.state();
        let mut clusters = BTreeMap::new();
        for l1_index in 0..self.l1(&state)?.len() {
            let Some((offset, table)) = self.l2_table(&state, l1_index)? else { continue };
            for l2_index in 0..table.len() {
                if let L2Entry::Zero { .. } = self.decode_entry(offset, &table, l2_index)? {
                    let cluster = GuestCluster(l1_index as u64 * self.geometry.l2_entries() + l2_index as u64);
                    let inside = cluster.0 < self.geometry.guest_clusters();
                    // Beyond the end of the disk nothing is read.
                    let content = if inside { Content::Zero } else { Content::Moved(Default::default()) };
                    clusters.insert(cluster.0, content);
                }
            }
        }
        Ok(clusters)
    }
}
