//! The customize options.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use guest::{FileKind, Guest, Walk};
use seal::{Action, Customization, Options, PasswordCrypto, Report, Selection};

use crate::support::{changes, exists, guest, only, text};

fn parse(options: &[(&str, &str)]) -> Vec<Customization> {
    options.iter().flat_map(|(option, argument)| Customization::parse(option, argument, true).unwrap()).collect()
}

fn try_customize(guest: &mut Guest, given: &[(&str, &str)]) -> Result<Report, String> {
    let options = Options { customizations: parse(given), scrub: false, ..Options::default() };
    seal::run(guest, &only("customize"), &options).map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    })
}

fn customize(guest: &mut Guest, given: &[(&str, &str)]) -> Vec<String> {
    let report = try_customize(guest, given).unwrap();
    assert_eq!(report.warnings, [""; 0]);
    changes(&report)
}

fn mode(guest: &Guest, path: &str) -> (u32, u32, u32) {
    let metadata = guest.lstat(path.as_bytes()).unwrap().unwrap();
    (metadata.mode, metadata.uid, metadata.gid)
}

#[test]
fn files_are_written_and_edited_in_the_order_given() {
    let mut guest = guest(&["/etc/motd=old\n", "/etc/conf=a=1\nb=2\n", "/lib -> usr/lib", "/usr/lib/x"]);
    let made = customize(
        &mut guest,
        &[
            ("write", "/etc/motd:new"),
            ("append-line", "/etc/motd:line"),
            ("edit", "/etc/conf:s/^a=.*/a=3/"),
            ("mkdir", "/srv/a/b"),
            ("touch", "/srv/a/b/c"),
            ("chmod", "0600:/srv/a/b/c"),
            ("chown", "5:6:/srv/a/b/c"),
            ("link", "/srv/a:/l1:/l2"),
            ("copy", "/etc/conf:/srv/a"),
            ("move", "/srv/a/conf:/srv/moved"),
            ("delete", "/lib/x"),
            ("delete", "/nothing/*"),
        ],
    );
    assert_eq!(text(&guest, "/etc/motd"), "new\nline\n");
    assert_eq!(text(&guest, "/etc/conf"), "a=3\nb=2\n");
    assert_eq!(mode(&guest, "/srv/a/b/c"), (0o600, 5, 6));
    assert_eq!(guest.read_link(b"/l2").unwrap(), b"/srv/a");
    assert_eq!(text(&guest, "/srv/moved"), "a=3\nb=2\n");
    assert!(!exists(&guest, "/usr/lib/x") && !exists(&guest, "/srv/a/conf"));
    assert!(
        made.contains(&"edited /etc/conf".to_owned()) && made.contains(&"created /srv/a/b/c".to_owned()),
        "{made:?}"
    );
    assert!(made.contains(&"removed /usr/lib/x".to_owned()));
}

#[test]
fn line_ends_are_kept() {
    let mut guest = guest(&["/dos=a\r\nb", "/empty=", "/mac=a\rb\r"]);
    customize(
        &mut guest,
        &[("append-line", "/dos:c"), ("append-line", "/empty:c"), ("append-line", "/mac:c"), ("append-line", "/new:c")],
    );
    assert_eq!(text(&guest, "/dos"), "a\r\nb\r\nc\r\n");
    assert_eq!(text(&guest, "/empty"), "c\n");
    assert_eq!(text(&guest, "/mac"), "a\rb\rc\r");
    assert_eq!(text(&guest, "/new"), "c\n");
}

