//! Whether an operation would look into a file system that is not mounted.

use guest::{FileKind, Guest, Unmounted};

use crate::ledger::Ledger;
use crate::operation::{Operation, Step, Treatment};
use crate::system_directories::is_system_directory;
use crate::{Error, GuestPath, Options, Result};

/// Checks the operations against what could not be mounted, before anything is changed.
pub(crate) fn check_mounts<'a>(
    guest: &Guest,
    unmounted: &[Unmounted],
    operations: impl Iterator<Item = &'a Operation> + Clone,
    options: &Options,
    ledger: &mut Ledger,
) -> Result<()> {
    for missing in unmounted {
        let mount_point = chase(guest, &missing.path);
        let needing = |if_mounted| {
            let mut steps = operations.clone().flat_map(|operation| {
                let steps = operation.steps.iter().filter(move |step| step.if_mounted == if_mounted);
                steps.map(move |step| (operation, step))
            });
            steps.find_map(|(operation, step)| {
                let pattern = first_that_reaches(guest, &ledger.homes, step, &mount_point)?;
                Some((operation, pattern))
            })
        };
        let path = GuestPath::from(missing.path.as_slice());
        let why = format!("{} is not mounted at {path}: {}", missing.spec, missing.reason);
        match needing(false) {
            Some((operation, pattern)) if options.allow_unmounted => {
                ledger.warn(format!("{why}; operation {} could not look at {pattern}", operation.name));
            }
            Some((operation, pattern)) => {
                let missing = Box::new(missing.clone());
                return Err(Error::Unmounted { operation: operation.name, pattern, missing });
            }
            None if missing.is_vfat() => {
                ledger.note(format!("{why}; on it, only the boot loader's random seed is looked for"));
            }
            None => match needing(true) {
                Some((operation, pattern)) => {
                    ledger.note(format!("{why}; operation {} could not look at {pattern}", operation.name));
                }
                None => ledger.note(format!("{why}; no operation looks there")),
            },
        }
    }
    Ok(())
}

/// The file system that is not mounted and in which a path would lie.
pub(crate) fn hidden_by<'a>(guest: &'a Guest, path: &[u8]) -> Option<&'a Unmounted> {
    if guest.unmounted().is_empty() {
        return None;
    }
    let path = chase(guest, path);
    guest.unmounted().iter().find(|missing| crate::ledger::is_within(&path, &chase(guest, &missing.path)))
}

/// The first of a step's patterns that leads to a mount point or below it.
fn first_that_reaches(guest: &Guest, homes: &[Vec<u8>], step: &Step, mount_point: &[u8]) -> Option<&'static str> {
    let deep =
        matches!(step.treatment, Treatment::RemoveTrees | Treatment::RemoveFilesBelow | Treatment::EmptyDirectories);
    let reaches = |pattern: &[u8]| meets(&chase(guest, pattern), mount_point, deep);
    step.patterns.iter().copied().find(|pattern| match pattern.strip_prefix('~') {
        None => reaches(pattern.as_bytes()),
        Some(name) => {
            let homes = homes.iter().map(Vec::as_slice).filter(|home| !is_system_directory(home));
            homes.chain([&b"/home/*"[..]]).any(|home| reaches(&[home, name.as_bytes()].concat()))
        }
    })
}

/// Whether what a pattern matches can be a mount point or below one, or, if `deep`, above one.
fn meets(pattern: &[u8], mount_point: &[u8], deep: bool) -> bool {
    let mut names = components(mount_point);
    for part in components(pattern) {
        if part == b"**" {
            return true;
        }
        match names.next() {
            // The mount point is where the pattern leads, or on the way there.
            None => return true,
            Some(name) if matches_name(part, name) => {}
            Some(_) => return false,
        }
    }
    deep || names.next().is_none()
}

/// Whether a pattern in which only `*` is special matches a name.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|&byte| byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = (0..=rest.len()).find(|&at| rest.get(at..).is_some_and(|tail| tail.starts_with(part))) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

