//! `--append-line` and `--edit`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::edit_subset::Program;
use crate::Result;
use crate::changes::Changes;
use crate::requested::refused;

/// Appends a line to a file, which is made if it is missing.
pub(super) fn append_line(changes: &mut Changes<'_>, file: &[u8], line: &[u8]) -> Result<()> {
    changes.check_path(file)?;
    let mut text = if changes.stat(file)?.is_some() { changes.read_existing(file)? } else { Vec::new() };
    let end = line_end(&text);
    if !text.is_empty() && !text.ends_with(end) {
        text.extend_from_slice(end);
    }
    text.extend_from_slice(line);
    text.extend_from_slice(end);
    changes.write_file(file, &text)
}

/// The line end that a text has at its start.
fn line_end(text: &[u8]) -> &'static [u8] {
    let start = text.get(..8192).unwrap_or(text);
    if start.windows(2).any(|pair| pair == b"\r\n") {
        b"\r\n"
    } else if start.contains(&b'\r') && !start.contains(&b'\n') {
        b"\r"
    } else {
        b"\n"
    }
}

/// Edits each line of a file by a Perl expression: by the host's perl, or without one as far as the subset goes.
pub(super) fn edit(changes: &mut Changes<'_>, file: &[u8], expression: &str) -> Result<()> {
    let old = changes.read_existing(file)?;
    let new = match run_perl(expression, &old) {
        Ok(new) => new,
        Err(PerlError::Failed(reason)) => return refused(format!("perl: {reason}")),
        Err(PerlError::Missing) => match Program::parse(expression) {
            Ok(program) => program.run(&old),
            Err(reason) => return refused(format!("there is no perl on this host, and {reason}")),
        },
    };
    changes.write_file(file, &new)
}

enum PerlError {
    Missing,
    Failed(String),
}

/// For each line: `$_` is the line with its end, `$lineno` its number, the expression is evaluated, `$_` is printed.
const LOOP: &str = "my $goldenseal = shift @ARGV; our $lineno = 0; binmode STDIN; binmode STDOUT; \
                    while (<STDIN>) { $lineno++; eval $goldenseal; die $@ if $@; print STDOUT $_ or die $!; } \
                    close STDOUT or die $!;";

fn run_perl(expression: &str, text: &[u8]) -> Result<Vec<u8>, PerlError> {
    let spawned = Command::new("perl")
        .args(["-e", LOOP, "--", expression])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(PerlError::Missing),
        Err(error) => return Err(PerlError::Failed(error.to_string())),
    };
    let input = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // It may answer before it has read all.
        scope.spawn(move || {
            if let Some(mut input) = input {
                // A perl that dies early says why on its own.
                let _ = input.write_all(text);
            }
        });
        child.wait_with_output()
    });
    let output = output.map_err(|error| PerlError::Failed(error.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(PerlError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_end_of_a_text_is_found() {
        assert_eq!(line_end(b"a\r\nb\n"), b"\r\n");
        assert_eq!(line_end(b"a\rb"), b"\r");
        assert_eq!(line_end(b""), b"\n");
    }

    /// What the subset takes, perl takes in the same way.
    #[test]
    fn the_subset_agrees_with_perl() {
        let text = b"root:x:0\nPermitRootLogin no\n#Port 22\n  a.b/c \n\nlast";
        for expression in [
            "s/^#Port 22/Port 2222/",
            "s/o/0/g",
            "s/ROOT/admin/i",
            "s{a\\.b/c}{d}",
            "s|x|y|; s/y/z/",
            "s/(\\w+):(\\w+)/$2:$1/",
            "$_ = '' if /^#/",
            "$_ = \"gone\\n\" if $lineno == 2",
            "s/no$/yes/ if /^PermitRootLogin/",
            "s/a/b/ unless /root/",
            "$_ = '' unless $lineno > 1",
            "tr/a-z/A-Z/",
            "y/ab/ba/ if /a/",
            "s/$/ end/ if /last/",
            "$_ .= \"more\\n\" if /^root/",
        ] {
            let program = Program::parse(expression).unwrap();
            match run_perl(expression, text) {
                Ok(perl) => assert_eq!(
                    String::from_utf8(program.run(text)).unwrap(),
                    String::from_utf8(perl).unwrap(),
                    "{expression}"
                ),
                Err(PerlError::Failed(reason)) => panic!("{expression}: {reason}"),
                Err(PerlError::Missing) => {
                    assert!(std::env::var_os("CI").is_none(), "perl is not installed");
                    println!("SKIPPED the_subset_agrees_with_perl: perl is not installed");
                    return;
                }
            }
        }
    }
}
