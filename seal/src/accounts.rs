//! The guest's account files: `/etc/passwd` and those with the same shape.

use crate::text;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: &'a [u8],
}

impl<'a> Account<'a> {
    /// Reads a line; `None` for a comment, a NIS line, or what is no account.
    pub(crate) fn decode(line: &'a [u8]) -> Option<Self> {
        let mut fields = text::without_end(line).split(|&byte| byte == b':');
        let name = fields.next().filter(|name| !matches!(name.first(), None | Some(b'#' | b'+' | b'-')))?;
        let uid = decode_id(fields.nth(1)?)?;
        let gid = decode_id(fields.next()?)?;
        let home = fields.nth(1)?;
        Some(Self { name, uid, gid, home })
    }

    /// The accounts in a file.
    pub(crate) fn all(passwd: &'a [u8]) -> impl Iterator<Item = Self> {
        text::lines(passwd).filter_map(Self::decode)
    }

    /// Whether its home is a path that can be looked at.
    pub(crate) fn has_home(&self) -> bool {
        self.home.starts_with(b"/") && !self.home.contains(&0) && self.home.len() <= MAX_HOME
    }
}

/// A user or group number.
pub(crate) fn decode_id(digits: &[u8]) -> Option<u32> {
    // `parse` would take a sign.
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// The longest path that Linux takes.
const MAX_HOME: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_account_or_nothing() {
        let ann = Account { name: b"ann", uid: 1000, gid: 100, home: b"/home/ann" };
        assert_eq!(Account::decode(b"ann:x:1000:100:Ann,,,:/home/ann:/bin/sh\n"), Some(ann.clone()));
        assert_eq!(Account::decode(b"ann:x:1000:100::/home/ann\r\n"), Some(ann));
        for bad in ["", "#ann:x:1:1::/:", "+::0:0:::", "ann:x:-1:0::/:", "ann:x:1:1", "ann:x:4294967296:1::/:", "ann"] {
            assert_eq!(Account::decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
