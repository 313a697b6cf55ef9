//! From an option and its argument to a customization.

use std::path::PathBuf;

use super::option::OptionKind;
use super::{CUSTOMIZE_OPTIONS, Customization, PasswordSelector, SshKey};

/// What is wrong with a customize option.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustomizationError {
    /// There is no such option.
    #[error("--{0} is no customize option")]
    Unknown(String),
    /// The argument is not what the option takes.
    #[error("--{option} takes {expected}: {reason}")]
    Argument {
        /// The option.
        option: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The option is one that needs the guest to run.
    #[error(
        "--{option} needs programs of the guest to run, which nothing here does: say --defer to have it done when the \
         guest first boots, or use {instead}"
    )]
    NeedsGuest {
        /// The option.
        option: &'static str,
        /// What there is in its place.
        instead: &'static str,
    },
    /// The option is one for Windows guests.
    #[error("--{0} is for Windows guests, which are not supported")]
    Windows(&'static str),
    /// A file with commands could not be used.
    #[error("{file}, line {line}: {reason}")]
    CommandsFile {
        /// The file.
        file: String,
        /// The line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

type Parsed<T> = Result<T, CustomizationError>;

impl Customization {
    /// What an option with its argument asks for: none for an option that is taken and needless, several for
    /// `commands-from-file`, which is read here. `defer` makes work for the first boot of what needs a running guest.
    ///
    /// ```
    /// use seal::Customization;
    ///
    /// let parsed = Customization::parse("write", "/etc/motd:golden\n", false)?;
    /// assert_eq!(parsed, [Customization::Write { file: "/etc/motd".into(), contents: "golden\n".into() }]);
    /// # Ok::<(), seal::CustomizationError>(())
    /// ```
    ///
    /// # Errors
    /// [`CustomizationError`].
    pub fn parse(option: &str, argument: &str, defer: bool) -> Parsed<Vec<Self>> {
        let known = CUSTOMIZE_OPTIONS.iter().find(|known| known.name == option);
        let Some(known) = known else { return Err(CustomizationError::Unknown(option.to_owned())) };
        match known.kind {
            OptionKind::Ignored => Ok(Vec::new()),
            OptionKind::Windows => Err(CustomizationError::Windows(known.name)),
            OptionKind::NeedsGuest if !defer => {
                let instead = match known.name {
                    "install" => "--firstboot-install",
                    "run" => "--firstboot",
                    _ => "--firstboot-command",
                };
                Err(CustomizationError::NeedsGuest { option: known.name, instead })
            }
            _ if known.name == "commands-from-file" => commands_from_file(argument, defer),
            _ => {
                let wrong = |reason: String| CustomizationError::Argument {
                    option: known.name,
                    expected: if known.argument.is_empty() { "no argument" } else { known.argument },
                    reason,
                };
                parse_one(known.name, argument).map(|one| vec![one]).map_err(wrong)
            }
        }
    }
}

fn parse_one(option: &'static str, argument: &str) -> Result<Customization, String> {
    let two = || {
        let (first, second) = argument.split_once(':').ok_or("a colon is missing")?;
        if first.is_empty() { Err("nothing is before the colon") } else { Ok((first.to_owned(), second.to_owned())) }
    };
    let whole = || if argument.is_empty() { Err("it is empty".to_owned()) } else { Ok(argument.to_owned()) };
    Ok(match option {
        "append-line" => {
            let (file, line) = two()?;
            if line.contains('\n') {
                return Err("the line holds a line end".to_owned());
            }
            Customization::AppendLine { file, line }
        }
        "chmod" => {
            let (mode, path) = two()?;
            Customization::Chmod { mode: parse_mode(&mode)?, path }
        }
        "chown" => {
            let fields: Vec<_> = argument.splitn(3, ':').collect();
            let [uid, gid, path] = fields.as_slice() else { return Err("it has not three fields".to_owned()) };
            let id = |text: &str| text.parse().map_err(|_| format!("'{text}' is no number"));
            Customization::Chown { uid: id(uid)?, gid: id(gid)?, path: (*path).to_owned() }
        }
        "cloud-init" => {
            let mut files = argument.split(',').map(PathBuf::from);
            let user_data = files.next().filter(|file| !file.as_os_str().is_empty()).ok_or("no file is named")?;
            let mut optional = || files.next().filter(|file| !file.as_os_str().is_empty());
            Customization::CloudInit { user_data, meta_data: optional(), network_config: optional() }
        }
        "copy" => two().map(|(from, to)| Customization::Copy { from, to })?,
        "copy-in" => two().map(|(local, directory)| Customization::CopyIn { local: local.into(), directory })?,
        "delete" => Customization::Delete { pattern: whole()? },
        "disable-service" => Customization::DisableService { unit: whole()? },
        "edit" => two().map(|(file, expression)| Customization::Edit { file, expression })?,
        "enable-service" => Customization::EnableService { unit: whole()? },
        "firewall-add-port" => {
            let (port, zone) = with_zone(argument);
            let (port, protocol) = port.split_once('/').ok_or("the protocol is missing: 8080/tcp")?;
            Customization::FirewallPort { port: port.to_owned(), protocol: protocol.to_owned(), zone }
        }
        "firewall-add-service" => {
            let (service, zone) = with_zone(argument);
            Customization::FirewallService { service: service.to_owned(), zone }
        }
        "firstboot" | "run" => Customization::Firstboot { script: whole()?.into() },
        "firstboot-command" | "run-command" => Customization::FirstbootCommand { command: whole()? },
        "firstboot-install" | "install" => Customization::FirstbootInstall { packages: packages(argument)? },
        "uninstall" => Customization::FirstbootUninstall { packages: packages(argument)? },
        "update" => Customization::FirstbootUpdate,
        "hostname" => Customization::Hostname { name: whole()? },
        "link" => {
            let mut fields = argument.split(':').map(str::to_owned);
            let target = fields.next().filter(|target| !target.is_empty()).ok_or("the target is missing")?;
            let links: Vec<_> = fields.collect();
            if links.is_empty() || links.iter().any(String::is_empty) {
                return Err("the name of a link is missing".to_owned());
            }
            Customization::Link { target, links }
        }
        "mkdir" => Customization::Mkdir { directory: whole()? },
        "move" => two().map(|(from, to)| Customization::Move { from, to })?,
        "password" => {
            let (user, selector) = two()?;
            Customization::Password { user, selector: PasswordSelector::parse(&selector)? }
        }
        "root-password" => {
            Customization::Password { user: "root".to_owned(), selector: PasswordSelector::parse(argument)? }
        }
        "scrub" => Customization::Scrub { file: whole()? },
        "ssh-inject" => parse_ssh_inject(argument)?,
        "tar-in" => two().map(|(archive, directory)| Customization::TarIn { archive: archive.into(), directory })?,
        "timezone" => Customization::Timezone { zone: whole()? },
        "touch" => Customization::Touch { file: whole()? },
        "truncate" => Customization::Truncate { file: whole()? },
        "truncate-recursive" => Customization::TruncateRecursive { path: whole()? },
        "upload" => two().map(|(local, path)| Customization::Upload { local: local.into(), path })?,
        "write" => two().map(|(file, contents)| Customization::Write { file, contents })?,
        _ => return Err("it is not known".to_owned()),
    })
}

/// A number as virt-customize reads it: octal only after a 0, hexadecimal after 0x, else decimal. What would be read as
/// decimal and was surely meant as octal is refused.
fn parse_mode(text: &str) -> Result<u32, String> {
    let bad = |_| format!("'{text}' is no number");
    let mode = if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        u32::from_str_radix(digits, 16).map_err(bad)?
    } else if let Some(digits) =
        text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()))
    {
        u32::from_str_radix(digits, 8).map_err(bad)?
    } else {
        let decimal: u32 = text.parse().map_err(bad)?;
        if (3..=4).contains(&text.len()) && text.bytes().all(|digit| digit < b'8') {
            return Err(format!("{text} would be read as a decimal number, {decimal:#o}: write 0{text}"));
        }
        decimal
    };
    if mode > 0o7777 { Err(format!("{mode:#o} has bits that are no permissions")) } else { Ok(mode) }
}

