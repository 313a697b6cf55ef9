//! `--ssh-inject`.

use std::path::PathBuf;
use std::time::SystemTime;

use guest::path::join;

use super::{SshKey, copy};
use crate::accounts::Account;
use crate::changes::Changes;
use crate::requested::refused;
use crate::{GuestPath, Result, text};

/// The public key in `~/.ssh` of the host that changed last.
pub(super) fn newest_key_of_host() -> Result<PathBuf, String> {
    let home = std::env::home_dir().ok_or("there is no home directory to look for a key in: name one")?;
    let directory = home.join(".ssh");
    let entries = std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut newest: Option<(SystemTime, PathBuf)> = None;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("id") && name.ends_with(".pub") && !name.ends_with("-cert.pub") {
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let changed = changed.unwrap_or(SystemTime::UNIX_EPOCH);
            if newest.as_ref().is_none_or(|(best, _)| changed > *best) {
                newest = Some((changed, entry.path()));
            }
        }
    }
    newest.map(|(_, path)| path).ok_or_else(|| format!("there is no id*.pub in {}", directory.display()))
}

/// Adds a public key to those that may log in as a user.
pub(super) fn inject(changes: &mut Changes<'_>, user: &str, key: &SshKey) -> Result<()> {
    let key = match key {
        SshKey::File(file) => copy::read_local(file)?,
        SshKey::Text(key) => key.clone().into_bytes(),
    };
    let key = key.trim_ascii();
    if key.is_empty() || text::holds(key, b"PRIVATE KEY") {
        return refused("this is no public key");
    }
    let passwd = changes.read_existing(b"/etc/passwd")?;
    let Some(account) = Account::all(&passwd).find(|account| account.name == user.as_bytes()) else {
        return refused(format!("the guest has no account '{user}'"));
    };
    if !account.has_home() {
        return refused(format!("the account '{user}' has no home directory"));
    }
    changes.check_path(account.home)?;
    if !changes.is_directory(account.home)? {
        return refused(format!("the home directory {} does not exist in the guest", GuestPath::from(account.home)));
    }
    let directory = join(account.home, b".ssh");
    if !changes.is_directory(&directory)? {
        changes.make_directories(&directory)?;
        changes.set_mode(&directory, 0o700)?;
        changes.set_owner(&directory, account.uid, account.gid)?;
    }
    let file = join(&directory, b"authorized_keys");
    let is_new = changes.stat(&file)?.is_none();
    let mut keys = if is_new { Vec::new() } else { changes.read_existing(&file)? };
    if text::lines(&keys).any(|line| line.trim_ascii() == key) {
        return Ok(());
    }
    if !keys.is_empty() && !keys.ends_with(b"\n") {
        keys.push(b'\n');
    }
    keys.extend_from_slice(key);
    keys.push(b'\n');
    changes.write_file(&file, &keys)?;
    if is_new {
        changes.set_mode(&file, 0o600)?;
        changes.set_owner(&file, account.uid, account.gid)?;
    }
    Ok(())
}
