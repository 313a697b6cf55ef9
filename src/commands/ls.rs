//! `goldenseal ls`: files of a guest.

use anyhow::{Result, bail};
use guest::{FileKind, Metadata, Walk};

use super::open_guest;
use crate::args::Ls;
use crate::exit_code::ExitCode;
use crate::render::{self, ListedFile};

pub(crate) fn run(args: &Ls) -> Result<ExitCode> {
    let guest = open_guest(&args.image, &args.open)?;
    let path = args.path.as_bytes();
    let Some(found) = guest.stat(path)? else {
        bail!("{}: no such file or directory in the guest", render::escape(&args.path));
    };
    let mut found_files: Vec<(Vec<u8>, Metadata)> = Vec::new();
    if found.kind != FileKind::Directory {
        found_files.push((path.to_vec(), found));
    } else if args.recursive {
        let top = guest.resolve(path)?.unwrap_or_else(|| path.to_vec());
        guest.walk(&top, &mut |path, metadata| {
            found_files.push((path.to_vec(), metadata.clone()));
            Ok(Walk::Continue)
        })?;
    } else {
        for entry in guest.read_dir(path)? {
            let below = guest::path::join(path, &entry.name);
            if let Some(metadata) = guest.lstat(&below)? {
                found_files.push((below, metadata));
            }
        }
    }
    let mut files = Vec::new();
    for (path, metadata) in found_files {
        let target = match metadata.kind {
            FileKind::Symlink if args.long || args.json => Some(guest.read_link(&path)?),
            _ => None,
        };
        files.push(ListedFile::new(&path, &metadata, target.as_deref()));
    }
    if args.json {
        render::json::print(&serde_json::json!({ "files": files }))?;
    } else {
        render::text::files(&files, args.long, args.recursive);
    }
    Ok(ExitCode::Done)
}
