//! Work for the guest's first boot: scripts, a runner, and a unit that goes when they are done.

use crate::Result;
use crate::changes::Changes;
use crate::requested::refused;

/// How many scripts there are already.
#[derive(Debug, Default)]
pub(super) struct Firstboot {
    count: Option<u32>,
}

impl Firstboot {
    /// Has a script run at the next boot, after those that were added before.
    pub(super) fn add(&mut self, changes: &mut Changes<'_>, name: &str, script: &[u8]) -> Result<()> {
        let next = match self.count {
            Some(count) => count + 1,
            None => {
                install_runner(changes)?;
                // Those of an earlier run have not been done yet.
                let there = changes.names_in(SCRIPTS.as_bytes())?;
                let numbers = there.iter().filter_map(|name| std::str::from_utf8(name.get(..4)?).ok()?.parse().ok());
                numbers.max().unwrap_or(0) + 1
            }
        };
        self.count = Some(next);
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
        // Without a first line that names its interpreter, the shell takes it.
        let script = if script.starts_with(b"#!") { script.to_vec() } else { [b"#!/bin/sh\n", script, b"\n"].concat() };
        changes.install_file(format!("{SCRIPTS}/{next:04}-{name}").as_bytes(), &script, 0o755)
    }
}

/// Below `/usr/libexec`, where the policies of SELinux have programs that systemd may start.
const RUNNER: &str = "/usr/libexec/goldenseal/firstboot";
const SCRIPTS: &str = "/usr/libexec/goldenseal/firstboot.d";
const UNIT: &str = "/etc/systemd/system/goldenseal-firstboot.service";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants/goldenseal-firstboot.service";
const OPENRC: &str = "/etc/local.d/goldenseal-firstboot.start";

fn install_runner(changes: &mut Changes<'_>) -> Result<()> {
    let mut has_systemd = false;
    for systemd in ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"] {
        has_systemd |= changes.is_file(systemd.as_bytes())?;
    }
    let has_openrc = changes.is_directory(b"/etc/local.d")? && changes.is_directory(b"/etc/runlevels")?;
    if !has_systemd && !has_openrc {
        return refused("the guest has neither systemd nor OpenRC: nothing would start work at its first boot");
    }
    changes.install_file(RUNNER.as_bytes(), RUNNER_TEXT, 0o755)?;
    changes.make_directories(SCRIPTS.as_bytes())?;
    if has_systemd {
        changes.install_file(UNIT.as_bytes(), UNIT_TEXT, 0o644)?;
        if changes.lstat(WANTS.as_bytes())?.is_none() {
            changes.create_link(UNIT.as_bytes(), WANTS.as_bytes())?;
        }
        return Ok(());
    }
    changes.install_file(OPENRC.as_bytes(), b"#!/bin/sh\nexec /usr/libexec/goldenseal/firstboot\n", 0o755)?;
    // OpenRC runs what is in /etc/local.d by a service of its own.
    let local = b"/etc/runlevels/default/local";
    if changes.lstat(local)?.is_none() && changes.is_file(b"/etc/init.d/local")? {
        changes.create_link(b"/etc/init.d/local", local)?;
    }
    Ok(())
}

/// Each script is moved away before it runs, so that none runs twice, whatever happens.
const RUNNER_TEXT: &[u8] = b"\
#!/bin/sh
# Installed when this image was made: runs the scripts in firstboot.d once, in the order of their names, then goes.
dir=/usr/libexec/goldenseal
log=/var/log/goldenseal-firstboot.log
umask 077
mkdir -p \"$dir/done\"
umask 022
{
  for script in \"$dir\"/firstboot.d/*; do
    [ -f \"$script\" ] || continue
    name=${script##*/}
    mv \"$script\" \"$dir/done/$name\" || continue
    echo \"=== $name\"
    \"$dir/done/$name\" </dev/null
    echo \"=== $name ended with status $?\"
  done
} 2>&1 | tee -a \"$log\"
rm -f /etc/systemd/system/multi-user.target.wants/goldenseal-firstboot.service
rm -f /etc/systemd/system/goldenseal-firstboot.service /etc/local.d/goldenseal-firstboot.start
rm -rf \"$dir\"
";

const UNIT_TEXT: &[u8] = b"\
# Installed when this image was made.
[Unit]
Description=Run what was put off until the first boot
ConditionDirectoryNotEmpty=/usr/libexec/goldenseal/firstboot.d
Wants=network-online.target
After=network-online.target
RequiresMountsFor=/usr /var

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/libexec/goldenseal/firstboot
StandardOutput=journal+console
StandardError=inherit
TimeoutSec=0

[Install]
WantedBy=multi-user.target
";
