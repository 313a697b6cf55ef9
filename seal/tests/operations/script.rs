//! Scripts of the host, on copies of a guest's files.

use std::path::PathBuf;

use guest::FileKind;
use seal::{Error, Options, Selection};

use crate::support::{changes, guest, snapshot};

fn run(guest: &mut guest::Guest, options: &Options) -> Result<Vec<String>, Error> {
    let report = seal::run(guest, &Selection::from_arguments(&[seal::Argument::Enable("script")]).unwrap(), options)?;
    Ok(changes(&report).iter().map(ToString::to_string).collect())
}

fn scripts(lines: &[&str]) -> Options {
    Options { scripts: lines.iter().map(|line| (*line).to_owned()).collect(), ..Options::default() }
}

const FILES: &[&str] = &[
    "/etc/motd=old words\n",
    "/etc/keep=kept\n",
    "/etc/link -> keep",
    "/etc/dirlink -> cron.d",
    "/etc/cron.d/",
    "/srv/data/a=1",
    "/srv/data/deep/b=2",
    "/srv/become",
    "/home/ann/",
];

#[test]
fn what_a_script_changes_is_changed_in_the_guest() {
    let mut guest = guest(FILES);
    let before = snapshot(&guest);
    let told = run(
        &mut guest,
        &scripts(&[
            "test -z \"$UNSET\"; echo new words > etc/motd; chmod 600 etc/keep",
            "rm -r srv/data; ln -sfn ../home etc/dirlink; mkdir -p opt/x; printf '%s' made > opt/x/file",
            "rm srv/become; mkdir srv/become; echo in > srv/become/it; touch -d 2001-01-01 home/ann",
        ]),
    )
    .unwrap();
    let after = snapshot(&guest);
    assert_eq!(guest.read(b"/etc/motd").unwrap(), b"new words\n");
    assert_eq!(guest.stat(b"/etc/keep").unwrap().unwrap().mode & 0o7777, 0o600);
    assert_eq!(guest.read(b"/etc/keep").unwrap(), b"kept\n");
    assert_eq!(guest.read_link(b"/etc/dirlink").unwrap(), b"../home");
    assert_eq!(guest.read_link(b"/etc/link").unwrap(), b"keep");
    assert_eq!(guest.read(b"/opt/x/file").unwrap(), b"made");
    assert_eq!(guest.read(b"/srv/become/it").unwrap(), b"in\n");
    assert_eq!(guest.lstat(b"/srv/become").unwrap().unwrap().kind, FileKind::Directory);
    assert!(guest.lstat(b"/srv/data").unwrap().is_none());
    for path in
        ["removed /srv/data", "removed /srv/data/a", "edited /etc/motd", "created /opt/x/file", "attributes /etc/keep"]
    {
        assert!(told.iter().any(|line| line == path), "{path} is not in {told:?}");
    }
    let touched = |path: &[u8]| before.get(path) != after.get(path);
    assert!(!touched(b"/etc/link") && !touched(b"/home/ann") && !touched(b"/etc/cron.d"));
}

#[test]
fn a_script_that_fails_changes_nothing() {
    let mut guest = guest(FILES);
    let before = snapshot(&guest);
    let error = run(&mut guest, &scripts(&["rm etc/motd", "false", "rm etc/keep"])).unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.to_string().starts_with("script failed: "), "{error}");
    assert_eq!(snapshot(&guest), before);
    // Looking around is no change.
    assert_eq!(run(&mut guest, &scripts(&["cat etc/motd etc/link >/dev/null; ls -lR . >/dev/null"])).unwrap(), [""; 0]);
    assert_eq!(run(&mut guest, &scripts(&[])).unwrap(), [""; 0]);
}

#[test]
fn the_folder_for_the_copy_can_be_named_and_is_empty_again() {
    let folder = tempfile::tempdir().unwrap();
    let with = |folder: PathBuf| Options { script_folder: Some(folder), ..scripts(&["pwd > etc/motd"]) };
    let mut guest = guest(FILES);
    run(&mut guest, &with(folder.path().to_path_buf())).unwrap();
    let said = String::from_utf8(guest.read(b"/etc/motd").unwrap()).unwrap();
    assert_eq!(PathBuf::from(said.trim()), folder.path().canonicalize().unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    std::fs::write(folder.path().join("mine"), "").unwrap();
    let error = run(&mut guest, &with(folder.path().to_path_buf())).unwrap_err().to_string();
    assert!(error.ends_with("is not empty") && folder.path().join("mine").exists(), "{error}");
    let error = run(&mut guest, &with("relative".into())).unwrap_err().to_string();
    assert!(error.ends_with("is not an absolute path"), "{error}");
}

#[test]
fn links_of_the_guest_lead_nowhere_on_the_host() {
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let mut guest = guest(&[
        &format!("/etc/evil -> {}", precious.display()),
        &format!("/var/dir -> {}", outside.path().display()),
        "/etc/motd=x",
    ]);
    run(
        &mut guest,
        &scripts(&["rm etc/evil; echo y > etc/motd; rm var/dir; mkdir var/dir; echo z > var/dir/precious"]),
    )
    .unwrap();
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    assert_eq!(guest.read(b"/var/dir/precious").unwrap(), b"z\n");
}
