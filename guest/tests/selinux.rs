//! Labels of new files, judged by matchpathcon(8) on a real policy.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail by panic, and tells what it skips"
)]

use std::process::Command;

use guest::memory::MemoryFileSystem;
use guest::{FileKind, Guest, Selinux};

/// Where Debian's `selinux-policy-default` puts its file contexts.
const POLICY: &str = "/etc/selinux/default/contexts/files/file_contexts";

const KINDS: [(FileKind, &str); 7] = [
    (FileKind::File, "file"),
    (FileKind::Directory, "dir"),
    (FileKind::Symlink, "lnk_file"),
    (FileKind::CharDevice, "chr_file"),
    (FileKind::BlockDevice, "blk_file"),
    (FileKind::Fifo, "pipe"),
    (FileKind::Socket, "sock_file"),
];

fn missing(test: &str) -> bool {
    let what = if Command::new("matchpathcon").arg("-V").output().is_err() {
        "matchpathcon (selinux-utils)"
    } else if !std::path::Path::new(POLICY).exists() {
        "selinux-policy-default"
    } else {
        return false;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is not installed");
    println!("SKIPPED {test}: {what} is not installed");
    true
}

/// A guest with a policy of these files.
fn guest(files: &[(&str, &[u8])]) -> Guest {
    let mut fs = MemoryFileSystem::new();
    fs.add_file("/etc/selinux/config", "# a comment\nSELINUX=enforcing\n SELINUXTYPE=default \n").unwrap();
    for (suffix, text) in files {
        fs.add_file(format!("{POLICY}{suffix}"), text).unwrap();
    }
    Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap()
}

/// What matchpathcon prints for paths of one kind; `None` for `<<none>>`.
fn oracle(contexts: &str, kind: &str, paths: &[String]) -> Vec<Option<String>> {
    let mut labels = Vec::new();
    for some in paths.chunks(500) {
        let out = Command::new("matchpathcon").args(["-n", "-f", contexts, "-m", kind]).args(some).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(text.lines().count(), some.len(), "{}", String::from_utf8_lossy(&out.stderr));
        labels.extend(text.lines().map(|line| (line != "<<none>>").then(|| line.to_owned())));
    }
    labels
}

fn compare(guest: &Guest, contexts: &str, paths: &[String]) {
    assert!(matches!(guest.selinux(), Selinux::Policy("default")));
    for (kind, name) in KINDS {
        for (path, expected) in paths.iter().zip(oracle(contexts, name, paths)) {
            let found = guest.selinux_label(path.as_bytes(), kind).map(|label| String::from_utf8(label).unwrap());
            assert_eq!(found, expected, "{path} as {name}");
        }
    }
}

/// A path that a pattern matches, or nearly does: operators go, and alternatives are all there.
fn near(pattern: &str) -> String {
    let mut path = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => path.extend(chars.next()),
            '(' | ')' | '?' | '^' | '$' => {}
            '.' | '*' | '+' | '|' => path.push('x'),
            '[' => {
                path.push('a');
                for c in chars.by_ref() {
                    if c == ']' {
                        break;
                    }
                }
            }
            c => path.push(c),
        }
    }
    path.replace("//", "/").trim_end_matches('/').to_owned()
}

#[test]
fn a_real_policy_labels_as_matchpathcon_says() {
    if missing("a_real_policy_labels_as_matchpathcon_says") {
        return;
    }
    let files: Vec<(&str, Vec<u8>)> = ["", ".homedirs", ".local", ".subs", ".subs_dist"]
        .into_iter()
        .filter_map(|suffix| Some((suffix, std::fs::read(format!("{POLICY}{suffix}")).ok()?)))
        .collect();
    let guest = guest(&files.iter().map(|(suffix, text)| (*suffix, text.as_slice())).collect::<Vec<_>>());
    let mut paths: Vec<String> = [
        "/etc/machine-id",
        "/etc/shadow",
        "/etc/passwd",
        "/etc/passwd-",
        "/etc/resolv.conf",
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/systemd/system/x.service",
        "/etc/systemd/system",
        "/bin/sh",
        "/lib/systemd/system/x.service",
        "/usr/bin/sh",
        "/home",
        "/home/user",
        "/home/user/.ssh/authorized_keys",
        "/home/user/.ssh",
        "/root/.ssh/authorized_keys",
        "/root",
        "/var/log/messages",
        "/var/log",
        "/var/lib/cloud/seed",
        "/etc/cron.d/x",
        "/.autorelabel",
        "/",
        "/tmp/x",
        "/run/x",
        "/var/spool/cron/root",
        "/etc/NetworkManager/system-connections/a",
        "/opt/x/lib.so",
        "/etc/group",
        "/etc/sysconfig/network-scripts/ifcfg-eth0",
        "/usr/local/bin/x",
        "/etc/init.d/x",
        "/new",
        "/a b",
    ]
    .map(str::to_owned)
    .to_vec();
    let text = String::from_utf8(files[0].1.clone()).unwrap();
    let patterns = text.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.starts_with('/'));
    paths.extend(patterns.step_by(3).map(near).filter(|path| path.starts_with('/')));
    compare(&guest, POLICY, &paths);
}

