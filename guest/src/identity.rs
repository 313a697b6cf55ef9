//! What tells a disk from its clones: the UUIDs of file systems and swap space, of LVM2, of the partition table.

use std::collections::HashMap;
use std::sync::Arc;

use block::{ExtentKind, ReadAt, Window, WriteAt};
use regex::bytes::Regex;
use uuid::Uuid;
use volumes::{ContentKind, Layout, RenewedId, VolumeGroup};

use crate::error::Context;
use crate::outside::{SWAP_UUID, SWAP_VERSION};
use crate::{Error, Guest, Result};

/// Bytes that are looked at in one go.
const CHUNK: u64 = 1 << 20;

/// The disk that a guest was opened on, to change what is outside its file systems.
pub(crate) struct Storage {
    /// `None` where it cannot be written.
    pub(crate) disk: Option<Arc<dyn WriteAt>>,
    pub(crate) layout: Layout,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// A UUID on the disk that can be changed, or why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UuidHolder {
    /// The volume: `gpt:3`.
    pub device: String,
    /// What has the UUID: `ext4`, `swap`.
    pub kind: String,
    /// Where it is mounted, if it is.
    pub path: Option<Vec<u8>>,
    /// The UUID, spelt as blkid spells it.
    pub uuid: String,
    /// A feature that the file system gets with another UUID, and that whatever reads it then has to know.
    pub adds_feature: Option<&'static str>,
    /// Why it keeps its UUID, if it does.
    pub problem: Option<String>,
}

impl Guest {
    /// All that has a UUID of its own among the volumes of the disk, in its order.
    #[must_use]
    pub fn uuid_holders(&self) -> Vec<UuidHolder> {
        let member = ContentKind::Lvm2Member.name();
        let holds = |content: &str| content != member;
        let volumes = self.volumes.iter().filter(|volume| holds(&volume.content));
        volumes.filter_map(|volume| self.uuid_holder(&volume.name, &volume.content, volume.uuid.as_ref()?)).collect()
    }

    fn uuid_holder(&self, device: &str, kind: &str, uuid: &str) -> Option<UuidHolder> {
        let mut holder = UuidHolder {
            device: device.to_owned(),
            kind: kind.to_owned(),
            path: None,
            uuid: uuid.to_owned(),
            adds_feature: None,
            problem: None,
        };
        if let Some((mount, file_system)) = self.table.file_systems().find(|(mount, _)| mount.device == device) {
            holder.path = Some(mount.path.clone());
            holder.adds_feature = file_system.uuid_adds_feature();
            holder.problem = mount.read_only.clone();
            // Volumes are described when the disk is opened.
            holder.uuid = file_system.uuid()?.to_string();
            return Some(holder);
        }
        if !self.outside.iter().any(|outside| outside.name == device && outside.header > 0) {
            let is_supported = ["ext2", "ext3", "ext4", "xfs"].contains(&kind);
            let why = if is_supported { "it is not mounted" } else { "its UUID cannot be changed" };
            holder.problem = Some(why.to_owned());
        }
        Some(holder)
    }

    /// Gives a mounted file system, or a swap volume, another UUID. What names it by the old one is not looked at.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`] where neither is on that volume; [`Error::ReadOnly`]; what the file system has against it.
    pub fn set_uuid(&mut self, device: &str, uuid: Uuid) -> Result<()> {
        if let Some((mount, file_system)) = self.table.file_systems_mut().find(|(mount, _)| mount.device == device) {
            if let Some(reason) = &mount.read_only {
                return Err(Error::ReadOnly { device: device.to_owned(), reason: reason.clone() });
            }
            file_system.set_uuid(uuid).at("set the UUID of", &mount.path)?;
        } else {
            let swap = self.outside.iter().find(|outside| outside.name == device && outside.header > 0);
            let Some(swap) = swap else {
                let volumes = self.uuid_holders().into_iter().map(|holder| holder.device).collect();
                return Err(Error::NoSuchVolume { name: device.to_owned(), volumes });
            };
            let mut version = [0; 4];
            swap.device.read_at(SWAP_VERSION, &mut version)?;
            // The guest's byte order may be either.
            if ![u32::from_le_bytes(version), u32::from_be_bytes(version)].contains(&1) {
                return Err(Error::Corrupt(format!("the swap space on {device} is not of version 1")));
            }
            swap.device.write_at(SWAP_UUID, uuid.as_bytes())?;
        }
        if let Some(volume) = self.volumes.iter_mut().find(|volume| volume.name == device) {
            volume.uuid = Some(uuid.to_string());
        }
        Ok(())
    }

    /// The LVM2 groups of the disk.
    #[must_use]
    pub fn volume_groups(&self) -> &[VolumeGroup] {
        self.storage.as_ref().map_or(&[], |storage| &storage.layout.volume_groups)
    }

    /// Gives LVM2's groups and physical volumes new UUIDs: [`volumes::renew_lvm_uuids`].
    ///
    /// # Errors
    /// [`Error::Volumes`], before anything is written, where they cannot be changed.
    pub fn renew_lvm_uuids(&mut self, random: &mut dyn FnMut(&mut [u8])) -> Result<Vec<RenewedId>> {
        self.renew(|disk, layout| volumes::renew_lvm_uuids(disk, layout, random))
    }

    /// Gives the partition table new identities: [`volumes::renew_table_ids`].
    ///
    /// # Errors
    /// [`Error::Volumes`], before anything is written, where they cannot be changed.
    pub fn renew_table_ids(&mut self, random: &mut dyn FnMut(&mut [u8])) -> Result<Vec<RenewedId>> {
        self.renew(|disk, layout| volumes::renew_table_ids(disk, layout, random))
    }

