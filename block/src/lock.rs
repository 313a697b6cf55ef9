//! The file locks that QEMU takes, so that neither of us opens an image while the other writes it.
//!
//! QEMU names permissions by bits and holds, by open-file-description locks on single bytes of the image file,
//! a shared lock on byte `100 + bit` for each permission it uses and on byte `200 + bit` for each permission that
//! it does not let others use. Before it relies on them it tests, for each permission used, that nobody
//! denies it, and for each one denied, that nobody uses it. (QEMU: `block/file-posix.c`, `raw_check_lock_bytes`.)
//! The locks hold no bytes of content and vanish when the file is closed.

use std::fs::File;
use std::path::Path;

use crate::{Error, Result};

/// A permission as QEMU's block layer knows it; the value is its bit.
#[derive(Clone, Copy)]
enum Permission {
    ConsistentRead = 0,
    Write = 1,
    Resize = 3,
}

impl Permission {
    const fn name(self) -> &'static str {
        match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::Resize => "resize",
        }
    }
}

const USED_BASE: i64 = 100;
const DENIED_BASE: i64 = 200;

/// Takes the locks of a reader, or of a writer who may change the file's length, and checks for conflicts.
/// The locks last until `file` is closed.
pub(crate) fn acquire(file: &File, path: &Path, writer: bool) -> Result<()> {
    let used: &[Permission] = if writer {
        &[Permission::ConsistentRead, Permission::Write, Permission::Resize]
    } else {
        &[Permission::ConsistentRead]
    };
    let denied: &[Permission] = &[Permission::Write, Permission::Resize];
    let conflict = |permission: Permission| Error::Locked { path: path.to_owned(), conflict: permission.name() };

    // Take first, test after: two processes that start at once may both be refused, but never both admitted.
    for &permission in used {
        os::lock_shared(file, USED_BASE + permission as i64).map_err(|e| lock_error(path, e))?;
    }
    for &permission in denied {
        os::lock_shared(file, DENIED_BASE + permission as i64).map_err(|e| lock_error(path, e))?;
    }
    for &permission in used {
        if os::is_locked(file, DENIED_BASE + permission as i64).map_err(|e| lock_error(path, e))? {
            return Err(conflict(permission));
        }
    }
    // One look at all of them, with what lies between, is enough where nobody holds anything there.
    let (first, last) = (Permission::Write as i64, Permission::Resize as i64);
    if !os::is_any_locked(file, USED_BASE + first, last - first + 1).map_err(|e| lock_error(path, e))? {
        return Ok(());
    }
    for &permission in denied {
        if os::is_locked(file, USED_BASE + permission as i64).map_err(|e| lock_error(path, e))? {
            return Err(conflict(permission));
        }
    }
    Ok(())
}

/// Gives all locks back. Closing the file does so too, but only once no process that was forked meanwhile, and has not
/// yet executed its program, holds the descriptor.
pub(crate) fn release(file: &File) {
    // All at once. What cannot be given back here goes with the file.
    let _ = os::unlock(file, USED_BASE, DENIED_BASE + Permission::Resize as i64 + 1 - USED_BASE);
}

fn lock_error(path: &Path, source: std::io::Error) -> Error {
    Error::Open { path: path.to_owned(), source }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "fcntl with open-file-description locks has no safe wrapper")]
mod os {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    fn request(kind: i32, first: i64, bytes: i64) -> libc::flock {
        // SAFETY: flock is a plain C structure for which all-zero bytes are a valid value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = first;
        lock.l_len = bytes;
        lock
    }

    /// File systems without locks (some network ones) answer ENOLCK or the like; QEMU goes on there, and so do we.
    fn tolerate(error: io::Error) -> io::Result<()> {
        match error.raw_os_error() {
            Some(libc::ENOLCK | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINVAL) => Ok(()),
            _ => Err(error),
        }
    }

    pub(super) fn lock_shared(file: &File, byte: i64) -> io::Result<()> {
        let lock = request(libc::F_RDLCK, byte, 1);
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the pointer is to a live flock.
        let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if status == 0 { Ok(()) } else { tolerate(io::Error::last_os_error()) }
    }

    pub(super) fn unlock(file: &File, first: i64, bytes: i64) -> io::Result<()> {
        let lock = request(libc::F_UNLCK, first, bytes);
        // SAFETY: as above.
        let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether another open file description holds a lock on the byte.
    pub(super) fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
        is_any_locked(file, byte, 1)
    }

    /// Whether another open file description holds a lock on any of the bytes.
    pub(super) fn is_any_locked(file: &File, first: i64, bytes: i64) -> io::Result<bool> {
        let mut lock = request(libc::F_WRLCK, first, bytes);
        // SAFETY: as above; the kernel writes its answer into the flock, which is ours alone.
        let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        if status == 0 {
            Ok(i32::from(lock.l_type) != libc::F_UNLCK)
        } else {
            tolerate(io::Error::last_os_error()).map(|()| false)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use std::fs::File;
    use std::io;

    // Open-file-description locks are Linux's; QEMU takes none elsewhere either.
    pub(super) fn lock_shared(_: &File, _: i64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn unlock(_: &File, _: i64, _: i64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_locked(_: &File, _: i64) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn is_any_locked(_: &File, _: i64, _: i64) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_use_and_we_deny_is_a_conflict() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        // Bit 2 lies between those that are looked at together: writing what is there already, which nobody minds.
        for (byte, conflict) in [
            (USED_BASE, None),
            (USED_BASE + 1, Some("write")),
            (USED_BASE + 2, None),
            (USED_BASE + 3, Some("resize")),
            (DENIED_BASE, Some("consistent read")),
            (DENIED_BASE + 1, None),
            (DENIED_BASE + 2, None),
        ] {
            let other = open();
            os::lock_shared(&other, byte).unwrap();
            let ours = open();
            match (acquire(&ours, file.path(), false), conflict) {
                (Ok(()), None) => {}
                (Err(Error::Locked { conflict: found, .. }), Some(expected)) => assert_eq!(found, expected),
                (found, _) => panic!("byte {byte}: {found:?}"),
            }
            release(&ours);
            // All of ours are gone, and the other's is not.
            let third = open();
            assert!(os::is_locked(&third, byte).unwrap());
            for free in (USED_BASE..USED_BASE + 4).chain(DENIED_BASE..DENIED_BASE + 4).filter(|&free| free != byte) {
                assert!(!os::is_locked(&third, free).unwrap(), "byte {free} beside {byte}");
            }
        }
    }
}
