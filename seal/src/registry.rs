//! All operations there are.

use std::sync::LazyLock;

use crate::operation::Operation;
use crate::operations::{STATE_TABLE, TABLE, WITH_LOGIC};

/// All operations, in the order in which they are performed: that of their names, then what must come after others.
#[must_use]
pub fn operations() -> &'static [&'static Operation] {
    static ALL: LazyLock<Vec<&'static Operation>> = LazyLock::new(|| {
        let mut all: Vec<_> = TABLE.iter().chain(STATE_TABLE).chain(WITH_LOGIC.iter().copied()).collect();
        all.sort_unstable_by_key(|operation| (place(operation.name), operation.name));
        all
    });
    &ALL
}

/// Operations that come after all others whatever their names: what sweeps up after them, then what a person wants.
fn place(name: &str) -> u8 {
    match name {
        "log-sweep" => 1,
        "customize" => 2,
        // Outside all file systems, once nothing in them changes any more but what names these.
        "disk-guids" | "fs-uuids" => 3,
        // Logical volumes hold file systems.
        "lvm-uuids" => 4,
        _ => 0,
    }
}

/// The operation of a name.
#[must_use]
pub fn operation(name: &str) -> Option<&'static Operation> {
    operations().iter().copied().find(|operation| operation.name == name)
}

/// Whether an operation is one of virt-sysprep's.
#[must_use]
pub fn is_of_virt_sysprep(name: &str) -> bool {
    VIRT_SYSPREP.contains(&name)
}

/// The operations of virt-sysprep that are here, by its version of 2026.
const VIRT_SYSPREP: &[&str] = &[
    "abrt-data",
    "backup-files",
    "bash-history",
    "blkid-tab",
    "ca-certificates",
    "crash-data",
    "cron-spool",
    "customize",
    "dhcp-client-state",
    "dhcp-server-state",
    "dovecot-data",
    "firewall-rules",
    "flag-reconfiguration",
    "fs-uuids",
    "ipa-client",
    "kerberos-data",
    "kerberos-hostkeytab",
    "logfiles",
    "lvm-system-devices",
    "lvm-uuids",
    "machine-id",
    "mail-spool",
    "net-hostname",
    "net-hwaddr",
    "net-nmconn",
    "pacct-log",
    "package-manager-cache",
    "pam-data",
    "passwd-backups",
    "puppet-data-log",
    "rh-subscription-manager",
    "rhn-systemid",
    "rpm-db",
    "samba-db-log",
    "script",
    "smolt-uuid",
    "ssh-hostkeys",
    "ssh-userdir",
    "sssd-db-log",
    "tmp-files",
    "udev-persistent-net",
    "user-account",
    "utmp",
    "yum-uuid",
    "zsh-history",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Treatment;

    #[test]
    fn names_are_unique_and_in_order() {
        let (others, last) = operations().split_at(operations().len() - 5);
        assert!(others.windows(2).all(|pair| pair[0].name < pair[1].name));
        let last: Vec<_> = last.iter().map(|operation| operation.name).collect();
        assert_eq!(last, ["log-sweep", "customize", "disk-guids", "fs-uuids", "lvm-uuids"]);
        assert_eq!(operation("machine-id").unwrap().name, "machine-id");
        assert!(operation("nonsense").is_none());
    }

    #[test]
    fn patterns_are_ones_that_all_their_readers_understand() {
        for operation in operations() {
            for step in operation.steps {
                for pattern in step.patterns {
                    let in_home = pattern.strip_prefix("~/").is_some_and(|name| !name.contains('*'));
                    let is_home = *pattern == "~" && operation.perform.is_some();
                    assert!(pattern.starts_with('/') || in_home || is_home, "{pattern}");
                    assert!(!pattern.contains(['?', '[', '{', '\\']), "{pattern}");
                    // A glob knows no `**`; the operation has to do its own looking.
                    assert!(
                        step.source.is_empty() == is_of_virt_sysprep(operation.name) || operation.name == "random-seed",
                        "{}",
                        operation.name
                    );
                    assert!(!pattern.contains("**") || operation.perform.is_some(), "{pattern}");
                }
                let writes = matches!(step.treatment, Treatment::Edit | Treatment::Create | Treatment::ReplaceByLink);
                assert!(!writes || operation.perform.is_some(), "{}", operation.name);
            }
            assert!(
                (!operation.steps.is_empty() || matches!(operation.name, "customize" | "script"))
                    && !operation.about.is_empty(),
                "{}",
                operation.name
            );
        }
    }
}
