//! What tells a removed file when it is met again: a few bytes of it that nothing else would hold by chance.

use std::collections::HashSet;

use guest::{FileKind, Metadata, Walk};

use crate::changes::Changes;
use crate::{GuestPath, Result, text};

/// Bytes of something that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What they were in.
    pub path: GuestPath,
    /// The bytes, 16 to 32 of them; a MAC address has 17.
    pub bytes: Vec<u8>,
}

/// The traces of a run.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    list: Vec<Trace>,
    known: HashSet<Vec<u8>>,
}

impl Traces {
    pub(crate) fn into_list(self) -> Vec<Trace> {
        self.list
    }

    fn has_room(&self) -> bool {
        self.list.len() < MAX_TRACES
    }

    fn add(&mut self, path: &[u8], bytes: &[u8]) {
        if self.has_room() && self.known.insert(bytes.to_vec()) {
            self.list.push(Trace { path: path.into(), bytes: bytes.to_vec() });
        }
    }

    /// The start of a file that goes.
    pub(crate) fn add_contents(&mut self, path: &[u8], start: &[u8]) {
        if is_binary(start) {
            if let Some(window) = distinctive_window(start) {
                self.add(path, window);
            }
            return;
        }
        for token in distinctive_tokens(start).into_iter().take(TOKENS_PER_FILE) {
            self.add(path, token);
            // A machine ID and the like is stored as bytes, too.
            if let Some(bytes) = decode_id(token) {
                self.add(path, &bytes);
            }
        }
    }

    /// An ID that something on the disk had.
    pub(crate) fn add_id(&mut self, of: &str, id: &str) {
        self.add(of.as_bytes(), id.as_bytes());
    }

    /// The lines that an edit takes out of a file.
    pub(crate) fn add_edit(&mut self, path: &[u8], old: &[u8], new: &[u8]) {
        let kept: HashSet<_> = text::lines(new).collect();
        for line in text::lines(old).filter(|line| !kept.contains(line)) {
            for token in mac_addresses(line).chain(distinctive_tokens(line)) {
                // The line may have stayed but for something else in it.
                if !text::holds(new, token) {
                    self.add(path, token);
                }
            }
        }
    }
}

/// What an operation took out of a file that stays, and put into it: masked, so that it can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The file.
    pub path: GuestPath,
    /// Lines that went.
    pub removed: Vec<String>,
    /// Lines that came.
    pub added: Vec<String>,
}

impl Edit {
    /// The difference of two texts, if they are texts and not too many lines differ.
    pub(crate) fn between(path: &[u8], old: &[u8], new: &[u8]) -> Option<Self> {
        if is_binary(old) || is_binary(new) {
            return None;
        }
        let (before, after): (HashSet<_>, HashSet<_>) = (text::lines(old).collect(), text::lines(new).collect());
        let only = |text: &[u8], other: &HashSet<&[u8]>| -> Vec<String> {
            let lines = text::lines(text).filter(|line| !other.contains(line)).take(MAX_LINES);
            lines.map(|line| masked(path, text::without_end(line))).collect()
        };
        Some(Self { path: path.into(), removed: only(old, &after), added: only(new, &before) })
    }
}

/// As many lines of an edit are shown.
const MAX_LINES: usize = 50;

/// A line with everything in it that may be secret replaced.
fn masked(path: &[u8], line: &[u8]) -> String {
    if path.ends_with(b"shadow") {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        return format!("{}:(masked)", GuestPath::from(name));
    }
    let mut text = GuestPath::from(line).to_string();
    for token in distinctive_tokens(line) {
        text = text.replace(&GuestPath::from(token).to_string(), "(masked)");
    }
    for word in ["password", "passwd", "secret", "token", "psk", "key"] {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = lower.find(word)
            && let Some(equals) = text.get(at..).and_then(|rest| rest.find(['=', ':']))
        {
            text.truncate(at + equals + 1);
            text.push_str("(masked)");
        }
    }
    text
}

/// More are not searched for.
const MAX_TRACES: usize = 4096;
/// As many say enough about one file.
const TOKENS_PER_FILE: usize = 4;
/// How much of a file is looked into.
const START: usize = 4096;
/// Where files come from a network, and are everybody's.
const PUBLIC: &[&[u8]] = &[b"/var/cache/", b"/var/lib/apt/lists/"];

impl Changes<'_> {
    /// Notes what tells a file that is about to go. What cannot be read is no error: it goes all the same.
    pub(crate) fn note_contents(&mut self, path: &[u8], metadata: &Metadata) {
        if metadata.kind != FileKind::File || metadata.size < 16 || !self.ledger().traces.has_room() {
            return;
        }
        if PUBLIC.iter().any(|top| path.starts_with(top)) {
            return;
        }
        let mut start = vec![0; START.min(usize::try_from(metadata.size).unwrap_or(START))];
        if let Ok(got) = self.guest().read_at(path, 0, &mut start) {
            self.ledger().traces.add_contents(path, start.get(..got).unwrap_or_default());
        }
    }

    /// As [`Changes::note_contents`] for every file below a directory.
    pub(crate) fn note_contents_below(&mut self, top: &[u8]) -> Result<()> {
        let mut files = Vec::new();
        let walked = self.guest().walk(top, &mut |path, metadata| {
            if metadata.kind == FileKind::File && files.len() < MAX_TRACES {
                files.push((path.to_vec(), metadata.clone()));
            }
            Ok(Walk::Continue)
        });
        walked.map_err(|source| self.failed(source))?;
        for (path, metadata) in &files {
            self.note_contents(path, metadata);
        }
        Ok(())
    }
}

