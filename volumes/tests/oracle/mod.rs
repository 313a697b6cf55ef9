//! The programs that judge what this crate reads.
#![allow(dead_code, reason = "each test crate uses some of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether all programs are installed; where one is not the test says so, and fails in CI.
pub(crate) fn installed(test: &str, tools: &[&str]) -> bool {
    for tool in tools {
        if find(tool).is_none() {
            println!("SKIPPED {test}: {tool} is not installed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{tool} has to be installed in CI");
            return false;
        }
    }
    true
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/sbin".into(), "/usr/sbin".into()])
        .map(|directory: PathBuf| directory.join(tool))
        .find(|file| file.is_file())
}

/// Runs a program, which has to succeed, and gives what it prints.
pub(crate) fn run(tool: &str, args: &[&str], file: &Path) -> String {
    try_run(tool, args, file).unwrap_or_else(|error| panic!("{tool} {args:?}: {error}"))
}

/// Runs a program, and gives what it prints, or its complaint.
pub(crate) fn try_run(tool: &str, args: &[&str], file: &Path) -> Result<String, String> {
    let mut command = Command::new(find(tool).unwrap());
    command.args(args.iter().map(|arg| if *arg == "FILE" { file.to_str().unwrap() } else { arg }));
    let output = command.stdin(Stdio::null()).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Runs a program with a script as its input.
pub(crate) fn feed(tool: &str, args: &[&str], file: &Path, script: &str) {
    use std::io::Write;
    let mut command = Command::new(find(tool).unwrap());
    command.args(args.iter().map(|arg| if *arg == "FILE" { file.to_str().unwrap() } else { arg }));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A new sparse file.
pub(crate) fn file(directory: &tempfile::TempDir, name: &str, len: u64) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::File::create(&path).unwrap().set_len(len).unwrap();
    path
}

/// The file's bytes as a device.
pub(crate) fn device(path: &Path) -> std::sync::Arc<block::Memory> {
    std::sync::Arc::new(block::Memory::from(std::fs::read(path).unwrap()))
}
