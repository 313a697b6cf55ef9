//! What virt-sysprep does not know.

use crate::support::{assert_changes, changes, guest, only, run, text};
use seal::Options;

const ID: &str = "5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b";

/// Every row of the table: what a pattern matches goes, its neighbour stays.
#[test]
fn every_row_removes_what_it_names_and_not_what_is_beside_it() {
    for operation in seal::operations().iter().filter(|one| !seal::is_of_virt_sysprep(one.name)) {
        for step in operation.steps.iter().filter(|step| !step.source.is_empty()) {
            let emptied = step.treatment == seal::Treatment::EmptyFiles;
            let is_table = matches!(
                step.treatment,
                seal::Treatment::RemoveFiles
                    | seal::Treatment::RemoveTrees
                    | seal::Treatment::RemoveRegularFiles
                    | seal::Treatment::EmptyFiles
            );
            let special =
                ["firstboot-reset", "log-sweep", "net-networkd", "ssh-user-keys", "storage-ids", "tls-selfsigned"]
                    .contains(&operation.name);
            if !is_table || special {
                continue;
            }
            for pattern in step.patterns {
                let path = pattern.replace('*', "x1").replacen('~', "/home/ann", 1);
                let file = format!("{path}=secret");
                let beside = format!("{path}.keep/file=kept");
                let expected = format!("{} {path}", if emptied { "emptied" } else { "removed" });
                let mut guest = guest(&[&file, "/home/ann/"]);
                let report = run(&mut guest, &only(operation.name), &Options::default());
                assert_eq!(changes(&report), [expected], "{}: {pattern}", operation.name);
                if !pattern.ends_with('*') {
                    assert_changes(operation.name, &[&beside, "/home/ann/"], &[]);
                }
            }
        }
    }
}

#[test]
fn cloud_init_keeps_its_seed() {
    assert_changes(
        "cloud-init",
        &[
            "/var/lib/cloud/instances/i-1/user-data.txt",
            "/var/lib/cloud/seed/nocloud/user-data",
            "/var/lib/cloud/instance -> instances/i-1",
        ],
        &[
            "removed /var/lib/cloud/instance",
            "removed /var/lib/cloud/instances",
            "removed /var/lib/cloud/instances/i-1",
            "removed /var/lib/cloud/instances/i-1/user-data.txt",
        ],
    );
}

#[test]
fn boot_entries_keep_their_names() {
    let id = format!("/etc/machine-id={ID}\n");
    let entry = format!("/boot/loader/entries/{ID}-6.1.0.conf");
    let new = assert_changes(
        "boot-entry-token",
        &[&id, &entry, "/usr/lib/systemd/libsystemd-shared-252.so"],
        &["created /etc/kernel", "created /etc/kernel/entry-token"],
    );
    assert_eq!(text(&new, "/etc/kernel/entry-token"), format!("{ID}\n"));
    assert_changes("boot-entry-token", &[&id, "/usr/lib/systemd/libsystemd-shared-252.so"], &[]);
    let mut old = guest(&[&id, &entry, "/usr/lib/systemd/libsystemd-shared-239.so"]);
    let report = run(&mut old, &only("boot-entry-token"), &Options::default());
    assert!(!report.is_changed() && report.warnings[0].contains("entry-token"), "{:?}", report.warnings);
}

