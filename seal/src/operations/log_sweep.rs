//! All logs that no other operation knows by name.

use guest::FileKind;

use crate::changes::{Changes, name_of};
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "log-sweep",
    heading: "Empty all other logs",
    enabled: true,
    about: "Whatever is below `/var/log` once `logfiles` has done its work: files are emptied, so that programs find them \
            with the owner and mode that they want; rotated and compressed ones are removed.",
    steps: &[
        Step::new(Treatment::RemoveRegularFiles, &["/var/log/**/*"]).source("FHS 3.0, section 5.10; logrotate(8)"),
        Step::new(Treatment::EmptyFiles, &["/var/log/**/*"]).source("FHS 3.0, section 5.10"),
    ],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    let top = b"/var/log";
    if changes.lstat(top)?.is_some_and(|found| found.kind == FileKind::Symlink) {
        changes.warn("/var/log is a symbolic link; the logs that it leads to were not swept".to_owned());
        return Ok(());
    }
    let mut files = Vec::new();
    changes.walk_names(top, &mut |path, kind| {
        if kind == FileKind::File {
            files.push(path.to_vec());
        }
    })?;
    for file in files {
        if is_rotated(name_of(&file)) {
            changes.remove_regular_file(&file)?;
        } else {
            changes.empty_file(&file)?;
        }
    }
    Ok(())
}

/// Whether a name is one that logrotate and its like give: `a.1`, `a.2.gz`, `a-20261123`, `a.old`.
fn is_rotated(name: &[u8]) -> bool {
    let ends = |suffix: &str| name.ends_with(suffix.as_bytes());
    if [".gz", ".xz", ".zst", ".bz2", ".lzma", ".old"].iter().any(|suffix| ends(suffix)) {
        return true;
    }
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let before = name.len().checked_sub(digits + 1).and_then(|at| name.get(at));
    match before {
        Some(b'.') => (1..=3).contains(&digits),
        Some(b'-') => digits == 8,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_rotated;

    #[test]
    fn rotated_logs_are_told_by_their_names() {
        for name in ["a.log.1", "a.2.gz", "messages-20261123", "Xorg.0.log.old"] {
            assert!(is_rotated(name.as_bytes()), "{name}");
        }
        for name in ["a.log", "sa23", "php7.4-fpm", "1", "a-2", "Xorg.0.log", "release.2024"] {
            assert!(!is_rotated(name.as_bytes()), "{name}");
        }
    }
}
