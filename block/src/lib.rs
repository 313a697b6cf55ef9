//! Devices with positioned I/O: what every layer of Goldenseal speaks to the one below it.
//!
//! [`ReadAt`] and [`WriteAt`] describe a device of fixed length; [`Storage`] adds that the length can change,
//! which is what a file that holds an image format needs. Offsets and lengths are in bytes, every call takes
//! `&self`, and a read or write is exact: all bytes, or an error.
//!
//! | device | what it is |
//! |---|---|
//! | [`HostFile`] | a file of the host, with the locks that QEMU takes |
//! | [`MappedFile`] | a read-only memory mapping of a file |
//! | [`Memory`] | bytes in memory |
//! | [`Window`] | a range of another device |
//! | [`Overlay`] | writes kept in memory above a device that is never written |
//! | [`Staged`] | writes kept apart until they are committed as a whole, with a redo log |
//! | [`Trace`] | records every write, flush, punch and change of length, and replays any prefix of them (for tests) |
//! | [`Fault`] | fails at a chosen call (for tests) |
//!
//! ```
//! use block::{Memory, ReadAt, WriteAt, Window};
//! use std::sync::Arc;
//!
//! let disk = Arc::new(Memory::new(4096));
//! let partition = Window::new(disk.clone(), 1024, 2048)?;
//! partition.write_at(0, b"hello")?;
//! let mut bytes = [0; 5];
//! disk.read_at(1024, &mut bytes)?;
//! assert_eq!(&bytes, b"hello");
//! # Ok::<(), block::Error>(())
//! ```

mod error;
mod fault;
mod file;
mod lock;
mod memory;
mod mmap;
mod overlay;
mod read_at;
mod redo_log;
mod staged;
mod trace;
mod window;
mod write_at;

pub use error::{Error, Result};
pub use fault::Fault;
pub use file::{Access, HostFile};
pub use memory::Memory;
pub use mmap::MappedFile;
pub use overlay::Overlay;
pub use read_at::{AllocationUnit, Extent, ExtentKind, ReadAt, read_vec};
pub use redo_log::{Identity, LogFile, LogPlace, Recovery, recover};
pub use staged::Staged;
pub use trace::{Event, Outcome, Trace, replay};
pub use window::Window;
pub use write_at::{Storage, WriteAt};
