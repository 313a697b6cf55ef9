//! What a disk is divided into, and what lies on each part.
//!
//! [`discover`] reads the partition table: GPT (its backup where the primary is damaged), MBR with logical partitions,
//! or none, when a file system lies straight on the disk; and the LVM2 groups of the physical volumes among them, whose
//! logical volumes are volumes, too. [`probe`] recognises what a volume holds by its magic numbers. These write nothing; [`renew_table_ids`] and
//! [`renew_lvm_uuids`] replace what tells one disk from its clones.
//!
//! ```
//! use block::{Memory, WriteAt};
//! use std::sync::Arc;
//! use volumes::{ContentKind, Table};
//!
//! // A disk of 4 MiB with one Linux partition from sector 2048 on, and swap space in it.
//! let disk = Arc::new(Memory::new(4 << 20));
//! let entry = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0];
//! disk.write_at(446, &entry)?;
//! disk.write_at(510, &[0x55, 0xaa])?;
//! disk.write_at((1 << 20) + 4086, b"SWAPSPACE2")?;
//!
//! let layout = volumes::discover(&disk)?;
//! assert_eq!(layout.table, Table::Mbr);
//! let volume = &layout.volumes[0];
//! assert_eq!((volume.name.as_str(), volume.start, volume.len), ("mbr:1", 1 << 20, 2 << 20));
//! let content = volumes::probe(&volume.device(disk)?)?;
//! assert_eq!(content.kind, ContentKind::Swap);
//! # Ok::<(), volumes::Error>(())
//! ```
//!
//! A disk is hostile input: counts, sizes and chains in it are bounded, and what contradicts itself gives a warning or
//! an [`Error`], never a panic.

#![forbid(unsafe_code)]

mod discover;
mod error;
mod fat;
mod gpt;
mod layout;
mod lvm2;
mod mbr;
mod probe;
mod renew;
mod renewed;
mod volume;

pub use discover::{Layout, Table, discover};
pub use error::{Error, Result};
pub use fat::remove_fat_file;
pub use lvm2::{LogicalVolume, MemberVolume, SEALED, VolumeGroup, renew_lvm_uuids};
pub use probe::{Content, ContentKind, probe};
pub use renew::renew_table_ids;
pub use renewed::RenewedId;
pub use volume::{Logical, Volume};
