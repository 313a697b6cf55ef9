//! Paths inside a guest: bytes, absolute, parts separated by `/`.

use crate::{Error, Result};

/// The longest path that is looked at, in bytes, and the longest that following links may make of it.
pub const MAX_PATH: usize = 64 << 10;
/// The deepest that a directory may lie below the root.
pub const MAX_DEPTH: usize = 4096;
/// The longest name of a file, in bytes.
pub const MAX_NAME: usize = 255;

/// The path for a message or a terminal: control characters and what is not UTF-8 are escaped, as are backslashes.
#[must_use]
pub fn display(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                // Also what would turn the direction of the text around, or hide it.
                c if c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
                {
                    text.extend(c.escape_default());
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The path with `name` below it.
#[must_use]
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    push(&mut joined, name);
    joined
}

/// Puts `name` below `path`.
pub(crate) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Takes the last name off a canonical path; the root stays the root.
pub(crate) fn pop(path: &mut Vec<u8>) {
    let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.truncate(slash.max(1));
}

/// The parts of a path between its slashes, without the empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Whether `path` is `top` or lies below it; both canonical.
pub(crate) fn is_within(path: &[u8], top: &[u8]) -> bool {
    top == b"/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Checks what every path has to be: absolute, of bounded length, without a NUL.
pub(crate) fn check(path: &[u8]) -> Result<()> {
    if path.len() > MAX_PATH {
        return Err(Error::PathTooLong);
    }
    if path.first() != Some(&b'/') {
        return Err(Error::InvalidPath("it is not absolute"));
    }
    if path.contains(&0) {
        return Err(Error::InvalidPath("it holds a NUL"));
    }
    Ok(())
}

/// Splits the path of something that is to be made, renamed or removed: its parent, and its name.
pub(crate) fn split_name(path: &[u8]) -> Result<(&[u8], &[u8])> {
    check(path)?;
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    let slash = path.iter().rposition(|&byte| byte == b'/').ok_or(Error::InvalidPath("it is the root"))?;
    let (parent, name) = (&path[..slash.max(1)], &path[slash + 1..]);
    match name {
        b"." | b".." => Err(Error::InvalidPath("it ends in . or ..")),
        name if name.len() > MAX_NAME => Err(Error::PathTooLong),
        name => Ok((parent, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_no_byte_that_a_terminal_would_act_on() {
        assert_eq!(display(b"/home/ann"), "/home/ann");
        assert_eq!(display("/home/\u{e4}".as_bytes()), "/home/\u{e4}");
        assert_eq!(display(b"/a\x1b[2J\n\\b\xff"), "/a\\u{1b}[2J\\n\\\\b\\xff");
        assert_eq!(display("/\u{202e}txt".as_bytes()), "/\\u{202e}txt");
    }

    #[test]
    fn the_last_name_is_split_off() {
        assert_eq!(split_name(b"/a/b").unwrap(), (&b"/a"[..], &b"b"[..]));
        assert_eq!(split_name(b"/a").unwrap(), (&b"/"[..], &b"a"[..]));
        assert_eq!(split_name(b"//a//b//").unwrap(), (&b"//a/"[..], &b"b"[..]));
        for bad in [&b"/"[..], b"//", b"", b"a/b", b"/a/.", b"/a/..", b"/a\0b"] {
            assert!(split_name(bad).is_err(), "{}", display(bad));
        }
    }

    #[test]
    fn within_compares_whole_names() {
        assert!(is_within(b"/a/b", b"/a"));
        assert!(is_within(b"/a", b"/a"));
        assert!(is_within(b"/a", b"/"));
        assert!(!is_within(b"/ab", b"/a"));
    }
}
