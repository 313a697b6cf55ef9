//! What is printed: results as text or JSON on the standard output, progress and errors on the standard error.

pub(crate) mod html;
pub(crate) mod image;
pub(crate) mod image_info;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod text;

use std::path::Path;
use std::sync::Arc;

use block::ReadAt;
use guest::{FileKind, Guest, Metadata};
use seal::{Edit, GuestPath, OperationReport, Report, Trace};
use serde::Serialize;
use volumes::Layout;

use crate::residue::Residue;

/// The report of one image: what `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    pub(crate) image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
    pub(crate) committed: bool,
    pub(crate) guest: GuestFacts,
    pub(crate) operations: Vec<OperationReport>,
    pub(crate) scrubbed: Scrubbed,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// What sealing cannot take away, or has not yet: found by `audit`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) residue: Vec<String>,
    /// The swap spaces that held the memory of a suspended guest.
    #[serde(skip)]
    pub(crate) suspended: Vec<String>,
    /// What the search for removed bytes found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) residue_search: Option<Residue>,
    #[serde(skip)]
    pub(crate) edits: Vec<Edit>,
    /// What is searched for.
    #[serde(skip)]
    pub(crate) traces: Vec<Trace>,
}

/// The guest, as far as a report names it.
#[derive(Debug, Serialize)]
pub(crate) struct GuestFacts {
    pub(crate) root: String,
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) mounts: Vec<MountFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct MountFacts {
    pub(crate) path: GuestPath,
    pub(crate) device: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Scrubbed {
    pub(crate) bytes_zeroed: u64,
    pub(crate) clusters_freed: u64,
    pub(crate) host_bytes_before: u64,
    pub(crate) host_bytes_after: u64,
}

impl ImageReport {
    pub(crate) fn new(image: &Path, guest: &Guest, report: Report) -> Self {
        let mut warnings = guest.warnings().to_vec();
        warnings.extend(report.warnings);
        Self {
            image: image.display().to_string(),
            output: None,
            committed: false,
            guest: GuestFacts::new(guest),
            operations: report.operations,
            scrubbed: Scrubbed {
                bytes_zeroed: report.scrubbed.map_or(0, |scrubbed| scrubbed.bytes_zeroed),
                ..Scrubbed::default()
            },
            warnings,
            notes: report.notes,
            residue: Vec::new(),
            suspended: report.suspended,
            residue_search: None,
            edits: report.edits,
            traces: Vec::new(),
        }
    }

    /// Whether nothing was, or is, to be done.
    pub(crate) fn is_sealed(&self) -> bool {
        self.operations.iter().all(|operation| operation.changes.is_empty())
            && self.scrubbed.bytes_zeroed == 0
            && self.residue.is_empty()
    }
}

impl GuestFacts {
    fn new(guest: &Guest) -> Self {
        let os = guest.os();
        let mounts = guest.mounts();
        Self {
            root: mounts.first().map(|mount| mount.device.clone()).unwrap_or_default(),
            id: escape(&os.id),
            version: escape(&os.version_id),
            name: escape(if os.pretty_name.is_empty() { &os.name } else { &os.pretty_name }),
            mounts: mounts
                .iter()
                .map(|mount| MountFacts {
                    path: GuestPath::from(mount.path.as_slice()),
                    device: mount.device.clone(),
                    type_name: mount.type_name.clone(),
                })
                .collect(),
        }
    }
}

/// What `inspect` found.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    pub(crate) image: String,
    pub(crate) size: u64,
    pub(crate) table: String,
    pub(crate) volumes: Vec<VolumeFacts>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume_groups: Vec<VolumeGroupFacts>,
    pub(crate) guest: Option<GuestFacts>,
    pub(crate) unmounted: Vec<UnmountedFacts>,
    pub(crate) warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VolumeFacts {
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) size: u64,
    #[serde(rename = "type")]
    pub(crate) content: String,
    pub(crate) label: Option<String>,
    pub(crate) uuid: Option<String>,
    pub(crate) part_label: Option<String>,
    pub(crate) part_uuid: Option<String>,
}

