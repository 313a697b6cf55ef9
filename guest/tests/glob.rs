//! Patterns: a table of cases, and glibc's own glob(3) as the judge of random ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::process::{Command, Stdio};

use guest::memory::MemoryFileSystem;
use guest::{Error, Guest};

const FILES: &[&str] = &[
    "etc/a.conf",
    "etc/b.conf",
    "etc/.hidden.conf",
    "etc/network/ifcfg-eth0",
    "etc/network/ifcfg-lo",
    "etc/[odd]",
    "etc/star*",
    "etc/brace{x}",
    "etc/back\\slash",
    "etc/comma,x",
    "home/ann/.bash_history",
    "home/ann/.zsh_history",
    "home/bob/.bash_history",
    "home/bob/file",
    "home/README",
    "var/log/syslog",
    "var/log/syslog.1",
    "var/log/syslog.2.gz",
    "var/log/dmesg",
    "var/log/-dash",
    "var/log/A",
    "var/log/z9",
    "...three",
];
/// Links that mean the same in a guest and below a directory of the host.
const LINKS: &[(&str, &str)] =
    &[("log", "var/log"), ("home/link", "ann"), ("dangling", "nowhere"), ("var/loop", "loop"), ("etc/alias", "a.conf")];

const PATTERNS: &[&str] = &[
    "/etc/*.conf",
    "/etc/?.conf",
    "/etc/.*.conf",
    "/etc/[ab].conf",
    "/etc/[!a].conf",
    "/etc/[^a].conf",
    "/etc/[a-z].conf",
    "/etc/[[:alpha:]].conf",
    "/etc/[[:digit:]].conf",
    "/etc/[[]odd]",
    "/etc/\\[odd\\]",
    "/etc/[odd]",
    "/etc/star\\*",
    "/etc/star[*]",
    "/etc/brace\\{x\\}",
    "/etc/brace{x}",
    "/etc/brace[{]x}",
    "/etc/back\\\\slash",
    "/etc/comma{,x}",
    "/etc/comma\\,x",
    "/etc/network/ifcfg-{eth*,lo}",
    "/etc/{a,b,missing}.conf",
    "/etc/{a.conf,network/*}",
    "/etc/{}",
    "/home/*/.bash_history",
    "/home/*/.*_history",
    "/home/{ann,bob}/.{bash,zsh}_history",
    "/home/*",
    "/home/*/",
    "/home/*/*",
    "/*/*/*",
    "/*",
    "/.*",
    "/*/",
    "/log/*",
    "/log/syslog*",
    "/log",
    "/log/",
    "/l*",
    "/l*/dmesg",
    "/dangling",
    "/dang*",
    "/dangling/*",
    "/dang*/",
    "/var/loop",
    "/var/loop/*",
    "/var/lo*",
    "/var/lo*/",
    "/missing",
    "/missing/*",
    "/etc/alias/*",
    "/etc/a.conf/*",
    "/var/log/syslog.[0-9]",
    "/var/log/syslog.*[!z]",
    "/var/log/[-]*",
    "/var/log/[a-]*",
    "/var/log/[]-]*",
    "/var/log/[!]-]*",
    "/var/log/[",
    "/var/log/[a",
    "/var/log/*[[:digit:]]",
    "/var/log/[[:upper:]]",
    "/var/log/[A-Z]",
    "/var/log/[z-a]",
    "/var/log/**",
    "/var//log///sys*",
    "/./var/log/d*",
    "/var/../etc/*.conf",
    "/",
    "/{etc,var}/*o*",
    "/var/log/[[:nonsense:]]",
    "/var/log/[\\-]*",
    "/var/log/[\\]]*",
    "/etc/[.]hidden.conf",
    "/etc/[!a]hidden.conf",
    "/etc/?hidden.conf",
    "/{a",
    "/a}",
    "/{home,{var,etc}}/{*,*}",
    "/*\\",
    "/etc/*\\.conf",
    "/e[t]c/a.conf",
    "/e[t/]c/a.conf",
    "/etc[/]a.conf",
];

fn guest() -> Guest {
    let mut root = MemoryFileSystem::new();
    for file in FILES {
        root.add_file(format!("/{file}"), b"").unwrap();
    }
    for (path, target) in LINKS {
        root.add_symlink(format!("/{path}"), target).unwrap();
    }
    Guest::from_file_systems(Box::new(root), Vec::new()).unwrap()
}

