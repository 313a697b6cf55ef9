//! Trees that nobody would make in good faith.

use std::collections::BTreeSet;

use guest::memory::MemoryFileSystem;
use guest::{FileKind, Guest, Walk};
use proptest::prelude::*;
use seal::{GuestPath, Options, Selection, Treatment};

use crate::support::{assert_exact, snapshot};

/// Directories and files that operations look for, and places they must not touch.
const PLACES: &[&str] = &[
    "/",
    "/etc",
    "/etc/machine-id",
    "/etc/passwd",
    "/etc/group",
    "/etc/ssh",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/sysconfig",
    "/etc/sysconfig/network-scripts",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/systemd/system",
    "/etc/skel",
    "/etc/NetworkManager/system-connections",
    "/home",
    "/home/ann",
    "/home/ann/.ssh",
    "/home/ann/.bash_history",
    "/root",
    "/root/.ssh",
    "/tmp",
    "/var",
    "/var/tmp",
    "/var/log",
    "/var/log/journal",
    "/var/log/wtmp",
    "/var/lib/dbus/machine-id",
    "/var/spool/mail",
    "/var/mail",
    "/var/spool/cron",
    "/var/spool/cron/atjobs/.SEQ",
    "/var/crash",
    "/var/run",
    "/run",
    "/run/utmp",
    "/usr",
    "/usr/bin",
    "/usr/bin/ssh-keygen",
    "/usr/sbin/sshd",
    "/usr/lib/systemd/systemd",
    "/srv",
    "/opt",
    "/var/cache/apt/archives",
    "/var/lib/puppet",
    "/var/account",
    "/var/account/pacct",
];

#[derive(Clone)]
enum Node {
    File(Vec<u8>),
    Directory,
    Link(Vec<u8>),
    Fifo,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(contents) => write!(f, "file {:?}", GuestPath::from(contents.as_slice())),
            Self::Directory => write!(f, "directory"),
            Self::Link(target) => write!(f, "link {:?}", GuestPath::from(target.as_slice())),
            Self::Fifo => write!(f, "fifo"),
        }
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<&[u8]> = vec![
        b"x.bak",
        b"y~",
        b".bak",
        b"a.log",
        b"*",
        b"[",
        b"{a,b}",
        b"\xff\xfe",
        b"new\nline",
        b"-rf",
        b"...",
        b" ",
        b"a\\b",
        b".SEQ",
        b"pacct.1",
        b"lost+found",
        b"eth0.nmconnection",
        b"goldenseal-ssh-hostkeys.service",
        b"multi-user.target.wants",
    ];
    let bytes = proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'.'), Just(b'~'), 1..=255u8], 1..12);
    let any = bytes.prop_map(|mut name| {
        name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
        if name == b"." || name == b".." { b"dots".to_vec() } else { name }
    });
    prop_oneof![3 => proptest::sample::select(odd).prop_map(<[u8]>::to_vec), 2 => any]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    (proptest::sample::select(PLACES), proptest::collection::vec(name(), 0..3)).prop_map(|(place, names)| {
        names.iter().fold(place.as_bytes().to_vec(), |path, name| guest::path::join(&path, name))
    })
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(b"HWADDR=1\r\nHOSTNAME=a\n\nDEVICE=eth0".to_vec()),
        Just(b"[connection]\nid=1\n".to_vec()),
        (path(), path()).prop_map(|(a, b)| {
            [&b"root:x:0:0::/root:\nann:x:1000:1000::"[..], &a, b":\n..:x:1001:1::/:\nbob:x:1002:2::", &b, b":\n"]
                .concat()
        }),
        Just(b"wheel:x:10:ann,bob,root\nann:x:1000:\n:::\n\n".to_vec()),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let target = prop_oneof![
        path(),
        Just(b".".to_vec()),
        Just(b"..".to_vec()),
        Just(b"../../../..".to_vec()),
        Just(b"/var/log/../log".to_vec()),
        name()
    ];
    prop_oneof![
        4 => contents().prop_map(Node::File),
        1 => Just(Node::Directory),
        3 => target.prop_map(Node::Link),
        1 => Just(Node::Fifo),
    ]
}

/// What a tree begins with, half of the time.
const SSHD: &[&str] = &["/usr/bin/ssh-keygen", "/usr/sbin/sshd", "/usr/lib/systemd/systemd"];

fn nodes(most: usize) -> impl Strategy<Value = Vec<(GuestPath, Node)>> {
    let odd = proptest::collection::vec((path().prop_map(GuestPath::from), node()), 1..most);
    (any::<bool>(), odd).prop_map(|(has_sshd, mut nodes)| {
        if has_sshd {
            let file = |path: &&str| (GuestPath::from(path.as_bytes()), Node::File(Vec::new()));
            nodes.splice(..0, SSHD.iter().map(file));
        }
        nodes
    })
}

fn build(nodes: &[(GuestPath, Node)]) -> Guest {
    let mut root = MemoryFileSystem::new();
    for (path, node) in nodes {
        let path = path.as_bytes();
        // What does not fit on what is there already is left out.
        let _ = match node {
            Node::File(contents) => root.add_file(path, contents),
            Node::Directory => root.add_dir(path),
            Node::Link(target) => root.add_symlink(path, target),
            Node::Fifo => root.add_special(path, FileKind::Fifo),
        };
    }
    Guest::from_file_systems(Box::new(root), Vec::new()).unwrap()
}

