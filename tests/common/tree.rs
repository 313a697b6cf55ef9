//! What a guest holds, as the kernel lists it, and how that differs from before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{run, text};

/// How planted secrets begin; the second is the machine ID.
pub const MARKS: [&[u8]; 2] = [b"SECRET-", b"5ea1ed0"];

/// All planted secrets that are there, by how they begin: looking for each on its own takes minutes.
pub fn planted(haystack: &[u8]) -> BTreeSet<Vec<u8>> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let mut found = BTreeSet::new();
    // Blocks of zeros, which most of a disk is, are passed over; no secret begins in them.
    for start in (0..haystack.len()).step_by(4096) {
        if haystack[start..haystack.len().min(start + 4096)].iter().all(|&byte| byte == 0) {
            continue;
        }
        let reach = &haystack[start..haystack.len().min(start + 4096 + 6)];
        for (at, _) in reach.windows(7).enumerate().filter(|(_, bytes)| MARKS.contains(bytes)) {
            found.insert(haystack[start + at..].iter().take_while(|byte| is_part(byte)).copied().collect());
        }
    }
    found
}

/// Path, and all that must not change of a file, for every file: as the kernel lists them.
pub fn tree(root: &Path, mount: &Path, options: &str) -> Option<BTreeMap<Vec<u8>, String>> {
    std::fs::create_dir_all(mount).unwrap();
    let mounted = Command::new("mount").args(["-o", options, text(root), text(mount)]).output().unwrap();
    if !mounted.status.success() {
        return None;
    }
    let list = |script: &str| Command::new("sh").arg("-c").arg(script).current_dir(mount).output().unwrap().stdout;
    let facts = list(r"find . -printf '%P\0%y %m %U %G %s %T@ %l\0'");
    let sums = list("find . -type f -print0 | xargs -0 sha256sum -z");
    let attributes = list("find . -print0 | xargs -0 getfattr -hd -m - -e hex");
    run("umount", &[text(mount)]);

    let mut files = BTreeMap::new();
    let mut fields = facts.split(|&byte| byte == 0);
    while let (Some(path), Some(facts)) = (fields.next(), fields.next()) {
        files.insert(path.to_vec(), String::from_utf8_lossy(facts).into_owned());
    }
    let mut add = |path: &[u8], fact: &[u8]| {
        files
            .get_mut(path.strip_prefix(b".").filter(|rest| rest.is_empty()).unwrap_or(path))
            .unwrap()
            .push_str(&String::from_utf8_lossy(fact));
    };
    // "<64 digits>  ./<path>"
    for record in sums.split(|&byte| byte == 0).filter(|record| !record.is_empty()) {
        add(&record[68..], &record[..64]);
    }
    // "# file: <path>", then a line for each attribute, then an empty line.
    let mut path = Vec::new();
    for line in attributes.split(|&byte| byte == b'\n') {
        match line.strip_prefix(b"# file: ") {
            Some(name) => path = unescape(name),
            None => add(&path, line),
        }
    }
    assert!(sums.len() > 10_000 && attributes.windows(16).any(|bytes| bytes == b"security.selinux"));
    Some(files)
}

/// A path as getfattr prints it, with `\012` and the like for what cannot be printed.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail.first_chunk::<3>()) {
            (b'\\', Some(digits)) => {
                bytes.push(digits.iter().fold(0, |value, digit| value * 8 + (digit - b'0')));
                &tail[3..]
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    bytes
}

/// Path and action of each change that a report tells of.
pub fn changes(report: &Value) -> Vec<(String, String)> {
    report["operations"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|operation| operation["changes"].as_array().unwrap())
        .map(|change| (change["path"].as_str().unwrap().to_owned(), change["action"].as_str().unwrap().to_owned()))
        .collect()
}

/// Asserts that two trees differ exactly as a report says: of each path that changed in all that must not change of a
/// file, and of no other.
pub fn assert_as_reported(
    old: &BTreeMap<Vec<u8>, String>,
    new: &BTreeMap<Vec<u8>, String>,
    reported: &[(String, String)],
) {
    let of = |action: &[&str]| -> BTreeSet<Vec<u8>> {
        let wanted = reported.iter().filter(|(path, found)| action.contains(&found.as_str()) && path.starts_with('/'));
        wanted.map(|(path, _)| seal::GuestPath::from_text(path).unwrap().as_bytes()[1..].to_vec()).collect()
    };
    let removed: BTreeSet<_> = old.keys().filter(|path| !new.contains_key(*path)).cloned().collect();
    assert_eq!(removed, of(&["removed"]));
    let created: BTreeSet<_> = new.keys().filter(|path| !old.contains_key(*path)).cloned().collect();
    assert_eq!(created, of(&["created"]));
    let is_directory = |path: &Vec<u8>| new.get(path).is_some_and(|facts| facts.starts_with('d'));
    let changed: BTreeSet<_> = old
        .iter()
        .filter(|(path, facts)| new.get(*path).is_some_and(|new| new != *facts))
        .map(|(path, _)| path.clone())
        .collect();
    let changed_files: BTreeSet<_> = changed.iter().filter(|path| !is_directory(path)).cloned().collect();
    assert_eq!(changed_files, of(&["emptied", "edited", "replaced"]));
    // A directory's time changes only where something in it came or went.
    let touched: BTreeSet<_> = removed.iter().chain(&created).map(|path| parent(path)).collect();
    for directory in changed.iter().filter(|path| is_directory(path)) {
        assert!(touched.contains(directory), "{}", String::from_utf8_lossy(directory));
    }
}

fn parent(path: &[u8]) -> Vec<u8> {
    path.iter().rposition(|&byte| byte == b'/').map_or(Vec::new(), |slash| path[..slash].to_vec())
}