    fn renew(
        &mut self,
        renew: impl FnOnce(&dyn WriteAt, &Layout) -> volumes::Result<Vec<RenewedId>>,
    ) -> Result<Vec<RenewedId>> {
        let Some(storage) = &mut self.storage else { return Ok(Vec::new()) };
        let Some(disk) = &storage.disk else {
            let reason = "it was opened so".to_owned();
            return Err(Error::ReadOnly { device: "disk".to_owned(), reason });
        };
        let renewed = renew(disk, &storage.layout)?;
        if !renewed.is_empty() {
            storage.layout = volumes::discover(disk)?;
            for id in &renewed {
                let described = self.volumes.iter_mut().filter(|volume| volume.name == id.of);
                described.filter(|volume| volume.uuid.as_ref() == Some(&id.old)).for_each(|volume| {
                    volume.uuid = Some(id.new.clone());
                });
            }
        }
        Ok(renewed)
    }

    /// What tells the disk's partitions apart, as `/dev/disk/by-partuuid` spells it.
    pub fn partition_uuids(&self) -> impl Iterator<Item = &str> {
        let volumes = self.storage.iter().flat_map(|storage| &storage.layout.volumes);
        volumes.filter_map(|volume| volume.part_uuid.as_deref())
    }

    /// The volumes with a FAT file system, which is where firmware looks for boot loaders. They are not mounted.
    pub fn vfat_volumes(&self) -> impl Iterator<Item = &str> {
        let vfat = ContentKind::Vfat.name();
        self.volumes.iter().filter(move |volume| volume.content == vfat).map(|volume| volume.name.as_str())
    }

    /// Removes a file from a volume with a FAT file system: [`volumes::remove_fat_file`]. Says how long it was; `None` if it
    /// is not there.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; [`Error::Volumes`] where the file system contradicts itself; what the disk says.
    pub fn remove_from_vfat(&mut self, volume: &str, path: &[&str]) -> Result<Option<u64>> {
        let device = self.volume_device(volume)?;
        Ok(volumes::remove_fat_file(&device, path)?)
    }

    fn volume_device(&self, volume: &str) -> Result<Window<Arc<dyn WriteAt>>> {
        let found = self.volumes.iter().find(|info| info.name == volume);
        let disk = self.storage.as_ref().and_then(|storage| storage.disk.as_ref());
        let (Some(found), Some(disk)) = (found, disk) else {
            let volumes = self.volumes.iter().map(|volume| volume.name.clone()).collect();
            return Err(Error::NoSuchVolume { name: volume.to_owned(), volumes });
        };
        Ok(Window::new(Arc::clone(disk), found.start, found.len)?)
    }

    /// How often a volume holds any of these texts, wherever it is.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`]; what the disk says.
    pub fn count_in_volume(&self, volume: &str, texts: &[&str]) -> Result<u64> {
        let mut count = 0;
        self.search_volume(volume, texts, |_, _, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Replaces texts by others of the same length wherever a volume that is not mounted holds them; says how often.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`] where the lengths differ; [`Error::MountPoint`] where the volume is mounted;
    /// [`Error::NoSuchVolume`]; what the disk says.
    pub fn replace_in_volume(&mut self, volume: &str, texts: &[(String, String)]) -> Result<u64> {
        if texts.iter().any(|(old, new)| old.len() != new.len()) {
            return Err(Error::InvalidPattern("a text is replaced by one of another length"));
        }
        if self.mounts().iter().any(|mount| mount.device == volume) {
            return Err(Error::MountPoint);
        }
        let by_old: HashMap<&str, &str> = texts.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        let olds: Vec<&str> = by_old.keys().copied().collect();
        let mut count = 0;
        self.search_volume(volume, &olds, |device, offset, found| {
            if let Some(new) = std::str::from_utf8(found).ok().and_then(|found| by_old.get(found)) {
                device.write_at(offset, new.as_bytes())?;
                count += 1;
            }
            Ok(())
        })?;
        Ok(count)
    }

    /// Calls `visit` with each place of any of the texts in a volume.
    fn search_volume(
        &self,
        volume: &str,
        texts: &[&str],
        mut visit: impl FnMut(&dyn WriteAt, u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let device = self.volume_device(volume)?;
        let Some(longest) = texts.iter().map(|text| text.len() as u64).max() else { return Ok(()) };
        let any = texts.iter().map(|text| regex::escape(text)).collect::<Vec<_>>().join("|");
        let any = Regex::new(&format!("(?-u){any}"));
        let any = any.map_err(|_| Error::InvalidPattern("too many texts to search for at once"))?;
        let mut buf = Vec::new();
        let mut offset = 0;
        while offset < device.len() {
            let extent = device.extent_at(offset, device.len() - offset)?;
            if extent.kind != ExtentKind::Data {
                offset += extent.len;
                continue;
            }
            // One that begins in this piece may end in the next.
            let len = extent.len.min(CHUNK);
            let overlap = (longest - 1).min(device.len() - offset - len);
            buf.resize((len + overlap) as usize, 0);
            device.read_at(offset, &mut buf)?;
            for place in any.find_iter(&buf).filter(|place| (place.start() as u64) < len) {
                visit(&device, offset + place.start() as u64, place.as_bytes())?;
            }
            offset += len;
        }
        Ok(())
    }
}
