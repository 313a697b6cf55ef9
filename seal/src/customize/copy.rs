//! From the host into the guest: `--upload`, `--copy-in`, `--tar-in`.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use guest::path::join;

use crate::changes::Changes;
use crate::requested::refused;
use crate::{GuestPath, Result};

/// A small file of the host.
pub(super) fn read_local(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > guest::MAX_TEXT => refused(format!("{shown} is too large")),
        Ok(_) => fs::read(path).or_else(|error| refused(format!("cannot read {shown}: {error}"))),
        Err(error) => refused(format!("cannot read {shown}: {error}")),
    }
}

/// Copies one file, with its mode and owner; into the directory if `to` is one.
pub(super) fn upload(changes: &mut Changes<'_>, local: &Path, to: &[u8]) -> Result<()> {
    changes.check_path(to)?;
    let mut to = to.to_vec();
    if changes.is_directory(&to)? {
        to = join(&to, name(local)?);
    }
    let (mut file, metadata) = open(local)?;
    if !metadata.is_file() {
        return refused(format!("{} is no regular file", local.display()));
    }
    changes.write_from(&to, &mut file)?;
    give_attributes(changes, &to, &metadata)
}

/// Copies a file or directory, with all below, into a directory that exists.
pub(super) fn copy_in(changes: &mut Changes<'_>, local: &Path, directory: &[u8]) -> Result<()> {
    changes.check_path(directory)?;
    if !changes.is_directory(directory)? {
        return refused(format!("the directory {} does not exist in the guest", GuestPath::from(directory)));
    }
    copy_one(changes, local, &join(directory, name(local)?), 0)
}

fn copy_one(changes: &mut Changes<'_>, local: &Path, to: &[u8], depth: u32) -> Result<()> {
    let failed = |error: std::io::Error| refused(format!("cannot read {}: {error}", local.display()));
    let metadata = match fs::symlink_metadata(local) {
        Ok(metadata) => metadata,
        Err(error) => return failed(error),
    };
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = match fs::read_link(local) {
            Ok(target) => target,
            Err(error) => return failed(error),
        };
        return changes.force_link(target.as_os_str().as_bytes(), to);
    }
    if kind.is_dir() {
        if depth > MAX_DEPTH {
            return refused(format!("{} lies too deep", local.display()));
        }
        changes.make_directories(to)?;
        let mut entries = match fs::read_dir(local).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return failed(error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            copy_one(changes, &entry.path(), &join(to, entry.file_name().as_bytes()), depth + 1)?;
        }
        return give_attributes(changes, to, &metadata);
    }
    if kind.is_file() {
        let (mut file, metadata) = open(local)?;
        changes.write_from(to, &mut file)?;
        return give_attributes(changes, to, &metadata);
    }
    let what = if kind.is_fifo() { "pipe" } else { "device or socket" };
    changes.warn(format!("{} is a {what} and was not copied", local.display()));
    Ok(())
}

/// Deeper directories are no data, but a trap.
const MAX_DEPTH: u32 = 256;

fn open(local: &Path) -> Result<(File, Metadata)> {
    let opened = File::open(local).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    opened.or_else(|error| refused(format!("cannot read {}: {error}", local.display())))
}

fn name(local: &Path) -> Result<&[u8]> {
    match local.file_name().map(OsStr::as_bytes) {
        Some(name) => Ok(name),
        None => refused(format!("{} has no name", local.display())),
    }
}

fn give_attributes(changes: &mut Changes<'_>, to: &[u8], metadata: &Metadata) -> Result<()> {
    changes.set_owner(to, metadata.uid(), metadata.gid())?;
    changes.set_mode(to, metadata.mode() & 0o7777)
}

/// Unpacks an uncompressed archive into a directory that exists. Names are those of the archive, below the directory:
/// `..` and links on the way are refused.
pub(super) fn tar_in(changes: &mut Changes<'_>, archive: &Path, directory: &[u8]) -> Result<()> {
    changes.check_path(directory)?;
    if !changes.is_directory(directory)? {
        return refused(format!("the directory {} does not exist in the guest", GuestPath::from(directory)));
    }
    let (file, _) = open(archive)?;
    let shown = archive.display();
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let bad = |error: std::io::Error| refused(format!("{shown} is no tar archive that can be read: {error}"));
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => return bad(error),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(error) => return bad(error),
        };
        let name = entry.path_bytes().into_owned();
        let Some(path) = below(directory, &name) else {
            return refused(format!("{shown} holds the name {}", GuestPath::from(name)));
        };
        let header = entry.header().clone();
        let kind = header.entry_type();
        if path == crate::requested::without_slash(directory) {
            continue;
        }
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        if kind.is_dir() {
            changes.make_directories(&path)?;
        } else if kind.is_symlink() {
            make_way(changes, &path)?;
            changes.force_link(&link, &path)?;
            continue;
        } else if kind.is_hard_link() {
            make_way(changes, &path)?;
            let Some(existing) = below(directory, &link) else {
                return refused(format!("{shown} links to {}", GuestPath::from(link)));
            };
            changes.copy(&existing, &path)?;
            continue;
        } else if kind.is_file() || kind.is_contiguous() {
            make_way(changes, &path)?;
            changes.write_from(&path, &mut entry)?;
        } else if kind.is_pax_global_extensions() {
            continue;
        } else {
            changes.warn(format!("{} in {shown} is no file, directory or link", GuestPath::from(name)));
            continue;
        }
        let number = |value: std::io::Result<u64>| u32::try_from(value.unwrap_or(0)).unwrap_or(0);
        changes.set_owner(&path, number(header.uid()), number(header.gid()))?;
        changes.set_mode(&path, header.mode().unwrap_or(0o644) & 0o7777)?;
    }
    Ok(())
}

/// The directories that lead to a path, made where they are missing.
fn make_way(changes: &mut Changes<'_>, path: &[u8]) -> Result<()> {
    crate::changes::split(path).map_or(Ok(()), |(parent, _)| changes.make_directories(parent))
}

/// A name of an archive below a directory; `None` for one that would lead out of it.
fn below(directory: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut path = crate::requested::without_slash(directory).to_vec();
    for part in name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." || part.contains(&0) {
            return None;
        }
        path = join(&path, part);
    }
    Some(path)
}
