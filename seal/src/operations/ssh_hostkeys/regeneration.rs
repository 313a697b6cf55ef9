//! How the guest gets host keys when it next boots.

use guest::FileKind;

use crate::changes::Changes;
use crate::{Result, text};

/// Sees to it that the guest makes host keys at boot: by a way of its own, or by a unit that is installed here.
pub(super) fn ensure(changes: &mut Changes<'_>) -> Result<()> {
    if !any_file(changes, &["/usr/sbin/sshd", "/usr/bin/sshd"])? || has_way_of_its_own(changes)? {
        return Ok(());
    }
    if !changes.is_file(b"/usr/bin/ssh-keygen")? {
        changes.warn("the guest has an sshd and no ssh-keygen: nothing makes SSH host keys at boot".to_owned());
        return Ok(());
    }
    if !has_systemd(changes)? {
        changes.warn("the guest has an sshd, but nothing that makes SSH host keys at boot, and no systemd".to_owned());
        return Ok(());
    }
    install(changes)
}

fn install(changes: &mut Changes<'_>) -> Result<()> {
    for directory in ["/etc", "/etc/systemd", "/etc/systemd/system", "/etc/systemd/system/multi-user.target.wants"] {
        // Where a link leads, another operation may remove what is put there.
        if changes.lstat(directory.as_bytes())?.is_some_and(|found| found.kind != FileKind::Directory) {
            changes.warn(format!(
                "{directory} is no directory, so no unit was installed: nothing makes SSH host keys at boot"
            ));
            return Ok(());
        }
    }
    if changes.lstat(UNIT)?.is_none() {
        changes.create_file(UNIT, UNIT_TEXT)?;
    } else if changes.is_plain_file(UNIT)? {
        changes.edit(UNIT, UNIT_TEXT)?;
    } else {
        // Masked, most likely: somebody wants no such unit.
        changes.warn(
            "goldenseal-ssh-hostkeys.service is no regular file and was left: nothing makes SSH host keys at boot"
                .to_owned(),
        );
        return Ok(());
    }
    if changes.lstat(WANTS)?.is_none() {
        changes.create_link(UNIT, WANTS)?;
    }
    Ok(())
}

fn has_systemd(changes: &Changes<'_>) -> Result<bool> {
    any_file(changes, &["/usr/lib/systemd/systemd", "/lib/systemd/systemd"])
}

/// Whether something in the guest makes host keys at every boot that finds none. cloud-init does not count: it makes
/// them once for an instance, and a clone may look like the same instance.
fn has_way_of_its_own(changes: &mut Changes<'_>) -> Result<bool> {
    let mut has_unit = false;
    if has_systemd(changes)? {
        for unit in GENERATORS {
            if is_unit(changes, unit)? && !yields_to_cloud_init(changes, unit)? {
                return Ok(true);
            }
        }
        for unit in ["ssh.service", "sshd.service"] {
            if runs_keygen(changes, unit)? {
                return Ok(true);
            }
            has_unit |= is_unit(changes, unit)?;
        }
    }
    // systemd runs an init script only where it has no unit for the service.
    if !has_unit {
        for script in INIT_SCRIPTS {
            let text = changes.read_text(script.as_bytes())?.unwrap_or_default();
            if text::holds(&text.to_ascii_lowercase(), b"keygen") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether systemd has a unit of this name. One that is masked by a link to `/dev/null` it has not.
fn is_unit(changes: &Changes<'_>, unit: &str) -> Result<bool> {
    for directory in UNIT_DIRECTORIES {
        let path = format!("{directory}/{unit}").into_bytes();
        if changes.lstat(&path)?.is_some() {
            // An alias is a link to another unit; it may lead to a name that only systemd finds.
            let is_link = !changes.is_plain_file(&path)?;
            return Ok(!is_link || changes.is_file(&path)? || !is_masked(changes, &path)?);
        }
    }
    Ok(false)
}

fn is_masked(changes: &Changes<'_>, path: &[u8]) -> Result<bool> {
    Ok(changes.read_link(path)? == b"/dev/null")
}

/// Whether a drop-in keeps the unit from starting where cloud-init is active, as Fedora has it.
fn yields_to_cloud_init(changes: &Changes<'_>, unit: &str) -> Result<bool> {
    for directory in UNIT_DIRECTORIES {
        let names = changes.names_in(format!("{directory}/{unit}.d").as_bytes())?;
        if names.iter().any(|name| text::holds(name, b"cloud-init")) {
            // The drop-in comes with the distribution; cloud-init may not be there.
            return any_file(changes, &["/usr/bin/cloud-init"]);
        }
    }
    Ok(false)
}

/// Whether the unit, or what was added to it, runs `ssh-keygen -A`.
fn runs_keygen(changes: &mut Changes<'_>, unit: &str) -> Result<bool> {
    for directory in UNIT_DIRECTORIES {
        let mut files = vec![format!("{directory}/{unit}").into_bytes()];
        files.extend(changes.glob(&format!("{directory}/{unit}.d/*.conf"))?);
        for file in files {
            if changes.read_text(&file)?.is_some_and(|text| text::holds(&text, b"ssh-keygen -A")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn any_file(changes: &Changes<'_>, paths: &[&str]) -> Result<bool> {
    for path in paths {
        if changes.is_file(path.as_bytes())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Units that make host keys where there are none, or bring in one that does.
const GENERATORS: &[&str] =
    &["sshd-keygen@.service", "sshd-keygen.service", "sshd-keygen.target", "sshdgenkeys.service"];

/// Where units are, the first that has a name deciding.
const UNIT_DIRECTORIES: &[&str] = &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const INIT_SCRIPTS: &[&str] = &[
    "/etc/init.d/sshd",
    "/etc/init.d/ssh",
    "/etc/rc.d/init.d/sshd",
    "/etc/rc.d/rc.sshd",
    "/etc/rc.d/sshd",
    "/etc/sv/sshd/run",
];

const UNIT: &[u8] = b"/etc/systemd/system/goldenseal-ssh-hostkeys.service";
const WANTS: &[u8] = b"/etc/systemd/system/multi-user.target.wants/goldenseal-ssh-hostkeys.service";

/// It goes without the default dependencies, for they would order it after `basic.target`, and so after `ssh.socket`.
const UNIT_TEXT: &[u8] = b"\
# Installed when this image was sealed: its SSH host keys were removed, and nothing else here makes new ones.
[Unit]
Description=Make SSH host keys where there are none
Documentation=man:ssh-keygen(1)
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
DefaultDependencies=no
RequiresMountsFor=/etc/ssh /usr
After=systemd-remount-fs.service local-fs.target systemd-random-seed.service
Before=ssh.service sshd.service ssh.socket sshd.socket
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
";
