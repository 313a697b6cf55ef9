//! A script, carried out by the kernel below a mount point.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, XattrFlags};

use crate::script::Step;

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

pub(crate) fn apply(root: &Path, steps: &[Step], what: &str) {
    for (number, step) in steps.iter().enumerate() {
        if let Err(error) = apply_one(root, step) {
            panic!("{what}: the kernel refuses step {number}: {error}\n{step:?}");
        }
    }
}

fn apply_one(root: &Path, step: &Step) -> std::io::Result<()> {
    let at = |path: &[u8]| -> PathBuf { root.join(std::ffi::OsStr::from_bytes(path)) };
    let open = |path: &[u8]| OpenOptions::new().write(true).open(at(path));
    match step {
        Step::Create { path, mode } => {
            File::create_new(at(path))?;
            set_mode(&at(path), *mode)?;
        }
        Step::CreateDir { path, mode } => {
            fs::create_dir(at(path))?;
            set_mode(&at(path), *mode)?;
        }
        Step::Symlink { path, target } => std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), at(path))?,
        Step::HardLink { original, path } => fs::hard_link(at(original), at(path))?,
        Step::Write { path, offset, bytes } => open(path)?.write_all_at(bytes, *offset)?,
        Step::SetLen { path, len } => open(path)?.set_len(*len)?,
        Step::Punch { path, offset, len } => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&open(path)?, flags, *offset, *len)?;
        }
        Step::Rename { from, to } => fs::rename(at(from), at(to))?,
        Step::RemoveFile { path } => fs::remove_file(at(path))?,
        Step::RemoveDir { path } => fs::remove_dir(at(path))?,
        Step::RemoveAll { path } => fs::remove_dir_all(at(path))?,
        Step::SetMode { path, mode } => set_mode(&at(path), *mode)?,
        Step::SetOwner { path, uid, gid } => std::os::unix::fs::lchown(at(path), Some(*uid), Some(*gid))?,
        Step::SetTimes { path, accessed, modified } => {
            let time = |seconds| Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time(*accessed), last_modification: time(*modified) };
            rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Step::SetXattr { path, name, value } => {
            rustix::fs::lsetxattr(at(path), name.as_str(), value, XattrFlags::empty())?;
        }
        Step::RemoveXattr { path, name } => rustix::fs::lremovexattr(at(path), name.as_str())?,
    }
    Ok(())
}
