//! `--password` and `--root-password`.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{Customization, copy, password_hash};
use crate::changes::Changes;
use crate::requested::refused;
use crate::{Error, Result, text};

/// What a password is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordSelector {
    /// This text.
    Text(String),
    /// The first line of a file of the host.
    File(PathBuf),
    /// One that is made up, and told in the report.
    Random,
    /// None: nobody can log in by password.
    Disabled,
    /// As the other says, and locked until `passwd -u`; without another, nothing can be unlocked.
    Locked(Option<Box<Self>>),
}

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordCrypto {
    /// SHA-256, `$5$`.
    Sha256,
    /// SHA-512, `$6$`: what every Linux of the last decade knows.
    Sha512,
    /// yescrypt, `$y$`: what Debian 11, Fedora 35 and later have by default.
    Yescrypt,
}

impl PasswordCrypto {
    /// The method of a name: `sha512`.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            "yescrypt" => Ok(Self::Yescrypt),
            "md5" => Err("md5 is broken, and is not offered: use sha512".to_owned()),
            _ => Err(format!("'{name}' is none of sha256, sha512 and yescrypt")),
        }
    }
}

impl PasswordSelector {
    /// Reads a selector: `password:TEXT`, `file:PATH`, `random`, `disabled`, `locked`, `locked:SELECTOR`.
    pub(super) fn parse(selector: &str) -> Result<Self, String> {
        match selector.split_once(':') {
            Some(("password", text)) => Ok(Self::Text(text.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("locked", rest)) => match Self::parse(rest)? {
                Self::Locked(_) => Err("locked:locked says nothing".to_owned()),
                inner => Ok(Self::Locked(Some(Box::new(inner)))),
            },
            None if selector == "random" => Ok(Self::Random),
            None if selector == "disabled" => Ok(Self::Disabled),
            None if selector == "locked" => Ok(Self::Locked(None)),
            // The rest may be a password: it is not repeated.
            _ => Err("it is none of password:, file:, random, disabled, locked and locked:".to_owned()),
        }
    }
}

/// Checks that no account gets two passwords.
pub(super) fn check(customizations: &[Customization]) -> Result<()> {
    let mut seen = HashSet::new();
    for customization in customizations {
        if let Customization::Password { user, .. } = customization
            && !seen.insert(user)
        {
            return refused(format!("two passwords are given for '{user}'"));
        }
    }
    Ok(())
}

/// Sets an account's password.
pub(super) fn set(
    changes: &mut Changes<'_>,
    user: &str,
    selector: &PasswordSelector,
    crypto: Option<PasswordCrypto>,
) -> Result<()> {
    let shadow = changes.read_existing(b"/etc/shadow")?;
    let has_line = text::lines(&shadow).any(|line| is_of(line, user));
    if !has_line {
        return refused(format!("the guest's /etc/shadow has no line for '{user}'"));
    }
    let crypto = match crypto {
        Some(crypto) => crypto,
        None => guest_crypto(changes)?,
    };
    let field = field(changes, user, selector, crypto)?;
    let changed = text::with_lines(&shadow, |line| {
        is_of(line, user).then(|| {
            let mut fields: Vec<_> = line.split(|&byte| byte == b':').map(<[u8]>::to_vec).collect();
            if let Some(old) = fields.get_mut(1) {
                *old = field.clone().into_bytes();
            }
            fields.join(&b':')
        })
    });
    changes.write_file(b"/etc/shadow", &changed)
}

fn is_of(line: &[u8], user: &str) -> bool {
    line.strip_prefix(user.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

/// The second field of the line in `/etc/shadow`.
fn field(changes: &mut Changes<'_>, user: &str, selector: &PasswordSelector, crypto: PasswordCrypto) -> Result<String> {
    let password = match selector {
        PasswordSelector::Text(text) => text.clone().into_bytes(),
        PasswordSelector::File(path) => {
            let text = copy::read_local(path)?;
            text::lines(&text).next().map(text::without_end).unwrap_or_default().to_vec()
        }
        PasswordSelector::Random => {
            let password = password_hash::random_password().map_err(Error::Refused)?;
            changes.note(format!("the password of '{user}' is {password}"));
            password.into_bytes()
        }
        PasswordSelector::Disabled => return Ok("*".to_owned()),
        PasswordSelector::Locked(None) => return Ok("!!*".to_owned()),
        PasswordSelector::Locked(Some(inner)) => {
            return Ok(format!("!!{}", self::field(changes, user, inner, crypto)?));
        }
    };
    if password.contains(&0) {
        return refused("a password cannot hold a NUL");
    }
    password_hash::hash(&password, crypto).map_err(Error::Refused)
}

/// What the guest itself would use: PAM's word counts, then that of login.defs, and SHA-512 where neither says one of
/// ours.
fn guest_crypto(changes: &mut Changes<'_>) -> Result<PasswordCrypto> {
    for file in PAM {
        let text = changes.read_text(file.as_bytes())?.unwrap_or_default();
        for line in text::lines(&text) {
            let words: Vec<_> = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
            let is_password =
                words.first().is_some_and(|first| first.strip_prefix(b"-").unwrap_or(first) == b"password");
            if !is_password || !words.iter().any(|word| word.ends_with(b"pam_unix.so")) {
                continue;
            }
            let named = words.iter().find_map(|word| PasswordCrypto::parse(std::str::from_utf8(word).ok()?).ok());
            if let Some(crypto) = named {
                return Ok(crypto);
            }
        }
    }
    let definitions = changes.read_text(b"/etc/login.defs")?.unwrap_or_default();
    let method = text::lines(&definitions).find_map(|line| {
        let rest = line.trim_ascii_start().strip_prefix(b"ENCRYPT_METHOD")?;
        let method = std::str::from_utf8(rest).ok()?.trim().to_ascii_lowercase();
        PasswordCrypto::parse(&method).ok()
    });
    Ok(method.unwrap_or(PasswordCrypto::Sha512))
}

/// Where PAM says how a password is hashed when it is changed.
const PAM: &[&str] =
    &["/etc/pam.d/common-password", "/etc/pam.d/system-auth", "/etc/pam.d/password-auth", "/etc/pam.d/passwd"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read() {
        let parse = PasswordSelector::parse;
        assert_eq!(parse("password:a:b"), Ok(PasswordSelector::Text("a:b".to_owned())));
        assert_eq!(parse("locked:disabled"), Ok(PasswordSelector::Locked(Some(Box::new(PasswordSelector::Disabled)))));
        assert_eq!(parse("locked"), Ok(PasswordSelector::Locked(None)));
        for wrong in ["", "secret", "locked:locked", "file:", "random:x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(!parse("hunter2").unwrap_err().contains("hunter2"));
    }
}