#[test]
fn the_order_of_precedence_is_libselinuxs() {
    if missing("the_order_of_precedence_is_libselinuxs") {
        return;
    }
    let files: [(&str, &[u8]); 4] = [
        (
            "",
            b"/.* u:object_r:default_t:s0\n/srv/.* u:object_r:var_t:s0\n/srv/exact u:object_r:exact_t:s0\n\
              /srv/e.* u:object_r:pattern_t:s0\n/srv/dir -d u:object_r:dir_t:s0\n/srv/none(/.*)? <<none>>\n\
              /data/.* u:object_r:data_t:s0\n/srv/twice u:object_r:one_t:s0\n/srv/twice u:object_r:two_t:s0\n\
              /srv/a\\.b u:object_r:dot_t:s0\n/home/[^/]+/.+ u:object_r:wrong_t:s0\n",
        ),
        (".homedirs", b"/home/[^/]+/.+ u:object_r:user_home_t:s0\n"),
        (".local", b"/srv/local.* u:object_r:local_t:s0\n/srv/exac. u:object_r:local_pattern_t:s0\n"),
        (".subs_dist", b"/mine /data\n/mine/sub /srv\n/root-of /\n/chain /mine\n"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let contexts = dir.path().join("file_contexts");
    for (suffix, text) in files {
        std::fs::write(format!("{}{suffix}", contexts.display()), text).unwrap();
    }
    let paths = [
        "/srv/exact",
        "/srv/exactly",
        "/srv/e",
        "/srv/dir",
        "/srv/none",
        "/srv/none/x",
        "/srv/twice",
        "/srv/a.b",
        "/srv/aXb",
        "/srv/local",
        "/mine",
        "/mine/x",
        "/mine/sub/dir",
        "/mine/sub",
        "/minex",
        "/root-of/srv/exact",
        "/chain/x",
        "/home/u/x",
        "/x",
    ]
    .map(str::to_owned);
    compare(&guest(&files), contexts.to_str().unwrap(), &paths);
}

#[test]
fn new_files_have_the_policys_label_and_not_their_directorys() {
    let mut fs = MemoryFileSystem::new();
    fs.add_file("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n").unwrap();
    let contexts = "/etc/.*  system_u:object_r:etc_t:s0\n/etc/shadow.*  --  system_u:object_r:shadow_t:s0\n";
    fs.add_file("/etc/selinux/targeted/contexts/files/file_contexts", contexts).unwrap();
    let mut guest = Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap();
    guest.set_xattr(b"/etc", b"security.selinux", b"system_u:object_r:other_t:s0\0").unwrap();
    guest.write(b"/etc/shadow", b"root:*:::::::\n").unwrap();
    guest.create_dir(b"/etc/shadow.d", 0o755).unwrap();
    let label = |path: &[u8]| guest.xattr(path, b"security.selinux").unwrap();
    assert_eq!(label(b"/etc/shadow").unwrap(), b"system_u:object_r:shadow_t:s0\0");
    assert_eq!(label(b"/etc/shadow.d").unwrap(), b"system_u:object_r:etc_t:s0\0");
    // The root directory has no label: the guest was never labelled there.
    guest.write(b"/new", b"").unwrap();
    assert_eq!(guest.xattr(b"/new", b"security.selinux").unwrap(), None);
}

#[test]
fn a_policy_that_cannot_be_read_is_told() {
    let guest = |config: &str, contexts: Option<&[u8]>| {
        let mut fs = MemoryFileSystem::new();
        fs.add_file("/etc/selinux/config", config).unwrap();
        if let Some(contexts) = contexts {
            fs.add_file("/etc/selinux/p/contexts/files/file_contexts", contexts).unwrap();
        }
        Guest::from_file_systems(Box::new(fs), Vec::new()).unwrap()
    };
    assert!(matches!(guest("SELINUX=disabled\nSELINUXTYPE=p\n", None).selinux(), Selinux::Off));
    assert!(matches!(guest("SELINUX=enforcing\nSELINUXTYPE=p\n", None).selinux(), Selinux::Unreadable(_)));
    assert!(matches!(guest("SELINUX=enforcing\n", Some(b"")).selinux(), Selinux::Unreadable(_)));
    assert!(matches!(guest("SELINUX=enforcing\nSELINUXTYPE=../../p\n", Some(b"")).selinux(), Selinux::Unreadable(_)));
    let many = b"/x l\n".repeat(100_001);
    assert!(matches!(guest("SELINUXTYPE=p\n", Some(&many)).selinux(), Selinux::Unreadable(_)));
    // Rubbish is passed over.
    let rubbish = guest("SELINUXTYPE=p\n", Some(b"/a( l\n/b[ -- l\n\xff\xfe l\n/c l\n/(a|b){1000}{1000} l\n"));
    assert!(matches!(rubbish.selinux(), Selinux::Policy("p")));
    assert_eq!(rubbish.selinux_label(b"/c", FileKind::File).unwrap(), b"l");
    assert_eq!(rubbish.selinux_label(b"/a(", FileKind::File), None);
}
