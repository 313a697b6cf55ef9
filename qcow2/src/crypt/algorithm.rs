//! The algorithms that a LUKS header names, with the names that QEMU's options have for them.

use std::str::FromStr;

use crate::{Error, Result};

/// A set of names, each of one value.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// The name that QEMU's options have for it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// # Errors
            /// [`Error::Unsupported`] for any other name.
            fn from_str(name: &str) -> Result<Self> {
                match name {
                    $($text => Ok(Self::$variant),)*
                    other => Err(Error::Unsupported(format!(concat!("the ", $what, " {:?}"), other))),
                }
            }
        }
    };
}

named! {
    /// A block cipher and the length of its key.
    CipherAlgorithm, "cipher", {
        /// AES with keys of 128 bits.
        Aes128 = "aes-128",
        /// AES with keys of 192 bits; with [`CipherMode::Xts`] only.
        Aes192 = "aes-192",
        /// AES with keys of 256 bits.
        Aes256 = "aes-256",
        /// Serpent with keys of 128 bits.
        Serpent128 = "serpent-128",
        /// Serpent with keys of 192 bits; with [`CipherMode::Xts`] only.
        Serpent192 = "serpent-192",
        /// Serpent with keys of 256 bits.
        Serpent256 = "serpent-256",
        /// Twofish with keys of 128 bits.
        Twofish128 = "twofish-128",
        /// Twofish with keys of 192 bits; with [`CipherMode::Xts`] only.
        Twofish192 = "twofish-192",
        /// Twofish with keys of 256 bits.
        Twofish256 = "twofish-256",
        /// CAST5 with keys of 128 bits, whose blocks have 64 bits: neither with [`CipherMode::Xts`] nor with
        /// [`IvGenerator::Essiv`].
        Cast5 = "cast5-128",
    }
}

named! {
    /// How the blocks of a sector are made to depend on their places.
    CipherMode, "cipher mode", {
        /// Each block by its place in the sector; the key is twice as long.
        Xts = "xts",
        /// Each block by the one before it. Only for images that others need so.
        Cbc = "cbc",
        /// Added to an encrypted counter. Who sees two states of an image learns what changed; only for images that exist.
        Ctr = "ctr",
        /// Not at all, so that the same is encrypted to the same everywhere. Only for images that exist.
        Ecb = "ecb",
    }
}

named! {
    /// How the initialization vector of a sector is made of its number.
    IvGenerator, "IV generator", {
        /// The number in 32 bits, which repeats after 2 TiB.
        Plain = "plain",
        /// The number in 64 bits.
        Plain64 = "plain64",
        /// The number, encrypted with a hash of the key.
        Essiv = "essiv",
    }
}

named! {
    /// A hash function, for PBKDF2 and the splitting of keys.
    HashAlgorithm, "hash", {
        /// MD5. Only for images that exist.
        Md5 = "md5",
        /// SHA-1.
        Sha1 = "sha1",
        /// SHA-224.
        Sha224 = "sha224",
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-384.
        Sha384 = "sha384",
        /// SHA-512.
        Sha512 = "sha512",
        /// RIPEMD-160.
        Ripemd160 = "ripemd160",
        /// SM3.
        Sm3 = "sm3",
    }
}

impl CipherAlgorithm {
    /// The header's `cipher-name`.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Aes128 | Self::Aes192 | Self::Aes256 => "aes",
            Self::Serpent128 | Self::Serpent192 | Self::Serpent256 => "serpent",
            Self::Twofish128 | Self::Twofish192 | Self::Twofish256 => "twofish",
            Self::Cast5 => "cast5",
        }
    }

    /// Bytes of one of its keys.
    fn key_len(self) -> usize {
        match self {
            Self::Aes128 | Self::Serpent128 | Self::Twofish128 | Self::Cast5 => 16,
            Self::Aes192 | Self::Serpent192 | Self::Twofish192 => 24,
            Self::Aes256 | Self::Serpent256 | Self::Twofish256 => 32,
        }
    }

    /// The cipher of the same kind with keys of so many bytes.
    pub(crate) fn with_key_len(self, bytes: usize) -> Option<Self> {
        let name = format!("{}-{}", self.family(), bytes * 8);
        name.parse().ok()
    }
}

/// A cipher as a LUKS header describes it: `aes`, `xts-plain64`, and how long the key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CipherSpec {
    pub(crate) algorithm: CipherAlgorithm,
    pub(crate) mode: CipherMode,
    pub(crate) iv: IvGenerator,
    /// The hash that makes the key of [`IvGenerator::Essiv`].
    pub(crate) iv_hash: HashAlgorithm,
}

