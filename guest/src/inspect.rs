//! Opening a guest: finding its root among the volumes of a disk, and mounting the rest where its fstab says.

use std::ops::Range;
use std::sync::Arc;

use block::{ReadAt, Window, WriteAt};
use volumes::{Content, ContentKind, Volume, VolumeGroup};

use crate::error::{NotRoot, Root};
use crate::ext4::{self, Ext4};
use crate::fstab::{self, Device, Entry};
use crate::guest::{Unmounted, VolumeInfo};
use crate::identity::Storage;
use crate::outside::Outside;
use crate::xfs::Xfs;
use crate::{Error, FileKind, FileSystem, Guest, OperatingSystem, Result, Timestamp};

/// How a guest is to be opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Which volume holds the root: `gpt:3`. `None`: the only one that looks like a root.
    pub root: Option<String>,
    /// Nothing is written: journals that wait for their replay are replayed in memory.
    pub read_only: bool,
    /// The time that changes are stamped with.
    pub now: Timestamp,
}

/// The disk, as it may be used.
enum Disk {
    ReadWrite(Arc<dyn WriteAt>),
    ReadOnly(Arc<dyn ReadAt>),
}

impl Disk {
    fn read_only(&self) -> Arc<dyn ReadAt> {
        match self {
            Self::ReadWrite(disk) => Arc::<dyn WriteAt>::clone(disk),
            Self::ReadOnly(disk) => Arc::clone(disk),
        }
    }
}

/// A volume, and what was found on it.
struct Found {
    volume: Volume,
    content: Content,
}

impl Found {
    fn is_supported(&self) -> bool {
        matches!(self.content.kind, ContentKind::Ext2 | ContentKind::Ext3 | ContentKind::Ext4 | ContentKind::Xfs)
    }

    /// Opens the file system for looking only.
    fn look(&self, disk: &Disk) -> Result<Box<dyn FileSystem>> {
        let device = self.volume.device_read_only(disk.read_only())?;
        if self.content.kind == ContentKind::Xfs {
            return Ok(Box::new(Xfs(xfs::FileSystem::open_read_only(device)?)));
        }
        Ok(Box::new(Ext4(ext4fs::FileSystem::open_read_only(device)?)))
    }

    /// Opens the file system for what the guest is opened for.
    fn open(&self, disk: &Disk, now: Timestamp) -> Result<Box<dyn FileSystem>> {
        let Disk::ReadWrite(disk) = disk else { return self.look(disk) };
        if self.content.kind == ContentKind::Xfs {
            let options = xfs::OpenOptions { read_only: false, clock: Some(crate::xfs::to_xfs(now)) };
            let device = self.volume.device(Arc::clone(disk))?;
            return Ok(Box::new(Xfs(xfs::FileSystem::open(device, &options)?)));
        }
        let options = ext4fs::OpenOptions { read_only: false, clock: Some(ext4::to_ext4(now)) };
        let device = self.volume.device(Arc::clone(disk))?;
        Ok(Box::new(Ext4(ext4fs::FileSystem::open(device, &options)?)))
    }
}

impl Guest {
    /// Opens the guest on a disk: finds the root, reads what it is, and mounts what its `/etc/fstab` wants mounted.
    ///
    /// Journals that wait for their replay are replayed, on the file systems that are mounted and no others. What
    /// cannot be mounted is in [`Guest::unmounted`], with the reason.
    ///
    /// ```no_run
    /// use block::{Access, HostFile};
    /// use guest::{Guest, OpenOptions};
    /// use std::sync::Arc;
    ///
    /// let disk = Arc::new(HostFile::open("disk.raw", Access::ReadWrite)?);
    /// let mut guest = Guest::open(disk, &OpenOptions::default())?;
    /// guest.write(b"/etc/hostname", b"localhost\n")?;
    /// guest.scrub()?;
    /// guest.flush()?;
    /// # Ok::<(), guest::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoRoot`] with what each volume is instead; [`Error::SeveralRoots`] and [`Error::NoSuchVolume`], after
    /// which [`OpenOptions::root`] helps; a damaged partition table or root file system; [`Error::Io`].
    pub fn open(disk: Arc<dyn WriteAt>, options: &OpenOptions) -> Result<Self> {
        if options.read_only {
            return open(&Disk::ReadOnly(disk), options);
        }
        open(&Disk::ReadWrite(disk), options)
    }

    /// Opens the guest on a disk that cannot be written. See [`Guest::open`].
    ///
    /// # Errors
    /// As [`Guest::open`].
    pub fn open_read_only(disk: Arc<dyn ReadAt>, options: &OpenOptions) -> Result<Self> {
        open(&Disk::ReadOnly(disk), options)
    }
}

