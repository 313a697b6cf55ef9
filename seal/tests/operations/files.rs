//! Operations that remove files by patterns.

use crate::support::{assert_changes, changes, exists, guest, only, run, text};
use guest::FileKind;
use seal::{Action, Options};

#[test]
fn abrt_data_goes_with_its_directories() {
    assert_changes(
        "abrt-data",
        &["/var/spool/abrt/ccpp-1/coredump", "/var/spool/abrt/last", "/var/spool/abrt/.keep", "/var/spool/other/x"],
        &["removed /var/spool/abrt/ccpp-1", "removed /var/spool/abrt/ccpp-1/coredump", "removed /var/spool/abrt/last"],
    );
}

#[test]
fn backups_of_editors_go_from_five_trees() {
    assert_changes(
        "backup-files",
        &[
            "/etc/hosts.bak",
            "/etc/deep/er/.hidden~",
            "/root/~",
            "/root/.bak",
            "/srv/a.bak",
            "/tmp/x~",
            "/var/lib/y~",
            // These stay.
            "/etc/hosts",
            "/etc/a.bak.d/x",
            "/etc/dir~/inside",
            "/etc/link~ -> hosts",
            "/etc/a.BAK",
            "/etc/~x",
            "/home/ann/essay~",
            "/usr/share/x.bak",
            "/opt/y~",
            "/srv/bak",
        ],
        &[
            "removed /etc/deep/er/.hidden~",
            "removed /etc/hosts.bak",
            "removed /root/.bak",
            "removed /root/~",
            "removed /srv/a.bak",
            "removed /tmp/x~",
            "removed /var/lib/y~",
        ],
    );
}

#[test]
fn backups_are_not_looked_for_through_links() {
    assert_changes("backup-files", &["/data/x.bak", "/srv -> data", "/etc/link -> /data"], &[]);
}

