//! The operations as a document.

use std::fmt::Write as _;

use crate::operation::Operation;
use crate::{CUSTOMIZE_OPTIONS, OptionKind, operations};

/// `docs/operations.md`: every operation, what it is for, and all that it may touch.
#[must_use]
pub fn operations_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| operation | by default | what it does |\n|---|---|---|\n");
    for operation in operations() {
        let default = if operation.enabled { "on" } else { "off" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| [{0}](#{0}) | {default} | {1} |", operation.name, operation.heading);
    }
    operations().iter().for_each(|operation| describe(&mut text, operation));
    text
}

fn describe(text: &mut String, operation: &Operation) {
    let default = if operation.enabled { "On" } else { "Off" };
    let _ = write!(
        text,
        "\n## {}\n\n{}. {default} by default.\n\n{}\n",
        operation.name, operation.heading, operation.about
    );
    for step in operation.steps {
        let source = if step.source.is_empty() { String::new() } else { format!(" ({})", step.source) };
        let _ = writeln!(text, "\n{}{source}:\n", step.treatment.verb());
        for pattern in step.patterns {
            let _ = writeln!(text, "- `{pattern}`");
        }
        if !step.except.is_empty() {
            let except: Vec<_> = step.except.iter().map(|path| format!("`{path}`")).collect();
            let _ = writeln!(text, "\nbut not {}.", except.join(" or "));
        }
    }
}

/// `docs/customize.md`: every customize option, and what to know of some.
#[must_use]
pub fn customize_markdown() -> String {
    let mut text = CUSTOMIZE.to_owned();
    let tables = [
        (OptionKind::Files, "## Changes of files", true),
        (
            OptionKind::NeedsGuest,
            "## What needs the guest to run\n\nNothing of the guest is run here, so these are refused, with the way round. With `--defer` they are done when the\nguest first boots.",
            true,
        ),
        (OptionKind::Windows, "## Refused\n\nThese are for Windows guests:", false),
        (
            OptionKind::Ignored,
            "## Taken, and needless\n\nSo that command lines written for virt-customize still work:",
            false,
        ),
    ];
    for (kind, heading, as_table) in tables {
        let _ = write!(text, "\n{heading}\n\n");
        let options = CUSTOMIZE_OPTIONS.iter().filter(|option| option.kind == kind);
        if as_table {
            text.push_str("| option | what it does |\n|---|---|\n");
            for option in options {
                let argument = option.argument.replace('|', "\\|");
                let _ =
                    writeln!(text, "| `{}` | {} |", format!("--{} {argument}", option.name).trim_end(), option.help);
            }
        } else {
            options.for_each(|option| {
                let _ = writeln!(text, "- `--{}`", option.name);
            });
        }
    }
    text.push_str(CUSTOMIZE_NOTES);
    text
}

const CUSTOMIZE: &str = "\
<!-- Generated from the table of options: see seal/tests/operations/document.rs. -->
# Customizing

`goldenseal customize IMAGE OPTION...` changes a guest's files as virt-customize does, without starting anything.
`goldenseal seal` takes the same options and does them after its operations, so what is put in is not sealed away.

All options are done in the order of the command line, passwords at the end. Either all are done or none: an error leaves
the image as it was. A missing file, account or directory is an error, and so is a path in a file system of the guest's
fstab that is not mounted. What is written keeps its inode, mode, owner, attributes and label; what is new is root's, 0644,
with the label that the guest's policy has for it.
";

const CUSTOMIZE_NOTES: &str = "
## Details

**`--edit`** evaluates the expression by the perl of the host for each line, which is in `$_` with its line end; `$lineno`
is its number. Where the host has no perl, this much of it is understood: statements separated by `;`, each of
`s/REGEX/REPLACEMENT/` with `g` and `i` and any delimiter, `tr/a-z/A-Z/`, `$_ = 'TEXT'`, `$_ .= 'TEXT'`, with `if` or `unless`
and `/REGEX/` or `$lineno == N` (`!=`, `<`, `>`, `<=`, `>=`). All else is refused, never guessed at.

**`--chmod`** takes numbers only, as virt-customize does: `0644` is octal, and without the 0 a number is decimal. One such as
`644`, which was surely meant as octal, is refused.

**`--password`** hashes as the guest would: what `pam_unix.so` is told in `/etc/pam.d`, else `ENCRYPT_METHOD` of
`/etc/login.defs`, else SHA-512; `--password-crypto` decides otherwise. Only the second field of the line in `/etc/shadow`
changes. A password that is made up by `random` is told in the report.

**`--hostname`** writes `/etc/hostname` in every distribution, and what else a guest has: the old name in `/etc/hosts`,
`/etc/HOSTNAME`, `HOSTNAME=` in `/etc/sysconfig/network`, `PRETTY_HOSTNAME=` in Red Hat's `/etc/machine-info`, OpenRC's
`/etc/conf.d/hostname`.

**`--firstboot`** and its kin install `/usr/libexec/goldenseal`, with a unit of systemd (or a start script of OpenRC) that
runs each script once, in order, logs to `/var/log/goldenseal-firstboot.log`, and removes itself and all scripts in the end.

**`--enable-service`** makes the links that `systemctl enable` makes of a unit's `[Install]` section: `Alias=`, `WantedBy=`,
`RequiredBy=`, `UpheldBy=`, `Also=`, `DefaultInstance=`, with drop-ins, templates, aliases and specifiers. A masked unit is an
error. An init script of before systemd is refused.

**`--cloud-init`** checks that user-data begins as cloud-init wants and is a YAML mapping, warns of keys that it does not
know, and writes the seed to `/var/lib/cloud/seed/nocloud`.

**`--copy-in`** and **`--tar-in`** copy no devices, pipes and sockets, and say so. Names in an archive cannot lead out of the
directory. Owners are the numbers of the host or the archive.
";

const INTRODUCTION: &str = "\
<!-- Generated from the operations' own records: see seal/tests/operations/document.rs. -->
# Operations

`goldenseal seal` performs the operations that are on by default, in the order of their names, then `log-sweep`,
`customize`, and those that give out new IDs. `--operations` and `--enable` choose others; the grammar is that of virt-sysprep, and so are the names.

An operation acts on the files that a guest has, whatever distribution it calls itself. All paths are resolved inside the
guest. Patterns are those of a shell: `*` stands for any characters but `/`, and for no leading dot; `**` stands for any
number of directories, and a leading `~` for each directory in `/home`, `/root`, and the home of each account in
`/etc/passwd`, unless that is a directory of the system such as `/` or `/usr/sbin`. What is missing is no error.

A symbolic link that a pattern ends at is removed itself, never what it leads to. Where links on the way of a pattern lead
to a directory such as `/` or `/etc`, nothing is removed there, and the report warns. A directory that a file system is
mounted on stays, and so does its `lost+found`. If a file system of `/etc/fstab` is not mounted and a pattern leads there,
the run is refused.
";
