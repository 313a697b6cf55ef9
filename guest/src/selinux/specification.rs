//! One line of `file_contexts` (selabel_file(5)): a pattern, perhaps a kind of file, and the label.

use regex::bytes::{Regex, RegexBuilder};

use crate::FileKind;

/// A compiled pattern takes no more than this; that of a real policy takes a few KiB.
const MAX_COMPILED: usize = 256 << 10;

/// A pattern of paths, the kind of file that it is for, and the label.
#[derive(Debug)]
pub(super) struct Specification {
    /// A regular expression, anchored at both ends.
    pattern: Box<str>,
    /// What every path that matches begins with.
    prefix: Box<[u8]>,
    kind: Option<FileKind>,
    /// `None` for `<<none>>`: nothing is labelled.
    pub(super) label: Option<Box<[u8]>>,
    /// Whether the pattern is a plain path. Those come before all others.
    pub(super) is_exact: bool,
}

impl Specification {
    /// Reads a line; `None` where it is empty, a comment, or nothing that can be understood.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let pattern = words.next().filter(|word| !word.starts_with(b"#"))?;
        let (second, third) = (words.next()?, words.next());
        let (kind, label) = match third {
            Some(label) => (Some(kind(second)?), label),
            None => (None, second),
        };
        let pattern = std::str::from_utf8(pattern).ok()?;
        let (prefix, is_exact) = literal_prefix(pattern.as_bytes());
        let label = (label != b"<<none>>").then(|| label.into());
        Some(Self { pattern: pattern.into(), prefix: prefix.into(), kind, label, is_exact })
    }

    /// Whether it may match, as far as can be said without the pattern.
    pub(super) fn may_match(&self, path: &[u8], kind: FileKind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && path.starts_with(&self.prefix)
            && (!self.is_exact || path.len() == self.prefix.len())
    }

    /// The pattern, ready to be matched. `None` where it uses what our expressions do not know, which policies do not.
    pub(super) fn compile(&self) -> Option<Regex> {
        // As PCRE without UTF: bytes, and `.` takes a line feed, too.
        RegexBuilder::new(&format!("^(?:{})$", self.pattern))
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_COMPILED)
            .build()
            .ok()
    }
}

fn kind(word: &[u8]) -> Option<FileKind> {
    Some(match word {
        b"--" => FileKind::File,
        b"-d" => FileKind::Directory,
        b"-l" => FileKind::Symlink,
        b"-c" => FileKind::CharDevice,
        b"-b" => FileKind::BlockDevice,
        b"-p" => FileKind::Fifo,
        b"-s" => FileKind::Socket,
        _ => return None,
    })
}

/// The bytes that all matches begin with, and whether they are the whole pattern.
fn literal_prefix(pattern: &[u8]) -> (Vec<u8>, bool) {
    let mut prefix = Vec::new();
    let mut bytes = pattern.iter().copied().peekable();
    let mut is_exact = true;
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            // A letter or digit after it makes a class.
            b'\\' => bytes.next().filter(|byte| !byte.is_ascii_alphanumeric()),
            b'.' | b'^' | b'$' | b'?' | b'*' | b'+' | b'|' | b'[' | b'(' | b'{' => None,
            byte => Some(byte),
        };
        let Some(literal) = literal else {
            is_exact = false;
            break;
        };
        if matches!(bytes.peek(), Some(b'?' | b'*' | b'{')) {
            is_exact = false;
            break;
        }
        prefix.push(literal);
    }
    // Of alternatives outside parentheses each may begin as it likes.
    if has_outer_alternatives(pattern) {
        prefix.clear();
    }
    (prefix, is_exact)
}

fn has_outer_alternatives(pattern: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut escaped = false;
    for byte in pattern {
        match byte {
            _ if escaped => {
                escaped = false;
                continue;
            }
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literal_part_comes_before_the_first_operator() {
        for (pattern, prefix, exact) in [
            ("/etc/passwd", "/etc/passwd", true),
            (r"/etc/resolv\.conf", "/etc/resolv.conf", true),
            (r"/etc/resolv\.conf.*", "/etc/resolv.conf", false),
            ("/usr/man?/x", "/usr/ma", false),
            ("/usr/lib(64)?/x", "/usr/lib", false),
            (r"/a\d", "/a", false),
            ("/a|/b", "", false),
            ("/a(b|c)", "/a", false),
        ] {
            let (found, is_exact) = literal_prefix(pattern.as_bytes());
            assert_eq!((String::from_utf8(found).unwrap().as_str(), is_exact), (prefix, exact), "{pattern}");
        }
    }

    #[test]
    fn lines_have_two_or_three_words() {
        let line = Specification::parse(b"/etc/x\t--\tsystem_u:object_r:x_t:s0").unwrap();
        assert!(line.may_match(b"/etc/x", FileKind::File) && !line.may_match(b"/etc/x", FileKind::Directory));
        assert!(Specification::parse(b"/run/.*  <<none>>").unwrap().label.is_none());
        for bad in [&b""[..], b"  # comment here", b"/only", b"/x -q label", b"/\xff label"] {
            assert!(Specification::parse(bad).is_none());
        }
    }
}
