//! `goldenseal diff`: what differs between two guests, file by file.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use guest::{FileKind, Guest, Metadata, Walk};

use super::open_guest;
use crate::args::Diff;
use crate::exit_code::ExitCode;
use crate::render::{self, Difference, DifferenceKind, ListedFile};

/// How much of two files is compared at a time.
const CHUNK: usize = 1 << 20;

pub(crate) fn run(args: &Diff) -> Result<ExitCode> {
    let old = open_guest(&args.old, &args.open)?;
    let new = open_guest(&args.new, &args.open)?;
    let top = args.path.as_bytes();
    let (old_files, new_files) = (files(&old, top)?, files(&new, top)?);
    let mut comparison = Comparison { old, new, times: args.times, buffers: (vec![0; CHUNK], vec![0; CHUNK]) };
    let mut differences = Vec::new();
    for (path, metadata) in &old_files {
        match new_files.get(path) {
            None => differences.push(one_sided(DifferenceKind::Removed, path, metadata)),
            Some(other) => differences.extend(comparison.both(path, metadata, other)?),
        }
    }
    let added = new_files.iter().filter(|(path, _)| !old_files.contains_key(*path));
    differences.extend(added.map(|(path, metadata)| one_sided(DifferenceKind::Added, path, metadata)));
    differences.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    if args.json {
        render::json::print(&serde_json::json!({ "differences": differences }))?;
    } else if !args.quiet {
        render::text::differences(&differences);
    }
    Ok(if differences.is_empty() { ExitCode::Done } else { ExitCode::Found })
}

/// All files from `top` down, `top` itself included.
fn files(guest: &Guest, top: &[u8]) -> Result<BTreeMap<Vec<u8>, Metadata>> {
    let mut files = BTreeMap::new();
    if let Some(metadata) = guest.stat(top)? {
        files.insert(top.to_vec(), metadata);
    }
    guest.walk(top, &mut |path, metadata| {
        files.insert(path.to_vec(), metadata.clone());
        Ok(Walk::Continue)
    })?;
    Ok(files)
}

fn one_sided(kind: DifferenceKind, path: &[u8], metadata: &Metadata) -> Difference {
    Difference { kind, file: ListedFile::new(path, metadata, None), changes: Vec::new() }
}

/// The two guests, and what counts as a difference.
struct Comparison {
    old: Guest,
    new: Guest,
    times: bool,
    buffers: (Vec<u8>, Vec<u8>),
}

impl Comparison {
    /// What differs in a file that both guests have.
    fn both(&mut self, path: &[u8], old: &Metadata, new: &Metadata) -> Result<Option<Difference>> {
        let mut changes = Vec::new();
        let (a, b) = (ListedFile::new(path, old, None), ListedFile::new(path, new, None));
        let mut change = |what: &str, old: String, new: String| {
            if old != new {
                changes.push(format!("{what} {old} -> {new}"));
            }
        };
        change("type", a.kind.to_owned(), b.kind.to_owned());
        change("mode", a.mode, b.mode.clone());
        change("owner", format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid));
        if old.kind == new.kind && old.kind == FileKind::File {
            change("size", a.size.to_string(), b.size.to_string());
            change("links", a.links.to_string(), b.links.to_string());
        }
        if self.times {
            let time =
                |metadata: &Metadata| format!("{}.{:09}", metadata.modified.seconds, metadata.modified.nanoseconds);
            change("modified", time(old), time(new));
        }
        if old.kind == new.kind && self.content_differs(path, old, new)? {
            changes.push("content".to_owned());
        }
        if self.attributes(path, true)? != self.attributes(path, false)? {
            changes.push("attributes".to_owned());
        }
        Ok((!changes.is_empty()).then_some(Difference { kind: DifferenceKind::Changed, file: b, changes }))
    }

    fn content_differs(&mut self, path: &[u8], old: &Metadata, new: &Metadata) -> Result<bool> {
        match old.kind {
            FileKind::Symlink => Ok(self.old.read_link(path)? != self.new.read_link(path)?),
            FileKind::File if old.size != new.size => Ok(true),
            FileKind::File => {
                self.bytes_differ(path).with_context(|| format!("cannot compare {}", guest::path::display(path)))
            }
            _ => Ok(false),
        }
    }

    /// Compares two files of the same length.
    fn bytes_differ(&mut self, path: &[u8]) -> Result<bool> {
        let (old, new) = (&mut self.buffers.0, &mut self.buffers.1);
        let mut offset = 0;
        loop {
            let read = self.old.read_at(path, offset, old)?;
            if self.new.read_at(path, offset, new)? != read || old[..read] != new[..read] {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
            offset += read as u64;
        }
    }

    /// The extended attributes by name: of the old guest, or of the new.
    fn attributes(&self, path: &[u8], of_old: bool) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let guest = if of_old { &self.old } else { &self.new };
        let mut attributes = BTreeMap::new();
        for name in guest.xattr_names(path)? {
            let value = guest.xattr(path, &name)?;
            attributes.insert(name, value);
        }
        Ok(attributes)
    }
}
