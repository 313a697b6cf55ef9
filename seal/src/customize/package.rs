//! The commands of the guest's package manager, for the first boot.

use crate::Result;
use crate::changes::Changes;
use crate::requested::refused;

/// A package manager, told by its program.
struct Manager {
    programs: &'static [&'static str],
    refresh: &'static str,
    install: &'static str,
    uninstall: &'static str,
    update: &'static str,
}

const MANAGERS: &[Manager] = &[
    Manager {
        programs: &["/usr/bin/apt-get"],
        refresh: "export DEBIAN_FRONTEND=noninteractive\napt-get -q update\n",
        install: "apt-get -q -y -o Dpkg::Options::=--force-confnew install",
        uninstall: "apt-get -q -y remove",
        update: "apt-get -q -y -o Dpkg::Options::=--force-confnew upgrade",
    },
    Manager {
        programs: &["/usr/bin/dnf", "/usr/bin/dnf5", "/usr/bin/dnf-3"],
        refresh: "",
        install: "dnf -y install",
        uninstall: "dnf -y remove",
        update: "dnf -y upgrade",
    },
    Manager {
        programs: &["/usr/bin/yum"],
        refresh: "",
        install: "yum -y install",
        uninstall: "yum -y remove",
        update: "yum -y update",
    },
    Manager {
        programs: &["/usr/bin/zypper"],
        refresh: "",
        install: "zypper -n in -l",
        uninstall: "zypper -n rm",
        update: "zypper -n up -l",
    },
    Manager {
        programs: &["/usr/bin/pacman"],
        refresh: "pacman -Sy --noconfirm\n",
        install: "pacman -S --noconfirm",
        uninstall: "pacman -R --noconfirm",
        update: "pacman -Su --noconfirm",
    },
    Manager {
        programs: &["/sbin/apk", "/usr/sbin/apk"],
        refresh: "apk update\n",
        install: "apk add",
        uninstall: "apk del",
        update: "apk upgrade",
    },
    Manager {
        programs: &["/usr/bin/xbps-install"],
        refresh: "",
        install: "xbps-install -Sy",
        uninstall: "xbps-remove -Ry",
        update: "xbps-install -Suy",
    },
    Manager {
        programs: &["/usr/sbin/urpmi"],
        refresh: "",
        install: "urpmi --auto",
        uninstall: "urpme --auto",
        update: "urpmi --auto-update --auto",
    },
];

fn manager(changes: &Changes<'_>) -> Result<&'static Manager> {
    for manager in MANAGERS {
        for program in manager.programs {
            if changes.is_file(program.as_bytes())? {
                return Ok(manager);
            }
        }
    }
    refused("no package manager that is known was found in the guest")
}

fn script(refresh: &str, command: &str, packages: &[String]) -> String {
    let mut script = format!("#!/bin/sh\n{refresh}{command}");
    for package in packages {
        script.push_str(" '");
        script.push_str(&package.replace('\'', "'\\''"));
        script.push('\'');
    }
    script.push('\n');
    script
}

pub(super) fn install_command(changes: &Changes<'_>, packages: &[String]) -> Result<String> {
    let manager = manager(changes)?;
    Ok(script(manager.refresh, manager.install, packages))
}

pub(super) fn uninstall_command(changes: &Changes<'_>, packages: &[String]) -> Result<String> {
    let manager = manager(changes)?;
    let refresh =
        if manager.programs.contains(&"/usr/bin/apt-get") { "export DEBIAN_FRONTEND=noninteractive\n" } else { "" };
    Ok(script(refresh, manager.uninstall, packages))
}

pub(super) fn update_command(changes: &Changes<'_>) -> Result<String> {
    let manager = manager(changes)?;
    Ok(script(manager.refresh, manager.update, &[]))
}
