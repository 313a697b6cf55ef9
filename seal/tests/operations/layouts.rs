//! Roots as the distributions lay them out, and broken ones: each is sealed, or refused with a reason.

use guest::Guest;
use guest::memory::MemoryFileSystem;
use seal::{Options, Selection};

use crate::support::{changes, exists, guest, run, text};

const ID: &str = "/etc/machine-id=5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n";

/// What a distribution's packages install, as far as sealing looks at it, and what a used guest has besides.
struct Layout {
    name: &'static str,
    files: &'static [&'static str],
    /// What has to go, and what has to come.
    gone: &'static [&'static str],
    made: &'static [&'static str],
}

const LAYOUTS: &[Layout] = &[
    Layout {
        name: "Debian",
        files: &[
            "/etc/os-release=ID=debian\nVERSION_ID=12\n",
            "/lib -> usr/lib",
            "/usr/lib/systemd/systemd",
            "/usr/sbin/sshd",
            "/usr/bin/ssh-keygen",
            "/usr/lib/systemd/system/ssh.service=[Service]\n",
            "/var/lib/dbus/machine-id -> /etc/machine-id",
            "/var/lib/dhcp/dhclient.leases",
            "/var/cache/apt/archives/a.deb",
            "/etc/ssh/ssh_host_rsa_key",
        ],
        gone: &["/var/lib/dhcp/dhclient.leases", "/var/cache/apt/archives/a.deb", "/etc/ssh/ssh_host_rsa_key"],
        made: &["/etc/systemd/system/goldenseal-ssh-hostkeys.service"],
    },
    Layout {
        name: "Ubuntu",
        files: &[
            "/etc/os-release=ID=ubuntu\nID_LIKE=debian\nVERSION_ID=24.04\n",
            "/lib -> usr/lib",
            "/usr/lib/systemd/systemd",
            "/usr/bin/cloud-init",
            "/var/lib/cloud/instances/i/user-data.txt",
            "/var/lib/NetworkManager/secret_key",
            "/var/lib/ubuntu-advantage/private/machine-token.json",
        ],
        gone: &[
            "/var/lib/cloud/instances",
            "/var/lib/NetworkManager/secret_key",
            "/var/lib/ubuntu-advantage/private/machine-token.json",
        ],
        made: &[],
    },
    Layout {
        name: "Fedora",
        files: &[
            "/etc/os-release=ID=fedora\nVERSION_ID=42\n",
            "/bin -> usr/bin",
            "/usr/lib/systemd/systemd",
            "/usr/sbin/sshd",
            "/usr/bin/ssh-keygen",
            "/usr/lib/systemd/system/sshd-keygen@.service=[Service]\n",
            "/var/cache/libdnf5/x/a.rpm",
            "/etc/NetworkManager/system-connections/eth0.nmconnection",
            "/etc/ssh/ssh_host_ed25519_key",
        ],
        gone: &[
            "/etc/NetworkManager/system-connections/eth0.nmconnection",
            "/etc/ssh/ssh_host_ed25519_key",
            "/var/cache/libdnf5/x/a.rpm",
        ],
        made: &[],
    },
    Layout {
        name: "Rocky",
        files: &[
            "/etc/os-release=ID=rocky\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.4\n",
            "/usr/lib/systemd/systemd",
            "/usr/lib/systemd/system/sshd-keygen@.service=[Service]\n",
            "/etc/pki/consumer/key.pem",
            "/etc/insights-client/machine-id=x",
            "/root/anaconda-ks.cfg",
        ],
        gone: &["/etc/pki/consumer/key.pem", "/etc/insights-client/machine-id", "/root/anaconda-ks.cfg"],
        made: &[],
    },
    Layout {
        name: "openSUSE",
        files: &[
            "/etc/os-release=ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\nVERSION_ID=15.6\n",
            "/usr/lib/systemd/systemd",
            "/var/lib/wicked/duid.xml",
            "/var/cache/zypp/packages/a.rpm",
            "/etc/SUSEConnect",
        ],
        gone: &["/var/lib/wicked/duid.xml", "/var/cache/zypp/packages/a.rpm", "/etc/SUSEConnect"],
        made: &[],
    },
    Layout {
        name: "Arch",
        files: &[
            "/etc/os-release=ID=arch\n",
            "/lib -> usr/lib",
            "/usr/lib/systemd/systemd",
            "/usr/lib/systemd/system/sshdgenkeys.service=[Service]\n",
            "/usr/bin/sshd",
            "/var/log/pacman.log",
        ],
        gone: &["/var/log/pacman.log"],
        made: &[],
    },
    Layout {
        name: "Alpine",
        files: &[
            "/etc/os-release=ID=alpine\nVERSION_ID=3.22\n",
            "/etc/runlevels/default/",
            "/etc/init.d/sshd=ssh-keygen -A\n",
            "/usr/sbin/sshd",
            "/root/.ash_history",
            "/var/lib/dhcpcd/eth0.lease",
        ],
        gone: &["/root/.ash_history", "/var/lib/dhcpcd/eth0.lease"],
        made: &[],
    },
];

