//! LVM2: physical volumes on a disk's volumes, the groups that they make, and the logical volumes in them.
//!
//! lvmteam/lvm2: `man/lvmsystemid.7_main`, `lib/format_text/layout.h`, `lib/label/label.h`. `docs/lvm.md` has the bytes.

mod config;
mod group;
mod layout;
mod mapping;
mod physical_volume;
mod raid;
mod renew;

use std::collections::HashSet;

use block::ReadAt;

pub use group::{LogicalVolume, MemberVolume, VolumeGroup};
pub(crate) use mapping::{Mapped, Mapping};
use physical_volume::PhysicalVolume;
pub use renew::{SEALED, renew_lvm_uuids};

use crate::error::Result;
use crate::probe::{ContentKind, probe};
use crate::volume::{Logical, Volume};

/// What was found of LVM2 on a disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) groups: Vec<VolumeGroup>,
    /// The logical volumes that can be used, as volumes.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) warnings: Vec<String>,
}

/// Reads all physical volumes among `volumes` and the groups that they make.
pub(crate) fn discover(disk: &dyn ReadAt, volumes: &[Volume]) -> Result<Found> {
    let mut found = Found::default();
    let mut physical = Vec::new();
    for volume in volumes {
        let window = block::Window::new(disk, volume.start, volume.len)?;
        if probe(&window)?.kind != ContentKind::Lvm2Member {
            continue;
        }
        match PhysicalVolume::read(&window, volume)? {
            Ok((one, warnings)) => {
                physical.push(one);
                found.warnings.extend(warnings.into_iter().map(|warning| format!("{}: {warning}", volume.name)));
            }
            Err(corrupt) => found.warnings.push(format!("{}: corrupt LVM2 physical volume: {corrupt}", volume.name)),
        }
    }
    let mut names = HashSet::new();
    for text in physical_volume::newest(&physical, &mut found.warnings) {
        let group = match group::Group::decode(text, &physical) {
            Ok(group) => group,
            Err(corrupt) => {
                found.warnings.push(format!("corrupt LVM2 volume group {}: {corrupt}", text.name));
                continue;
            }
        };
        if !names.insert(group.name.clone()) {
            found.warnings.push(format!("there are several LVM2 volume groups of the name {}", group.name));
            continue;
        }
        add_group(disk, group, &mut found)?;
    }
    Ok(found)
}

fn add_group(disk: &dyn ReadAt, group: group::Group<'_>, found: &mut Found) -> Result<()> {
    let mut logical_volumes = Vec::new();
    for logical in &group.logical {
        if !logical.visible {
            continue;
        }
        let mapped = match group.map(logical) {
            Ok(mapping) if mapping.legs.len() > 1 => match raid::not_in_sync(disk, &group, logical)? {
                None => Ok(mapping),
                Some(reason) => Err(reason),
            },
            mapped => mapped,
        };
        let mapped = mapped.and_then(|mapping| match mapping.start() {
            Some(start) => Ok((mapping, start)),
            None => Err("it has no segments".to_owned()),
        });
        let (len, problem) = match mapped {
            Ok((mapping, start)) => {
                let len = mapping.len;
                found.volumes.push(Volume {
                    name: format!("lvm:{}/{}", group.name, logical.name),
                    number: None,
                    start,
                    len,
                    type_guid: None,
                    type_byte: None,
                    part_uuid: None,
                    part_label: None,
                    logical: Some(Logical {
                        group: group.name.clone(),
                        name: logical.name.clone(),
                        uuid: logical.uuid.clone(),
                        group_uuid: group.uuid.clone(),
                        mapping: std::sync::Arc::new(mapping),
                    }),
                });
                (len, None)
            }
            Err(problem) => (logical.len(group.extent_size), Some(problem)),
        };
        logical_volumes.push(LogicalVolume { name: logical.name.clone(), uuid: logical.uuid.clone(), len, problem });
    }
    found.groups.push(VolumeGroup {
        name: group.name,
        uuid: group.uuid,
        seqno: group.seqno,
        description: group.description,
        extent_size: group.extent_size,
        physical_volumes: group.members,
        logical_volumes,
    });
    Ok(())
}