#[test]
fn only_lines_of_one_machine_go() {
    for (operation, path, old, new) in [
        (
            "hosts-file",
            "/etc/hosts",
            "127.0.1.1 vm1\n10.0.0.5 vm1.example vm1 # me\n10.0.0.6 db\n",
            "127.0.1.1 vm1\n10.0.0.6 db\n",
        ),
        ("machine-info", "/etc/machine-info", "PRETTY_HOSTNAME=x\nICON_NAME=vm\n", "ICON_NAME=vm\n"),
        (
            "net-interfaces",
            "/etc/network/interfaces",
            "iface e inet dhcp\n\thwaddress ether 52:54:00:00:00:01\n",
            "iface e inet dhcp\n",
        ),
        (
            "net-wicked",
            "/etc/sysconfig/network/ifcfg-eth0",
            "LLADDR='52:54:00:00:00:01'\nBOOTPROTO='dhcp'\n",
            "BOOTPROTO='dhcp'\n",
        ),
        (
            "popularity-contest",
            "/etc/popularity-contest.conf",
            "PARTICIPATE=\"yes\"\nMY_HOSTID=\"abc\"\n",
            "PARTICIPATE=\"yes\"\n",
        ),
        ("storage-ids", "/etc/multipath/wwids", "# Multipath wwids\n/3600/\n", "# Multipath wwids\n"),
        (
            "net-networkd",
            "/etc/systemd/network/a.network",
            "[Match]\nMACAddress=52:54:00:00:00:01\n[Network]\nDHCP=yes\n",
            "[Match]\nType=ether\n[Network]\nDHCP=yes\n",
        ),
        (
            "net-netplan",
            "/etc/netplan/a.yaml",
            "e:\n  match:\n    macaddress: 1\n  set-name: e\n  dhcp4: true\n",
            "e:\n  dhcp4: true\n",
        ),
    ] {
        let file = format!("{path}={old}");
        let guest = assert_changes(operation, &[&file, "/etc/hostname=vm1\n"], &[&format!("edited {path}")]);
        assert_eq!(text(&guest, path), new, "{operation}");
    }
    assert_changes(
        "net-networkd",
        &["/etc/systemd/network/a.link=[Match]\nPermanentMACAddress=52:54:00:00:00:01\n[Link]\nName=lan\n"],
        &["removed /etc/systemd/network/a.link"],
    );
}

#[test]
fn an_initiator_gets_another_name_where_the_guest_makes_one() {
    let name = "/etc/iscsi/initiatorname.iscsi=InitiatorName=iqn.1993-08.org.debian:01:abc\n";
    assert_changes(
        "storage-ids",
        &[name, "/usr/lib/systemd/system/iscsi-init.service"],
        &["removed /etc/iscsi/initiatorname.iscsi"],
    );
    let debian = "/usr/lib/open-iscsi/startup-checks.sh=grep -q GenerateName=yes\n";
    let guest = assert_changes("storage-ids", &[name, debian], &["edited /etc/iscsi/initiatorname.iscsi"]);
    assert_eq!(text(&guest, "/etc/iscsi/initiatorname.iscsi"), "GenerateName=yes\n");
    let mut guest = crate::support::guest(&[name]);
    let report = run(&mut guest, &only("storage-ids"), &Options::default());
    assert!(!report.is_changed() && report.warnings.len() == 1);
}

#[test]
fn all_other_logs_are_emptied_and_rotated_ones_removed() {
    let guest = assert_changes(
        "log-sweep",
        &[
            "/var/log/nginx/access.log",
            "/var/log/nginx/access.log.1",
            "/var/log/app/trace",
            "/var/log/app/empty=",
            "/var/log/old-20260101",
            "/var/log/link -> /etc/passwd",
            "/etc/passwd=root:x:0:0::/root:/bin/sh\n",
        ],
        &[
            "emptied /var/log/app/trace",
            "emptied /var/log/nginx/access.log",
            "removed /var/log/nginx/access.log.1",
            "removed /var/log/old-20260101",
        ],
    );
    assert!(!text(&guest, "/etc/passwd").is_empty());
    let mut linked = crate::support::guest(&["/etc/shells", "/var/log -> /etc"]);
    let report = run(&mut linked, &only("log-sweep"), &Options::default());
    assert!(!report.is_changed() && report.warnings.len() == 1);
}

