//! Guests in memory, and the comparison of a report with what really changed.

use std::collections::BTreeMap;

use guest::memory::MemoryFileSystem;
use guest::{FileKind, Guest, Walk};
use seal::{Action, Argument, GuestPath, Options, Report, Selection};

/// A guest with these files: `PATH/` is a directory, `PATH -> TARGET` a link, `PATH=CONTENTS` a file, and so is `PATH`.
pub(crate) fn guest(files: &[&str]) -> Guest {
    Guest::from_file_systems(Box::new(file_system(files)), Vec::new()).unwrap()
}

pub(crate) fn file_system(files: &[&str]) -> MemoryFileSystem {
    let mut root = MemoryFileSystem::new();
    for file in files {
        if let Some((path, target)) = file.split_once(" -> ") {
            root.add_symlink(path, target).unwrap();
        } else if let Some((path, contents)) = file.split_once('=') {
            root.add_file(path, contents).unwrap();
        } else if let Some(path) = file.strip_suffix('/') {
            root.add_dir(path).unwrap();
        } else {
            root.add_file(file, "data").unwrap();
        }
    }
    root
}

/// All that a user of the guest could tell of a file, but for times and inode numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    contents: Vec<u8>,
}

pub(crate) fn snapshot(guest: &Guest) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = Vec::new();
    guest
        .walk(b"/", &mut |path, metadata| {
            found.push((path.to_vec(), metadata.clone()));
            Ok(Walk::Continue)
        })
        .unwrap();
    let look = |(path, metadata): (Vec<u8>, guest::Metadata)| {
        let contents = match metadata.kind {
            FileKind::File => guest.read(&path).unwrap(),
            FileKind::Symlink => guest.read_link(&path).unwrap(),
            _ => Vec::new(),
        };
        let seen = Seen { kind: metadata.kind, mode: metadata.mode, owner: (metadata.uid, metadata.gid), contents };
        (path, seen)
    };
    found.into_iter().map(look).collect()
}

/// Asserts that the report tells of every difference between two snapshots, and of nothing else. Of a file that changed
/// in place, mode and owner must be the same.
pub(crate) fn assert_exact(report: &Report, before: &BTreeMap<Vec<u8>, Seen>, after: &BTreeMap<Vec<u8>, Seen>) {
    let mut told: BTreeMap<Vec<u8>, Action> = BTreeMap::new();
    for change in report.changes() {
        let path = change.path.as_bytes().to_vec();
        match told.insert(path.clone(), change.action) {
            None => {}
            // Two operations may each take something out of a file; the first one saw it as it was before.
            Some(Action::Edited) if matches!(change.action, Action::Edited | Action::Emptied) => continue,
            Some(other) => panic!("{} was {other:?} and is {:?} again", change.path, change.action),
        }
        let size = |seen: &Seen| if seen.kind == FileKind::File { seen.contents.len() as u64 } else { 0 };
        let counted = before.get(&path).or(after.get(&path)).map_or(0, size);
        assert_eq!(change.bytes, counted, "{}", change.path);
    }
    for path in before.keys().chain(after.keys()) {
        let real = match (before.get(path), after.get(path)) {
            (Some(_), None) => Some(Action::Removed),
            (None, Some(_)) => Some(Action::Created),
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) if old.kind != new.kind => Some(Action::Replaced),
            (Some(old), Some(new)) => {
                assert_eq!((old.mode, old.owner), (new.mode, new.owner), "{:?}", GuestPath::from(path.as_slice()));
                Some(if new.contents.is_empty() { Action::Emptied } else { Action::Edited })
            }
            (None, None) => None,
        };
        assert_eq!(told.get(path).copied(), real, "{:?}", GuestPath::from(path.as_slice()));
    }
    let known = told.keys().all(|path| before.contains_key(path) || after.contains_key(path));
    assert!(known, "the report tells of what was never there");
}

pub(crate) fn only(operations: &str) -> Selection {
    Selection::from_arguments(&[Argument::Operations(operations)]).unwrap()
}

/// Runs, asserts that the report is exact and that a second run changes nothing, and gives the report.
pub(crate) fn run(guest: &mut Guest, selection: &Selection, options: &Options) -> Report {
    let before = snapshot(guest);
    let report = seal::run(guest, selection, options).unwrap();
    let after = snapshot(guest);
    assert_exact(&report, &before, &after);
    let again = seal::run(guest, selection, options).unwrap();
    assert!(!again.is_changed(), "a second run changed {:?}", again.changes().collect::<Vec<_>>());
    assert_eq!(snapshot(guest), after);
    report
}

/// Asserts that one operation changes exactly this in a guest with these files, and warns of nothing.
pub(crate) fn assert_changes(operation: &str, files: &[&str], expected: &[&str]) -> Guest {
    let mut guest = guest(files);
    let report = run(&mut guest, &only(operation), &Options::default());
    assert_eq!(changes(&report), expected, "{operation}");
    assert_eq!(report.warnings, [""; 0], "{operation}");
    guest
}

/// The changes as `action path`, sorted by path; what happened twice to one file is told once.
pub(crate) fn changes(report: &Report) -> Vec<String> {
    let mut changes: Vec<_> = report.changes().collect();
    changes.sort_by_key(|change| &change.path);
    changes.dedup_by_key(|change| (&change.path, change.action));
    changes.iter().map(|change| format!("{} {}", format!("{:?}", change.action).to_lowercase(), change.path)).collect()
}

pub(crate) fn text(guest: &Guest, path: &str) -> String {
    String::from_utf8(guest.read(path.as_bytes()).unwrap()).unwrap()
}

pub(crate) fn exists(guest: &Guest, path: &str) -> bool {
    guest.lstat(path.as_bytes()).unwrap().is_some()
}