/// An LVM2 volume group.
#[derive(Debug, Serialize)]
pub(crate) struct VolumeGroupFacts {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) extent_size: u64,
    pub(crate) physical_volumes: Vec<PhysicalVolumeFacts>,
    pub(crate) logical_volumes: Vec<LogicalVolumeFacts>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PhysicalVolumeFacts {
    pub(crate) uuid: String,
    /// The volume that it is on; none where it is missing.
    pub(crate) volume: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LogicalVolumeFacts {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) size: u64,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl VolumeGroupFacts {
    fn new(group: &volumes::VolumeGroup) -> Self {
        let physical = group.physical_volumes.iter();
        let logical = group.logical_volumes.iter().map(|logical| LogicalVolumeFacts {
            name: format!("lvm:{}/{}", group.name, logical.name),
            uuid: logical.uuid.clone(),
            size: logical.len,
            problem: logical.problem.as_deref().map(escape),
        });
        Self {
            name: group.name.clone(),
            uuid: group.uuid.clone(),
            extent_size: group.extent_size,
            physical_volumes: physical
                .map(|member| PhysicalVolumeFacts { uuid: member.uuid.clone(), volume: member.volume.clone() })
                .collect(),
            logical_volumes: logical.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct UnmountedFacts {
    pub(crate) path: GuestPath,
    pub(crate) spec: String,
    pub(crate) reason: String,
}

impl Inspection {
    pub(crate) fn new(
        image: &Path,
        layout: &Layout,
        device: &Arc<dyn ReadAt>,
        guest: Result<&Guest, &guest::Error>,
    ) -> Result<Self, volumes::Error> {
        let mut volumes = Vec::new();
        for volume in &layout.volumes {
            let content = volumes::probe(&volume.device_read_only(Arc::clone(device))?)?;
            volumes.push(VolumeFacts {
                name: volume.name.clone(),
                start: volume.start,
                size: volume.len,
                content: content.kind.name().to_owned(),
                label: content.label.as_deref().map(escape),
                uuid: content.uuid,
                part_label: volume.part_label.as_deref().map(escape),
                part_uuid: volume.part_uuid.clone(),
            });
        }
        let unmounted = guest.map(Guest::unmounted).unwrap_or_default().iter().map(|unmounted| UnmountedFacts {
            path: GuestPath::from(unmounted.path.as_slice()),
            spec: escape(&unmounted.spec),
            reason: unmounted.reason.clone(),
        });
        let mut warnings = layout.warnings.clone();
        warnings.extend(guest.map(Guest::warnings).unwrap_or_default().iter().cloned());
        warnings.dedup();
        Ok(Self {
            image: image.display().to_string(),
            size: device.len(),
            table: format!("{:?}", layout.table).to_lowercase(),
            volumes,
            volume_groups: layout.volume_groups.iter().map(VolumeGroupFacts::new).collect(),
            guest: guest.ok().map(GuestFacts::new),
            unmounted: unmounted.collect(),
            warnings,
        })
    }
}

/// A file that `ls` lists.
#[derive(Debug, Serialize)]
pub(crate) struct ListedFile {
    pub(crate) path: GuestPath,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) mode: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) modified: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<GuestPath>,
}

impl ListedFile {
    pub(crate) fn new(path: &[u8], metadata: &Metadata, target: Option<&[u8]>) -> Self {
        Self {
            path: GuestPath::from(path),
            kind: match metadata.kind {
                FileKind::File => "file",
                FileKind::Directory => "directory",
                FileKind::Symlink => "symlink",
                FileKind::CharDevice => "character device",
                FileKind::BlockDevice => "block device",
                FileKind::Fifo => "fifo",
                FileKind::Socket => "socket",
            },
            mode: format!("{:04o}", metadata.mode),
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            links: metadata.links,
            modified: metadata.modified.seconds,
            target: target.map(GuestPath::from),
        }
    }
}

/// What `diff` found of one path.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    #[serde(rename = "difference")]
    pub(crate) kind: DifferenceKind,
    #[serde(flatten)]
    pub(crate) file: ListedFile,
    /// What differs in a file that both have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DifferenceKind {
    Removed,
    Added,
    Changed,
}

/// Text from an image or a guest, fit for a terminal: control characters are escaped.
pub(crate) fn escape(text: &str) -> String {
    GuestPath::from(text.as_bytes()).to_string()
}
