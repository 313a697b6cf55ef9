//! Programs of the host that change the guest's files: a copy of them in a folder of the host, the programs, and what
//! they changed back into the guest.
//!
//! virt-sysprep mounts the guest for this, which needs FUSE. A copy needs nothing, and a program that fails, or is cut
//! off, leaves the guest as it was.

mod export;
mod import;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::changes::Changes;
use crate::requested::refused;

/// Where the copy is, and goes from in the end.
struct Folder {
    path: PathBuf,
    /// `None` where the caller named the folder, which then stays, empty.
    _own: Option<tempfile::TempDir>,
}

impl Folder {
    fn new(named: Option<&Path>) -> Result<Self> {
        let Some(path) = named else {
            return match tempfile::tempdir() {
                Ok(own) => Ok(Self { path: own.path().to_path_buf(), _own: Some(own) }),
                Err(error) => refused(format!("cannot make a folder for a copy of the guest's files: {error}")),
            };
        };
        let shown = path.display();
        if !path.is_absolute() {
            return refused(format!("{shown} is not an absolute path"));
        }
        match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(Self { path: path.to_path_buf(), _own: None }),
            Ok(false) => refused(format!("the folder {shown} is not empty")),
            Err(error) => refused(format!("cannot use the folder {shown}: {error}")),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self._own.is_none() {
            // It was empty: all that is in it is the copy. What cannot be removed is left to whoever named the folder.
            for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let _ =
                    if is_folder { std::fs::remove_dir_all(entry.path()) } else { std::fs::remove_file(entry.path()) };
            }
        }
    }
}

/// Runs the scripts, one after the other in one shell that stops at the first that fails, with a copy of the guest's
/// files as the current folder, and takes what they changed into the guest.
pub(crate) fn run(changes: &mut Changes<'_>, scripts: &[String], folder: Option<&Path>) -> Result<()> {
    let folder = Folder::new(folder)?;
    let exported = export::export(changes.guest(), &folder.path)
        .or_else(|reason| refused(format!("cannot copy the guest's files to {}: {reason}", folder.path.display())))?;
    for left in exported.left_out() {
        changes.note(left);
    }
    let text = format!("set -e\n{}", scripts.join("\n"));
    let mut command = Command::new("/bin/bash");
    command.arg("-c").arg(text).current_dir(&folder.path).stdin(Stdio::null());
    // What the program prints is of the host's, and has to come between the lines of no report.
    if let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() {
        command.stdout(Stdio::from(stderr));
    }
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => return refused(format!("script failed: {status}")),
        Err(error) => return refused(format!("cannot run /bin/bash: {error}")),
    }
    import::import(changes, &exported)
}
