//! `--hostname`, in every distribution: what is decided by is which files there are.

use crate::changes::Changes;
use crate::requested::refused;
use crate::{Result, text};

/// Sets the host name wherever the guest keeps it.
pub(super) fn set(changes: &mut Changes<'_>, name: &str) -> Result<()> {
    check(name)?;
    let old = old_name(changes)?;
    changes.write_file(b"/etc/hostname", format!("{name}\n").as_bytes())?;
    // SUSE's old file, which in its releases of today is a link to the new one or is missing.
    if changes.is_plain_file(b"/etc/HOSTNAME")? {
        changes.write_file(b"/etc/HOSTNAME", format!("{name}\n").as_bytes())?;
    }
    set_pretty_name(changes, name)?;
    for (file, prefix, value) in [
        // Red Hat's before release 7, and OpenRC's.
        (&b"/etc/sysconfig/network"[..], "HOSTNAME=", format!("HOSTNAME={name}\n")),
        (b"/etc/conf.d/hostname", "hostname=", format!("hostname=\"{name}\"\n")),
        (b"/etc/rc.conf", "HOSTNAME=", format!("HOSTNAME=\"{name}\"\n")),
    ] {
        if let Some(old) = changes.read_text(file)? {
            let changed =
                text::with_lines(&old, |line| line.starts_with(prefix.as_bytes()).then(|| value.clone().into_bytes()));
            changes.edit(file, &changed)?;
        }
    }
    match changes.read_text(b"/etc/hosts")? {
        Some(hosts) => changes.edit(b"/etc/hosts", &rename_hosts(&hosts, &old, name)),
        None => Ok(()),
    }
}

/// `hostname(5)`: labels of letters, digits and dashes, 64 characters at most.
fn check(name: &str) -> Result<()> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 64 && name.split('.').all(is_label) {
        Ok(())
    } else {
        refused(format!("'{name}' is no host name"))
    }
}

fn old_name(changes: &mut Changes<'_>) -> Result<Vec<u8>> {
    for file in [&b"/etc/hostname"[..], b"/etc/HOSTNAME"] {
        if let Some(text) = changes.read_text(file)? {
            let first = text::lines(&text).map(<[u8]>::trim_ascii).find(|line| !line.is_empty() && line[0] != b'#');
            if let Some(name) = first {
                return Ok(name.to_vec());
            }
        }
    }
    Ok(Vec::new())
}

/// Red Hat's guests show the pretty name.
fn set_pretty_name(changes: &mut Changes<'_>, name: &str) -> Result<()> {
    let file = b"/etc/machine-info";
    let os = changes.guest().os();
    let is_red_hat = ["fedora", "rhel"].iter().any(|like| os.id == *like || os.id_like.iter().any(|id| id == like));
    let old = changes.read_text(file)?;
    let is_pretty = |line: &[u8]| line.starts_with(b"PRETTY_HOSTNAME=");
    if !is_red_hat && !old.as_deref().is_some_and(|old| text::lines(old).any(is_pretty)) {
        return Ok(());
    }
    let mut new = text::without_lines(&old.unwrap_or_default(), is_pretty);
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.push(b'\n');
    }
    new.extend_from_slice(format!("PRETTY_HOSTNAME={name}\n").as_bytes());
    changes.write_file(file, &new)
}

/// The hosts file with the old name, and Debian's for a machine without one, replaced among the names of each line.
fn rename_hosts(hosts: &[u8], old: &[u8], name: &str) -> Vec<u8> {
    let short_of = |name: &[u8]| name.split(|&byte| byte == b'.').next().unwrap_or_default().to_vec();
    let (old_short, name) = (short_of(old), name.as_bytes());
    let short = short_of(name);
    let replacement = |word: &[u8]| match word {
        b"localhost" => None,
        word if !old.is_empty() && word == old => Some(name.to_vec()),
        word if !old.is_empty() && word == old_short => Some(short.clone()),
        b"unassigned-hostname" => Some(short.clone()),
        b"unassigned-hostname.unassigned-domain" if name != short => Some(name.to_vec()),
        _ => None,
    };
    text::with_lines(hosts, |line| {
        let end = line.iter().position(|&byte| byte == b'#').unwrap_or(line.len());
        let mut changed = Vec::with_capacity(line.len());
        let mut words = 0;
        for piece in line.get(..end)?.split_inclusive(u8::is_ascii_whitespace) {
            let word = piece.trim_ascii_end();
            words += usize::from(!word.is_empty());
            match replacement(word).filter(|_| words > 1 && !word.is_empty()) {
                Some(new) => {
                    changed.extend_from_slice(&new);
                    changed.extend_from_slice(piece.get(word.len()..).unwrap_or_default());
                }
                None => changed.extend_from_slice(piece),
            }
        }
        changed.extend_from_slice(line.get(end..).unwrap_or_default());
        (changed != line).then_some(changed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_renamed() {
        let hosts = b"127.0.0.1\tlocalhost\n127.0.1.1 old.example.com\told other # old\nold 1\n";
        let renamed = rename_hosts(hosts, b"old.example.com", "new.example.org");
        let wanted = "127.0.0.1\tlocalhost\n127.0.1.1 new.example.org\tnew other # old\nold 1\n";
        assert_eq!(String::from_utf8(renamed).unwrap(), wanted);
        assert_eq!(rename_hosts(b"127.0.1.1 localhost\n", b"localhost", "x"), b"127.0.1.1 localhost\n");
        assert_eq!(rename_hosts(b"::1 unassigned-hostname\n", b"", "x.y"), b"::1 x\n");
    }

    #[test]
    fn names_are_checked() {
        assert!(check("a-1.example.com").is_ok());
        for wrong in ["", "-a", "a b", "a..b", "a/b", &"x".repeat(65)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
