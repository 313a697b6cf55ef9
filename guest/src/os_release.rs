//! Which operating system a guest is: os-release(5), and the files of before its time.

use crate::{FileKind, Guest, Result};

/// What a guest says of itself. What is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct OperatingSystem {
    /// `debian`, `rocky`: in lower case.
    pub id: String,
    /// What it is like, nearest first: `rhel`, `centos`, `fedora`.
    pub id_like: Vec<String>,
    /// `12`, `9.4`.
    pub version_id: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub pretty_name: String,
    /// `Debian GNU/Linux`.
    pub name: String,
}

/// Larger files are no release files.
const MAX_SIZE: u64 = 1 << 20;

/// What a release file of the old kind tells: by the words that it starts with, if it is shared.
struct Release {
    path: &'static str,
    /// The first words, in lower case; empty for any.
    starts: &'static str,
    id: &'static str,
    id_like: &'static str,
}

/// The first that exists and starts so. Files that other distributions have besides their own come last.
const RELEASES: &[Release] = &[
    release("/etc/oracle-release", "", "ol", "rhel fedora"),
    release("/etc/rocky-release", "", "rocky", "rhel centos fedora"),
    release("/etc/almalinux-release", "", "almalinux", "rhel centos fedora"),
    release("/etc/centos-release", "", "centos", "rhel fedora"),
    release("/etc/fedora-release", "", "fedora", ""),
    release("/etc/mageia-release", "", "mageia", "mandriva fedora"),
    release("/etc/altlinux-release", "", "altlinux", ""),
    release("/etc/redhat-release", "fedora", "fedora", ""),
    release("/etc/redhat-release", "red hat", "rhel", "fedora"),
    release("/etc/redhat-release", "centos", "centos", "rhel fedora"),
    release("/etc/redhat-release", "rocky", "rocky", "rhel centos fedora"),
    release("/etc/redhat-release", "scientific", "scientific", "rhel fedora"),
    release("/etc/redhat-release", "", "", "rhel fedora"),
    release("/etc/SuSE-release", "opensuse", "opensuse", "suse"),
    release("/etc/SuSE-release", "", "sles", "suse"),
    release("/etc/alpine-release", "", "alpine", ""),
    release("/etc/slackware-version", "", "slackware", ""),
    release("/etc/gentoo-release", "", "gentoo", ""),
    release("/etc/arch-release", "", "arch", ""),
    release("/etc/debian_version", "", "debian", ""),
];

const fn release(path: &'static str, starts: &'static str, id: &'static str, id_like: &'static str) -> Release {
    Release { path, starts, id, id_like }
}

impl OperatingSystem {
    /// Whether it is `id`, or like it.
    #[must_use]
    pub fn is_like(&self, id: &str) -> bool {
        self.id == id || self.id_like.iter().any(|like| like == id)
    }

    /// Reads what the guest says of itself.
    pub(crate) fn read(guest: &Guest) -> Result<Self> {
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(text) = read_text(guest, path)? {
                let os = Self::from_os_release(&text);
                if !os.id.is_empty() || !os.pretty_name.is_empty() {
                    return Ok(os);
                }
            }
        }
        if let Some(text) = read_text(guest, "/etc/lsb-release")? {
            let os = Self::from_lsb_release(&text);
            if !os.id.is_empty() {
                return Ok(os);
            }
        }
        for release in RELEASES {
            if let Some(text) = read_text(guest, release.path)?
                && text.to_lowercase().starts_with(release.starts)
            {
                return Ok(Self::from_release(release, &text));
            }
        }
        Ok(Self::default())
    }

    fn from_os_release(text: &str) -> Self {
        let mut os = Self::default();
        for (key, value) in assignments(text) {
            match key {
                "ID" => os.id = value.to_lowercase(),
                "ID_LIKE" => os.id_like = words(&value.to_lowercase()),
                "VERSION_ID" => os.version_id = value,
                "PRETTY_NAME" => os.pretty_name = value,
                "NAME" => os.name = value,
                _ => {}
            }
        }
        os
    }

    fn from_lsb_release(text: &str) -> Self {
        let mut os = Self::default();
        for (key, value) in assignments(text) {
            match key {
                "DISTRIB_ID" => (os.id, os.name) = (value.to_lowercase(), value),
                "DISTRIB_RELEASE" => os.version_id = value,
                "DISTRIB_DESCRIPTION" => os.pretty_name = value,
                _ => {}
            }
        }
        if matches!(os.id.as_str(), "ubuntu" | "linuxmint") {
            os.id_like = words(if os.id == "ubuntu" { "debian" } else { "ubuntu debian" });
        }
        os
    }

    fn from_release(release: &Release, text: &str) -> Self {
        let line = text.lines().next().unwrap_or_default().trim();
        // The files of some hold nothing but the version.
        let is_bare = line.starts_with(|c: char| c.is_ascii_digit());
        let name = if is_bare { release.id } else { line.split(" release ").next().unwrap_or(line) };
        Self {
            id: release.id.to_owned(),
            id_like: words(release.id_like),
            version_id: version(line),
            pretty_name: if is_bare { format!("{name} {line}") } else { line.to_owned() },
            name: name.to_owned(),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// The first number, with what follows it after dots.
fn version(line: &str) -> String {
    let start = line.find(|c: char| c.is_ascii_digit()).unwrap_or(line.len());
    let rest = &line[start..];
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].trim_end_matches('.').to_owned()
}

/// The text of a regular file of sane length; `None` for what is none.
fn read_text(guest: &Guest, path: &str) -> Result<Option<String>> {
    match guest.stat(path.as_bytes())? {
        Some(metadata) if metadata.kind == FileKind::File && metadata.size <= MAX_SIZE => {
            Ok(Some(String::from_utf8_lossy(&guest.read(path.as_bytes())?).into_owned()))
        }
        _ => Ok(None),
    }
}

/// The assignments of a shell-like file, with the quotes taken off.
pub(crate) fn assignments(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let (key, value) = line.split_once('=')?;
        (!line.starts_with('#')).then(|| (key.trim(), unquote(value.trim())))
    })
}

