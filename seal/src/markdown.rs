//! The operations as a document.

use std::fmt::Write as _;

use crate::operation::Operation;
use crate::operations;

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
        let _ = writeln!(text, "\n{}:\n", step.treatment.verb());
        for pattern in step.patterns {
            let _ = writeln!(text, "- `{pattern}`");
        }
        if !step.except.is_empty() {
            let except: Vec<_> = step.except.iter().map(|path| format!("`{path}`")).collect();
            let _ = writeln!(text, "\nbut not {}.", except.join(" or "));
        }
    }
}

const INTRODUCTION: &str = "\
<!-- Generated from the operations' own records: see seal/tests/operations/document.rs. -->
# Operations

`goldenseal seal` performs the operations that are on by default, in the order of their names. `--operations` and
`--enable` choose others; the grammar is that of virt-sysprep, and so are the names.

An operation acts on the files that a guest has, whatever distribution it calls itself. All paths are resolved inside the
guest. Patterns are those of a shell: `*` stands for any characters but `/`, and for no leading dot; `**` stands for any
number of directories, and a leading `~` for each directory in `/home`, `/root`, and the home of each account in
`/etc/passwd`, unless that is a directory of the system such as `/` or `/usr/sbin`. What is missing is no error.

A symbolic link that a pattern ends at is removed itself, never what it leads to. Where links on the way of a pattern lead
to a directory such as `/` or `/etc`, nothing is removed there, and the report warns. A directory that a file system is
mounted on stays, and so does its `lost+found`. If a file system of `/etc/fstab` is not mounted and a pattern leads there,
the run is refused.
";
