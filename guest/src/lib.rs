//! A virtual machine guest as its own kernel would see it, without running it.
//!
//! [`Guest::open`] takes a disk, finds the root file system on it, reads its `/etc/fstab`, mounts every file system at
//! its place, and answers by path: symbolic links are followed inside the guest, `..` stops at its root, and nothing
//! of the host is ever touched. Nothing of the guest is run. Paths are bytes and absolute.
//!
//! What a guest needs of a file system is the trait [`FileSystem`]; ext2, ext3 and ext4 meet it through `ext4fs`, XFS through
//! `xfs`, and
//! [`memory::MemoryFileSystem`] keeps one in memory:
//!
//! ```
//! use guest::{Guest, memory::MemoryFileSystem};
//!
//! let mut root = MemoryFileSystem::new();
//! root.add_file("/usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\n")?;
//! root.add_symlink("/etc/os-release", "../usr/lib/os-release")?;
//! root.add_file("/etc/machine-id", "5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n")?;
//! root.add_file("/home/ann/.bash_history", "ls\n")?;
//!
//! let mut guest = Guest::from_file_systems(Box::new(root), Vec::new())?;
//! assert_eq!(guest.os().id, "debian");
//! assert_eq!(guest.resolve(b"/etc/os-release")?, Some(b"/usr/lib/os-release".to_vec()));
//!
//! guest.set_len(b"/etc/machine-id", 0)?;
//! for path in guest.glob("/home/*/.{bash,zsh}_history")? {
//!     guest.remove_file(&path)?;
//! }
//! assert_eq!(guest.lstat(b"/home/ann/.bash_history")?, None);
//! guest.flush()?;
//! # Ok::<(), guest::Error>(())
//! ```
//!
//! An image is hostile input: every loop here is bounded, and a damaged or malicious file system gives an [`Error`],
//! never a panic.

#![forbid(unsafe_code)]

mod cache;
mod change;
mod error;
mod ext4;
mod file_system;
mod fstab;
mod glob;
mod guest;
mod identity;
mod inspect;
mod look;
pub mod memory;
mod mount_table;
mod os_release;
mod outside;
mod owners;
pub mod path;
mod remove;
mod resolve;
mod selinux;
mod walk;
mod xfs;

pub use error::{Error, NotRoot, Result, Root};
pub use file_system::{
    DirEntry, FileKind, FileSystem, InodeNumber, Metadata, NewNode, Ownership, ScrubReport, Timestamp,
};
pub use guest::{Guest, Unmounted, VolumeInfo};
pub use identity::UuidHolder;
pub use inspect::OpenOptions;
pub use look::MAX_TEXT;
pub use mount_table::Mount;
pub use os_release::OperatingSystem;
pub use selinux::Selinux;
pub use volumes::{RenewedId, SEALED as SEALED_GROUP, VolumeGroup};
pub use walk::Walk;
