//! `goldenseal ls`: files of a guest.

use anyhow::{Result, bail};
use guest::{FileKind, Guest, Metadata, Walk};

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
    let mut files = Vec::new();
    let mut list = |path: &[u8], metadata: &Metadata| -> Result<(), guest::Error> {
        let target = match metadata.kind {
            FileKind::Symlink if args.long || args.json => Some(guest.read_link(path)?),
            _ => None,
        };
        files.push(ListedFile::new(path, metadata, target.as_deref()));
        Ok(())
    };
    if found.kind != FileKind::Directory {
        list(path, &found)?;
    } else if args.recursive {
        let top = guest.resolve(path)?.unwrap_or_else(|| path.to_vec());
        guest.walk(&top, &mut |path, metadata| {
            list(path, metadata)?;
            Ok(Walk::Continue)
        })?;
    } else {
        list_directory(&guest, path, &mut list)?;
    }
    if args.json {
        render::json::print(&serde_json::json!({ "files": files }))?;
    } else {
        render::text::files(&files, args.long, args.recursive);
    }
    Ok(ExitCode::Done)
}

fn list_directory(
    guest: &Guest,
    path: &[u8],
    list: &mut dyn FnMut(&[u8], &Metadata) -> Result<(), guest::Error>,
) -> Result<()> {
    for entry in guest.read_dir(path)? {
        let below = guest::path::join(path, &entry.name);
        if let Some(metadata) = guest.lstat(&below)? {
            list(&below, &metadata)?;
        }
    }
    Ok(())
}