/// Follows the links in a path as far as things exist, and leaves the rest as it is. A path that leads into a file
/// system that is not mounted does not exist, so it cannot simply be resolved.
fn chase(guest: &Guest, path: &[u8]) -> Vec<u8> {
    let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut at = b"/".to_vec();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == b".." {
            let slash = at.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            at.truncate(slash.max(1));
            continue;
        }
        let next = guest::path::join(&at, &name);
        let is_link =
            guest.lstat(&next).is_ok_and(|found| found.is_some_and(|metadata| metadata.kind == FileKind::Symlink));
        match guest.read_link(&next) {
            Ok(target) if is_link && links < MAX_LINKS => {
                links += 1;
                if target.starts_with(b"/") {
                    at = b"/".to_vec();
                }
                rest.extend(components(&target).rev().map(<[u8]>::to_vec));
            }
            _ => at = next,
        }
    }
    at
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// As many links as Linux follows in one path.
const MAX_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_meets_a_mount_point_on_its_way_or_below() {
        let meets = |pattern: &str, mount: &str, deep| meets(pattern.as_bytes(), mount.as_bytes(), deep);
        assert!(meets("/var/log/*.log*", "/var", false));
        assert!(meets("/var/log/*.log*", "/var/log", false));
        assert!(meets("/home/*/.ssh", "/home/ann", false));
        assert!(meets("/var/cache/zypp*", "/var/cache/zypper", false));
        assert!(!meets("/var/cache/zypp*", "/var/cache/apt", true));
        assert!(!meets("/var/log/*.log*", "/var/lib", true));
        assert!(!meets("/etc/machine-id", "/etc/machine-id/below", false));
        assert!(meets("/var/log/journal/*", "/var/log/journal/abc/def", true));
        assert!(!meets("/var/log/journal/*", "/var/log/journal/abc/def", false));
        assert!(meets("/srv/**/*.bak", "/srv/data", false));
        assert!(meets("/srv/**/*.bak", "/srv", false));
        assert!(!meets("/srv/**/*.bak", "/mnt", false));
    }

    #[test]
    fn stars_stand_for_any_characters() {
        let matches = |pattern: &str, name: &str| matches_name(pattern.as_bytes(), name.as_bytes());
        assert!(matches("*", "") && matches("*", "abc") && matches("a*", "a") && matches("*_log-*", "x_log-1"));
        assert!(matches("*a*b", "xaxbxb") && matches("ab", "ab"));
        assert!(
            !matches("a*a", "a") && !matches("ab", "abc") && !matches("*_log", "x_logs") && !matches("a*b*c", "acb")
        );
    }

    fn missing(path: &str) -> Unmounted {
        Unmounted { path: path.into(), spec: "LABEL=x".to_owned(), reason: "no such volume".to_owned() }
    }

    /// What the named operations make of a missing mount point: the pattern, or the note.
    fn check(guest: &Guest, operations: &[&str], path: &str) -> Result<Vec<String>, &'static str> {
        let mut ledger = Ledger::default();
        ledger.homes = vec![b"/srv/bob".to_vec(), b"/".to_vec()];
        let operations = operations.iter().map(|name| crate::operation(name).unwrap());
        match check_mounts(guest, &[missing(path)], operations, &Options::default(), &mut ledger) {
            Ok(()) => Ok(ledger.notes),
            Err(Error::Unmounted { pattern, .. }) => Err(pattern),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn operations_that_would_look_there_refuse() {
        let mut root = guest::memory::MemoryFileSystem::new();
        root.add_symlink("/var/log", "../data/log").unwrap();
        root.add_dir("/data").unwrap();
        let guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
        for (operation, path, pattern) in [
            ("mail-spool", "/var", "/var/spool/mail/*"),
            ("machine-id", "/etc", "/etc/machine-id"),
            ("ssh-userdir", "/home", "~/.ssh"),
            ("ssh-userdir", "/srv/bob", "~/.ssh"),
            ("backup-files", "/srv/data", "/srv/**/*.bak"),
            ("tmp-files", "/tmp/scratch", "/tmp"),
            // Through the link that /var/log is.
            ("sssd-db-log", "/data", "/var/log/sssd/*"),
        ] {
            assert_eq!(check(&guest, &[operation], path), Err(pattern), "{operation} {path}");
        }
        for (operation, path) in [
            ("mail-spool", "/home"),
            ("machine-id", "/var/cache"),
            ("ssh-userdir", "/usr"),
            ("backup-files", "/opt"),
            ("sssd-db-log", "/var/log/other"),
            ("random-seed", "/boot/efi"),
        ] {
            assert_eq!(check(&guest, &[operation], path).unwrap().len(), 1, "{operation} {path}");
        }
    }

    #[test]
    fn a_loader_that_cannot_be_reached_is_only_noted() {
        let guest = Guest::from_file_systems(Box::new(guest::memory::MemoryFileSystem::new()), Vec::new()).unwrap();
        assert_eq!(
            check(&guest, &["machine-id", "random-seed"], "/boot/loader").unwrap(),
            ["LABEL=x is not mounted at /boot/loader: no such volume; \
              operation random-seed could not look at /boot/loader/random-seed"]
        );
        assert_eq!(
            check(&guest, &["machine-id"], "/boot/efi").unwrap(),
            ["LABEL=x is not mounted at /boot/efi: no such volume; no operation looks there"]
        );
    }
}