#[test]
fn what_is_missing_or_in_the_way_is_an_error_that_names_it() {
    for (option, argument, reason) in [
        ("edit", "/none:s/a/b/", "/none does not exist"),
        ("edit", "/dir:s/a/b/", "/dir is no regular file"),
        ("edit", "/file:die 'enough'", "enough"),
        ("truncate", "/none", "does not exist"),
        ("scrub", "/none", "does not exist"),
        ("chmod", "0644:/none", "does not exist"),
        ("write", "/no/dir:x", "/no does not exist"),
        ("write", "relative:x", "not an absolute path"),
        ("touch", "/dir", "no regular file"),
        ("mkdir", "/file/x", "/file exists"),
        ("copy", "/none:/x", "/none does not exist"),
        ("copy", "/dir:/dir/x", "into itself"),
        ("copy-in", "/etc/hostname:/none", "/none does not exist"),
        ("upload", "/no/such/file:/x", "/no/such/file"),
        ("hostname", "bad name", "no host name"),
        ("timezone", "No/Where", "/usr/share/zoneinfo/No/Where"),
        ("timezone", "../../etc/passwd", "no time zone"),
        ("password", "nobody:disabled", "no line for 'nobody'"),
        ("ssh-inject", "nobody:string:ssh-ed25519 AAAA", "no account"),
        ("ssh-inject", "root:string:-----BEGIN OPENSSH PRIVATE KEY-----", "no public key"),
        ("enable-service", "none", "no unit none.service"),
        ("firewall-add-service", "http", "firewalld"),
        ("firstboot-install", "vim", "no package manager"),
        ("firstboot-command", "true", "neither systemd nor OpenRC"),
        ("delete", "/", "root directory"),
    ] {
        let mut guest =
            guest(&["/dir/", "/file=x\n", "/etc/shadow=root:x:1::::::\n", "/etc/passwd=root:x:0:0::/root:/bin/sh\n"]);
        let error = try_customize(&mut guest, &[(option, argument)]).unwrap_err();
        assert!(error.contains(reason), "{option} {argument}: {error}");
    }
}

#[test]
fn truncating_and_scrubbing() {
    let mut guest = guest(&["/a/x=1", "/a/b/y=2", "/a/l -> /keep", "/keep=3", "/secret=4", "/t=5"]);
    let made = customize(&mut guest, &[("truncate-recursive", "/a"), ("scrub", "/secret"), ("truncate", "/t")]);
    assert_eq!(made, ["emptied /a/b/y", "emptied /a/x", "removed /secret", "emptied /t"]);
    assert_eq!(text(&guest, "/keep"), "3");
}

