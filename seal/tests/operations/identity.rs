//! The machine ID.

use crate::support::{assert_changes, changes, guest, only, run, text};
use seal::Options;

const ID: &str = "5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n";

#[test]
fn the_machine_id_is_emptied_and_a_copy_becomes_a_link() {
    let files = [format!("/etc/machine-id={ID}"), format!("/var/lib/dbus/machine-id={ID}")];
    let guest = assert_changes(
        "machine-id",
        &files.each_ref().map(String::as_str),
        &["emptied /etc/machine-id", "replaced /var/lib/dbus/machine-id"],
    );
    assert_eq!(guest.read_link(b"/var/lib/dbus/machine-id").unwrap(), b"/etc/machine-id");
    assert_eq!(text(&guest, "/etc/machine-id"), "");
}

#[test]
fn the_usual_link_is_left() {
    let id = format!("/etc/machine-id={ID}");
    assert_changes("machine-id", &[&id, "/var/lib/dbus/machine-id -> /etc/machine-id"], &["emptied /etc/machine-id"]);
    assert_changes("machine-id", &["/etc/machine-id=", "/var/lib/dbus/machine-id -> /etc/machine-id"], &[]);
}

#[test]
fn an_empty_copy_becomes_a_link_too() {
    assert_changes(
        "machine-id",
        &["/etc/machine-id=", "/var/lib/dbus/machine-id="],
        &["replaced /var/lib/dbus/machine-id"],
    );
}

#[test]
fn a_copy_without_an_original_goes() {
    let copy = format!("/var/lib/dbus/machine-id={ID}");
    assert_changes("machine-id", &[&copy], &["removed /var/lib/dbus/machine-id"]);
    assert_changes("machine-id", &[&copy, "/etc/machine-id -> /nowhere"], &["removed /var/lib/dbus/machine-id"]);
}

#[test]
fn a_link_the_other_way_round_makes_no_circle() {
    let id = format!("/var/lib/dbus/machine-id={ID}");
    assert_changes(
        "machine-id",
        &[&id, "/etc/machine-id -> ../var/lib/dbus/machine-id"],
        &["emptied /var/lib/dbus/machine-id"],
    );
    assert_changes("machine-id", &["/etc/hosts=127.0.0.1 localhost\n", "/etc/machine-id -> hosts"], &[]);
}

#[test]
fn one_file_under_both_names_is_emptied_once() {
    let mut guest = guest(&[&format!("/etc/machine-id={ID}"), "/var/lib/dbus/"]);
    guest.hard_link(b"/etc/machine-id", b"/var/lib/dbus/machine-id").unwrap();
    let report = seal::run(&mut guest, &only("machine-id"), &Options::default()).unwrap();
    assert_eq!(changes(&report), ["emptied /etc/machine-id", "replaced /var/lib/dbus/machine-id"]);
    assert_eq!(report.warnings, [""; 0]);
}

#[test]
fn an_image_that_asks_for_a_first_boot_keeps_its_wish() {
    assert_changes("machine-id", &["/etc/machine-id=uninitialized\n"], &[]);
}

#[test]
fn an_id_on_the_kernel_command_line_is_warned_of() {
    let command_line = format!("/boot/loader/entries/a.conf=options systemd.machine_id={ID}");
    let mut guest = guest(&["/etc/machine-id=", &command_line, "/etc/kernel/cmdline=systemd.machine_id=firmware"]);
    let report = run(&mut guest, &only("machine-id"), &Options::default());
    assert_eq!(
        report.warnings,
        ["/boot/loader/entries/a.conf sets systemd.machine_id=, so all clones have that machine ID"]
    );
}
