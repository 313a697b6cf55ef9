//! The guest: its file systems, each at its place.

use std::sync::Mutex;

use crate::cache::Cache;
use crate::error::Context;
use crate::identity::Storage;
use crate::mount_table::{Mount, MountTable};
use crate::outside::Outside;
use crate::resolve::{Follow, Target};
use crate::selinux::Policy;
use crate::{Error, FileSystem, OperatingSystem, Result, ScrubReport, Timestamp};

/// A guest: a root file system and those mounted below it, addressed by path. See the [crate]'s own page.
///
/// Looking takes `&self` and may be done from several threads; changing takes `&mut self`. Changes may stay in memory
/// until [`Guest::flush`].
#[derive(Debug)]
pub struct Guest {
    pub(crate) table: MountTable,
    pub(crate) cache: Mutex<Cache>,
    pub(crate) os: OperatingSystem,
    pub(crate) volumes: Vec<VolumeInfo>,
    pub(crate) unmounted: Vec<Unmounted>,
    pub(crate) warnings: Vec<String>,
    pub(crate) outside: Vec<Outside>,
    /// `None` where the caller opened the file systems.
    pub(crate) storage: Option<Storage>,
    pub(crate) selinux: Policy,
    pub(crate) guessed_labels: bool,
    pub(crate) now: Timestamp,
}

/// A volume of the disk, mounted or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VolumeInfo {
    /// `gpt:3`, `mbr:1`, or `disk` for a disk without partitions.
    pub name: String,
    /// Where it starts on the disk, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// What is on it: `ext4`, `vfat`, `swap`, `LVM2 physical volume`.
    pub content: String,
    /// The label of what is on it, where it has one.
    pub label: Option<String>,
    /// The UUID of what is on it, spelt as blkid spells it, where it has one.
    pub uuid: Option<String>,
}

/// A file system that the guest's `/etc/fstab` wants mounted, and that is not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unmounted {
    /// Where it belongs.
    pub path: Vec<u8>,
    /// What fstab says it is: `UUID=1234-ABCD`.
    pub spec: String,
    /// Why it is not mounted.
    pub reason: String,
}

impl Unmounted {
    /// Whether it is a FAT file system of this disk, in which files can be removed all the same:
    /// [`Guest::remove_from_vfat`].
    #[must_use]
    pub fn is_vfat(&self) -> bool {
        self.reason.contains(" holds vfat")
    }
}

impl Guest {
    /// A guest of file systems that the caller has opened: the root, and others with the directories to mount them on,
    /// which have to exist. The shortest mount point comes first.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::NotADirectory`] where a mount point is no directory, and what the file systems
    /// say.
    pub fn from_file_systems(root: Box<dyn FileSystem>, others: Vec<(Vec<u8>, Box<dyn FileSystem>)>) -> Result<Self> {
        let mut guest = Self::with_root(root, "root".to_owned());
        let mut others = others;
        others.sort_by_key(|(path, _)| path.len());
        for (path, file_system) in others {
            let device = crate::path::display(&path);
            guest.mount(&path, file_system, device)?;
        }
        guest.os = OperatingSystem::read(&guest)?;
        Ok(guest)
    }

    pub(crate) fn with_root(root: Box<dyn FileSystem>, device: String) -> Self {
        let table = MountTable::new(root, device);
        Self {
            table,
            cache: Mutex::default(),
            os: OperatingSystem::default(),
            volumes: Vec::new(),
            unmounted: Vec::new(),
            warnings: Vec::new(),
            outside: Vec::new(),
            storage: None,
            selinux: Policy::default(),
            guessed_labels: false,
            now: Timestamp::default(),
        }
    }

    /// Mounts a file system on a directory; links to it are followed.
    pub(crate) fn mount(&mut self, path: &[u8], file_system: Box<dyn FileSystem>, device: String) -> Result<()> {
        match self.find(path, Follow::Always).at("mount on", path)? {
            Target::Directory(directory, _) => {
                self.table.mount(&directory.path, directory.location(), file_system, device);
                self.cache().forget_all();
                Ok(())
            }
            target => {
                let error = target.existing().map_or_else(|error| error, |_| Error::NotADirectory);
                Err(error.at("mount on", path))
            }
        }
    }

    /// Which operating system it is.
    #[must_use]
    pub fn os(&self) -> &OperatingSystem {
        &self.os
    }

    /// What is mounted: the root first, then in the order of mounting.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        self.table.mounts()
    }

    /// What the guest wants mounted and what could not be, so that nobody takes it for clean. Swap is not among them,
    /// nor is what is on no disk.
    #[must_use]
    pub fn unmounted(&self) -> &[Unmounted] {
        &self.unmounted
    }

    /// All volumes of the disk, in its order; none where the caller opened the file systems.
    #[must_use]
    pub fn volumes(&self) -> &[VolumeInfo] {
        &self.volumes
    }

    /// What was odd on the way, and did not stop it.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The time that changes are stamped with: [`OpenOptions::now`](crate::OpenOptions::now).
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Makes all that the mounted file systems do not use read as zeros, on each that can be written; and, where the
    /// guest was opened from a disk, what is in its swap space, behind the header, and in space that no partition has.
    ///
    /// # Errors
    /// What the file systems say, with the mount point.
    pub fn scrub(&mut self) -> Result<ScrubReport> {
        let mut report = ScrubReport { bytes_zeroed: self.scrub_outside()? };
        for (mount, file_system) in self.table.file_systems_mut() {
            if mount.read_only.is_none() {
                let one = file_system.scrub().at("scrub", &mount.path)?;
                report.bytes_zeroed = report.bytes_zeroed.saturating_add(one.bytes_zeroed);
            }
        }
        Ok(report)
    }

    /// Writes all that is still in memory to the devices below, and flushes them.
    ///
    /// # Errors
    /// What the file systems say, with the mount point.
    pub fn flush(&mut self) -> Result<()> {
        for (mount, file_system) in self.table.file_systems_mut() {
            if mount.read_only.is_none() {
                file_system.flush().at("flush", &mount.path)?;
            }
        }
        Ok(())
    }
}