#[test]
fn host_names_are_set_in_every_distribution() {
    let hosts = "/etc/hosts=127.0.0.1 localhost\n127.0.1.1 old.example old\n";
    for (files, expected) in [
        (
            &["/etc/os-release=ID=debian\n", "/etc/hostname=old.example\n", hosts][..],
            &["/etc/hostname", "/etc/hosts"][..],
        ),
        (&["/etc/os-release=ID=fedora\n", "/etc/hostname=x\n"], &["/etc/hostname", "/etc/machine-info"]),
        (&["/etc/os-release=ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"], &["/etc/hostname", "/etc/machine-info"]),
        (&["/etc/os-release=ID=opensuse-leap\n", "/etc/HOSTNAME=old"], &["/etc/HOSTNAME", "/etc/hostname"]),
        (&["/etc/os-release=ID=arch\n"], &["/etc/hostname"]),
        (&["/etc/os-release=ID=alpine\n", "/etc/hostname=localhost\n"], &["/etc/hostname"]),
        (
            &["/etc/os-release=ID=gentoo\n", "/etc/conf.d/hostname=hostname=\"old\"\n"],
            &["/etc/conf.d/hostname", "/etc/hostname"],
        ),
    ] {
        let mut guest = guest(&[files, &["/etc/"]].concat());
        let made = customize(&mut guest, &[("hostname", "new.example.org")]);
        let paths: Vec<_> = made.iter().map(|change| change.split_once(' ').unwrap().1).collect();
        assert_eq!(paths, expected, "{files:?}");
        assert_eq!(text(&guest, "/etc/hostname"), "new.example.org\n");
        if files.contains(&hosts) {
            assert_eq!(text(&guest, "/etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 new.example.org new\n");
        }
    }
}

#[test]
fn passwords_change_one_field_and_nothing_else() {
    let shadow = "/etc/shadow=root:!:19000:0:99999:7:::\nann:$6$a$b:19000::::::\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "from-file\nsecond\n").unwrap();
    let from_file = format!("file:{}", file.path().display());
    for (selector, crypto, begins) in [
        ("password:a:b", None, "$6$"),
        ("password:x", Some(PasswordCrypto::Yescrypt), "$y$"),
        ("random", Some(PasswordCrypto::Sha256), "$5$"),
        ("disabled", None, "*"),
        ("locked", None, "!!*"),
        ("locked:password:x", None, "!!$6$"),
        (from_file.as_str(), None, "$6$"),
    ] {
        let mut guest = guest(&[shadow]);
        guest.set_mode(b"/etc/shadow", 0o640).unwrap();
        let options = Options {
            customizations: parse(&[("root-password", selector)]),
            password_crypto: crypto,
            ..Options::default()
        };
        let report = seal::run(&mut guest, &only("customize"), &options).unwrap();
        let shadow = text(&guest, "/etc/shadow");
        let (root, others) = shadow.split_once('\n').unwrap();
        let fields: Vec<_> = root.split(':').collect();
        assert!(fields[1].starts_with(begins), "{selector}: {root}");
        assert_eq!((fields[0], fields[2], fields.len()), ("root", "19000", 9));
        assert_eq!(others, "ann:$6$a$b:19000::::::\n");
        assert_eq!(mode(&guest, "/etc/shadow").0, 0o640);
        assert_eq!(report.notes.len(), usize::from(selector == "random"));
        assert_eq!(changes(&report), ["edited /etc/shadow"]);
    }
    let mut guest = guest(&[shadow]);
    let twice = [("root-password", "disabled"), ("password", "root:locked")];
    assert!(try_customize(&mut guest, &twice).unwrap_err().contains("two passwords"));
}

#[test]
fn the_guest_says_how_passwords_are_hashed() {
    for (files, begins) in [
        (&["/etc/login.defs=ENCRYPT_METHOD YESCRYPT\n"][..], "$y$"),
        (&["/etc/login.defs=ENCRYPT_METHOD\tSHA256\n"], "$5$"),
        (&["/etc/login.defs=#ENCRYPT_METHOD YESCRYPT\n"], "$6$"),
        (&["/etc/login.defs=ENCRYPT_METHOD MD5\n"], "$6$"),
        (
            &[
                "/etc/login.defs=ENCRYPT_METHOD SHA512\n",
                "/etc/pam.d/common-password=password [success=1 default=ignore] pam_unix.so obscure yescrypt\n",
            ],
            "$y$",
        ),
    ] {
        let mut guest = guest(&[files, &["/etc/shadow=root:*:1::::::\n"]].concat());
        customize(&mut guest, &[("root-password", "password:x")]);
        assert!(text(&guest, "/etc/shadow").starts_with(&format!("root:{begins}")), "{files:?}");
    }
}

#[test]
fn keys_are_injected_for_their_user() {
    let passwd = "/etc/passwd=root:x:0:0::/root:/bin/sh\nann:x:1000:100::/srv/ann:/bin/sh\n";
    let mut guest = guest(&[passwd, "/srv/ann/", "/root/.ssh/authorized_keys=old"]);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ann";
    let given = [("ssh-inject", format!("ann:string:{key}")), ("ssh-inject", format!("root:string:{key}"))];
    let given: Vec<_> = given.iter().map(|(option, argument)| (*option, argument.as_str())).collect();
    customize(&mut guest, &given);
    assert_eq!(text(&guest, "/srv/ann/.ssh/authorized_keys"), format!("{key}\n"));
    assert_eq!(mode(&guest, "/srv/ann/.ssh"), (0o700, 1000, 100));
    assert_eq!(mode(&guest, "/srv/ann/.ssh/authorized_keys"), (0o600, 1000, 100));
    assert_eq!(text(&guest, "/root/.ssh/authorized_keys"), format!("old\n{key}\n"));
    assert_eq!(customize(&mut guest, &given), [""; 0], "a key that is there is not added again");
}

#[test]
fn keys_survive_the_operation_that_removes_keys() {
    let mut guest = guest(&["/etc/passwd=root:x:0:0::/root:/bin/sh\n", "/root/.ssh/id_rsa=private"]);
    let options =
        Options { customizations: parse(&[("ssh-inject", "root:string:ssh-rsa AAAA")]), ..Options::default() };
    seal::run(&mut guest, &Selection::defaults(), &options).unwrap();
    assert_eq!(text(&guest, "/root/.ssh/authorized_keys"), "ssh-rsa AAAA\n");
    assert!(!exists(&guest, "/root/.ssh/id_rsa"));
}

#[test]
fn trees_come_in_from_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).take(2_500_000).collect();
    std::fs::write(tree.join("sub/big"), &big).unwrap();
    std::fs::write(tree.join("script"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(tree.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("sub/big", tree.join("link")).unwrap();
    let archive = dir.path().join("a.tar");
    let made = Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&archive).arg(".").status();
    let mut guest = guest(&["/srv/", "/opt/"]);
    let copy_in = format!("{}:/srv", tree.display());
    let upload = format!("{}:/opt", tree.join("script").display());
    let tar_in = format!("{}:/opt", archive.display());
    customize(&mut guest, &[("copy-in", &copy_in), ("upload", &upload)]);
    let check = |guest: &Guest, top: &str| {
        let metadata = guest.stat(format!("{top}/sub/big").as_bytes()).unwrap().unwrap();
        assert_eq!(metadata.size, big.len() as u64);
        assert_eq!(guest.read(format!("{top}/sub/big").as_bytes()).unwrap(), big);
        assert_eq!(guest.read_link(format!("{top}/link").as_bytes()).unwrap(), b"sub/big");
        assert_eq!(mode(guest, &format!("{top}/script")).0, 0o750);
    };
    check(&guest, "/srv/tree");
    assert_eq!(mode(&guest, "/opt/script").0, 0o750);
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "tar is not installed");
        println!("SKIPPED trees_come_in_from_the_host: tar is not installed");
        return;
    }
    customize(&mut guest, &[("tar-in", &tar_in)]);
    check(&guest, "/opt");
}