fn open(disk: &Disk, options: &OpenOptions) -> Result<Guest> {
    let looked_at = disk.read_only();
    let layout = volumes::discover(&looked_at)?;
    let mut all = Vec::with_capacity(layout.volumes.len());
    for volume in &layout.volumes {
        let volume = volume.clone();
        let content = volumes::probe(&volume.device_read_only(Arc::clone(&looked_at))?)?;
        all.push(Found { volume, content });
    }

    let root = match &options.root {
        Some(name) => chosen_root(&all, name)?,
        None => only_root(disk, &all, &layout.volume_groups)?,
    };
    let mut guest = Guest::with_root(all[root].open(disk, options.now)?, all[root].volume.name.clone());
    guest.now = options.now;
    guest.warnings = layout.warnings.clone();
    if let Some(reason) = not_a_root(&guest)? {
        guest.warnings.push(format!("{} was chosen as root: {reason}", all[root].volume.name));
    }
    mount_all(&mut guest, disk, &all, &layout.volume_groups, root, options.now)?;
    guest.os = OperatingSystem::read(&guest)?;
    guest.outside = outside(disk, &all, &layout.unused)?;
    guest.volumes = all.into_iter().map(describe).collect();
    let disk = match disk {
        Disk::ReadWrite(disk) => Some(Arc::clone(disk)),
        Disk::ReadOnly(_) => None,
    };
    guest.storage = Some(Storage { disk, layout });
    Ok(guest)
}

/// Swap volumes and unpartitioned space, where they can be written.
fn outside(disk: &Disk, all: &[Found], unused: &[Range<u64>]) -> Result<Vec<Outside>> {
    let Disk::ReadWrite(disk) = disk else { return Ok(Vec::new()) };
    let mut outside = Vec::new();
    for found in all {
        if matches!(found.content.kind, ContentKind::Swap | ContentKind::SuspendedSwap) {
            let device = found.volume.device(Arc::clone(disk))?;
            outside.extend(Outside::swap(&found.volume.name, device)?);
        }
    }
    for gap in unused {
        outside.push(Outside::gap(Arc::new(Window::new(Arc::clone(disk), gap.start, gap.end - gap.start)?)));
    }
    Ok(outside)
}

fn describe(found: Found) -> VolumeInfo {
    let Found { volume, content } = found;
    VolumeInfo {
        name: volume.name,
        start: volume.start,
        len: volume.len,
        content: content.kind.name().to_owned(),
        label: content.label,
        uuid: content.uuid,
    }
}

/// The volume that the caller names.
fn chosen_root(all: &[Found], name: &str) -> Result<usize> {
    let Some(root) = all.iter().position(|found| found.volume.name == name) else {
        let volumes = all.iter().map(|found| found.volume.name.clone()).collect();
        return Err(Error::NoSuchVolume { name: name.to_owned(), volumes });
    };
    if !all[root].is_supported() {
        let volume = NotRoot { device: name.to_owned(), reason: unsupported(&all[root].content) };
        return Err(Error::NoRoot { volumes: vec![volume] });
    }
    Ok(root)
}

/// The only volume that looks like a root.
fn only_root(disk: &Disk, all: &[Found], groups: &[VolumeGroup]) -> Result<usize> {
    let mut roots = Vec::new();
    let mut others = Vec::new();
    for (index, found) in all.iter().enumerate() {
        match look_for_root(disk, found) {
            Ok(os) => roots.push((index, Root { device: found.volume.name.clone(), os: os.pretty_name })),
            Err(reason) => others.push(NotRoot { device: found.volume.name.clone(), reason }),
        }
    }
    others.extend(unusable(groups).map(|(device, reason)| NotRoot { device, reason }));
    match roots.as_slice() {
        [(root, _)] => Ok(*root),
        [] => Err(Error::NoRoot { volumes: others }),
        _ => Err(Error::SeveralRoots { roots: roots.into_iter().map(|(_, root)| root).collect() }),
    }
}

/// The logical volumes that cannot be used, and why.
fn unusable(groups: &[VolumeGroup]) -> impl Iterator<Item = (String, String)> {
    groups.iter().flat_map(|group| {
        let problem = |logical: &volumes::LogicalVolume| {
            Some((
                format!("lvm:{}/{}", group.name, logical.name),
                format!("a logical volume: {}", logical.problem.clone()?),
            ))
        };
        group.logical_volumes.iter().filter_map(problem)
    })
}

