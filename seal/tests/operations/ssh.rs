//! SSH host keys, and how the guest gets new ones.

use crate::support::{assert_changes, changes, exists, guest, only, run, text};
use seal::Options;

const UNIT: &str = "/etc/systemd/system/goldenseal-ssh-hostkeys.service";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants/goldenseal-ssh-hostkeys.service";
/// What Debian's packages install.
const DEBIAN: &[&str] = &[
    "/lib -> usr/lib",
    "/usr/sbin/sshd",
    "/usr/bin/ssh-keygen",
    "/usr/lib/systemd/systemd",
    "/usr/lib/systemd/system/ssh.service=[Service]\nExecStart=/usr/sbin/sshd -D\n",
    "/etc/init.d/ssh=#!/bin/sh\n",
    "/usr/bin/cloud-init",
];

fn with(files: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    [files, more].concat()
}

#[test]
fn keys_go_from_all_places() {
    assert_changes(
        "ssh-hostkeys",
        &[
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/ssh/ssh_host_rsa_key.pub",
            "/etc/ssh/ssh_host_rsa_key-cert.pub",
            "/etc/ssh/ssh_host_dir/x",
            "/etc/ssh/ssh_config",
            "/etc/ssh/ssh_known_hosts",
            "/etc/ssh/moduli",
            "/etc/openssh/ssh_host_rsa_key",
            "/etc/dropbear/dropbear_rsa_host_key",
            "/etc/dropbear/authorized_keys",
        ],
        &[
            "removed /etc/dropbear/dropbear_rsa_host_key",
            "removed /etc/openssh/ssh_host_rsa_key",
            "removed /etc/ssh/ssh_host_rsa_key",
            "removed /etc/ssh/ssh_host_rsa_key-cert.pub",
            "removed /etc/ssh/ssh_host_rsa_key.pub",
        ],
    );
}

#[test]
fn debian_gets_a_unit_that_makes_keys() {
    let guest = assert_changes(
        "ssh-hostkeys",
        &with(DEBIAN, &["/etc/ssh/ssh_host_rsa_key", "/etc/systemd/system/"]),
        &[
            "removed /etc/ssh/ssh_host_rsa_key",
            &format!("created {UNIT}"),
            "created /etc/systemd/system/multi-user.target.wants",
            &format!("created {WANTS}"),
        ],
    );
    assert_eq!(guest.read_link(WANTS.as_bytes()).unwrap(), UNIT.as_bytes());
    let unit = text(&guest, UNIT);
    assert!(unit.contains("\nExecStart=/usr/bin/ssh-keygen -A\n"), "{unit}");
    assert_eq!(guest.stat(UNIT.as_bytes()).unwrap().unwrap().mode, 0o644);
}

#[test]
fn a_unit_that_was_changed_is_set_right_and_a_masked_one_is_left() {
    let wants = format!("{WANTS} -> {UNIT}");
    let changed = format!("{UNIT}=[Unit]\n");
    let mut files = DEBIAN.to_vec();
    files.extend([wants.as_str(), changed.as_str()]);
    assert_changes("ssh-hostkeys", &files, &[&format!("edited {UNIT}")]);

    let masked = format!("{UNIT} -> /dev/null");
    let mut files = DEBIAN.to_vec();
    files.push(&masked);
    let mut guest = guest(&files);
    let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    assert_eq!(changes(&report), [""; 0]);
    assert_eq!(report.warnings.len(), 1);
}

#[test]
fn no_unit_is_installed_through_a_link() {
    let mut guest = guest(&with(DEBIAN, &["/etc/systemd -> /tmp", "/tmp/"]));
    let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    assert_eq!(changes(&report), [""; 0]);
    assert!(report.warnings[0].starts_with("/etc/systemd is no directory"), "{:?}", report.warnings);
}

#[test]
fn a_guest_with_a_way_of_its_own_gets_no_unit() {
    for way in [
        "/usr/lib/systemd/system/sshd-keygen@.service",
        "/usr/lib/systemd/system/sshd-keygen.service",
        "/etc/systemd/system/sshd-keygen.target",
        "/usr/lib/systemd/system/sshdgenkeys.service",
        "/etc/systemd/system/ssh.service.d/keys.conf=[Service]\nExecStartPre=/usr/bin/ssh-keygen -A\n",
    ] {
        assert_changes("ssh-hostkeys", &with(DEBIAN, &[way]), &[]);
    }
}

#[test]
fn ways_that_do_not_count_do_not_count() {
    for others in [
        // Masked.
        &["/usr/lib/systemd/system/sshd-keygen@.service", "/etc/systemd/system/sshd-keygen@.service -> /dev/null"][..],
        // Left to cloud-init, where it is active.
        &[
            "/usr/lib/systemd/system/sshd-keygen@.service",
            "/usr/lib/systemd/system/sshd-keygen@.service.d/disable-sshd-keygen-if-cloud-init-active.conf",
        ],
        // Not run where there is a unit.
        &["/etc/init.d/sshd=ssh-keygen -A"],
    ] {
        let mut guest = guest(&with(DEBIAN, others));
        run(&mut guest, &only("ssh-hostkeys"), &Options::default());
        assert!(exists(&guest, UNIT), "{others:?}");
    }
}

#[test]
fn a_guest_without_sshd_gets_no_unit() {
    assert_changes(
        "ssh-hostkeys",
        &["/usr/lib/systemd/systemd", "/usr/bin/ssh-keygen", "/etc/ssh/ssh_host_x=1"],
        &["removed /etc/ssh/ssh_host_x"],
    );
}

#[test]
fn another_init_has_a_way_or_is_warned_of() {
    let alpine = "/etc/init.d/sshd=\"$SSHD_KEYGEN_BINARY\" -A\n";
    assert_changes("ssh-hostkeys", &["/usr/sbin/sshd", "/usr/bin/ssh-keygen", alpine], &[]);
    for (files, what) in [
        (&["/usr/sbin/sshd", "/usr/bin/ssh-keygen", "/etc/init.d/ssh=start"][..], "no systemd"),
        (&["/usr/sbin/sshd", "/usr/lib/systemd/systemd"], "no ssh-keygen"),
    ] {
        let mut guest = guest(files);
        let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
        assert_eq!(report.warnings.len(), 1);
        assert!(report.warnings[0].contains(what), "{:?}", report.warnings);
    }
}

#[test]
fn keys_that_only_the_configuration_knows_are_warned_of() {
    let mut guest = guest(&[
        "/etc/ssh/sshd_config=Port 22\nHostKey /etc/ssh/ssh_host_rsa_key\n#HostKey /etc/keys/b\nHostKey /etc/keys/a\n",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/keys/a",
        "/etc/keys/b",
    ]);
    let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    assert_eq!(changes(&report), ["removed /etc/ssh/ssh_host_rsa_key"]);
    assert_eq!(report.warnings, ["/etc/ssh/sshd_config names the host key /etc/keys/a, which was left"]);
}

/// systemd's own reading of the unit, in a root that has what the unit speaks of.
#[test]
fn systemd_accepts_the_unit() {
    let mut guest = guest(DEBIAN);
    run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("goldenseal-ssh-hostkeys.service");
    std::fs::write(&unit, text(&guest, UNIT)).unwrap();
    let verify = std::process::Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let Ok(verify) = verify else {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is not installed");
        println!("SKIPPED systemd_accepts_the_unit: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("goldenseal")).collect();
    // Where there is no ssh-keygen, that is the one thing it may find wrong.
    assert!(complaints.iter().all(|line| line.contains("/usr/bin/ssh-keygen is not executable")), "{said}");
}
