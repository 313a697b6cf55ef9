//! What the fuzz targets do with their input, one function for each. A function returns unless there is a fault: it
//! panics, or does not come back, or takes memory without bound.
//!
//! It is a library so that the corpora run as ordinary tests, too: see `tests/corpus.rs` of the root package.

#![forbid(unsafe_code)]

mod base;
mod bounded;
mod ext4;
mod input;
mod qcow2_differential;
mod qcow2_image;
mod qcow2_luks;
mod seal;
mod volumes;
mod xfs;

pub use self::xfs::{xfs_image, xfs_log};
pub use ext4::ext4_before_and_after;
pub use ext4::{ext4_attributes, ext4_directory, ext4_extents, ext4_image, ext4_journal, ext4_superblock};
pub use qcow2_differential::qcow2_differential;
pub use qcow2_image::{qcow2_image, qcow2_operations, qcow2_repair, qcow2_subclusters};
pub use qcow2_luks::qcow2_luks;
pub use seal::{guest_files, guest_seal};
pub use volumes::{volumes_gpt, volumes_lvm2, volumes_mbr, volumes_probe};

/// A fuzz target: its name, which is that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("ext4_attributes", ext4_attributes),
    ("ext4_directory", ext4_directory),
    ("ext4_extents", ext4_extents),
    ("ext4_image", ext4_image),
    ("ext4_journal", ext4_journal),
    ("ext4_superblock", ext4_superblock),
    ("guest_files", guest_files),
    ("guest_seal", guest_seal),
    ("qcow2_differential", qcow2_differential),
    ("qcow2_image", qcow2_image),
    ("qcow2_luks", qcow2_luks),
    ("qcow2_operations", qcow2_operations),
    ("qcow2_repair", qcow2_repair),
    ("qcow2_subclusters", qcow2_subclusters),
    ("volumes_gpt", volumes_gpt),
    ("volumes_lvm2", volumes_lvm2),
    ("volumes_mbr", volumes_mbr),
    ("volumes_probe", volumes_probe),
    ("xfs_image", xfs_image),
    ("xfs_log", xfs_log),
];
