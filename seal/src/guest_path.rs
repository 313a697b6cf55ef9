//! A path of the guest, fit for a report.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path of the guest: bytes, absolute.
///
/// As text, and so in JSON, it stands as it is, but for two things: a backslash is written `\\`, and each byte of what
/// is not UTF-8, of a control character, or of a character that hides text or turns its direction is written `\xNN`
/// with two lower-case hexadecimal digits. [`GuestPath::from_text`] gets the bytes back, always.
///
/// ```
/// use seal::GuestPath;
///
/// let path = GuestPath::from(&b"/tmp/caf\xe9\n"[..]);
/// assert_eq!(path.to_string(), "/tmp/caf\\xe9\\x0a");
/// assert_eq!(GuestPath::from_text("/tmp/caf\\xe9\\x0a"), Some(path));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestPath(Vec<u8>);

impl GuestPath {
    /// The path itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path that is written so; `None` when a backslash begins neither `\\` nor `\xNN`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = match (first, tail) {
                (b'\\', [b'\\', tail @ ..]) => {
                    bytes.push(b'\\');
                    tail
                }
                (b'\\', [b'x', high, low, tail @ ..]) => {
                    bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
                    tail
                }
                (b'\\', _) => return None,
                (&byte, tail) => {
                    bytes.push(byte);
                    tail
                }
            };
        }
        Some(Self(bytes))
    }
}

impl From<Vec<u8>> for GuestPath {
    fn from(path: Vec<u8>) -> Self {
        Self(path)
    }
}

impl From<&[u8]> for GuestPath {
    fn from(path: &[u8]) -> Self {
        Self(path.to_vec())
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() || misleads(c) => escape(f, c.encode_utf8(&mut [0; 4]).as_bytes())?,
                    c => f.write_char(c)?,
                }
            }
            escape(f, chunk.invalid())?;
        }
        Ok(())
    }
}

impl fmt::Debug for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for GuestPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_text(&text).ok_or_else(|| serde::de::Error::custom("a backslash that begins neither \\\\ nor \\xNN"))
    }
}

/// Whether a terminal or an editor would show something other than what is there.
fn misleads(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let text = |bytes: &[u8]| GuestPath::from(bytes).to_string();
        assert_eq!(text("/home/\u{e4}".as_bytes()), "/home/\u{e4}");
        assert_eq!(text(b"/a\x1b[2J"), "/a\\x1b[2J");
        assert_eq!(text(b"/a\\x1b"), "/a\\\\x1b");
        assert_eq!(text("/\u{85}\u{202e}".as_bytes()), "/\\xc2\\x85\\xe2\\x80\\xae");
        assert_eq!(GuestPath::from_text("/a\\q"), None);
        assert_eq!(GuestPath::from_text("/a\\x1"), None);
        assert_eq!(GuestPath::from_text("/a\\xFF"), None);
    }

    proptest! {
        #[test]
        fn every_path_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let path = GuestPath::from(bytes);
            let text = path.to_string();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(GuestPath::from_text(&text), Some(path));
        }
    }
}