fn is_binary(bytes: &[u8]) -> bool {
    let odd = bytes.iter().filter(|byte| !byte.is_ascii_graphic() && !byte.is_ascii_whitespace()).count();
    odd * 10 > bytes.len()
}

/// The first 32 bytes of a binary that hardly repeat.
fn distinctive_window(bytes: &[u8]) -> Option<&[u8]> {
    let varied = |window: &&[u8]| window.len() == 32 && window.iter().collect::<HashSet<_>>().len() >= 24;
    bytes.chunks(32).find(varied)
}

/// Words that look drawn by chance: keys, hashes, numbers and UUIDs. A long one is cut; of many like ones, those in the
/// middle come first, since keys begin with what all keys begin with.
fn distinctive_tokens(text: &[u8]) -> Vec<&[u8]> {
    let is_gap = |byte: &u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'.' | b'-' | b'_'));
    let mut tokens: Vec<_> = text.split(is_gap).filter_map(distinctive).collect();
    let middle = tokens.len() / 2;
    tokens.rotate_left(middle);
    tokens
}

fn distinctive(token: &[u8]) -> Option<&[u8]> {
    let count = |is: fn(&u8) -> bool| token.iter().filter(|byte| is(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let is_hex = |token: &[u8]| token.iter().all(u8::is_ascii_hexdigit);
    let is_id = (32..=128).contains(&token.len()) && is_hex(token) && digits >= 6;
    let is_uuid = token.len() == 36 && token.split(|&byte| byte == b'-').map(<[u8]>::len).eq([8, 4, 4, 4, 12]);
    let mixed = count(u8::is_ascii_uppercase) >= 5 && count(u8::is_ascii_lowercase) >= 5 && digits >= 3;
    let is_key = token.len() >= 40 && mixed && !token.starts_with(b"/");
    let plain = count(|byte| matches!(byte, b'/' | b'.' | b'-' | b'_')) == 0;
    let is_token = token.len() >= 20 && mixed && plain;
    // Keys begin alike, so what is searched for is of their middle.
    let start = if is_key { (token.len() - 32) / 2 } else { 0 };
    let cut = token.get(start..)?;
    let cut = cut.get(..32).filter(|_| !is_uuid).unwrap_or(cut);
    (is_id || is_uuid || is_key || is_token).then_some(cut)
}

fn mac_addresses(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| !(byte.is_ascii_hexdigit() || *byte == b':'))
        .filter(|word| word.len() == 17 && word.split(|&byte| byte == b':').map(<[u8]>::len).eq([2; 6]))
}

/// The 16 bytes that 32 hexadecimal digits stand for.
fn decode_id(token: &[u8]) -> Option<[u8; 16]> {
    let digits = std::str::from_utf8(token).ok().filter(|digits| digits.len() == 32)?;
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traces(contents: &[u8]) -> Vec<Vec<u8>> {
        let mut traces = Traces::default();
        traces.add_contents(b"/x", contents);
        traces.into_list().into_iter().map(|trace| trace.bytes).collect()
    }

    #[test]
    fn what_is_drawn_by_chance_is_told_from_what_is_not() {
        let id = b"5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b\n";
        assert_eq!(traces(id), [id[..32].to_vec(), 0x5d9b9a0c3f2e4d7a8b6c1e0f9a8d7c6b_u128.to_be_bytes().to_vec()]);
        let hash = "root:$6$OZtVJ0vRWtkbcDfz$Qk1Q0Zk3J8ZrYk1vT5bXw0aH2mS9dL4eN7uC6iR1gB8oP5xV3yF2qK9jW4tM7nE0zA6cD1hU8lI5sG3fO2pRw1:19000::";
        assert_eq!(traces(hash.as_bytes()).len(), 1);
        assert_eq!(traces(b"0d3c1b5e-9a77-4f2b-8c1d-5e6f7a8b9c0d").len(), 1);
        for common in [
            "linux-image-6.1.0-37-amd64 /usr/lib/modules/6.1.0-37-amd64/kernel",
            "2026-11-23T08:15:30.123456+00:00 debian kernel: Linux version",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "https://deb.debian.org/debian/dists/bookworm/InRelease",
        ] {
            assert_eq!(traces(common.as_bytes()), Vec::<Vec<u8>>::new(), "{common}");
        }
    }

    #[test]
    fn an_edit_leaves_traces_of_what_went() {
        let mut traces = Traces::default();
        traces.add_edit(b"/x", b"A=1\nHWADDR=52:54:00:12:34:56\n", b"A=1\n");
        assert_eq!(traces.into_list()[0].bytes, b"52:54:00:12:34:56");
    }
}