#[test]
fn an_archive_cannot_lead_out_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..13].copy_from_slice(b"a/../../evil1");
    header.set_size(1);
    header.set_cksum();
    builder.append(&header, &b"x"[..]).unwrap();
    builder.finish().unwrap();
    let mut guest = guest(&["/opt/"]);
    let error = try_customize(&mut guest, &[("tar-in", &format!("{}:/opt", archive.display()))]).unwrap_err();
    assert!(error.contains("a/../../evil1"), "{error}");
    assert!(!exists(&guest, "/evil1"));
}

#[test]
fn first_boot_work_is_installed_in_order() {
    let mut guest =
        guest(&["/usr/lib/systemd/systemd", "/usr/bin/apt-get", "/usr/lib/systemd/system/", "/etc/systemd/system/"]);
    customize(&mut guest, &[("firstboot-command", "echo a > /x"), ("install", "vim,curl"), ("update", "")]);
    let scripts = "/usr/libexec/goldenseal/firstboot.d";
    let names: Vec<_> = guest.read_dir(scripts.as_bytes()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [&b"0001-echo-a----x"[..], b"0002-install-vim-curl", b"0003-update"]);
    assert_eq!(text(&guest, &format!("{scripts}/0001-echo-a----x")), "#!/bin/sh\necho a > /x\n");
    assert!(text(&guest, &format!("{scripts}/0002-install-vim-curl")).contains("install 'vim' 'curl'\n"));
    assert_eq!(mode(&guest, &format!("{scripts}/0003-update")).0, 0o755);
    assert_eq!(
        guest.read_link(b"/etc/systemd/system/multi-user.target.wants/goldenseal-firstboot.service").unwrap(),
        b"/etc/systemd/system/goldenseal-firstboot.service"
    );
    customize(&mut guest, &[("run-command", "true")]);
    assert!(exists(&guest, &format!("{scripts}/0004-true")));
}

