//! A script, carried out by us.

use ext4fs::{Error, FileSystem, NewNode, Ownership, Result, Timestamp};

use crate::script::Step;

/// The inode at a path. Links are not followed: a script names no path through one.
fn inode(fs: &FileSystem, path: &[u8]) -> Result<u32> {
    let mut inode = fs.root();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        inode = fs.lookup(inode, name)?.ok_or(Error::NotFound)?;
    }
    Ok(inode)
}

fn place<'a>(fs: &FileSystem, path: &'a [u8]) -> Result<(u32, &'a [u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Ok((inode(fs, &path[..slash])?, &path[slash + 1..])),
        None => Ok((fs.root(), path)),
    }
}

pub(crate) fn apply(fs: &mut FileSystem, steps: &[Step], what: &str) {
    for (number, step) in steps.iter().enumerate() {
        if let Err(error) = apply_one(fs, step) {
            panic!("{what}: we refuse step {number}: {error}\n{step:?}");
        }
    }
}

fn create(fs: &mut FileSystem, path: &[u8], node: NewNode<'_>, mode: u32) -> Result<u32> {
    let (directory, name) = place(fs, path)?;
    fs.create(directory, name, node, Ownership { mode, uid: 0, gid: 0 })
}

fn apply_one(fs: &mut FileSystem, step: &Step) -> Result<()> {
    match step {
        Step::Create { path, mode } => drop(create(fs, path, NewNode::File, *mode)?),
        Step::CreateDir { path, mode } => drop(create(fs, path, NewNode::Directory, *mode)?),
        Step::Symlink { path, target } => drop(create(fs, path, NewNode::Symlink(target), 0o777)?),
        Step::HardLink { original, path } => {
            let original = inode(fs, original)?;
            let (directory, name) = place(fs, path)?;
            fs.link(directory, name, original)?;
        }
        Step::Write { path, offset, bytes } => fs.write_at(inode(fs, path)?, *offset, bytes)?,
        Step::SetLen { path, len } => fs.set_len(inode(fs, path)?, *len)?,
        Step::Punch { path, offset, len } => fs.punch_hole(inode(fs, path)?, *offset, *len)?,
        Step::Rename { from, to } => {
            let ((from, from_name), (to, to_name)) = (place(fs, from)?, place(fs, to)?);
            fs.rename(from, from_name, to, to_name)?;
        }
        Step::RemoveFile { path } => {
            let (directory, name) = place(fs, path)?;
            fs.unlink(directory, name)?;
        }
        Step::RemoveDir { path } => {
            let (directory, name) = place(fs, path)?;
            fs.remove_dir(directory, name)?;
        }
        Step::RemoveAll { path } => fs.remove_dir_all(&[b"/", path.as_slice()].concat())?,
        Step::SetMode { path, mode } => fs.set_mode(inode(fs, path)?, *mode)?,
        Step::SetOwner { path, uid, gid } => fs.set_owner(inode(fs, path)?, *uid, *gid)?,
        Step::SetTimes { path, accessed, modified } => {
            let time = |seconds| Timestamp { seconds, nanoseconds: 0 };
            fs.set_times(inode(fs, path)?, time(*accessed), time(*modified))?;
        }
        Step::SetXattr { path, name, value } => fs.set_xattr(inode(fs, path)?, name.as_bytes(), value)?,
        Step::RemoveXattr { path, name } => fs.remove_xattr(inode(fs, path)?, name.as_bytes())?,
    }
    Ok(())
}
