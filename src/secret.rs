//! Passphrases of encrypted images: where they come from, and which image each is for.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use qcow2::{LuksOptions, OpenOptions, Secret};

use crate::exit_code::Usage;

/// A passphrase has no more bytes; QEMU takes 16 MiB, which nobody types.
const MAX_LEN: u64 = 1 << 20;

/// The passphrase in a file: all of its bytes, as for QEMU and cryptsetup.
pub(crate) fn from_file(path: &Path) -> Result<Secret> {
    let reading = || format!("cannot read the passphrase in {}", path.display());
    let file = std::fs::File::open(path).with_context(reading)?;
    let mut bytes = Vec::with_capacity(4096);
    let read = file.take(MAX_LEN + 1).read_to_end(&mut bytes).with_context(reading);
    // From here on the bytes are overwritten when they are dropped.
    let secret = Secret::new(bytes);
    if read? as u64 > MAX_LEN {
        anyhow::bail!("{}: it has more than {MAX_LEN} bytes", reading());
    }
    Ok(secret)
}

/// What `--object secret,id=...` names.
#[derive(Debug, Default)]
pub(crate) struct Secrets(Vec<(String, Secret)>);

impl Secrets {
    /// Reads the values of `--object`, with QEMU's names: `secret,id=ID,file=FILE`, or `data=PASSPHRASE`.
    pub(crate) fn read(objects: &[String]) -> Result<Self> {
        objects.iter().map(|object| Self::read_one(object)).collect::<Result<_>>().map(Self)
    }

    fn read_one(object: &str) -> Result<(String, Secret)> {
        let (mut id, mut secret) = (None, None);
        let mut parts = split_options(object).into_iter();
        if !matches!(parts.next(), Some((kind, None)) if kind == "secret") {
            return Err(Usage("--object takes secrets only: secret,id=ID,file=FILE".to_owned()).into());
        }
        for (name, value) in parts {
            let value = value.unwrap_or_default();
            match name.as_str() {
                "id" => id = Some(value),
                "file" => secret = Some(from_file(Path::new(&value))?),
                "data" => secret = Some(Secret::new(value.into_bytes())),
                "format" if value == "raw" => {}
                "format" => return Err(Usage(format!("a secret cannot have the format {value:?}")).into()),
                _ => return Err(Usage(format!("a secret has no {name}: it has id, file, data and format")).into()),
            }
        }
        id.zip(secret).ok_or_else(|| Usage("a secret needs id and file (or data)".to_owned()).into())
    }

    /// The secret of an ID.
    pub(crate) fn get(&self, id: &str) -> Result<Secret> {
        let found = self.0.iter().find(|(known, _)| known == id).map(|(_, secret)| secret.clone());
        found.ok_or_else(|| Usage(format!("there is no --object secret with id={id}")).into())
    }
}

/// The passphrases of an image and of its backing files, by depth.
#[derive(Debug, Clone, Default)]
pub(crate) struct Passphrases(Vec<(usize, Secret)>);

impl Passphrases {
    /// Those in these files: the image's own first, then its backing file's, and so on.
    pub(crate) fn from_files<'a>(paths: impl IntoIterator<Item = &'a std::path::PathBuf>) -> Result<Self> {
        paths
            .into_iter()
            .enumerate()
            .map(|(depth, path)| Ok((depth, from_file(path)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    pub(crate) fn add(&mut self, depth: usize, secret: Secret) {
        self.0.push((depth, secret));
    }

    /// Those of the backing file at a depth, and of what is behind it.
    pub(crate) fn below(&self, depth: usize) -> Self {
        Self(self.0.iter().filter_map(|(at, secret)| Some((at.checked_sub(depth)?, secret.clone()))).collect())
    }

    /// Puts them where images are opened.
    pub(crate) fn give(&self, options: OpenOptions) -> OpenOptions {
        self.0.iter().fold(options, |options, (depth, secret)| options.backing_passphrase(*depth, secret.clone()))
    }
}

/// What `-o encrypt.NAME=VALUE` says of a new image.
#[derive(Debug, Default)]
pub(crate) struct EncryptOptions {
    luks: bool,
    given: Vec<(String, String)>,
}

impl EncryptOptions {
    /// Takes an option whose name starts with `encrypt.`, given without that.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<()> {
        match (name, value) {
            ("format", "luks") => self.luks = true,
            ("format", other) => return Err(Usage(format!("images cannot be encrypted with {other:?}")).into()),
            _ => self.given.push((name.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    /// The passphrase that is named, if one is.
    pub(crate) fn passphrase(&self, secrets: &Secrets) -> Result<Option<Secret>> {
        let id = self.given.iter().find(|(name, _)| name == "key-secret").map(|(_, id)| id);
        id.filter(|_| self.luks).map(|id| secrets.get(id)).transpose()
    }

    /// How the new image is to be encrypted.
    pub(crate) fn finish(self, secrets: &Secrets) -> Result<Option<LuksOptions>> {
        if !self.luks {
            return match self.given.first() {
                Some((name, _)) => Err(Usage(format!("option encrypt.{name} needs encrypt.format=luks")).into()),
                None => Ok(None),
            };
        }
        let Some((_, id)) = self.given.iter().find(|(name, _)| name == "key-secret") else {
            return Err(Usage("an encrypted image needs encrypt.key-secret".to_owned()).into());
        };
        let mut luks = LuksOptions::new(secrets.get(id)?);
        for (name, value) in &self.given {
            luks = match name.as_str() {
                "key-secret" => luks,
                "cipher-alg" => luks.cipher(value.parse()?),
                "cipher-mode" => luks.mode(value.parse()?),
                "ivgen-alg" => luks.iv_generator(value.parse()?),
                "ivgen-hash-alg" => luks.iv_hash(value.parse()?),
                "hash-alg" => luks.hash(value.parse()?),
                "iter-time" => {
                    let wrong = || Usage(format!("option encrypt.iter-time cannot be {value:?}"));
                    let milliseconds = value.parse().ok().filter(|&time: &u64| time > 0).ok_or_else(wrong)?;
                    luks.iter_time(std::time::Duration::from_millis(milliseconds))
                }
                _ => return Err(Usage(format!("there is no option encrypt.{name}")).into()),
            };
        }
        Ok(Some(luks))
    }
}

/// Splits `name=value,name=value`; two commas are one that belongs to the value.
pub(crate) fn split_options(text: &str) -> Vec<(String, Option<String>)> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let split = |part: String| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (part, None),
    };
    parts.into_iter().map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_as_qemu_splits_them() {
        let split = split_options("secret,id=a,data=b,,c=d,,,,e");
        let expect = [("secret", None), ("id", Some("a")), ("data", Some("b,c=d,,e"))];
        let expect = expect.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        assert_eq!(split, expect);
    }

    #[test]
    fn secrets_are_found_by_their_id() {
        let secrets = Secrets::read(&["secret,id=a,data=x".to_owned(), "secret,data=y,id=b".to_owned()]).unwrap();
        assert!(secrets.get("a").is_ok() && secrets.get("b").is_ok());
        assert!(secrets.get("c").unwrap_err().is::<Usage>());
        for wrong in
            ["iothread,id=a", "secret,id=a", "secret,data=x", "secret,id=a,data=x,format=base64", "secret,id=a,x=y"]
        {
            assert!(Secrets::read(&[wrong.to_owned()]).unwrap_err().is::<Usage>(), "{wrong}");
        }
    }
}