/// The runner itself, in a directory of the host, as systemd would start it.
#[test]
fn the_runner_runs_each_script_once_and_goes() {
    let mut guest = guest(&["/usr/lib/systemd/systemd", "/etc/systemd/system/"]);
    customize(
        &mut guest,
        &[("firstboot-command", "echo first"), ("firstboot-command", "exit 3"), ("firstboot-command", "echo last")],
    );
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let mut runner = String::new();
    guest
        .walk(b"/", &mut |path, metadata| {
            let path = String::from_utf8(path.to_vec()).unwrap();
            let host = format!("{root}{path}");
            match metadata.kind {
                FileKind::Directory => std::fs::create_dir_all(&host).unwrap(),
                FileKind::File => {
                    let content = text(&guest, &path).replace("/usr/libexec/", &format!("{root}/usr/libexec/"));
                    let content =
                        content.replace("/var/log/", &format!("{root}/")).replace("/etc/", &format!("{root}/etc/"));
                    std::fs::write(&host, content).unwrap();
                    std::fs::set_permissions(&host, std::os::unix::fs::PermissionsExt::from_mode(metadata.mode))
                        .unwrap();
                    if path.ends_with("/firstboot") {
                        runner = host;
                    }
                }
                _ => std::os::unix::fs::symlink("x", &host).unwrap(),
            }
            Ok(Walk::Continue)
        })
        .unwrap();
    let out = Command::new(&runner).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "=== 0001-echo-first",
            "first",
            "=== 0001-echo-first ended with status 0",
            "=== 0002-exit-3",
            "=== 0002-exit-3 ended with status 3",
            "=== 0003-echo-last",
            "last",
            "=== 0003-echo-last ended with status 0"
        ]
    );
    assert!(!Path::new(&format!("{root}/usr/libexec/goldenseal")).exists());
    assert!(!Path::new(&format!("{root}/etc/systemd/system/goldenseal-firstboot.service")).exists());
}

