//! New files on guests with SELinux.

use crate::support::{assert_exact, exists, file_system, only, run, snapshot};
use guest::Guest;
use seal::Options;

/// A guest that gets a unit which makes host keys, and whose files have labels.
fn labelled(more: &[&str]) -> Guest {
    let files = [
        "/usr/sbin/sshd",
        "/usr/bin/ssh-keygen",
        "/usr/lib/systemd/systemd",
        "/usr/lib/systemd/system/ssh.service=[Service]\nExecStart=/usr/sbin/sshd -D\n",
        "/etc/systemd/system/",
        "/etc/ssh/ssh_host_rsa_key",
    ];
    let root = file_system(&[&files[..], more].concat());
    let mut guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    for path in ["/", "/etc", "/etc/systemd", "/etc/systemd/system"] {
        guest.set_xattr(path.as_bytes(), b"security.selinux", b"system_u:object_r:etc_t:s0\0").unwrap();
    }
    guest
}

#[test]
fn a_guest_with_a_broken_policy_labels_its_files_at_boot() {
    let mut guest = labelled(&["/etc/selinux/config=SELINUX=enforcing\nSELINUXTYPE=targeted\n"]);
    let before = snapshot(&guest);
    let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    assert_exact(&report, &before, &snapshot(&guest));
    assert!(exists(&guest, "/.autorelabel"));
    assert!(report.warnings.iter().any(|warning| warning.contains("SELinux")), "{:?}", report.warnings);
    let again = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
    assert_eq!((again.changes().count(), again.warnings.len()), (0, 0));
}

#[test]
fn a_guest_with_a_policy_or_with_selinux_off_need_not() {
    let policy = "/etc/selinux/targeted/contexts/files/file_contexts=/etc(/.*)? system_u:object_r:unit_t:s0\n";
    let config = "/etc/selinux/config=SELINUX=enforcing\nSELINUXTYPE=targeted\n";
    for (more, label) in [
        (&[config, policy][..], &b"system_u:object_r:unit_t:s0\0"[..]),
        (&["/etc/selinux/config=SELINUX=disabled\n"], b"system_u:object_r:etc_t:s0\0"),
        (&[], b"system_u:object_r:etc_t:s0\0"),
    ] {
        let mut guest = labelled(more);
        let report = run(&mut guest, &only("ssh-hostkeys"), &Options::default());
        assert!(!exists(&guest, "/.autorelabel") && report.warnings.is_empty(), "{:?}", report.warnings);
        let unit = b"/etc/systemd/system/goldenseal-ssh-hostkeys.service";
        assert_eq!(guest.xattr(unit, b"security.selinux").unwrap().unwrap(), label);
    }
}