fn globbed(guest: &Guest, pattern: &str) -> Vec<String> {
    let found = guest.glob(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
}

/// Prints what glob(3) finds for each pattern below the directory, one list a line.
const PYTHON: &str = r#"
import ctypes, json, os, sys
class Glob(ctypes.Structure):
    _fields_ = [("pathc", ctypes.c_size_t), ("pathv", ctypes.POINTER(ctypes.c_char_p)), ("offs", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("functions", ctypes.c_void_p * 5)]
libc = ctypes.CDLL("libc.so.6")
libc.gnu_get_libc_version
top, brace = sys.argv[1], 1 << 10
for pattern in json.load(sys.stdin):
    found = Glob()
    code = libc.glob((top + pattern).encode(), brace, None, ctypes.byref(found))
    assert code in (0, 3), code
    paths = [found.pathv[i].decode() for i in range(found.pathc)]
    # A slash at the end asks for a directory, which glob(3) does not always see to.
    print(json.dumps([path[len(top):] for path in paths if os.path.isdir(path) or not path.endswith("/")]))
"#;

/// glob(3) does not expand what is before a brace's path, so each pattern has to begin with a slash outside of braces.
fn glibc(patterns: &[String]) -> Option<Vec<Vec<String>>> {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path();
    for file in FILES {
        let path = top.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    for (path, target) in LINKS {
        std::os::unix::fs::symlink(target, top.join(path)).unwrap();
    }
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON, top.to_str().unwrap()]).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.stderr(Stdio::piped()).spawn().ok()?;
    let quoted: Vec<String> = patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("[{}]", quoted.join(",")).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("libc.so.6") || complaint.contains("gnu_get_libc_version") {
        return None;
    }
    assert!(output.status.success(), "{complaint}");
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(list).collect())
}

/// A JSON list of strings in which only backslashes and quotes are escaped.
fn list(line: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut open = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, &mut open) {
            ('"', None) => open = Some(String::new()),
            ('"', Some(_)) => strings.extend(open.take()),
            ('\\', Some(text)) => text.extend(chars.next()),
            (c, Some(text)) => text.push(c),
            _ => {}
        }
    }
    strings
}

/// What differs by design: sorted as a whole, each once, without `.` and `..` and slashes that say nothing.
fn as_ours(mut paths: Vec<String>, pattern: &str) -> Vec<String> {
    let is_dots = |part: &str| matches!(part, "." | "..");
    if !pattern.split('/').any(is_dots) {
        paths.retain(|path| !path.split('/').any(is_dots));
    }
    for path in &mut paths {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        *path = format!("/{}", parts.join("/"));
    }
    paths.sort();
    paths.dedup();
    paths
}

fn compare(patterns: &[String]) {
    let Some(theirs) = glibc(patterns) else {
        println!("SKIPPED glob: python3 or glibc is not installed");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "python3 has to be installed in CI");
        return;
    };
    assert_eq!(theirs.len(), patterns.len());
    let guest = guest();
    for (pattern, theirs) in patterns.iter().zip(theirs) {
        assert_eq!(globbed(&guest, pattern), as_ours(theirs, pattern), "{pattern}");
    }
}

#[test]
fn patterns_match_what_glibc_matches() {
    let patterns: Vec<String> = PATTERNS.iter().map(|&pattern| pattern.to_owned()).collect();
    compare(&patterns);
}

#[test]
fn random_patterns_match_what_glibc_matches() {
    // A linear congruential generator: the same patterns each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % bound
    };
    let pieces = [
        "*",
        "?",
        "[a-z]",
        "[!b]",
        "s",
        "syslog",
        ".conf",
        "{a,b}",
        "{,.*}",
        "a",
        "/",
        "/",
        "home",
        "var/log",
        "etc",
        "[",
        "]",
        "{",
        "}",
        ",",
        "\\*",
        "[[:alnum:]]",
        "_",
        "ann",
        "h*",
    ];
    let patterns: Vec<String> = (0..3000)
        .map(|_| {
            let count = 1 + next(6);
            let text: String = (0..count).map(|_| pieces[next(pieces.len())]).collect();
            format!("/{text}")
        })
        .collect();
    compare(&patterns);
}

/// glob(3) reports the file where no part of the pattern has to be matched.
#[test]
fn a_slash_at_the_end_asks_for_a_directory() {
    assert_eq!(globbed(&guest(), "/etc/a.conf/"), [""; 0]);
    assert_eq!(globbed(&guest(), "/e*/a.c*/"), [""; 0]);
    assert_eq!(globbed(&guest(), "/home/link/"), ["/home/link"]);
}

#[test]
fn absolute_links_lead_inside_the_guest() {
    let mut root = MemoryFileSystem::new();
    root.add_file("/private/var/log/x", b"").unwrap();
    root.add_symlink("/var", "/private/var").unwrap();
    root.add_symlink("/up", "../../../private").unwrap();
    let guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    assert_eq!(globbed(&guest, "/var/log/*"), ["/var/log/x"]);
    assert_eq!(globbed(&guest, "/up/*/log"), ["/up/var/log"]);
}

#[test]
fn bytes_that_are_not_utf8_match() {
    let mut root = MemoryFileSystem::new();
    root.add_file(b"/tmp/\xff\n\x1b", b"").unwrap();
    let guest = Guest::from_file_systems(Box::new(root), Vec::new()).unwrap();
    assert_eq!(guest.glob("/tmp/*").unwrap(), [b"/tmp/\xff\n\x1b".to_vec()]);
    assert_eq!(guest.glob("/tmp/???").unwrap().len(), 1);
    assert_eq!(guest.glob("/t*/[!a]*").unwrap().len(), 1);
}

#[test]
fn patterns_have_to_be_absolute() {
    for pattern in ["", "etc/*", "{/etc,var}/*"] {
        let error = guest().glob(pattern).unwrap_err();
        assert!(matches!(error.cause(), Error::InvalidPattern(_)), "{pattern}: {error}");
    }
}
