//! Unit files of systemd: where they are, and what their `[Install]` sections say. See systemd.unit(5).

use guest::FileKind;

use crate::changes::{Changes, name_of};
use crate::requested::refused;
use crate::{Result, text};

/// Where units are, the first that has a name deciding.
pub(super) const DIRECTORIES: &[&str] =
    &["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// A unit that was found.
#[derive(Debug)]
pub(super) struct UnitFile {
    /// Where it is.
    pub(super) path: String,
    /// The name of the file, an alias followed: `getty@.service`.
    pub(super) name: String,
    pub(super) install: Install,
}

/// What `[Install]` says, of the file and its drop-ins.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Install {
    pub(super) alias: Vec<String>,
    pub(super) wanted_by: Vec<String>,
    pub(super) required_by: Vec<String>,
    pub(super) upheld_by: Vec<String>,
    pub(super) also: Vec<String>,
    pub(super) default_instance: Option<String>,
}

/// The full name of a unit: a name without a type is a service's.
pub(super) fn full_name(name: &str) -> Result<String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    if name.is_empty() || !name.chars().all(is_valid) || name.starts_with(['.', '@']) {
        return refused(format!("'{name}' is no name of a unit"));
    }
    let has_type = name.rsplit_once('.').is_some_and(|(_, suffix)| TYPES.contains(&suffix));
    Ok(if has_type { name.to_owned() } else { format!("{name}.service") })
}

const TYPES: &[&str] =
    &["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// `t@two.service` as `t`, `two`, `service`; the instance is empty for a template, and missing for what is neither.
pub(super) fn split_name(name: &str) -> (&str, Option<&str>, &str) {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    match stem.split_once('@') {
        Some((prefix, instance)) => (prefix, Some(instance), suffix),
        None => (stem, None, suffix),
    }
}

/// The unit of a name: its own file, or its template's.
pub(super) fn find(changes: &mut Changes<'_>, name: &str) -> Result<UnitFile> {
    let (prefix, instance, suffix) = split_name(name);
    let mut names = vec![name.to_owned()];
    if instance.is_some_and(|instance| !instance.is_empty()) {
        names.push(format!("{prefix}@.{suffix}"));
    }
    for name in &names {
        if let Some(path) = locate(changes, name)? {
            return follow(changes, name, path);
        }
    }
    if changes.is_file(format!("/etc/init.d/{prefix}").as_bytes())? {
        return refused(format!(
            "{name} is an init script of before systemd: a program of the guest would have to enable it"
        ));
    }
    refused(format!("the guest has no unit {name}"))
}

fn locate(changes: &Changes<'_>, name: &str) -> Result<Option<String>> {
    for directory in DIRECTORIES {
        let path = format!("{directory}/{name}");
        if changes.lstat(path.as_bytes())?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Follows the link that an alias is: what counts is the unit of the name that it leads to.
fn follow(changes: &mut Changes<'_>, name: &str, path: String) -> Result<UnitFile> {
    let (mut name, mut path) = (name.to_owned(), path);
    for _ in 0..MAX_ALIASES {
        let kind = changes.lstat(path.as_bytes())?.map(|metadata| metadata.kind);
        if kind == Some(FileKind::Symlink) {
            let target = changes.read_link(path.as_bytes())?;
            if target == b"/dev/null" {
                return refused(format!("the unit {name} is masked"));
            }
            let target = String::from_utf8_lossy(name_of(&target)).into_owned();
            match locate(changes, &target)? {
                Some(next) if next != path => (name, path) = (target, next),
                _ => return refused(format!("the link {path} leads to no unit")),
            }
            continue;
        }
        let Some(text) = changes.read_text(path.as_bytes())? else {
            return refused(format!("{path} is no unit file"));
        };
        if text.is_empty() && path.starts_with("/etc/") {
            return refused(format!("the unit {name} is masked"));
        }
        let mut install = Install::default();
        install.add(&text);
        for drop_in in drop_ins(changes, &name)? {
            if let Some(text) = changes.read_text(&drop_in)? {
                install.add(&text);
            }
        }
        return Ok(UnitFile { path, name, install });
    }
    refused(format!("the aliases of {name} lead in a circle"))
}

const MAX_ALIASES: usize = 16;

/// The drop-ins of a unit: of those with one name, the one in the first directory.
fn drop_ins(changes: &Changes<'_>, name: &str) -> Result<Vec<Vec<u8>>> {
    let mut found = std::collections::BTreeMap::new();
    for directory in DIRECTORIES {
        let directory = format!("{directory}/{name}.d");
        for file in changes.names_in(directory.as_bytes())? {
            if file.ends_with(b".conf") {
                let path = guest::path::join(directory.as_bytes(), &file);
                found.entry(file).or_insert(path);
            }
        }
    }
    Ok(found.into_values().collect())
}

impl Install {
    fn add(&mut self, unit: &[u8]) {
        let mut section = String::new();
        let mut logical = String::new();
        for line in text::lines(unit) {
            let line = String::from_utf8_lossy(text::without_end(line)).into_owned();
            // Comments may stand between a line and its continuation.
            if line.trim_start().starts_with(['#', ';']) {
                continue;
            }
            if let Some(begun) = line.strip_suffix('\\') {
                logical.push_str(begun);
                logical.push(' ');
                continue;
            }
            logical.push_str(&line);
            let whole = std::mem::take(&mut logical);
            let whole = whole.trim();
            if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
            } else if section == "Install"
                && let Some((key, value)) = whole.split_once('=')
            {
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let list = match key {
            "Alias" => &mut self.alias,
            "WantedBy" => &mut self.wanted_by,
            "RequiredBy" => &mut self.required_by,
            "UpheldBy" => &mut self.upheld_by,
            "Also" => &mut self.also,
            "DefaultInstance" => {
                self.default_instance = Some(value.to_owned()).filter(|value| !value.is_empty());
                return;
            }
            _ => return,
        };
        // An empty value does not reset these lists.
        list.extend(value.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()));
    }

    /// Whether there is anything to enable.
    pub(super) fn is_empty(&self) -> bool {
        self.alias.is_empty()
            && self.wanted_by.is_empty()
            && self.required_by.is_empty()
            && self.upheld_by.is_empty()
            && self.also.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_sections_are_read() {
        let mut install = Install::default();
        install.add(b"[Unit]\nAlias=no\n[Install]\nWantedBy=a.target \\\n# comment\n  b.target\nAlias = x.service\n;c\nWantedBy=\n");
        assert_eq!(install.wanted_by, ["a.target", "b.target"]);
        assert_eq!(install.alias, ["x.service"]);
    }

    #[test]
    fn names_are_completed_and_split() {
        assert_eq!(full_name("ssh").unwrap(), "ssh.service");
        assert_eq!(full_name("a.b").unwrap(), "a.b.service");
        assert_eq!(full_name("a.socket").unwrap(), "a.socket");
        assert!(full_name("../x").is_err() && full_name("x y").is_err() && full_name("").is_err());
        assert_eq!(split_name("t@two.service"), ("t", Some("two"), "service"));
        assert_eq!(split_name("t@.service"), ("t", Some(""), "service"));
    }
}
