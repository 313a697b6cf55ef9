//! `goldenseal copy-out`: files and directories of a guest, onto the host.
//!
//! The guest is not trusted: everything is made anew and nothing is written through, so that a tree in which a name is
//! once a link and once a directory cannot lead out of the folder that it is copied to.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use guest::{FileKind, Guest, Metadata, Timestamp, Walk};

use super::open_guest;
use crate::args::CopyOut;
use crate::exit_code::ExitCode;
use crate::render;

/// How much of a file is copied at a time.
const CHUNK: usize = 1 << 20;

pub(crate) fn run(args: &CopyOut) -> Result<ExitCode> {
    let Some((destination, paths)) = args.paths.split_last() else { bail!("nothing to copy") };
    let destination = Path::new(destination);
    if !destination.is_dir() {
        bail!("{} is not a folder", destination.display());
    }
    let guest = open_guest(&args.image, &args.open)?;
    let mut copy = Copy { guest: &guest, buf: vec![0; CHUNK], folders: Vec::new() };
    for path in paths {
        copy.tree(path.as_bytes(), destination).with_context(|| format!("cannot copy {} out", render::escape(path)))?;
    }
    copy.finish_folders()?;
    Ok(ExitCode::Done)
}

struct Copy<'a> {
    guest: &'a Guest,
    buf: Vec<u8>,
    /// Folders get their mode and time when all is in them: the innermost last here, first then.
    folders: Vec<(PathBuf, Metadata)>,
}

impl Copy<'_> {
    /// Copies a file, or a directory with all below it, into the folder `destination`.
    fn tree(&mut self, path: &[u8], destination: &Path) -> Result<()> {
        let Some(metadata) = self.guest.stat(path)? else { bail!("no such file or directory in the guest") };
        let path = self.guest.resolve(path)?.unwrap_or_else(|| path.to_vec());
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let top = if name.is_empty() { destination.to_path_buf() } else { host_path(destination, name)? };
        if metadata.kind != FileKind::Directory {
            return self.node(&path, &metadata, &top);
        }
        if !name.is_empty() {
            self.node(&path, &metadata, &top)?;
        }
        let mut below = Vec::new();
        self.guest.walk(&path, &mut |path, metadata| {
            below.push((path.to_vec(), metadata.clone()));
            Ok(Walk::Continue)
        })?;
        let prefix = if name.is_empty() { 0 } else { path.len() };
        for (path, metadata) in below {
            let relative = path.get(prefix..).unwrap_or_default();
            let mut target = top.clone();
            for name in relative.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                target = host_path(&target, name)?;
            }
            self.node(&path, &metadata, &target)
                .with_context(|| format!("cannot copy {}", guest::path::display(&path)))?;
        }
        Ok(())
    }

    /// Makes one file, folder or link, which must not be there yet.
    fn node(&mut self, path: &[u8], metadata: &Metadata, target: &Path) -> Result<()> {
        let making = || format!("cannot make {}", target.display());
        match metadata.kind {
            FileKind::Directory => {
                DirBuilder::new().mode(0o700).create(target).with_context(making)?;
                self.folders.push((target.to_path_buf(), metadata.clone()));
            }
            FileKind::Symlink => {
                let link = self.guest.read_link(path)?;
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&link), target).with_context(making)?;
            }
            FileKind::File => {
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).with_context(making)?;
                self.contents(path, metadata.size, &mut file).with_context(making)?;
                file.set_permissions(permissions(metadata)).with_context(making)?;
                file.set_modified(system_time(metadata.modified)).with_context(making)?;
            }
            kind => {
                let what = format!("{kind:?}").to_lowercase();
                render::text::warning(&format!("{} is not copied: it is a {what}", guest::path::display(path)));
            }
        }
        Ok(())
    }

    /// Copies a file's bytes; runs of zeros stay holes.
    fn contents(&mut self, path: &[u8], size: u64, file: &mut File) -> Result<()> {
        let mut offset = 0;
        loop {
            let read = self.guest.read_at(path, offset, &mut self.buf)?;
            let Some(data) = self.buf.get(..read).filter(|data| !data.is_empty()) else { break };
            if data.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(data)?;
            }
            offset += read as u64;
        }
        file.set_len(size)?;
        Ok(())
    }

    fn finish_folders(&mut self) -> Result<()> {
        while let Some((folder, metadata)) = self.folders.pop() {
            let finishing = || format!("cannot set mode and time of {}", folder.display());
            let handle = File::open(&folder).with_context(finishing)?;
            handle.set_modified(system_time(metadata.modified)).with_context(finishing)?;
            fs::set_permissions(&folder, permissions(&metadata)).with_context(finishing)?;
        }
        Ok(())
    }
}

/// The path of an entry on the host; a name that is none is refused.
fn host_path(folder: &Path, name: &[u8]) -> Result<PathBuf> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
        bail!("{} is no file name", guest::path::display(name));
    }
    Ok(folder.join(std::ffi::OsStr::from_bytes(name)))
}

/// The permission bits. Files belong to whoever copies them: set-user-ID and set-group-ID would mean another.
fn permissions(metadata: &Metadata) -> Permissions {
    Permissions::from_mode(metadata.mode & 0o1777)
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}
