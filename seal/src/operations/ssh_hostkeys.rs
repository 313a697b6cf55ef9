//! SSH host keys, and a way for the guest to make new ones.

mod regeneration;

use crate::changes::Changes;
use crate::operation::{Operation, Step, Treatment};
use crate::{GuestPath, Options, Result, text};

pub(crate) static OPERATION: Operation = Operation {
    name: "ssh-hostkeys",
    heading: "Remove the SSH host keys in the guest",
    enabled: true,
    about: "Host keys and their certificates, of OpenSSH and of Dropbear. Fedora, Arch, SUSE and Alpine make new ones \
            when sshd starts; Debian and Ubuntu do not, and cloud-init does so only for what it takes for a new \
            instance. Where a guest with systemd has an sshd and no way of its own to make host keys, a unit is \
            installed that runs `ssh-keygen -A` before sshd if there is none. A guest with another init is warned of, \
            and so are host keys that sshd's configuration names elsewhere, which stay.",
    steps: &[
        KEYS,
        Step::new(
            Treatment::Create,
            &[
                "/etc/systemd/system/goldenseal-ssh-hostkeys.service",
                "/etc/systemd/system/multi-user.target.wants/goldenseal-ssh-hostkeys.service",
            ],
        ),
    ],
    perform: Some(perform),
};

const KEYS: Step = Step::new(
    Treatment::RemoveFiles,
    &["/etc/dropbear/dropbear_*_host_key", "/etc/openssh/*_host_*", "/etc/ssh/*_host_*"],
);

fn perform(changes: &mut Changes<'_>, _: &Options) -> Result<()> {
    changes.take_step(&KEYS)?;
    warn_of_keys_elsewhere(changes)?;
    regeneration::ensure(changes)
}

/// Warns of host keys in places that only the configuration of sshd knows: nothing would make them anew.
fn warn_of_keys_elsewhere(changes: &mut Changes<'_>) -> Result<()> {
    for pattern in ["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*.conf", "/etc/openssh/sshd_config"] {
        for path in changes.glob(pattern)? {
            let Some(configuration) = changes.read_text(&path)? else { continue };
            for key in text::lines(&configuration).filter_map(host_key) {
                if changes.is_file(key)? {
                    let (key, path) = (GuestPath::from(key), GuestPath::from(path.as_slice()));
                    changes.warn(format!("{path} names the host key {key}, which was left"));
                }
            }
        }
    }
    Ok(())
}

/// The path that a line of `sshd_config` names as a host key.
fn host_key(line: &[u8]) -> Option<&[u8]> {
    let is_gap = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'"');
    let mut words = line.split(is_gap).filter(|word| !word.is_empty());
    words.next().filter(|keyword| keyword.eq_ignore_ascii_case(b"HostKey"))?;
    words.next().filter(|key| key.starts_with(b"/") && !key.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::host_key;

    #[test]
    fn host_keys_are_read_from_the_configuration() {
        assert_eq!(host_key(b"HostKey /etc/keys/rsa\n"), Some(&b"/etc/keys/rsa"[..]));
        assert_eq!(host_key(b"  hostkey=\"/etc/keys/rsa\""), Some(&b"/etc/keys/rsa"[..]));
        for other in ["#HostKey /a", "HostKeyAlgorithms /a", "HostKey none", "HostKey", ""] {
            assert_eq!(host_key(other.as_bytes()), None, "{other}");
        }
    }
}