/// Which system's root a volume is, or why it is none.
fn look_for_root(disk: &Disk, found: &Found) -> Result<OperatingSystem, String> {
    if !found.is_supported() {
        return Err(unsupported(&found.content));
    }
    // A volume that is damaged is not the root, until nothing else is.
    let look = || {
        let guest = Guest::with_root(found.look(disk)?, found.volume.name.clone());
        match not_a_root(&guest)? {
            Some(reason) => Ok(Err(reason)),
            None => Ok(Ok(OperatingSystem::read(&guest)?)),
        }
    };
    look().unwrap_or_else(|error: Error| Err(format!("{} that cannot be read: {}", found.content.kind, chain(&error))))
}

fn unsupported(content: &Content) -> String {
    match content.kind {
        ContentKind::Lvm2Member => content.kind.name().to_owned(),
        ContentKind::Unknown => "nothing that is known".to_owned(),
        ContentKind::Swap | ContentKind::SuspendedSwap => content.kind.name().to_owned(),
        kind => format!("{kind}, which is not supported"),
    }
}

/// Why a file system is not the root of a system, if it is not. `/etc/os-release` may lead to a `/usr` of its own.
fn not_a_root(guest: &Guest) -> Result<Option<String>> {
    let kind = guest.table.mounts().first().map_or("", |mount| &mount.type_name);
    let is = |path: &[u8], wanted| Ok::<_, Error>(guest.stat(path)?.is_some_and(|metadata| metadata.kind == wanted));
    if !is(b"/etc", FileKind::Directory)? {
        return Ok(Some(format!("{kind} without a directory /etc")));
    }
    if guest.lstat(b"/etc/os-release")?.is_some() || is(b"/usr/lib/os-release", FileKind::File)? {
        return Ok(None);
    }
    let has_bin =
        guest.lstat(b"/bin")?.is_some_and(|metadata| matches!(metadata.kind, FileKind::Directory | FileKind::Symlink));
    if !has_bin {
        return Ok(Some(format!("{kind} with /etc, without os-release and /bin")));
    }
    if is(b"/etc/fstab", FileKind::File)? || is(b"/etc/hosts", FileKind::File)? {
        return Ok(None);
    }
    Ok(Some(format!("{kind} with /etc and /bin, without os-release, fstab and hosts")))
}

/// Mounts what fstab wants mounted, parents before what is below them.
fn mount_all(
    guest: &mut Guest,
    disk: &Disk,
    all: &[Found],
    groups: &[VolumeGroup],
    root: usize,
    now: Timestamp,
) -> Result<()> {
    let mut mounted = vec![(root, b"/".to_vec())];
    let mut entries = match guest.stat(b"/etc/fstab")? {
        Some(metadata) if metadata.kind == FileKind::File => match guest.read(b"/etc/fstab") {
            Ok(text) => fstab::parse(&text),
            Err(error) => {
                guest.warnings.push(format!("nothing but the root is mounted: {}", chain(&error)));
                Vec::new()
            }
        },
        _ => Vec::new(),
    };
    // The sort is stable: of two for one place the later covers the earlier.
    entries.sort_by_key(|entry| if entry.path == b"/" { 0 } else { entry.path.len() });
    for entry in entries {
        let volume = match find_volume(all, groups, root, &entry.spec) {
            Ok(Some(volume)) => volume,
            Ok(None) => continue,
            Err(reason) => {
                fail(guest, entry, reason);
                continue;
            }
        };
        if entry.path == b"/" {
            if volume != root {
                let (found, wanted) = (&all[root].volume.name, &all[volume].volume.name);
                guest.warnings.push(format!("the root on {found} has an fstab that wants {wanted} as root"));
            }
            continue;
        }
        match mount_one(guest, disk, &all[volume], &entry, &mounted, volume, now) {
            Ok(()) => mounted.push((volume, entry.path)),
            Err(reason) => fail(guest, entry, reason),
        }
    }
    for (index, found) in all.iter().enumerate() {
        if found.is_supported() && mounted.iter().all(|(volume, _)| *volume != index) {
            let (name, kind) = (&found.volume.name, found.content.kind);
            guest.warnings.push(format!("{name} ({kind}) is not mounted: it is left as it is"));
        }
    }
    for (name, reason) in unusable(groups) {
        guest.warnings.push(format!("{name} is left as it is: it is {reason}"));
    }
    Ok(())
}

