//! A guest on a disk that mke2fs made, judged by e2fsck and by a look at every byte of the disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use block::{Access, HostFile};
use guest::{Guest, OpenOptions, Timestamp};
use seal::{Error, Options, Report, Selection};

use crate::support::{assert_exact, changes, only, snapshot};

const OPTIONS: OpenOptions =
    OpenOptions { root: None, read_only: false, now: Timestamp { seconds: 1_800_000_000, nanoseconds: 0 } };

/// Files with a secret in each that has to go, under names that are secrets, too.
const SECRET: &[&str] = &[
    "etc/ssh/ssh_host_rsa_key",
    "root/.bash_history",
    "root/.ssh/id_secretname",
    "home/ann/.ssh/id_rsa",
    "etc/krb5.keytab",
    "var/log/syslog",
    "var/log/journal/secretname/system.journal",
    "tmp/secretname",
    "tmp/.dir/secretname",
    "var/mail/ann",
    "etc/shadow-",
    "var/lib/systemd/random-seed",
    "etc/secretname.bak",
    "var/cache/apt/archives/secretname.deb",
];

/// Runs a tool; `None` if it is not installed, which is told.
fn tool(test: &str, name: &str, arguments: &[&str], image: &Path) -> Option<String> {
    let output = match Command::new(name).args(arguments).arg(image).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "{name} is not installed");
            println!("SKIPPED {test}: {name} is not installed");
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    Some(said)
}

/// An ext4 file system of 32 MiB with a guest on it whose `/etc/fstab` has these lines.
fn image(test: &str, directory: &Path, fstab: &str) -> Option<PathBuf> {
    let tree = directory.join("tree");
    let write = |path: &str, contents: String| {
        let path = tree.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    };
    for (number, path) in SECRET.iter().enumerate() {
        // Short ones and long ones: some take no block, one takes several extents' worth.
        write(path, format!("SECRET-{number}\n").repeat(1 << number));
    }
    write("etc/fstab", fstab.to_owned());
    write("etc/machine-id", "0123456789abcdef0123456789abcdef\n".to_owned());
    write("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n".to_owned());
    write("etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n".to_owned());
    write("etc/os-release", "ID=debian\n".to_owned());
    write("etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=SECRET-MAC\n".to_owned());
    write("home/ann/essay", "KEEP-ME\n".to_owned());
    for program in ["usr/sbin/sshd", "usr/bin/ssh-keygen", "usr/lib/systemd/systemd", "usr/bin/bash"] {
        write(program, "program".to_owned());
    }
    for directory in ["boot/efi", "proc", "etc/systemd/system"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", tree.join("bin")).unwrap();
    let image = directory.join("image");
    std::fs::File::create_new(&image).unwrap().set_len(32 << 20).unwrap();
    let tree = tree.to_str().unwrap();
    tool(
        test,
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-U", "c0ffee00-0000-4000-8000-000000000001", "-d", tree],
        &image,
    )?;
    Some(image)
}

fn open(image: &Path) -> Guest {
    Guest::open(Arc::new(HostFile::open(image, Access::ReadWrite).unwrap()), &OPTIONS).unwrap()
}

fn seal(image: &Path) -> Report {
    seal::run(&mut open(image), &Selection::defaults(), &Options::default()).unwrap()
}

#[test]
fn a_sealed_disk_is_whole_and_holds_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let test = "a_sealed_disk_is_whole_and_holds_no_secret";
    let fstab = "UUID=c0ffee00-0000-4000-8000-000000000001 / ext4 defaults 0 1\n";
    let Some(image) = image(test, directory.path(), fstab) else { return };

    let before = snapshot(&open(&image));
    let report = seal(&image);
    let after = snapshot(&open(&image));
    assert_exact(&report, &before, &after);
    assert_eq!(report.warnings, [""; 0]);
    assert!(report.scrubbed.unwrap().bytes_zeroed > 0);
    for path in SECRET {
        assert!(!after.contains_key(format!("/{path}").as_bytes()), "{path}");
    }
    for (path, expected) in [
        ("/etc/machine-id", ""),
        ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\n"),
        ("/home/ann/essay", "KEEP-ME\n"),
    ] {
        assert_eq!(open(&image).read(path.as_bytes()).unwrap(), expected.as_bytes());
    }

    tool(test, "e2fsck", &["-fn"], &image);
    let disk = std::fs::read(&image).unwrap();
    for secret in ["SECRET-", "secretname", "0123456789abcdef0123456789abcdef"] {
        let at = disk.windows(secret.len()).position(|window| window == secret.as_bytes());
        assert_eq!(at, None, "{secret} is still on the disk");
    }

    let again = seal(&image);
    assert!(!again.is_changed(), "{:?}", changes(&again));
    assert_eq!(again.scrubbed.unwrap().bytes_zeroed, 0);
    tool(test, "e2fsck", &["-fn"], &image);
}

#[test]
fn what_is_not_mounted_and_needed_refuses_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let test = "what_is_not_mounted_and_needed_refuses_the_run";
    let fstab = "UUID=c0ffee00-0000-4000-8000-000000000001 / ext4 defaults 0 1\n\
        UUID=c0ffee00-0000-4000-8000-00000000dead /var ext4 defaults 0 2\n\
        UUID=CAFE-0001 /boot/efi vfat umask=0077 0 1\n";
    let Some(image) = image(test, directory.path(), fstab) else { return };

    let error = seal::run(&mut open(&image), &Selection::defaults(), &Options::default()).unwrap_err();
    let Error::Unmounted { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(missing.path, b"/var");
    assert!(error.to_string().contains("dead is not mounted at /var: "), "{error}");

    let report =
        seal::run(&mut open(&image), &only("random-seed"), &Options { allow_unmounted: true, ..Options::default() })
            .unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("/var")), "{:?}", report.warnings);
    assert!(!report.warnings.iter().any(|warning| warning.contains("/boot/efi")), "{:?}", report.warnings);
    assert!(report.notes.iter().any(|note| note.contains("/boot/efi")), "{:?}", report.notes);
    let report = seal::run(&mut open(&image), &only("kerberos-hostkeytab"), &Options::default()).unwrap();
    assert_eq!(changes(&report), ["removed /etc/krb5.keytab"]);
}