#[test]
fn the_layouts_of_the_distributions_are_sealed() {
    for layout in LAYOUTS {
        let mut guest = guest(&[layout.files, &[ID, "/home/ann/.bash_history"]].concat());
        let report = run(&mut guest, &Selection::defaults(), &Options::default());
        assert_eq!(report.warnings, [""; 0], "{}", layout.name);
        assert_eq!(text(&guest, "/etc/machine-id"), "", "{}", layout.name);
        for path in layout.gone {
            assert!(!exists(&guest, path), "{}: {path}", layout.name);
        }
        let made: Vec<_> =
            changes(&report).iter().filter_map(|one| one.strip_prefix("created ").map(str::to_owned)).collect();
        assert!(layout.made.iter().all(|path| made.contains(&(*path).to_owned())), "{}: {made:?}", layout.name);
        assert!(layout.made.is_empty() == made.is_empty(), "{}: {made:?}", layout.name);
    }
}

/// A guest whose fstab is rubbish or missing, whose links lead nowhere or in circles, whose files are directories.
#[test]
fn broken_roots_have_a_clear_end() {
    for (what, files) in [
        ("no os-release", &[ID, "/etc/hosts=127.0.0.1 localhost\n", "/bin/"][..]),
        ("a machine-id that is a dangling link", &["/etc/os-release=ID=x\n", "/etc/machine-id -> /no/where"]),
        (
            "a shadow that is a directory",
            &["/etc/os-release=ID=x\n", ID, "/etc/shadow/x", "/etc/passwd=root:x:0:0::/root:/bin/sh\n"],
        ),
        (
            "links in a circle",
            &["/etc/os-release=ID=x\n", ID, "/var/log -> /var/lag", "/var/lag -> /var/log", "/tmp -> tmp"],
        ),
        (
            "rubbish for fstab",
            &["/etc/os-release=ID=x\n", ID, "/etc/fstab=\u{1}\u{2} x\n/dev/ /\n\\0 \\999 a b c d e f\n"],
        ),
        ("a passwd of rubbish", &["/etc/os-release=ID=x\n", ID, "/etc/passwd=:::::\nroot\n::0:0::/:\n\n"]),
        (
            "a home that is a loop",
            &["/etc/os-release=ID=x\n", ID, "/home/ann -> ann", "/etc/passwd=ann:x:1000:1000::/home/ann:/bin/sh\n"],
        ),
    ] {
        let mut guest = guest(files);
        run(&mut guest, &Selection::defaults(), &Options::default());
        assert!(
            !exists(&guest, "/etc/machine-id")
                || guest.read(b"/etc/machine-id").is_err()
                || text(&guest, "/etc/machine-id").is_empty(),
            "{what}"
        );
    }
}

/// What is asked for in a broken guest is refused by name, and nothing is half done where a transaction holds it.
#[test]
fn customizing_a_broken_root_says_what_is_broken() {
    for (files, option, argument, reason) in [
        (&["/etc/shadow/x"][..], "root-password", "disabled", "/etc/shadow is no regular file"),
        (&["/etc/hostname -> /etc/hostname"], "hostname", "x", "hostname"),
        (&["/etc/passwd/x"], "ssh-inject", "root:string:ssh-rsa A", "/etc/passwd is no regular file"),
        (&["/a -> b", "/b -> a"], "append-line", "/a/c:x", "/a"),
    ] {
        let mut root = MemoryFileSystem::new();
        for file in files {
            match file.split_once(" -> ") {
                Some((path, target)) => drop(root.add_symlink(path, target).unwrap()),
                None => drop(root.add_file(file, "x").unwrap()),
            }
        }
        let mut guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
        let customizations = seal::Customization::parse(option, argument, false).unwrap();
        let options = Options { customizations, ..Options::default() };
        let error = seal::run(&mut guest, &crate::support::only("customize"), &options).unwrap_err();
        let mut told = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told = format!("{told}: {error}");
            source = error.source();
        }
        assert!(
            told.contains(reason)
                && told.contains(&format!("--{}", if option == "root-password" { "password" } else { option })),
            "{told}"
        );
    }
}