fn mount_one(
    guest: &mut Guest,
    disk: &Disk,
    found: &Found,
    entry: &Entry,
    mounted: &[(usize, Vec<u8>)],
    volume: usize,
    now: Timestamp,
) -> Result<(), String> {
    if !found.is_supported() {
        return Err(format!("{} holds {}", found.volume.name, unsupported(&found.content)));
    }
    // Opened twice, it would be two that know nothing of each other's changes.
    if let Some((_, path)) = mounted.iter().find(|(index, _)| *index == volume) {
        return Err(format!("{} is mounted on {} already", found.volume.name, crate::path::display(path)));
    }
    match guest.resolve(&entry.path) {
        // The kernel's root stays what it is, whatever is mounted over it.
        Ok(Some(path)) if path == b"/" => return Err("it would cover the root".to_owned()),
        Ok(Some(_)) => {}
        Ok(None) => return Err("the directory does not exist".to_owned()),
        Err(error) => return Err(chain(&error)),
    }
    let file_system = found.open(disk, now).map_err(|error| chain(&error))?;
    guest.mount(&entry.path, file_system, found.volume.name.clone()).map_err(|error| chain(&error))
}

fn fail(guest: &mut Guest, entry: Entry, reason: String) {
    // The root is mounted, whatever fstab calls it.
    if entry.path == b"/" {
        guest.warnings.push(format!("fstab wants {} as root: {reason}", entry.spec));
    } else {
        guest.unmounted.push(Unmounted { path: entry.path, spec: entry.spec, reason });
    }
}

/// The volume that a line of fstab names; none where it is not on a disk.
fn find_volume(all: &[Found], groups: &[VolumeGroup], root: usize, spec: &str) -> Result<Option<usize>, String> {
    let position = |matches: &dyn Fn(&Found) -> bool| all.iter().position(matches);
    let same =
        |found: &Option<String>, wanted: &str| found.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(wanted));
    let device = Device::parse(spec);
    let (volume, what) = match &device {
        Device::NoDisk => return Ok(None),
        Device::Elsewhere(reason) => return Err((*reason).to_owned()),
        Device::Root => return Ok(Some(root)),
        Device::Uuid(uuid) => (position(&|found| same(&found.content.uuid, uuid)), "that UUID"),
        Device::Label(label) => (position(&|found| found.content.label.as_ref() == Some(label)), "that label"),
        Device::PartUuid(uuid) => (position(&|found| same(&found.volume.part_uuid, uuid)), "that partition UUID"),
        Device::PartLabel(label) => {
            (position(&|found| found.volume.part_label.as_ref() == Some(label)), "that partition name")
        }
        Device::Partition(number) => (position(&|found| found.volume.number == Some(*number)), "that number"),
        Device::WholeDisk => {
            let is_whole = |found: &Found| found.volume.number.is_none() && found.volume.logical.is_none();
            (position(&is_whole), "the whole disk")
        }
        Device::Mapper(_) | Device::MapperUuid(_) | Device::Logical(..) => {
            return find_logical(all, groups, &device).map(Some);
        }
    };
    volume.map(Some).ok_or_else(|| format!("no volume of this disk has {what}"))
}

/// The logical volume that a line of fstab names by one of the device mapper's names, or why there is none.
fn find_logical(all: &[Found], groups: &[VolumeGroup], device: &Device) -> Result<usize, String> {
    let found = all.iter().position(|found| {
        found.volume.logical.as_ref().is_some_and(|logical| match device {
            Device::Mapper(name) => logical.mapper_name() == *name,
            Device::MapperUuid(uuid) => logical.mapper_uuid() == *uuid,
            Device::Logical(group, name) => (&logical.group, &logical.name) == (group, name),
            _ => false,
        })
    });
    // One that cannot be used says why.
    let problem = || {
        let mut logical =
            groups.iter().flat_map(|group| group.logical_volumes.iter().map(move |logical| (group, logical)));
        let same = |group: &VolumeGroup, name: &str| match device {
            Device::Mapper(wanted) => {
                format!("{}-{}", group.name.replace('-', "--"), name.replace('-', "--")) == *wanted
            }
            Device::Logical(wanted, volume) => (&group.name, name) == (wanted, volume.as_str()),
            _ => false,
        };
        let (group, logical) = logical.find(|(group, logical)| same(group, &logical.name))?;
        Some(format!("lvm:{}/{}: {}", group.name, logical.name, logical.problem.as_ref()?))
    };
    let other = "no LVM2 volume of this disk has that name, and what else the device mapper makes is not supported";
    found.ok_or_else(|| problem().unwrap_or_else(|| other.to_owned()))
}

/// An error with what it comes from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut error = error.source();
    while let Some(source) = error {
        text.push_str(": ");
        text.push_str(&source.to_string());
        error = source.source();
    }
    text
}
