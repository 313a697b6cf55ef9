//! Runs of many operations, and what holds for all of them.

use guest::memory::MemoryFileSystem;
use guest::{FileKind, FileSystem, Guest};
use seal::{Action, Error, Options, Progress, Report, Selection};

use crate::support::{changes, exists, file_system, guest, only, run, snapshot, text};

/// A guest that was used for everything.
const USED: &[&str] = &[
    "/etc/os-release=ID=rocky\nVERSION_ID=\"9\"\n",
    "/etc/passwd=root:x:0:0::/root:/bin/sh\nbob:x:1001:100::/srv/bob:/bin/sh\n",
    "/etc/machine-id=0123456789abcdef0123456789abcdef\n",
    "/var/lib/dbus/machine-id=0123456789abcdef0123456789abcdef\n",
    "/etc/ssh/ssh_host_rsa_key",
    "/usr/sbin/sshd",
    "/usr/bin/ssh-keygen",
    "/usr/lib/systemd/systemd",
    "/etc/sysconfig/network-scripts/ifcfg-eth0=DEVICE=eth0\nHWADDR=1\nHOSTNAME=a\n",
    "/etc/NetworkManager/system-connections/eth0.nmconnection",
    "/root/.bash_history",
    "/srv/bob/.ssh/id",
    "/srv/bob/todo~",
    "/home/ann/.zsh_history",
    "/home/ann/essay~",
    "/var/log/messages",
    "/var/log/journal/0123/system.journal",
    "/var/log/nginx/access.log",
    "/var/account/pacct",
    "/var/spool/cron/atjobs/.SEQ=00042\n",
    "/var/spool/cron/crontabs/root",
    "/var/spool/mail/root",
    "/var/mail -> spool/mail",
    "/run/utmp",
    "/var/run -> /run",
    "/tmp/.X0-lock",
    "/tmp/scratch~",
    "/var/tmp/x/y",
    "/var/lib/systemd/random-seed",
    "/etc/pki/tls/certs/a.crt",
    "/etc/sysconfig/iptables",
];

#[test]
fn the_default_set_does_all_at_once_and_once() {
    let mut guest = guest(USED);
    let report = run(&mut guest, &Selection::defaults(), &Options::default());
    assert_eq!(
        changes(&report),
        [
            "removed /etc/NetworkManager/system-connections/eth0.nmconnection",
            "emptied /etc/machine-id",
            "removed /etc/ssh/ssh_host_rsa_key",
            "edited /etc/sysconfig/network-scripts/ifcfg-eth0",
            "created /etc/systemd",
            "created /etc/systemd/system",
            "created /etc/systemd/system/goldenseal-ssh-hostkeys.service",
            "created /etc/systemd/system/multi-user.target.wants",
            "created /etc/systemd/system/multi-user.target.wants/goldenseal-ssh-hostkeys.service",
            "removed /home/ann/.zsh_history",
            "removed /root/.bash_history",
            "removed /run/utmp",
            "removed /srv/bob/.ssh",
            "removed /srv/bob/.ssh/id",
            "removed /srv/bob/todo~",
            "removed /tmp/.X0-lock",
            "removed /tmp/scratch~",
            "emptied /var/account/pacct",
            "replaced /var/lib/dbus/machine-id",
            "removed /var/lib/systemd/random-seed",
            "removed /var/log/journal/0123",
            "removed /var/log/journal/0123/system.journal",
            "removed /var/log/messages",
            "emptied /var/log/nginx/access.log",
            "edited /var/spool/cron/atjobs/.SEQ",
            "removed /var/spool/cron/crontabs/root",
            "removed /var/spool/mail/root",
            "removed /var/tmp/x",
            "removed /var/tmp/x/y",
        ]
    );
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(text(&guest, "/etc/sysconfig/network-scripts/ifcfg-eth0"), "DEVICE=eth0\n");
}

#[test]
fn every_operation_is_reported_in_the_order_of_names() {
    let mut guest = guest(USED);
    let mut told = Vec::new();
    let selection = Selection::all();
    let report = seal::run_with_progress(&mut guest, &selection, &Options::default(), &mut |progress| {
        told.push(match progress {
            Progress::Operation(operation) => operation.name,
            Progress::Scrub => "(scrub)",
            Progress::Flush => "(flush)",
            _ => "?",
        });
    })
    .unwrap();
    let names: Vec<_> = report.operations.iter().map(|operation| operation.name.as_str()).collect();
    let selected: Vec<_> = selection.operations().map(|operation| operation.name).collect();
    assert_eq!(names, selected);
    assert_eq!(told, [&selected[..], &["(scrub)", "(flush)"]].concat());
}

#[test]
fn no_scrub_is_reported_where_none_was_asked_for() {
    let options = Options { scrub: false, ..Options::default() };
    let report = seal::run(&mut guest(&["/etc/krb5.keytab"]), &only("kerberos-hostkeytab"), &options).unwrap();
    assert_eq!(report.scrubbed, None);
    let report = seal::run(&mut guest(&[]), &Selection::none(), &Options::default()).unwrap();
    assert_eq!(report.scrubbed, Some(seal::Scrubbed { bytes_zeroed: 0 }));
    assert!(!report.is_changed());
}

