//! The copy of a guest's files on the host.
//!
//! The guest is not trusted: everything is made anew and nothing is written through, so that no link leads out of the
//! folder. A program that follows an absolute link leaves it, as in virt-sysprep's mount.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guest::{FileKind, Guest, InodeNumber, Metadata, Walk};

use crate::GuestPath;
use crate::ledger::mount_of;

/// How much of a file is copied at a time.
const CHUNK: usize = 1 << 20;

/// What was copied, as it is on the host before any program ran.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) folder: PathBuf,
    /// By the guest's path.
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    /// Whether owners are those of the guest: only root may give files away.
    pub(super) with_owners: bool,
    left_out: Vec<String>,
}

/// A copied file, folder or link. What changed since then has another of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) inode: u64,
    pub(super) len: u64,
    pub(super) changed: (i64, i64),
}

impl Node {
    /// What is at a path of the host; `None` for what is no file, folder or link.
    pub(super) fn look(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            FileKind::Directory
        } else if kind.is_symlink() {
            FileKind::Symlink
        } else if kind.is_file() {
            FileKind::File
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }))
    }
}

impl Exported {
    /// What of the guest is not in the copy, and stays as it is.
    pub(super) fn left_out(&self) -> impl Iterator<Item = String> + '_ {
        self.left_out.iter().cloned()
    }

    /// Where a path of the guest is on the host.
    pub(super) fn host_path(&self, path: &[u8]) -> PathBuf {
        host_path(&self.folder, path)
    }
}

/// A canonical path of the guest, whose names the guest has checked, below a folder.
fn host_path(folder: &Path, path: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// Copies all that the guest has mounted. The folder has to be empty.
pub(super) fn export(guest: &Guest, folder: &Path) -> Result<Exported, String> {
    let mut below = Vec::new();
    let walked = guest.walk(b"/", &mut |path, metadata| {
        below.push((path.to_vec(), metadata.clone()));
        Ok(Walk::Continue)
    });
    walked.map_err(|error| error.to_string())?;
    let with_owners = is_root(folder).map_err(|error| error.to_string())?;
    let mut exported =
        Exported { folder: folder.to_path_buf(), nodes: BTreeMap::new(), with_owners, left_out: Vec::new() };
    let mut linked: HashMap<(Vec<u8>, InodeNumber), PathBuf> = HashMap::new();
    let mut specials = 0;
    for (path, metadata) in &below {
        let target = host_path(folder, path);
        let failed = |error: io::Error| format!("{}: {error}", GuestPath::from(path.as_slice()));
        match metadata.kind {
            FileKind::Directory => DirBuilder::new().mode(0o700).create(&target).map_err(failed)?,
            FileKind::Symlink => {
                let link = guest.read_link(path).map_err(|error| error.to_string())?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&link), &target).map_err(failed)?;
            }
            FileKind::File => {
                let key = (mount_of(guest, path), metadata.inode);
                if metadata.links > 1
                    && let Some(first) = linked.get(&key)
                {
                    fs::hard_link(first, &target).map_err(failed)?;
                    continue;
                }
                copy_file(guest, path, metadata, &target)?;
                if metadata.links > 1 {
                    linked.insert(key, target);
                }
            }
            _ => specials += 1,
        }
    }
    if specials > 0 {
        exported.left_out.push(format!("{specials} devices, pipes and sockets are not in the copy that scripts see"));
    }
    // The innermost first: what is put into a folder changes its time, and one without permissions lets nobody in.
    for (path, metadata) in below.iter().rev() {
        let target = host_path(folder, path);
        let failed = |error: io::Error| format!("{}: {error}", GuestPath::from(path.as_slice()));
        if !matches!(metadata.kind, FileKind::Directory | FileKind::Symlink | FileKind::File) {
            continue;
        }
        if with_owners {
            std::os::unix::fs::lchown(&target, Some(metadata.uid), Some(metadata.gid)).map_err(failed)?;
        }
        if metadata.kind != FileKind::Symlink {
            // Others than root need these to work with their own copy. A bit that was set stays what it was.
            let needed = match (with_owners, metadata.kind) {
                (true, _) => 0,
                (false, FileKind::Directory) => 0o700,
                (false, _) => 0o600,
            };
            if metadata.kind == FileKind::Directory {
                File::open(&target).and_then(|handle| handle.set_modified(system_time(metadata))).map_err(failed)?;
            }
            fs::set_permissions(&target, Permissions::from_mode(metadata.mode & 0o7777 | needed)).map_err(failed)?;
        }
    }
    for (path, _) in &below {
        let looked = Node::look(&host_path(folder, path));
        match looked {
            Ok(Some(node)) => {
                exported.nodes.insert(path.clone(), node);
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", GuestPath::from(path.as_slice()))),
        }
    }
    Ok(exported)
}

/// Whether files can be given away: what the folder, which is our own, says of who we are.
fn is_root(folder: &Path) -> io::Result<bool> {
    let probe = tempfile::NamedTempFile::new_in(folder)?;
    Ok(probe.as_file().metadata()?.uid() == 0 && std::os::unix::fs::lchown(probe.path(), Some(1), Some(1)).is_ok())
}

/// Copies a file; runs of zeros stay holes.
fn copy_file(guest: &Guest, path: &[u8], metadata: &Metadata, target: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", GuestPath::from(path));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target).map_err(failed)?;
    let mut buf = vec![0; CHUNK.min(usize::try_from(metadata.size).unwrap_or(CHUNK).max(1))];
    let mut offset = 0;
    while offset < metadata.size {
        let got = guest.read_at(path, offset, &mut buf).map_err(|error| error.to_string())?;
        let Some(data) = buf.get(..got).filter(|data| !data.is_empty()) else { break };
        if data.iter().any(|byte| *byte != 0) {
            file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(data)).map_err(failed)?;
        }
        offset += got as u64;
    }
    file.set_len(metadata.size).and_then(|()| file.set_modified(system_time(metadata))).map_err(failed)
}

fn system_time(metadata: &Metadata) -> SystemTime {
    let time = metadata.modified;
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}