/// The canonical paths that the steps of an operation lead to in a guest. Of a tree, all that is in it.
fn reach(guest: &Guest, operation: &seal::Operation) -> BTreeSet<Vec<u8>> {
    let mut reached = BTreeSet::new();
    for step in operation.steps {
        for pattern in step.patterns {
            let tops: Vec<Vec<u8>> = match (pattern.strip_prefix('~'), pattern.split_once("/**/*")) {
                (Some(name), _) => homes(guest).iter().map(|home| [home, name.as_bytes()].concat()).collect(),
                (None, Some((top, end))) => {
                    let mut found = Vec::new();
                    let mut visit = |path: &[u8], _: FileKind| {
                        if path.ends_with(end.as_bytes()) {
                            found.push(path.to_vec());
                        }
                        Ok(())
                    };
                    guest.walk_names(top.as_bytes(), &mut visit).unwrap();
                    found
                }
                (None, None) if step.treatment == Treatment::Create => parents(pattern.as_bytes()),
                (None, None) => guest.glob(pattern).unwrap(),
            };
            for top in tops {
                let canonical = match step.treatment {
                    Treatment::Edit | Treatment::EmptyFiles | Treatment::EmptyDirectories => {
                        guest.resolve(&top).unwrap()
                    }
                    _ => None,
                };
                let Some(top) = canonical.or_else(|| without_links_above(guest, &top)) else { continue };
                let below = |path: &[u8], _: &guest::Metadata| {
                    reached.insert(path.to_vec());
                    Ok(Walk::Continue)
                };
                guest.walk(&top, &mut { below }).unwrap();
                reached.insert(top);
            }
        }
    }
    reached
}

/// A path and the directories that lead to it.
fn parents(path: &[u8]) -> Vec<Vec<u8>> {
    let ends = (1..path.len()).filter(|&at| path[at] == b'/').chain([path.len()]);
    ends.map(|end| path[..end].to_vec()).collect()
}

/// A path without the links that lead to its last name, as far as it exists.
fn without_links_above(guest: &Guest, path: &[u8]) -> Option<Vec<u8>> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    let parent = if slash == 0 { b"/" } else { &path[..slash] };
    let parent = guest.resolve(parent).unwrap().or_else(|| without_links_above(guest, parent))?;
    Some(guest::path::join(&parent, &path[slash + 1..]))
}

/// Every directory that anybody may be at home in.
fn homes(guest: &Guest) -> Vec<Vec<u8>> {
    let passwd = guest.read(b"/etc/passwd").unwrap_or_default();
    let named = passwd.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b':').nth(5));
    let mut homes: Vec<_> =
        named.filter(|home| home.starts_with(b"/") && !home.contains(&0)).map(<[u8]>::to_vec).collect();
    homes.extend(guest.glob("/home/*").unwrap());
    homes.push(b"/root".to_vec());
    let canonical = homes.iter().filter_map(|home| guest.resolve(home).unwrap()).collect::<Vec<_>>();
    homes.into_iter().chain(canonical).collect()
}

proptest! {
    /// Each operation on its own: it reports exactly what it changed, changes nothing but what its steps lead to, and
    /// has nothing left to do afterwards. It may refuse, but it may not panic.
    #[test]
    fn an_operation_touches_only_what_it_says(
        nodes in nodes(40),
        index in any::<proptest::sample::Index>(),
    ) {
        let operations = seal::operations();
        let operation = operations[index.index(operations.len())];
        let selection = Selection::from_arguments(&[seal::Argument::Enable(operation.name)]).unwrap();
        let mut guest = build(&nodes);
        let before = snapshot(&guest);
        let reach = reach(&guest, operation);
        let Ok(report) = seal::run(&mut guest, &selection, &Options::default()) else { return Ok(()) };
        let after = snapshot(&guest);
        assert_exact(&report, &before, &after);
        for change in report.changes() {
            prop_assert!(reach.contains(change.path.as_bytes()), "{} touched {}", operation.name, change.path);
        }
        let again = seal::run(&mut guest, &selection, &Options::default()).unwrap();
        prop_assert!(!again.is_changed(), "{:?}", again.changes().collect::<Vec<_>>());
        prop_assert_eq!(snapshot(&guest), after);
    }

    /// All of them in a row.
    #[test]
    fn all_operations_change_nothing_the_second_time(nodes in nodes(60)) {
        let mut guest = build(&nodes);
        let Ok(first) = seal::run(&mut guest, &Selection::all(), &Options::default()) else { return Ok(()) };
        let after = snapshot(&guest);
        let second = seal::run(&mut guest, &Selection::all(), &Options::default()).unwrap();
        let told: Vec<_> = second.changes().map(|change| &change.path).collect();
        prop_assert!(told.is_empty(), "{:?} after {:?}", told, first.changes().map(|change| &change.path).collect::<Vec<&GuestPath>>());
        prop_assert_eq!(snapshot(&guest), after);
    }
}
