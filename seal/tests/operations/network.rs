//! What ties a guest to its network.

use crate::support::{assert_changes, changes, guest, only, run, text};
use seal::Options;

const IFCFG: &str = "/etc/sysconfig/network-scripts/ifcfg-eth0";

#[test]
fn only_the_lines_that_go_are_taken_out() {
    let contents = "DEVICE=eth0\r\nHWADDR=52:54:00:aa:bb:cc\r\n HWADDR=indented\r\n#HWADDR=comment\r\nHOSTNAME=a\nMACADDR=x\nUUID=1";
    let file = format!("{IFCFG}={contents}");
    for os in ["ID=rhel", "ID=rocky", "ID=debian"] {
        let guest =
            assert_changes("net-hwaddr", &[&file, &format!("/etc/os-release={os}\n")], &[&format!("edited {IFCFG}")]);
        assert_eq!(text(&guest, IFCFG), contents.replace("HWADDR=52:54:00:aa:bb:cc\r\n", ""));
    }
    let guest = assert_changes("net-hostname", &[&file], &[&format!("edited {IFCFG}")]);
    assert_eq!(text(&guest, IFCFG), contents.replace("HOSTNAME=a\n", ""));
}

#[test]
fn a_last_line_without_an_end_goes_too() {
    let guest =
        assert_changes("net-hostname", &[&format!("{IFCFG}=A=1\nDHCP_HOSTNAME=x")], &[&format!("edited {IFCFG}")]);
    assert_eq!(text(&guest, IFCFG), "A=1\n");
}

#[test]
fn a_file_with_nothing_to_remove_is_not_written() {
    let files = [
        format!("{IFCFG}=DEVICE=eth0"),
        format!("{IFCFG}.d/x=HWADDR=1\n"),
        "/etc/sysconfig/network=HOSTNAME=a\n".to_owned(),
    ];
    assert_changes("net-hwaddr,net-hostname", &files.each_ref().map(String::as_str), &[]);
}

#[test]
fn a_linked_file_is_edited_in_its_place() {
    let guest = assert_changes(
        "net-hwaddr",
        &["/etc/net/eth0=HWADDR=1\nA=2\n", &format!("{IFCFG} -> /etc/net/eth0"), &format!("{IFCFG}9 -> /nowhere")],
        &["edited /etc/net/eth0"],
    );
    assert_eq!(text(&guest, "/etc/net/eth0"), "A=2\n");
}

#[test]
fn profiles_of_any_name_go() {
    let top = "/etc/NetworkManager/system-connections";
    let at = |file: &str| format!("{top}/{file}");
    let files = [
        at("eth0.nmconnection=[connection]\nid=eth0\n"),
        at("My Wifi.nmconnection"),
        at("Wired 1=# by hand\n[connection]\r\nid=1\n"),
        at("notes=data of a file\n"),
        at("dir.nmconnection/x"),
        at("empty="),
        at("link.nmconnection -> notes"),
        "/etc/NetworkManager/NetworkManager.conf=[connection]\n".to_owned(),
    ];
    let expected = ["My Wifi.nmconnection", "Wired 1", "eth0.nmconnection", "link.nmconnection"];
    let expected = expected.map(|name| format!("removed {top}/{name}"));
    assert_changes("net-nmconn", &files.each_ref().map(String::as_str), &expected.each_ref().map(String::as_str));
}

#[test]
fn udev_rules_for_this_machines_interfaces_go() {
    assert_changes(
        "udev-persistent-net",
        &["/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/70-persistent-cd.rules"],
        &["removed /etc/udev/rules.d/70-persistent-net.rules"],
    );
}

#[test]
fn a_file_too_large_to_be_configuration_is_warned_of() {
    let mut guest = guest(&[IFCFG]);
    guest.set_len(IFCFG.as_bytes(), guest::MAX_TEXT + 1).unwrap();
    let report = seal::run(&mut guest, &only("net-hwaddr"), &Options::default()).unwrap();
    assert_eq!(changes(&report), [""; 0]);
    assert_eq!(report.warnings, [format!("{IFCFG} was not looked into: it has {} bytes", guest::MAX_TEXT + 1)]);
    guest.set_len(IFCFG.as_bytes(), 4).unwrap();
    assert_eq!(run(&mut guest, &only("net-hwaddr"), &Options::default()).warnings, [""; 0]);
}

#[test]
fn addresses_set_by_hand_make_way_for_dhcp() {
    let guest = assert_changes(
        "net-static",
        &[
            &format!("{IFCFG}=DEVICE=eth0\nIPADDR=192.0.2.9\nBOOTPROTO=static\n"),
            "/etc/sysconfig/network-scripts/ifcfg-lo=IPADDR=127.0.0.1\n",
            "/etc/network/interfaces=iface eth0 inet static\n address 192.0.2.9\n",
            "/etc/netplan/50.yaml=network:\n  ethernets:\n    a:\n      addresses: [192.0.2.9/24]\n",
            "/etc/systemd/network/a.network=[Network]\nAddress=192.0.2.9/24\n",
            "/etc/resolv.conf=nameserver 192.0.2.53\n",
        ],
        &[
            "edited /etc/netplan/50.yaml",
            "edited /etc/network/interfaces",
            "emptied /etc/resolv.conf",
            &format!("edited {IFCFG}"),
            "edited /etc/systemd/network/a.network",
        ],
    );
    assert_eq!(text(&guest, IFCFG), "DEVICE=eth0\nBOOTPROTO=dhcp\n");
    assert_eq!(text(&guest, "/etc/network/interfaces"), "iface eth0 inet dhcp\n");
}