#[test]
fn a_report_is_json_with_hostile_names_escaped() {
    let mut root = MemoryFileSystem::new();
    root.add_file(b"/tmp/caf\xe9\x1b[2J\\", "abc").unwrap();
    let mut guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    let report = seal::run(&mut guest, &only("tmp-files"), &Options::default()).unwrap();
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "operations": [{
                "name": "tmp-files",
                "changes": [{"path": "/tmp/caf\\xe9\\x1b[2J\\\\", "action": "removed", "bytes": 3}],
            }],
            "scrubbed": {"bytes_zeroed": 0},
            "warnings": [],
            "notes": [],
        })
    );
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back, report);
    assert_eq!(back.operations[0].changes[0].path.as_bytes(), b"/tmp/caf\xe9\x1b[2J\\");
    let actions =
        [Action::Removed, Action::Emptied, Action::Edited, Action::Created, Action::Relabelled, Action::Replaced];
    assert_eq!(
        serde_json::to_value(actions).unwrap(),
        serde_json::json!(["removed", "emptied", "edited", "created", "relabelled", "replaced"])
    );
}

#[test]
fn names_left_elsewhere_are_warned_of() {
    let mut guest = guest(&["/etc/ssh/ssh_host_rsa_key", "/tmp/a=1", "/opt/"]);
    guest.hard_link(b"/etc/ssh/ssh_host_rsa_key", b"/opt/copy").unwrap();
    guest.hard_link(b"/tmp/a", b"/tmp/b").unwrap();
    let report = seal::run(&mut guest, &Selection::defaults(), &Options::default()).unwrap();
    assert_eq!(
        report.warnings,
        ["/etc/ssh/ssh_host_rsa_key was removed, but what was in it has another name in the guest"]
    );
}

#[test]
fn links_that_lead_to_the_system_are_no_way_to_remove() {
    for (link, operation) in [
        ("/var/crash -> /", "crash-data"),
        ("/var/crash -> ../etc", "crash-data"),
        ("/tmp -> /", "tmp-files"),
        ("/var/lib/dovecot -> /etc", "dovecot-data"),
        ("/var/spool/abrt -> /usr/bin", "abrt-data"),
    ] {
        let mut guest = guest(&["/etc/keep", "/usr/bin/sh", "/home/ann/essay", link]);
        let report = run(&mut guest, &only(operation), &Options::default());
        assert_eq!(changes(&report), [""; 0], "{link}");
        assert_eq!(report.warnings.len(), 1, "{link}");
        assert!(report.warnings[0].contains("where nothing was removed"), "{:?}", report.warnings);
    }
}

#[test]
fn a_mount_point_is_emptied_and_its_lost_and_found_stays() {
    let others: Vec<(Vec<u8>, Box<dyn FileSystem>)> = vec![
        (b"/tmp".to_vec(), Box::new(file_system(&["/lost+found/#12", "/x/y"]))),
        (b"/var/crash/a/b".to_vec(), Box::new(file_system(&["/lost+found/", "/vmcore"]))),
    ];
    let root = file_system(&["/tmp/covered", "/var/crash/a/b/", "/var/crash/a/c", "/var/crash/lost+found/x"]);
    let mut guest = Guest::from_file_systems(Box::new(root), others).unwrap();
    let report = run(&mut guest, &only("tmp-files,crash-data"), &Options::default());
    assert_eq!(
        changes(&report),
        [
            "removed /tmp/lost+found/#12",
            "removed /tmp/x",
            "removed /tmp/x/y",
            "removed /var/crash/a/b/vmcore",
            "removed /var/crash/a/c",
            "removed /var/crash/lost+found",
            "removed /var/crash/lost+found/x",
        ]
    );
    assert!(exists(&guest, "/tmp/lost+found") && exists(&guest, "/var/crash/a/b/lost+found"));
}

#[test]
fn what_cannot_be_written_is_an_error_that_says_where() {
    let mut root = file_system(&["/etc/krb5.keytab"]);
    root.set_read_only(Some("it has an unknown feature"));
    let mut guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    let error = seal::run(&mut guest, &only("kerberos-hostkeytab"), &Options::default()).unwrap_err();
    let Error::Guest { operation, source } = &error else { panic!("{error}") };
    assert_eq!(*operation, "kerberos-hostkeytab");
    assert_eq!(error.path().unwrap().as_bytes(), b"/etc/krb5.keytab");
    assert!(matches!(source.cause(), guest::Error::ReadOnly { .. }));

    // Nothing to remove there is no error; that nothing could be scrubbed is worth a warning.
    let report = seal::run(&mut guest, &only("utmp"), &Options::default()).unwrap();
    assert_eq!(report.warnings, ["unused space of / was not scrubbed: it has an unknown feature"]);
}

#[test]
fn a_guest_with_nothing_in_it_is_sealed() {
    let mut guest = guest(&[]);
    let report = run(&mut guest, &Selection::all(), &Options::default());
    assert_eq!(changes(&report), ["created /.unconfigured"]);
    assert_eq!(snapshot(&guest).values().filter(|seen| **seen == snapshot(&guest)[&b"/.unconfigured"[..]]).count(), 1);
}

#[test]
fn what_is_no_file_where_a_file_belongs_is_no_trouble() {
    let mut root =
        file_system(&["/etc/machine-id/x", "/etc/sysconfig/network-scripts/ifcfg-x/y", "/var/account/pacct/z"]);
    for path in ["/etc/passwd", "/etc/group", "/var/spool/cron/atjobs/.SEQ", "/root/.bash_history", "/etc/login.defs"] {
        root.add_special(path, FileKind::Fifo).unwrap();
    }
    let mut guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    let report = run(&mut guest, &Selection::all(), &Options::default());
    assert_eq!(changes(&report), ["created /.unconfigured", "removed /root/.bash_history"]);
}
