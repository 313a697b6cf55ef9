//! What programs changed in the copy, made in the guest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use guest::FileKind;
use guest::path::join;

use super::export::{Exported, Node};
use crate::changes::Changes;
use crate::ledger::is_within;
use crate::requested::refused;
use crate::{Error, GuestPath, Result};

/// Deeper folders are no data, but a trap.
const MAX_DEPTH: usize = 256;
const CHUNK: usize = 1 << 20;

/// Makes the guest what the copy is, as far as the copy was changed.
pub(super) fn import(changes: &mut Changes<'_>, exported: &Exported) -> Result<()> {
    let mut found = BTreeMap::new();
    look(&exported.folder, b"/", 0, &mut found)
        .or_else(|error| refused(format!("cannot look at what the script left: {error}")))?;

    let mut gone: Option<&[u8]> = None;
    for (path, node) in &exported.nodes {
        if gone.is_some_and(|top| is_within(path, top)) {
            continue;
        }
        // What has become something else goes first.
        if found.get(path).is_none_or(|now: &Node| now.kind != node.kind) {
            changes.remove_tree(path)?;
            gone = Some(path);
        }
    }
    // Folders come before what is in them.
    for (path, now) in &found {
        let before = exported.nodes.get(path).filter(|before| before.kind == now.kind);
        if before != Some(now) {
            take(changes, exported, path, before, now)?;
        }
    }
    Ok(())
}

fn look(folder: &Path, at: &[u8], depth: usize, found: &mut BTreeMap<Vec<u8>, Node>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("{} lies too deep", folder.display())));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = join(at, entry.file_name().as_bytes());
        let Some(node) = Node::look(&entry.path())? else { continue };
        if node.kind == FileKind::Directory {
            look(&entry.path(), &path, depth + 1, found)?;
        }
        found.insert(path, node);
    }
    Ok(())
}

fn take(changes: &mut Changes<'_>, exported: &Exported, path: &[u8], before: Option<&Node>, now: &Node) -> Result<()> {
    let host = exported.host_path(path);
    let failed = |error: io::Error| Error::Refused(format!("cannot read {}: {error}", host.display()));
    match now.kind {
        FileKind::Directory => {
            if before.is_none() {
                changes.make_directories(path)?;
            }
        }
        FileKind::Symlink => {
            let target = fs::read_link(&host).map_err(failed)?;
            let target = target.as_os_str().as_bytes();
            if before.is_none() || changes.read_link(path)? != target {
                // Over a link to a directory, one would be made in that directory.
                changes.remove_file(path)?;
                changes.force_link(target, path)?;
            }
            if exported.with_owners && before.is_none_or(|before| before.owner != now.owner) {
                let set = changes.guest_mut().set_link_owner(path, now.owner.0, now.owner.1);
                set.map_err(|source| changes.failed(source))?;
            }
            return Ok(());
        }
        _ => {
            let mut file = File::open(&host).map_err(failed)?;
            if before.is_none() || !holds_the_same(changes, path, now.len, &mut file).map_err(failed)? {
                if now.len <= guest::MAX_TEXT {
                    // In one go it is an edit, of which the report can tell.
                    let contents = fs::read(&host).map_err(failed)?;
                    changes.write_file(path, &contents)?;
                } else {
                    let mut file = File::open(&host).map_err(failed)?;
                    changes.write_from(path, &mut file)?;
                }
            }
        }
    }
    // Without root all belongs to whoever runs this: then what is new is the guest's root's.
    if exported.with_owners && before.is_none_or(|before| before.owner != now.owner) {
        changes.set_owner(path, now.owner.0, now.owner.1)?;
    }
    if before.is_none_or(|before| before.mode != now.mode) {
        changes.set_mode(path, now.mode)?;
    }
    Ok(())
}

/// Whether a file of the host holds what the guest's does.
fn holds_the_same(changes: &Changes<'_>, path: &[u8], len: u64, file: &mut File) -> io::Result<bool> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", GuestPath::from(path)));
    let metadata = changes.lstat(path).map_err(|error| failed(&error))?;
    if metadata.is_none_or(|metadata| metadata.size != len) {
        return Ok(false);
    }
    let (mut theirs, mut ours) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut offset = 0;
    loop {
        let got = file.read(&mut theirs)?;
        let (Some(theirs), Some(ours)) = (theirs.get(..got), ours.get_mut(..got)) else { return Ok(false) };
        if theirs.is_empty() {
            return Ok(true);
        }
        let mut filled = 0;
        while let Some(space) = ours.get_mut(filled..).filter(|space| !space.is_empty()) {
            let read = changes.guest().read_at(path, offset + filled as u64, space).map_err(|error| failed(&error))?;
            if read == 0 {
                return Ok(false);
            }
            filled += read;
        }
        if ours != theirs {
            return Ok(false);
        }
        offset += got as u64;
    }
}