impl CipherSpec {
    /// What a header's `cipher-name`, `cipher-mode` and `key-bytes` mean.
    pub(crate) fn parse(name: &str, mode: &str, key_len: u32) -> Result<Self> {
        let parts = Parts::of(name, mode, key_len);
        let mut iv_hash = HashAlgorithm::Sha256;
        let iv = parts.iv.parse()?;
        if iv == IvGenerator::Essiv {
            iv_hash = parts.iv_hash.unwrap_or("none").parse()?;
        }
        let spec = Self { algorithm: parts.algorithm.parse()?, mode: parts.mode.parse()?, iv, iv_hash };
        spec.check()?;
        Ok(spec)
    }

    /// Refuses what does not go together.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { algorithm, mode, iv, iv_hash } = *self;
        let small_blocks = algorithm == CipherAlgorithm::Cast5;
        if small_blocks && (mode == CipherMode::Xts || iv == IvGenerator::Essiv) {
            return Err(Error::Unsupported(format!("{} in {} mode", algorithm.name(), self.mode_name())));
        }
        if iv == IvGenerator::Essiv && algorithm.with_key_len(iv_hash.len()).is_none() {
            let (family, hash) = (algorithm.family(), iv_hash.name());
            return Err(Error::Unsupported(format!("the hash {hash:?} for IVs: no {family} has keys as long")));
        }
        Ok(())
    }

    /// Bytes of the master key.
    pub(crate) fn key_len(self) -> usize {
        let keys = if self.mode == CipherMode::Xts { 2 } else { 1 };
        keys * self.algorithm.key_len()
    }

    /// The header's `cipher-mode`.
    pub(crate) fn mode_name(self) -> String {
        let (mode, iv) = (self.mode.name(), self.iv.name());
        if self.iv == IvGenerator::Essiv {
            format!("{mode}-{iv}:{}", self.iv_hash.name())
        } else {
            format!("{mode}-{iv}")
        }
    }
}

/// The names in a header, told apart as QEMU reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// The cipher with the length of its key in bits.
    pub(crate) algorithm: String,
    pub(crate) mode: &'a str,
    pub(crate) iv: &'a str,
    pub(crate) iv_hash: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(name: &str, mode: &'a str, key_len: u32) -> Self {
        let (mode, iv) = mode.split_once('-').unwrap_or((mode, "plain"));
        let (iv, iv_hash) = match iv.split_once(':') {
            Some((iv, hash)) => (iv, Some(hash)),
            None => (iv, None),
        };
        // XTS takes two keys.
        let bits = u64::from(key_len) * if mode == "xts" { 4 } else { 8 };
        Self { algorithm: format!("{name}-{bits}"), mode, iv, iv_hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_understood_or_refused_by_name() {
        let spec = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
        assert_eq!((spec.algorithm, spec.mode), (CipherAlgorithm::Aes256, CipherMode::Xts));
        assert_eq!((spec.iv, spec.key_len()), (IvGenerator::Plain64, 64));
        let spec = CipherSpec::parse("aes", "cbc-essiv:sha256", 16).unwrap();
        assert_eq!((spec.algorithm, spec.mode_name().as_str()), (CipherAlgorithm::Aes128, "cbc-essiv:sha256"));
        for (name, mode, key_len, named) in [
            ("camellia", "xts-plain64", 64, "\"camellia-256\""),
            ("serpent", "xts-plain64", 40, "\"serpent-160\""),
            ("aes", "lrw-plain64", 32, "\"lrw\""),
            ("aes", "xts-benbi", 64, "\"benbi\""),
            ("aes", "cbc-essiv:sha1", 32, "\"sha1\""),
            ("aes", "cbc-essiv:whirlpool", 32, "\"whirlpool\""),
            ("aes", "cbc-essiv", 32, "\"none\""),
            ("aes", "xts-plain64", 63, "\"aes-252\""),
        ] {
            let error = CipherSpec::parse(name, mode, key_len).unwrap_err().to_string();
            assert!(error.starts_with("unsupported: the ") && error.contains(named), "{error}");
        }
        for (mode, key_len) in [("xts-plain64", 32), ("cbc-essiv:md5", 16)] {
            let error = CipherSpec::parse("cast5", mode, key_len).unwrap_err().to_string();
            assert!(error.contains(&format!("cast5-128 in {mode} mode")), "{error}");
        }
    }
}