/// A value as the shell would take it: quotes of both kinds and backslashes.
fn unquote(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => text.extend(chars.next()),
            (c, None) if c.is_whitespace() => break,
            (c, _) => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryFileSystem;

    fn os(files: &[(&str, &str)]) -> OperatingSystem {
        let mut root = MemoryFileSystem::new();
        for (path, text) in files {
            root.add_file(path, text).unwrap();
        }
        Guest::from_file_systems(Box::new(root), Vec::new()).unwrap().os().clone()
    }

    #[test]
    fn os_release_is_unquoted() {
        let text = "# c\nNAME=\"Rocky Linux\"\nID='rocky'\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.4 # x\n\
                    PRETTY_NAME=\"Rocky \\\"Linux\\\" 9.4\"\n";
        let os = os(&[("/etc/os-release", text)]);
        assert_eq!((os.id.as_str(), os.version_id.as_str(), os.name.as_str()), ("rocky", "9.4", "Rocky Linux"));
        assert_eq!(os.pretty_name, "Rocky \"Linux\" 9.4");
        assert!(os.is_like("fedora") && os.is_like("rocky") && !os.is_like("debian"));
    }

    #[test]
    fn usr_lib_is_the_second_place() {
        assert_eq!(os(&[("/usr/lib/os-release", "ID=arch\n")]).id, "arch");
        let both = [("/usr/lib/os-release", "ID=arch\n"), ("/etc/os-release", "ID=manjaro\nID_LIKE=arch\n")];
        assert_eq!(os(&both).id, "manjaro");
    }

    #[test]
    fn releases_of_before_os_release_are_known() {
        let centos = os(&[
            ("/etc/redhat-release", "CentOS release 6.10 (Final)\n"),
            ("/etc/centos-release", "CentOS release 6.10 (Final)\n"),
        ]);
        assert_eq!((centos.id.as_str(), centos.version_id.as_str()), ("centos", "6.10"));
        assert_eq!(centos.name, "CentOS");
        assert!(centos.is_like("rhel"));

        let rhel = os(&[("/etc/redhat-release", "Red Hat Enterprise Linux Server release 6.9 (Santiago)\n")]);
        assert_eq!((rhel.id.as_str(), rhel.version_id.as_str()), ("rhel", "6.9"));
        let derived = os(&[("/etc/redhat-release", "Some Linux release 7\n")]);
        assert_eq!((derived.id.as_str(), derived.is_like("rhel")), ("", true));

        let debian = os(&[("/etc/debian_version", "7.11\n")]);
        assert_eq!((debian.id.as_str(), debian.version_id.as_str()), ("debian", "7.11"));
        assert_eq!(debian.pretty_name, "debian 7.11");
        let ubuntu = "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\nDISTRIB_DESCRIPTION=\"Ubuntu 12.04.5 LTS\"\n";
        let ubuntu = os(&[("/etc/debian_version", "wheezy/sid\n"), ("/etc/lsb-release", ubuntu)]);
        assert_eq!((ubuntu.id.as_str(), ubuntu.version_id.as_str()), ("ubuntu", "12.04"));
        assert!(ubuntu.is_like("debian"));
    }

    #[test]
    fn nothing_known_is_empty() {
        assert_eq!(os(&[("/etc/os-release", "\u{0}\u{1}===\n")]), OperatingSystem::default());
        assert_eq!(os(&[]), OperatingSystem::default());
    }
}
