//! Operation user-account.

use crate::support::{assert_changes, changes, exists, guest, only, run, text};
use seal::{Accounts, Error, Options};

const PASSWD: &str = "/etc/passwd=root:x:0:0::/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n# comment\n\
    bob:x:1001:100::/srv/bob:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\nwww:x:33:33::/srv/www:/bin/sh";
const SHADOW: &str = "/etc/shadow=root:*:1::::::\nann:$6$x:1::::::\nbob:!:1::::::\n";
const GROUP: &str =
    "/etc/group=root:x:0:\nwheel:x:10:ann,root,bob\nann:x:1000:\nbob:x:1001:www\nusers:x:100:\naudio:x:11:ann\n";
const GSHADOW: &str = "/etc/gshadow=root:*::\nwheel:*:ann,root:ann,root,bob\nann:!::\nbob:!::www\n";
const SUBUID: &str = "/etc/subuid=ann:100000:65536\n1001:165536:65536\nwww:231072:65536\n";

#[test]
fn an_account_goes_with_all_its_lines() {
    let subgid = SUBUID.replace("subuid", "subgid");
    let guest = assert_changes(
        "user-account",
        &[
            PASSWD,
            SHADOW,
            GROUP,
            GSHADOW,
            SUBUID,
            &subgid,
            "/home/ann/essay",
            "/srv/bob/x",
            "/srv/www/index.html",
            "/var/mail/ann",
            "/var/mail/root",
            "/var/lib/systemd/linger/bob",
            "/home/stranger/x",
        ],
        &[
            "edited /etc/group",
            "edited /etc/gshadow",
            "edited /etc/passwd",
            "edited /etc/shadow",
            "edited /etc/subgid",
            "edited /etc/subuid",
            "removed /home/ann",
            "removed /home/ann/essay",
            "removed /srv/bob",
            "removed /srv/bob/x",
            "removed /var/lib/systemd/linger/bob",
            "removed /var/mail/ann",
        ],
    );
    assert_eq!(
        text(&guest, "/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\n# comment\nnobody:x:65534:65534::/nonexistent:/bin/false\nwww:x:33:33::/srv/www:/bin/sh"
    );
    assert_eq!(text(&guest, "/etc/shadow"), "root:*:1::::::\n");
    // bob's own group has another member, so it stays.
    assert_eq!(text(&guest, "/etc/group"), "root:x:0:\nwheel:x:10:root\nbob:x:1001:www\nusers:x:100:\naudio:x:11:\n");
    assert_eq!(text(&guest, "/etc/gshadow"), "root:*::\nwheel:*:root:root\nbob:!::www\n");
    assert_eq!(text(&guest, "/etc/subuid"), "www:231072:65536\n");
}

#[test]
fn keep_wins_over_remove() {
    let both = |keep: &[&str], remove: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let accounts = Accounts { keep: own(keep), remove: own(remove) };
        let mut guest = guest(&[PASSWD]);
        run(&mut guest, &only("user-account"), &Options { accounts, ..Options::default() });
        let passwd = text(&guest, "/etc/passwd");
        [passwd.contains("\nann:"), passwd.contains("\nbob:")]
    };
    assert_eq!(both(&[], &[]), [false, false]);
    assert_eq!(both(&["ann"], &[]), [true, false]);
    assert_eq!(both(&[], &["ann"]), [false, true]);
    assert_eq!(both(&["ann"], &["ann", "bob"]), [true, false]);
    assert_eq!(both(&["nobody-here"], &["root", "www"]), [true, true]);
}

#[test]
fn login_defs_says_who_is_ordinary() {
    let definitions = "/etc/login.defs=#UID_MIN 1\nUID_MIN\t\t 1001\nUID_MAX 1001\n";
    let guest = assert_changes("user-account", &[PASSWD, definitions], &["edited /etc/passwd"]);
    assert!(text(&guest, "/etc/passwd").contains("\nann:") && !text(&guest, "/etc/passwd").contains("\nbob:"));
    // root is nobody ordinary, whatever the file says.
    assert_changes(
        "user-account",
        &["/etc/passwd=root:x:0:0::/root:\n", "/etc/login.defs=UID_MIN 0\n", "/root/x"],
        &[],
    );
}

#[test]
fn homes_that_are_not_an_accounts_own_are_left() {
    for (home, why) in [
        ("/", "directory of the system"),
        ("/usr", "directory of the system"),
        ("/etc/skel", "directory of the system"),
        ("/tmp/../home", "directory of the system"),
        ("/lib", "directory of the system"),
        ("/srv/all", "account www has its home there"),
        ("/srv/all/www", "account www has its home there"),
        ("/root", "account root has its home there"),
    ] {
        let passwd = format!("/etc/passwd=root:x:0:0::/root:\nann:x:1000:1000::{home}:\nwww:x:33:33::/srv/all/www:\n");
        let mut guest = guest(&[
            &passwd,
            "/srv/all/www/x",
            "/etc/skel/x",
            "/home/x",
            "/usr/lib/x",
            "/lib -> usr/lib",
            "/root/x",
            "/tmp/",
        ]);
        let report = run(&mut guest, &only("user-account"), &Options::default());
        assert_eq!(changes(&report), ["edited /etc/passwd"], "{home}");
        assert_eq!(report.warnings.len(), 1, "{home}");
        assert!(report.warnings[0].contains(why), "{:?}", report.warnings);
    }
}

#[test]
fn a_home_behind_a_link_goes_with_the_link() {
    assert_changes(
        "user-account",
        &["/etc/passwd=ann:x:1000:1000::/home/ann:\n", "/home/ann -> ../data/ann", "/data/ann/x", "/data/y"],
        &["removed /data/ann", "removed /data/ann/x", "emptied /etc/passwd", "removed /home/ann"],
    );
}

#[test]
fn names_that_are_no_file_names_lead_nowhere() {
    let passwd =
        "/etc/passwd=../../etc:x:1000:1::/nowhere:\n..:x:1001:1::nowhere:\n.:x:1002:1::/nowhere:\nroot:x:0:0::/root:\n";
    let guest = assert_changes("user-account", &[passwd, "/var/mail/x", "/etc/y"], &["edited /etc/passwd"]);
    assert!(exists(&guest, "/etc/y") && exists(&guest, "/var/mail/x"));
}

#[test]
fn a_name_that_an_account_of_the_system_has_too_is_not_taken_away() {
    let guest = assert_changes(
        "user-account",
        &["/etc/passwd=x:x:1000:1::/home/x:\nx:x:5:5::/var/x:\n", "/etc/shadow=x:*:\n", "/var/mail/x"],
        &["edited /etc/passwd"],
    );
    assert_eq!(text(&guest, "/etc/passwd"), "x:x:5:5::/var/x:\n");
}

#[test]
fn options_without_the_operation_are_refused() {
    let accounts = Accounts { keep: vec!["ann".to_owned()], ..Accounts::default() };
    let options = Options { accounts, ..Options::default() };
    let error = seal::run(&mut guest(&[PASSWD]), &only("defaults"), &options).unwrap_err();
    assert!(matches!(error, Error::NotEnabled { option: "--keep-user-accounts", .. }), "{error}");
}
