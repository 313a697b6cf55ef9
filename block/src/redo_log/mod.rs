//! The redo log: many writes to a device as one that a crash leaves done or not done.

mod complete;
pub(crate) mod layout;
mod place;

pub(crate) use complete::{CompleteLog, begin, write_header};
pub use complete::{Identity, Recovery, recover};
pub use place::{LogFile, LogPlace};