#[test]
fn histories_go_from_every_home() {
    let passwd = "/etc/passwd=root:x:0:0::/root:/bin/sh\nbob:x:1001:1001::/srv/bob:/bin/sh\n\
        db:x:70:70::/var/lib/db:/bin/sh\nlink:x:1002:1::/var/homes/link:/bin/sh\nsync:x:4:6::/bin:/bin/sync\n\
        toor:x:0:0::/:/bin/sh\nnone:x:5:5::/nonexistent:/bin/sh\nrel:x:6:6:::\n";
    for (operation, name) in [("bash-history", ".bash_history"), ("zsh-history", ".zsh_history")] {
        let at = |home: &str| format!("{home}/{name}");
        let files = [
            at("/root"),
            at("/home/ann"),
            at("/srv/bob"),
            at("/var/lib/db"),
            at("/data/link"),
            // Nobody is at home there.
            at(""),
            at("/bin"),
            at("/srv/stranger"),
            at("/home"),
        ];
        let mut files: Vec<_> = files.iter().map(String::as_str).collect();
        files.extend([
            passwd,
            "/var/homes/link -> ../../data/link",
            "/home/dir/.bash_history/x",
            "/home/dir/.zsh_history/x",
        ]);
        let expected = ["/data/link", "/home/ann", "/root", "/srv/bob", "/var/lib/db"];
        let expected: Vec<_> = expected.iter().map(|home| format!("removed {}", at(home))).collect();
        assert_changes(operation, &files, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn blkid_tabs_go_unless_they_are_links() {
    assert_changes(
        "blkid-tab",
        &["/run/blkid.tab", "/var/run -> /run", "/etc/blkid.tab", "/etc/blkid.tab.old -> x", "/etc/blkid/blkid.tab/x"],
        &["removed /etc/blkid.tab", "removed /run/blkid.tab"],
    );
}

#[test]
fn ca_certificates_go_but_for_the_bundles() {
    let mut guest = guest(&[
        "/etc/pki/CA/certs/a.crt",
        "/etc/pki/CA/private/a.key",
        "/etc/pki/tls/certs/a.crt",
        "/etc/pki/tls/private/b.key",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/tls/certs/ca-bundle.trust.crt",
        "/etc/pki/tls/certs/a.pem",
        "/etc/pki/tls/certs/dir.crt/x",
        "/usr/bin/update-ca-trust",
    ]);
    let report = run(&mut guest, &only("ca-certificates"), &Options::default());
    assert_eq!(
        changes(&report),
        [
            "removed /etc/pki/CA/certs/a.crt",
            "removed /etc/pki/CA/private/a.key",
            "removed /etc/pki/tls/certs/a.crt",
            "removed /etc/pki/tls/private/b.key",
        ]
    );
    assert_eq!(
        report.warnings,
        ["operation ca-certificates removed certificates: the guest must run 'update-ca-trust extract'"]
    );
    assert_changes("ca-certificates", &["/etc/pki/tls/certs/ca-bundle.crt"], &[]);
}

#[test]
fn crash_dumps_go() {
    assert_changes(
        "crash-data",
        &["/var/crash/127.0.0.1/vmcore", "/var/log/dump/1", "/var/log/dumped", "/var/crash/.lock"],
        &["removed /var/crash/127.0.0.1", "removed /var/crash/127.0.0.1/vmcore", "removed /var/log/dump/1"],
    );
}

#[test]
fn cron_and_at_jobs_go_and_the_counter_begins_anew() {
    let guest = assert_changes(
        "cron-spool",
        &[
            "/var/spool/cron/crontabs/ann",
            "/var/spool/cron/root",
            "/var/spool/cron/atjobs/a1",
            "/var/spool/cron/atjobs/.SEQ=0004e\n",
            "/var/spool/at/spool/y",
            "/var/spool/at/.SEQ=00000\n",
            "/var/spool/atjobs/a2",
            "/var/spool/atjobs/.SEQ=00007\n",
            "/var/spool/atspool/z",
            "/var/spool/atspool/dir/x",
            "/var/spool/cron/link -> root",
            "/etc/cron.d/system",
            "/etc/crontab",
        ],
        &[
            "removed /var/spool/at/spool/y",
            "edited /var/spool/atjobs/.SEQ",
            "removed /var/spool/atjobs/a2",
            "removed /var/spool/atspool/z",
            "edited /var/spool/cron/atjobs/.SEQ",
            "removed /var/spool/cron/atjobs/a1",
            "removed /var/spool/cron/crontabs/ann",
            "removed /var/spool/cron/root",
        ],
    );
    assert_eq!(text(&guest, "/var/spool/cron/atjobs/.SEQ"), "00000\n");
    assert!(exists(&guest, "/var/spool/cron/crontabs"));
}

#[test]
fn leases_go_on_both_sides() {
    assert_changes(
        "dhcp-client-state",
        &["/var/lib/dhcp/dhclient.leases", "/var/lib/dhclient/d/x", "/var/lib/dhcpd/dhcpd.leases"],
        &["removed /var/lib/dhclient/d", "removed /var/lib/dhclient/d/x", "removed /var/lib/dhcp/dhclient.leases"],
    );
    assert_changes(
        "dhcp-server-state",
        &["/var/lib/dhcp/dhclient.leases", "/var/lib/dhcpd/dhcpd.leases"],
        &["removed /var/lib/dhcpd/dhcpd.leases"],
    );
}

#[test]
fn files_go_and_directories_stay() {
    assert_changes(
        "dovecot-data",
        &["/var/lib/dovecot/ssl-parameters.dat", "/var/lib/dovecot/dir/x", "/var/lib/dovecot/link -> dir"],
        &["removed /var/lib/dovecot/link", "removed /var/lib/dovecot/ssl-parameters.dat"],
    );
    assert_changes(
        "firewall-rules",
        &[
            "/etc/sysconfig/iptables",
            "/etc/firewalld/zones/public.xml",
            "/etc/firewalld/firewalld.conf",
            "/etc/nftables.conf",
        ],
        &["removed /etc/firewalld/zones/public.xml", "removed /etc/sysconfig/iptables"],
    );
    assert_changes(
        "kerberos-data",
        &["/var/kerberos/krb5kdc/principal", "/var/kerberos/krb5kdc/kadm5.acl", "/var/kerberos/krb5kdc/kdc.conf"],
        &["removed /var/kerberos/krb5kdc/principal"],
    );
    assert_changes("kerberos-hostkeytab", &["/etc/krb5.keytab", "/etc/krb5.conf"], &["removed /etc/krb5.keytab"]);
    assert_changes("kerberos-hostkeytab", &["/etc/krb5.keytab/x"], &[]);
    assert_changes(
        "lvm-system-devices",
        &["/etc/lvm/devices/system.devices", "/etc/lvm/lvm.conf"],
        &["removed /etc/lvm/devices/system.devices"],
    );
    assert_changes(
        "pam-data",
        &[
            "/run/faillock/ann",
            "/run/console/x",
            "/run/sepermit/y",
            "/run/console/d/z",
            "/run/other",
            "/var/run -> ../run",
        ],
        &["removed /run/console/x", "removed /run/faillock/ann", "removed /run/sepermit/y"],
    );
    assert_changes(
        "passwd-backups",
        &[
            "/etc/passwd-",
            "/etc/shadow-",
            "/etc/group-",
            "/etc/gshadow-",
            "/etc/subuid-",
            "/etc/subgid-",
            "/etc/passwd",
            "/etc/x-",
        ],
        &[
            "removed /etc/group-",
            "removed /etc/gshadow-",
            "removed /etc/passwd-",
            "removed /etc/shadow-",
            "removed /etc/subgid-",
            "removed /etc/subuid-",
        ],
    );
    assert_changes(
        "rhn-systemid",
        &["/etc/sysconfig/rhn/systemid", "/etc/sysconfig/rhn/osad-auth.conf", "/etc/sysconfig/rhn/up2date"],
        &["removed /etc/sysconfig/rhn/osad-auth.conf", "removed /etc/sysconfig/rhn/systemid"],
    );
    assert_changes(
        "rpm-db",
        &[
            "/usr/lib/sysimage/rpm/__db.001",
            "/usr/lib/sysimage/rpm/rpmdb.sqlite",
            "/var/lib/rpm -> ../../usr/lib/sysimage/rpm",
        ],
        &["removed /usr/lib/sysimage/rpm/__db.001"],
    );
    assert_changes("rpm-db", &["/var/lib/rpm/__db.001", "/var/lib/rpm/Packages"], &["removed /var/lib/rpm/__db.001"]);
    assert_changes(
        "smolt-uuid",
        &["/etc/sysconfig/hw-uuid", "/etc/smolt/uuid", "/etc/smolt/hw-uuid", "/etc/smolt/config.py"],
        &["removed /etc/smolt/hw-uuid", "removed /etc/smolt/uuid", "removed /etc/sysconfig/hw-uuid"],
    );
    assert_changes(
        "sssd-db-log",
        &["/var/log/sssd/sssd.log", "/var/lib/sss/db/cache_x.ldb", "/var/lib/sss/mc/passwd"],
        &["removed /var/lib/sss/db/cache_x.ldb", "removed /var/log/sssd/sssd.log"],
    );
    assert_changes("utmp", &["/run/utmp", "/run/other"], &["removed /run/utmp"]);
    assert_changes("utmp", &["/var/run/utmp"], &["removed /var/run/utmp"]);
    assert_changes("yum-uuid", &["/var/lib/yum/uuid", "/var/lib/yum/history"], &["removed /var/lib/yum/uuid"]);
    assert_changes(
        "rh-subscription-manager",
        &["/etc/os-release=ID=rocky\n", "/etc/pki/consumer/key.pem", "/etc/pki/entitlement/d/1.pem", "/etc/pki/other"],
        &[
            "removed /etc/pki/consumer/key.pem",
            "removed /etc/pki/entitlement/d",
            "removed /etc/pki/entitlement/d/1.pem",
        ],
    );
}

#[test]
fn flag_reconfiguration_creates_its_flag() {
    assert_changes("flag-reconfiguration", &["/etc/"], &["created /.unconfigured"]);
    assert_changes("flag-reconfiguration", &["/.unconfigured"], &[]);
}

#[test]
fn ipa_clients_are_told_to_refresh_only_when_a_trusted_certificate_went() {
    assert_changes(
        "ipa-client",
        &[
            "/etc/ipa/ca.crt",
            "/etc/ipa/default.conf",
            "/var/lib/ipa-client/pki/k",
            "/etc/ipa/other",
            "/usr/sbin/update-ca-certificates",
        ],
        &["removed /etc/ipa/ca.crt", "removed /etc/ipa/default.conf", "removed /var/lib/ipa-client/pki/k"],
    );
    let mut guest = guest(&["/usr/local/share/ca-certificates/ipa-ca.crt", "/usr/sbin/update-ca-certificates"]);
    let report = run(&mut guest, &only("ipa-client"), &Options::default());
    assert_eq!(changes(&report), ["removed /usr/local/share/ca-certificates/ipa-ca.crt"]);
    assert!(report.warnings[0].contains("update-ca-certificates"), "{:?}", report.warnings);
}

#[test]
fn logs_go_and_their_directories_stay() {
    assert_changes(
        "logfiles",
        &[
            "/var/log/syslog",
            "/var/log/syslog.2.gz",
            "/var/log/dpkg.log",
            "/var/log/journal/0123/system.journal",
            "/var/log/wtmp",
            "/var/log/apt/history.log",
            "/root/anaconda-ks.cfg",
            "/var/lib/AccountsService/users/ann",
            "/var/log/nginx/access.log",
            "/var/log/.hidden.log",
            "/var/log/samba/log.smbd",
            "/root/essay",
            "/var/lib/logrotate/status",
        ],
        &[
            "removed /root/anaconda-ks.cfg",
            "removed /var/lib/AccountsService/users/ann",
            "removed /var/log/apt/history.log",
            "removed /var/log/dpkg.log",
            "removed /var/log/journal/0123",
            "removed /var/log/journal/0123/system.journal",
            "removed /var/log/syslog",
            "removed /var/log/syslog.2.gz",
            "removed /var/log/wtmp",
        ],
    );
}

#[test]
fn mail_goes_whichever_spool_is_a_link() {
    for files in [
        ["/var/mail/ann", "/var/mail/d/new", "/var/spool/mail -> ../mail"],
        ["/var/spool/mail/ann", "/var/spool/mail/d/new", "/var/mail -> spool/mail"],
    ] {
        let top = files[0].strip_suffix("/ann").unwrap();
        let expected = ["ann", "d", "d/new"].map(|name| format!("removed {top}/{name}"));
        assert_changes("mail-spool", &files, &expected.each_ref().map(String::as_str));
    }
}

#[test]
fn package_caches_lose_files_and_keep_directories() {
    let guest = assert_changes(
        "package-manager-cache",
        &[
            "/var/cache/apt/archives/hello.deb",
            "/var/cache/apt/archives/partial/p.deb",
            "/var/cache/apt/pkgcache.bin",
            "/var/cache/dnf/x/y.solv",
            "/var/cache/libdnf5/r/z",
            "/var/cache/zypp/raw/x",
            "/var/cache/zypp-old/x",
            "/var/cache/other/x",
            "/var/lib/apt/lists/x",
            "/var/cache/apt/archives/link -> lock",
        ],
        &[
            "removed /var/cache/apt/archives/hello.deb",
            "removed /var/cache/apt/archives/partial/p.deb",
            "removed /var/cache/dnf/x/y.solv",
            "removed /var/cache/libdnf5/r/z",
            "removed /var/cache/zypp-old/x",
            "removed /var/cache/zypp/raw/x",
        ],
    );
    assert!(exists(&guest, "/var/cache/apt/archives/partial"));
}

#[test]
fn a_cache_that_is_a_link_is_left_with_a_warning() {
    let mut guest = guest(&["/srv/debs/a.deb", "/var/cache/apt/archives -> /srv/debs"]);
    let report = run(&mut guest, &only("package-manager-cache"), &Options::default());
    assert_eq!(changes(&report), [""; 0]);
    assert!(report.warnings[0].starts_with("/var/cache/apt/archives is a symbolic link"), "{:?}", report.warnings);
}

#[test]
fn accounting_goes_on_in_an_empty_file() {
    for top in ["/var/account", "/var/log/account"] {
        let at = |name: &str| format!("{top}/{name}");
        let files = [at("pacct"), at("pacct.1"), at("pacct-2024.gz"), at("pacctd/x"), at("other")];
        let expected =
            [format!("emptied {top}/pacct"), format!("removed {top}/pacct-2024.gz"), format!("removed {top}/pacct.1")];
        assert_changes("pacct-log", &files.each_ref().map(String::as_str), &expected.each_ref().map(String::as_str));
    }
    assert_changes("pacct-log", &["/var/account/"], &[]);
}

#[test]
fn puppet_goes_from_its_old_places_and_its_new_ones() {
    assert_changes(
        "puppet-data-log",
        &[
            "/var/log/puppet/puppet.log",
            "/var/lib/puppet/ssl/private.pem",
            "/var/lib/puppet/ssl/private_keys/host.pem",
            "/var/lib/puppet/state/a/b/deep",
            "/var/lib/puppet/top",
            "/etc/puppetlabs/puppet/ssl/private_keys/host.pem",
            "/etc/puppetlabs/puppet/puppet.conf",
            "/opt/puppetlabs/puppet/cache/clientbucket/0/1/2/contents",
            "/var/log/puppetlabs/puppet/puppet.log",
        ],
        &[
            "removed /etc/puppetlabs/puppet/ssl/private_keys/host.pem",
            "removed /opt/puppetlabs/puppet/cache/clientbucket/0/1/2/contents",
            "removed /var/lib/puppet/ssl/private.pem",
            "removed /var/lib/puppet/ssl/private_keys/host.pem",
            "removed /var/log/puppet/puppet.log",
            "removed /var/log/puppetlabs/puppet/puppet.log",
        ],
    );
}

#[test]
fn samba_loses_what_is_two_levels_deep() {
    assert_changes(
        "samba-db-log",
        &[
            "/var/log/samba/log.smbd",
            "/var/log/samba/old/log.nmbd",
            "/var/lib/samba/account_policy.tdb",
            "/var/lib/samba/private/secrets.tdb",
            "/var/lib/samba/private/tls/key.pem",
        ],
        &[
            "removed /var/lib/samba/account_policy.tdb",
            "removed /var/lib/samba/private/secrets.tdb",
            "removed /var/log/samba/log.smbd",
            "removed /var/log/samba/old/log.nmbd",
        ],
    );
}

#[test]
fn user_ssh_directories_go_whole_and_links_alone() {
    assert_changes(
        "ssh-userdir",
        &[
            "/root/.ssh/authorized_keys",
            "/home/ann/.ssh/deep/er/config",
            "/home/bob/.ssh -> /srv/keys",
            "/srv/keys/id",
            "/srv/eve/.ssh/id",
            "/etc/passwd=eve:x:1:1::/srv/eve:\n",
            "/.ssh/id",
            "/home/ann/.sshrc",
        ],
        &[
            "removed /home/ann/.ssh",
            "removed /home/ann/.ssh/deep",
            "removed /home/ann/.ssh/deep/er",
            "removed /home/ann/.ssh/deep/er/config",
            "removed /home/bob/.ssh",
            "removed /root/.ssh",
            "removed /root/.ssh/authorized_keys",
            "removed /srv/eve/.ssh",
            "removed /srv/eve/.ssh/id",
        ],
    );
}

#[test]
fn temporary_files_go_with_dot_files_and_special_ones() {
    let mut root = crate::support::file_system(&[
        "/tmp/file",
        "/tmp/.hidden",
        "/tmp/d1/d2/x",
        "/tmp/link -> /etc",
        "/var/tmp/y",
        "/etc/x",
    ]);
    root.add_special("/tmp/fifo", FileKind::Fifo).unwrap();
    root.add_special("/tmp/socket", FileKind::Socket).unwrap();
    let mut guest = guest::Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    let report = run(&mut guest, &only("tmp-files"), &Options::default());
    assert_eq!(report.changes().count(), 9);
    assert!(report.changes().all(|change| change.action == Action::Removed));
    assert!(exists(&guest, "/tmp") && exists(&guest, "/var/tmp") && exists(&guest, "/etc/x"));
    assert_changes("tmp-files", &["/tmp -> var/tmp", "/var/tmp/x"], &["removed /var/tmp/x"]);
}

#[test]
fn random_seeds_go_from_the_loader_too() {
    assert_changes(
        "random-seed",
        &[
            "/var/lib/systemd/random-seed",
            "/var/lib/urandom/random-seed",
            "/var/lib/seedrng/seed.credit",
            "/boot/efi/loader/random-seed",
            "/boot/efi/loader/loader.conf",
            "/var/lib/systemd/timers/x",
        ],
        &[
            "removed /boot/efi/loader/random-seed",
            "removed /var/lib/seedrng/seed.credit",
            "removed /var/lib/systemd/random-seed",
            "removed /var/lib/urandom/random-seed",
        ],
    );
}