/// Trees with every kind of `[Install]` section, enabled and disabled here and by the real systemctl.
#[test]
fn services_are_enabled_as_systemctl_enables_them() {
    let units: &[&str] = &[
        "/etc/systemd/system/",
        "/usr/lib/systemd/system/a.service=[Install]\nWantedBy=multi-user.target\nAlias=alpha.service\nAlso=b.socket\n",
        "/usr/lib/systemd/system/b.socket=[Install]\nWantedBy=sockets.target\n",
        "/usr/lib/systemd/system/b.service=[Service]\n",
        "/usr/lib/systemd/system/t@.service=[Install]\nWantedBy=multi-user.target dev-%i.device\nRequiredBy=x.target\nDefaultInstance=one\n",
        "/usr/lib/systemd/system/nodef@.service=[Install]\nWantedBy=multi-user.target\n",
        "/usr/lib/systemd/system/alias2.service -> a.service",
        "/usr/lib/systemd/system/c.service=[Service]\n",
        "/usr/lib/systemd/system/c.service.d/x.conf=[Install]\nWantedBy=graphical.target\n",
        "/usr/lib/systemd/system/onlyalso.service=[Install]\nAlso=a.service\n",
        "/usr/lib/systemd/system/w.service=[Install]\nAlias=getty.target.wants/w.service\nWantedBy=multi-user.target\n",
        "/usr/lib/systemd/system/cont.service=[Install]\nWantedBy=\nWantedBy=multi-user.target \\\n graphical.target\n",
        "/etc/systemd/system/masked.service -> /dev/null",
        "/etc/systemd/system/local.service=[Install]\nWantedBy=multi-user.target\n",
        "/etc/systemd/system/p@.service=[Install]\nAlias=display-%p.service\nWantedBy=%i.target\n",
    ];
    for (enable, disable) in [
        (&["a"][..], &[][..]),
        (&["b.socket"], &[]),
        (&["b"], &[]),
        (&["t@"], &[]),
        (&["t@two"], &[]),
        (&["nodef@"], &[]),
        (&["nodef@x.service"], &[]),
        (&["alias2"], &[]),
        (&["c"], &[]),
        (&["onlyalso"], &[]),
        (&["w"], &[]),
        (&["cont"], &[]),
        (&["masked"], &[]),
        (&["local"], &[]),
        (&["nosuch"], &[]),
        (&["p@q"], &[]),
        (&["a", "t@two", "t@", "local", "c"], &["a", "t@two", "local"]),
        (&["t@two", "t@", "w"], &["t@", "w"]),
        (&["a", "c"], &["alias2"]),
    ] {
        let mut ours = guest(units);
        let mut failed = false;
        for (option, names) in [("enable-service", enable), ("disable-service", disable)] {
            for unit in names {
                failed |= try_customize(&mut ours, &[(option, unit)]).is_err();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        write_out(&guest(units), dir.path());
        let mut theirs_failed = false;
        for (verb, names) in [("enable", enable), ("disable", disable)] {
            for unit in names {
                let systemctl = Command::new("systemctl")
                    .arg(format!("--root={}", dir.path().display()))
                    .args([verb, unit])
                    .output();
                let Ok(systemctl) = systemctl else {
                    assert!(std::env::var_os("CI").is_none(), "systemctl is not installed");
                    println!("SKIPPED services_are_enabled_as_systemctl_enables_them: systemctl is not installed");
                    return;
                };
                theirs_failed |= !systemctl.status.success();
            }
        }
        assert_eq!(failed, theirs_failed, "{enable:?} {disable:?}");
        // What fails here is undone, and there it is left half done.
        if !failed {
            assert_eq!(links_of_guest(&ours), links_of_host(dir.path()), "{enable:?} {disable:?}");
        }
    }
}

fn write_out(guest: &Guest, root: &Path) {
    guest
        .walk(b"/", &mut |path, metadata| {
            let host = root.join(std::str::from_utf8(&path[1..]).unwrap());
            match metadata.kind {
                FileKind::Directory => std::fs::create_dir_all(&host).unwrap(),
                FileKind::Symlink => {
                    let target = String::from_utf8(guest.read_link(path).unwrap()).unwrap();
                    std::os::unix::fs::symlink(target, &host).unwrap();
                }
                _ => std::fs::write(&host, guest.read(path).unwrap()).unwrap(),
            }
            Ok(Walk::Continue)
        })
        .unwrap();
}

/// Links below `/etc/systemd/system`. `/lib` and `/usr/lib` are one where this matters.
fn links_of_guest(guest: &Guest) -> BTreeSet<String> {
    let mut links = BTreeSet::new();
    guest
        .walk(b"/etc/systemd/system", &mut |path, metadata| {
            if metadata.kind == FileKind::Symlink {
                let target = String::from_utf8(guest.read_link(path).unwrap()).unwrap();
                links.insert(format!("{} -> {target}", std::str::from_utf8(path).unwrap()));
            }
            Ok(Walk::Continue)
        })
        .unwrap();
    links
}

fn links_of_host(root: &Path) -> BTreeSet<String> {
    let out = Command::new("find")
        .arg(root.join("etc/systemd/system"))
        .args(["-type", "l", "-printf", "%p -> %l\n"])
        .output();
    let out = String::from_utf8(out.unwrap().stdout).unwrap();
    out.lines().map(|line| line.replace(root.to_str().unwrap(), "")).collect()
}

#[test]
fn openrc_has_run_levels() {
    let mut guest = guest(&[
        "/etc/runlevels/default/",
        "/etc/init.d/sshd=#!/sbin/openrc-run\n",
        "/etc/local.d/",
        "/etc/init.d/local",
    ]);
    customize(&mut guest, &[("enable-service", "sshd"), ("firstboot-command", "true")]);
    assert_eq!(guest.read_link(b"/etc/runlevels/default/sshd").unwrap(), b"/etc/init.d/sshd");
    assert!(exists(&guest, "/etc/local.d/goldenseal-firstboot.start"));
    customize(&mut guest, &[("disable-service", "sshd")]);
    assert!(!exists(&guest, "/etc/runlevels/default/sshd"));
}

/// The zone files of firewalld, changed here and by firewall-offline-cmd.
#[test]
fn the_firewall_is_opened_as_firewalld_opens_it() {
    let missing = |what: &str| {
        assert!(std::env::var_os("CI").is_none(), "{what}");
        println!("SKIPPED the_firewall_is_opened_as_firewalld_opens_it: {what}");
    };
    let shipped = Path::new("/usr/lib/firewalld");
    if Command::new("firewall-offline-cmd").arg("--version").output().is_err() || !shipped.is_dir() {
        return missing("firewall-offline-cmd is not installed");
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let public = format!("/usr/lib/firewalld/zones/public.xml={}", read("/usr/lib/firewalld/zones/public.xml"));
    let home = format!("/usr/lib/firewalld/zones/home.xml={}", read("/usr/lib/firewalld/zones/home.xml"));
    let mut guest = guest(&[
        &public,
        &home,
        "/etc/firewalld/firewalld.conf=# x\nDefaultZone=public\n",
        "/usr/lib/firewalld/services/http.xml",
        "/usr/lib/firewalld/services/https.xml",
    ]);
    customize(
        &mut guest,
        &[
            ("firewall-add-service", "http"),
            ("firewall-add-port", "8080/tcp"),
            ("firewall-add-port", "6000-6010/udp"),
            ("firewall-add-service", "http"),
            ("firewall-add-service", "https@home"),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().to_str().unwrap();
    std::fs::create_dir_all(dir.path().join("zones")).unwrap();
    std::fs::copy("/etc/firewalld/firewalld.conf", dir.path().join("firewalld.conf")).unwrap();
    for given in [
        &["--add-service=http"][..],
        &["--add-port=8080/tcp"],
        &["--add-port=6000-6010/udp"],
        &["--zone=home", "--add-service=https"],
    ] {
        let out =
            Command::new("firewall-offline-cmd").arg(format!("--system-config={config}")).args(given).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    for zone in ["public", "home"] {
        let theirs = read(&format!("{config}/zones/{zone}.xml"));
        assert_eq!(text(&guest, &format!("/etc/firewalld/zones/{zone}.xml")), theirs, "{zone}");
    }
    let error = try_customize(&mut guest, &[("firewall-add-service", "nosuch")]).unwrap_err();
    assert!(error.contains("no service 'nosuch'"), "{error}");
}

#[test]
fn cloud_init_gets_a_seed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let user = file("user", "#cloud-config\nhostname: x\nno_such_key: 1\n");
    let meta = file("meta", "instance-id: i-1\n");
    let bad = file("bad", "#cloud-config\na: [\n");
    let mut guest = guest(&["/usr/bin/cloud-init", "/var/lib/"]);
    let report = try_customize(&mut guest, &[("cloud-init", &format!("{user},{meta}"))]).unwrap();
    assert!(report.warnings.len() == 1 && report.warnings[0].contains("no_such_key"), "{:?}", report.warnings);
    assert_eq!(text(&guest, "/var/lib/cloud/seed/nocloud/meta-data"), "instance-id: i-1\n");
    assert_eq!(mode(&guest, "/var/lib/cloud/seed/nocloud/user-data").0, 0o600);
    let error = try_customize(&mut guest, &[("cloud-init", &bad)]).unwrap_err();
    assert!(error.contains("no YAML"), "{error}");
}

#[test]
fn a_time_zone_is_one_that_the_guest_knows() {
    let mut guest = guest(&[
        "/usr/share/zoneinfo/Europe/Berlin",
        "/etc/localtime -> /usr/share/zoneinfo/UTC",
        "/etc/timezone=Etc/UTC\n",
    ]);
    let made = customize(&mut guest, &[("timezone", "Europe/Berlin")]);
    assert_eq!(made, ["replaced /etc/localtime", "edited /etc/timezone"]);
    assert_eq!(guest.read_link(b"/etc/localtime").unwrap(), b"/usr/share/zoneinfo/Europe/Berlin");
}

#[test]
fn nothing_is_written_below_a_directory_that_is_hidden() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut guest = guest(&["/etc/motd=a\n"]);
    let report = try_customize(&mut guest, &[("upload", &format!("{}:/etc/motd", file.path().display()))]).unwrap();
    assert_eq!(report.operations[0].changes[0].action, Action::Emptied);
}
