//! Backups that editors leave behind.

use guest::FileKind;

use crate::changes::{Changes, name_of};
use crate::operation::{Operation, Step, Treatment};
use crate::{Options, Result};

pub(crate) static OPERATION: Operation = Operation {
    name: "backup-files",
    heading: "Remove editor backup files from the guest",
    enabled: true,
    about: "An old version of a file may hold what was since removed from it. Only regular files go, at any depth, also \
            those whose names begin with a dot. Home directories below `/home` are the users' own and are left alone.",
    steps: &[Step::new(
        Treatment::RemoveRegularFiles,
        &[
            "/etc/**/*.bak",
            "/etc/**/*~",
            "/root/**/*.bak",
            "/root/**/*~",
            "/srv/**/*.bak",
            "/srv/**/*~",
            "/tmp/**/*.bak",
            "/tmp/**/*~",
            "/var/**/*.bak",
            "/var/**/*~",
        ],
    )],
    perform: Some(perform),
};

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    for top in [&b"/etc"[..], b"/root", b"/srv", b"/tmp", b"/var"] {
        let mut backups = Vec::new();
        changes.walk_names(top, &mut |path, kind| {
            let name = name_of(path);
            if kind == FileKind::File && (name.ends_with(b".bak") || name.ends_with(b"~")) {
                backups.push(path.to_vec());
            }
        })?;
        backups.iter().try_for_each(|backup| changes.remove_regular_file(backup))?;
    }
    Ok(())
}