fn parse_ssh_inject(argument: &str) -> Result<Customization, String> {
    let (user, selector) = argument.split_once(':').unwrap_or((argument, ""));
    if user.is_empty() {
        return Err("the user is missing".to_owned());
    }
    let key = match selector.split_once(':') {
        Some(("file", file)) if !file.is_empty() => SshKey::File(file.into()),
        Some(("string", key)) if !key.is_empty() => SshKey::Text(key.to_owned()),
        None if selector.is_empty() => SshKey::File(super::ssh_inject::newest_key_of_host()?),
        _ => return Err(format!("'{selector}' is neither file:FILE nor string:KEY")),
    };
    Ok(Customization::SshInject { user: user.to_owned(), key })
}

fn packages(list: &str) -> Result<Vec<String>, String> {
    let packages: Vec<_> = list.split(',').map(|name| name.trim().to_owned()).collect();
    match packages.iter().find(|name| name.is_empty() || name.starts_with('-')) {
        Some(name) => Err(format!("'{name}' is no name of a package")),
        None => Ok(packages),
    }
}

fn with_zone(argument: &str) -> (&str, Option<String>) {
    match argument.split_once('@') {
        Some((what, zone)) => (what, Some(zone.to_owned())),
        None => (argument, None),
    }
}

fn commands_from_file(file: &str, defer: bool) -> Parsed<Vec<Customization>> {
    let wrong = |line, reason: String| CustomizationError::CommandsFile { file: file.to_owned(), line, reason };
    let text = std::fs::read_to_string(file).map_err(|error| wrong(0, error.to_string()))?;
    let mut customizations = Vec::new();
    let mut command = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = if command.is_empty() { line.trim_start() } else { line };
        if let Some(begun) = line.strip_suffix('\\') {
            command.push_str(begun);
            continue;
        }
        command.push_str(line);
        let whole = std::mem::take(&mut command);
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        let (option, argument) = whole.split_once([' ', '\t']).unwrap_or((&whole, ""));
        if option == "commands-from-file" {
            return Err(wrong(index + 1, "commands-from-file cannot be nested".to_owned()));
        }
        let parsed = Customization::parse(option, argument.trim_start(), defer);
        customizations.append(&mut parsed.map_err(|error| wrong(index + 1, error.to_string()))?);
    }
    if command.is_empty() { Ok(customizations) } else { Err(wrong(0, "it ends in a backslash".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(option: &str, argument: &str) -> Customization {
        let mut parsed = Customization::parse(option, argument, true).unwrap();
        assert_eq!(parsed.len(), 1);
        parsed.remove(0)
    }

    #[test]
    fn modes_are_read_as_virt_customize_reads_them() {
        assert_eq!(parse_mode("0644"), Ok(0o644));
        assert_eq!(parse_mode("0x1ff"), Ok(0o777));
        assert_eq!(parse_mode("420"), Err("420 would be read as a decimal number, 0o644: write 0420".to_owned()));
        assert_eq!(parse_mode("493"), Ok(0o755));
        assert_eq!(parse_mode("0"), Ok(0));
        for wrong in ["", "u+x", "0999", "-1", "99999"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_split_at_their_colons() {
        assert_eq!(
            parse("write", "/a:b:c"),
            Customization::Write { file: "/a".to_owned(), contents: "b:c".to_owned() }
        );
        assert_eq!(
            parse("link", "/a:/b:/c"),
            Customization::Link { target: "/a".to_owned(), links: vec!["/b".to_owned(), "/c".to_owned()] }
        );
        assert_eq!(parse("chown", "1:2:/a:b"), Customization::Chown { uid: 1, gid: 2, path: "/a:b".to_owned() });
        for (option, argument) in [
            ("write", "/a"),
            ("write", ":x"),
            ("link", "/a"),
            ("chown", "1:2"),
            ("append-line", "/a:x\ny"),
            ("delete", ""),
        ] {
            assert!(Customization::parse(option, argument, false).is_err(), "{option} {argument}");
        }
    }

    #[test]
    fn what_needs_the_guest_is_refused_or_deferred() {
        for option in ["install", "run", "run-command", "uninstall", "update"] {
            let error = Customization::parse(option, "x", false).unwrap_err();
            assert!(matches!(error, CustomizationError::NeedsGuest { .. }) && error.to_string().contains("--defer"));
            assert_eq!(Customization::parse(option, "x", true).unwrap().len(), 1);
        }
        assert!(matches!(Customization::parse("inject-qemu-ga", "x", true), Err(CustomizationError::Windows(_))));
        assert_eq!(Customization::parse("selinux-relabel", "", false).unwrap(), []);
    }

    #[test]
    fn commands_are_read_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "# comment\n\n  write /a:b\ntouch \\\n/c\nselinux-relabel\n").unwrap();
        let parsed = Customization::parse("commands-from-file", file.path().to_str().unwrap(), false).unwrap();
        let touch = Customization::Touch { file: "/c".to_owned() };
        assert_eq!(parsed, [Customization::Write { file: "/a".to_owned(), contents: "b".to_owned() }, touch]);
        for wrong in ["nonsense x", "commands-from-file y", "touch \\"] {
            std::fs::write(&file, wrong).unwrap();
            assert!(Customization::parse("commands-from-file", file.path().to_str().unwrap(), false).is_err());
        }
    }

    #[test]
    fn the_table_is_in_order_and_every_option_is_known() {
        assert!(CUSTOMIZE_OPTIONS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for option in CUSTOMIZE_OPTIONS {
            if let Err(error) = Customization::parse(option.name, "a:b:c", true) {
                assert!(!matches!(error, CustomizationError::Unknown(_)) && !error.to_string().contains("not known"));
            }
        }
    }
}