#[test]
fn a_secret_that_is_needed_stays() {
    assert_changes(
        "systemd-credential-secret",
        &["/var/lib/systemd/credential.secret"],
        &["removed /var/lib/systemd/credential.secret"],
    );
    let mut guest = guest(&["/var/lib/systemd/credential.secret", "/etc/credstore.encrypted/db"]);
    let report = run(&mut guest, &only("systemd-credential-secret"), &Options::default());
    assert!(!report.is_changed() && report.warnings.len() == 1);
    assert_changes("tls-selfsigned", &["/etc/pki/tls/private/localhost.key"], &[]);
    assert_changes(
        "tls-selfsigned",
        &["/etc/pki/tls/private/localhost.key", "/usr/lib/systemd/system/httpd-init.service"],
        &["removed /etc/pki/tls/private/localhost.key"],
    );
}

#[test]
fn a_guest_with_systemd_firstboot_asks_again() {
    let files =
        ["/etc/hostname=a\n", "/etc/localtime -> ../usr/share/zoneinfo/UTC", "/etc/machine-id=x\n", "/etc/hosts=kept"];
    assert_changes("firstboot-reset", &files, &[]);
    let unit = "/usr/lib/systemd/system/systemd-firstboot.service";
    assert_changes(
        "firstboot-reset",
        &[&files[..], &[unit]].concat(),
        &["removed /etc/hostname", "removed /etc/localtime", "removed /etc/machine-id"],
    );
}

#[test]
fn keys_to_log_in_with_are_told_from_users_own() {
    let files = [
        "/etc/passwd=ann:x:1000:1000::/srv/ann:/bin/sh\n",
        "/srv/ann/.ssh/authorized_keys",
        "/srv/ann/.ssh/config.d/x",
        "/srv/ann/.ssh/id_rsa",
        "/srv/ann/.ssh/known_hosts",
    ];
    assert_changes("ssh-authorized-keys", &files, &["removed /srv/ann/.ssh/authorized_keys"]);
    assert_changes(
        "ssh-user-keys",
        &files,
        &[
            "removed /srv/ann/.ssh/config.d",
            "removed /srv/ann/.ssh/config.d/x",
            "removed /srv/ann/.ssh/id_rsa",
            "removed /srv/ann/.ssh/known_hosts",
        ],
    );
    let vagrant =
        seal::Selection::from_arguments(&[seal::Argument::Operations(seal::Preset::Vagrant.operations())]).unwrap();
    assert!(vagrant.contains("ssh-user-keys") && !vagrant.contains("ssh-authorized-keys"));
}

#[test]
fn snapd_registers_again() {
    let state = "/var/lib/snapd/state.json";
    let with =
        |device: &str| format!(r#"{state}={{"data":{{"auth":{{"device":{device},"last-id":7}},"snaps":{{"a":1}}}}}}"#);
    let device = r#"{"brand":"generic","key-id":"k","model":"generic-classic","serial":"s","session-macaroon":"m"}"#;
    let guest = assert_changes(
        "snapd-serial",
        &[&with(device), "/var/lib/snapd/device/private-keys-v1/k"],
        &["removed /var/lib/snapd/device/private-keys-v1/k", &format!("edited {state}")],
    );
    let left = with(r#"{"brand":"generic","model":"generic-classic"}"#);
    assert_eq!(text(&guest, state), left.strip_prefix(&format!("{state}=")).unwrap());
    assert_changes("snapd-serial", &[&left], &[]);
    let mut guest = crate::support::guest(&[&format!("{state}=no JSON")]);
    let report = run(&mut guest, &only("snapd-serial"), &Options::default());
    assert!(!report.is_changed() && report.warnings.len() == 1);
}

#[test]
fn the_instance_of_a_google_guest_goes() {
    let guest = assert_changes(
        "google-guest",
        &[
            "/etc/google_instance_id=42\n",
            "/etc/default/instance_configs.cfg=[Instance]\ninstance_id = 42\ninstance_id_dir = /etc/google_instance_id\n",
        ],
        &["edited /etc/default/instance_configs.cfg", "removed /etc/google_instance_id"],
    );
    let expected = "[Instance]\ninstance_id_dir = /etc/google_instance_id\n";
    assert_eq!(text(&guest, "/etc/default/instance_configs.cfg"), expected);
}
