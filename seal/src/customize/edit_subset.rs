//! As much of Perl as `--edit` needs where the host has no perl.
//!
//! Statements are separated by `;`: `s/REGEX/REPLACEMENT/` with the flags `g` and `i` and any delimiter, `tr/a-z/A-Z/`
//! (also `y`), `$_ = 'TEXT'` and `$_ .= 'TEXT'`, each with `if` or `unless` and a guard: `/REGEX/`, `/REGEX/i`,
//! `$lineno == N` (or `!=`, `<`, `>`, `<=`, `>=`). A replacement may hold `$1` and `$&`.

use regex::bytes::{Captures, Regex, RegexBuilder};

use crate::text;

/// An expression of the subset.
#[derive(Debug)]
pub(super) struct Program(Vec<Statement>);

#[derive(Debug)]
struct Statement {
    action: Action,
    guard: Option<(bool, Guard)>,
}

#[derive(Debug)]
enum Action {
    Substitute { pattern: Pattern, replacement: Vec<Piece>, all: bool },
    Transliterate { map: Box<[u8; 256]> },
    Set(Vec<u8>),
    Append(Vec<u8>),
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Group(usize),
}

#[derive(Debug)]
enum Guard {
    Matches(Pattern),
    Line(&'static str, u64),
}

/// A regular expression that is matched against a line without its end, where Perl's `$` matches, too.
#[derive(Debug)]
struct Pattern(Regex);

impl Pattern {
    fn new(source: &str, ignore_case: bool) -> Result<Self, String> {
        // What can match a line end would match it in Perl, and cannot here.
        for wide in ["\\n", "\\s", "\\W", "\\D", "\\R", "\\z", "\\Z", "[^"] {
            if source.contains(wide) {
                return Err(format!("'{wide}' in a regular expression needs perl"));
            }
        }
        if source.contains("$_") || source.contains("@{") || source.contains("(?{") {
            return Err("variables in a regular expression need perl".to_owned());
        }
        let regex = RegexBuilder::new(source).case_insensitive(ignore_case).unicode(false).build();
        regex.map(Self).map_err(|error| format!("this regular expression needs perl: {error}"))
    }
}

impl Program {
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        let mut rest = source.trim_start();
        let mut statements = Vec::new();
        while !rest.is_empty() {
            let (action, after) = parse_action(rest)?;
            let (guard, after) = parse_guard(after.trim_start())?;
            statements.push(Statement { action, guard });
            let after = after.trim_start();
            rest = match after.strip_prefix(';') {
                Some(next) => next.trim_start(),
                None if after.is_empty() => after,
                None => return Err(format!("'{after}' needs perl")),
            };
        }
        if statements.is_empty() { Err("the expression is empty".to_owned()) } else { Ok(Self(statements)) }
    }

    pub(super) fn run(&self, text: &[u8]) -> Vec<u8> {
        let mut result = Vec::with_capacity(text.len());
        for (index, line) in text::lines(text).enumerate() {
            let mut line = line.to_vec();
            for statement in &self.0 {
                let applies = match &statement.guard {
                    None => true,
                    Some((wanted, guard)) => guard.holds(&line, index as u64 + 1) == *wanted,
                };
                if applies {
                    statement.action.apply(&mut line);
                }
            }
            result.extend_from_slice(&line);
        }
        result
    }
}

fn split_end(line: &[u8]) -> (&[u8], &[u8]) {
    line.strip_suffix(b"\n").map_or((line, &[]), |content| (content, b"\n"))
}

impl Guard {
    fn holds(&self, line: &[u8], number: u64) -> bool {
        match self {
            Self::Matches(pattern) => pattern.0.is_match(split_end(line).0),
            Self::Line("==", wanted) => number == *wanted,
            Self::Line("!=", wanted) => number != *wanted,
            Self::Line("<=", wanted) => number <= *wanted,
            Self::Line(">=", wanted) => number >= *wanted,
            Self::Line("<", wanted) => number < *wanted,
            Self::Line(_, wanted) => number > *wanted,
        }
    }
}

impl Action {
    fn apply(&self, line: &mut Vec<u8>) {
        match self {
            Self::Set(text) => line.clone_from(text),
            Self::Append(text) => line.extend_from_slice(text),
            Self::Transliterate { map } => line.iter_mut().for_each(|byte| *byte = map[usize::from(*byte)]),
            Self::Substitute { pattern, replacement, all } => {
                let (content, end) = split_end(line);
                let replace = |found: &Captures<'_>| expand(replacement, found);
                let limit = if *all { 0 } else { 1 };
                let mut changed = pattern.0.replacen(content, limit, replace).into_owned();
                changed.extend_from_slice(end);
                *line = changed;
            }
        }
    }
}

fn expand(replacement: &[Piece], found: &Captures<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    for piece in replacement {
        match piece {
            Piece::Text(piece) => text.extend_from_slice(piece),
            Piece::Group(group) => text.extend_from_slice(found.get(*group).map_or(b"", |group| group.as_bytes())),
        }
    }
    text
}

fn parse_action(source: &str) -> Result<(Action, &str), String> {
    for name in ["tr", "y", "s"] {
        let Some(rest) = source.strip_prefix(name) else { continue };
        let Some(delimiter) = rest.chars().next().filter(|c| c.is_ascii_punctuation() && *c != '_') else { continue };
        let (first, rest) = quoted(rest)?;
        let (second, rest) = if closing(delimiter) == delimiter {
            // One delimiter stands between the two.
            quoted_after(rest, delimiter)?
        } else {
            quoted(rest.trim_start())?
        };
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (flags, rest) = rest.split_at(end);
        if name == "s" {
            if let Some(flag) = flags.chars().find(|flag| !matches!(flag, 'g' | 'i')) {
                return Err(format!("the flag '{flag}' needs perl"));
            }
            let pattern = Pattern::new(&first, flags.contains('i'))?;
            let replacement = parse_replacement(&second)?;
            return Ok((Action::Substitute { pattern, replacement, all: flags.contains('g') }, rest));
        }
        if !flags.is_empty() {
            return Err(format!("the flags '{flags}' need perl"));
        }
        return Ok((Action::Transliterate { map: transliteration(&first, &second)? }, rest));
    }
    let assigned = source.strip_prefix("$_").map(str::trim_start);
    if let Some(rest) = assigned.and_then(|rest| rest.strip_prefix(".=")) {
        let (text, rest) = string(rest.trim_start())?;
        return Ok((Action::Append(text), rest));
    }
    if let Some(rest) = assigned.and_then(|rest| rest.strip_prefix('=')).filter(|rest| !rest.starts_with(['=', '~'])) {
        let (text, rest) = string(rest.trim_start())?;
        return Ok((Action::Set(text), rest));
    }
    Err(format!("'{source}' needs perl"))
}

type ParsedGuard<'a> = (Option<(bool, Guard)>, &'a str);

fn parse_guard(source: &str) -> Result<ParsedGuard<'_>, String> {
    let (wanted, rest) = if let Some(rest) = source.strip_prefix("if ") {
        (true, rest.trim_start())
    } else if let Some(rest) = source.strip_prefix("unless ") {
        (false, rest.trim_start())
    } else {
        return Ok((None, source));
    };
    if rest.starts_with('/') {
        let (pattern, rest) = quoted(rest)?;
        let (ignore_case, rest) = rest.strip_prefix('i').map_or((false, rest), |rest| (true, rest));
        return Ok((Some((wanted, Guard::Matches(Pattern::new(&pattern, ignore_case)?))), rest));
    }
    if let Some(rest) = rest.strip_prefix("$lineno").map(str::trim_start) {
        for operator in ["==", "!=", "<=", ">=", "<", ">"] {
            let Some(rest) = rest.strip_prefix(operator).map(str::trim_start) else { continue };
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, rest) = rest.split_at(end);
            let number = number.parse().map_err(|_| "the line number is missing".to_owned())?;
            return Ok((Some((wanted, Guard::Line(operator, number))), rest));
        }
    }
    Err(format!("the condition '{rest}' needs perl"))
}

const fn closing(delimiter: char) -> char {
    match delimiter {
        '(' => ')',
        '[' => ']',
        '{' => '}',
        '<' => '>',
        other => other,
    }
}

/// What stands between the delimiter that the source begins with and its end.
fn quoted(source: &str) -> Result<(String, &str), String> {
    let mut chars = source.chars();
    let delimiter = chars.next().ok_or("a delimiter is missing")?;
    quoted_after(chars.as_str(), closing(delimiter))
}

fn quoted_after(source: &str, end: char) -> Result<(String, &str), String> {
    let mut text = String::new();
    let mut chars = source.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == end {
            return Ok((text, source.get(at + c.len_utf8()..).unwrap_or_default()));
        }
        text.push(c);
        if c == '\\'
            && let Some((_, escaped)) = chars.next()
        {
            if escaped == end {
                text.pop();
            }
            text.push(escaped);
        }
    }
    Err(format!("a closing '{end}' is missing"))
}

/// A string in quotes.
fn string(source: &str) -> Result<(Vec<u8>, &str), String> {
    let quote = source.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a quoted string is missing")?;
    let (text, rest) = quoted(source)?;
    if quote == '\'' {
        return Ok((text.into_bytes(), rest));
    }
    let mut bytes = Vec::new();
    for piece in parse_replacement(&text)? {
        match piece {
            Piece::Text(text) => bytes.extend(text),
            Piece::Group(_) => return Err("variables in a string need perl".to_owned()),
        }
    }
    Ok((bytes, rest))
}

/// The text of a replacement, with `\n`, `\t` and `$1`.
fn parse_replacement(source: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = vec![Piece::Text(Vec::new())];
    let push = |pieces: &mut Vec<Piece>, c: char| {
        if !matches!(pieces.last(), Some(Piece::Text(_))) {
            pieces.push(Piece::Text(Vec::new()));
        }
        if let Some(Piece::Text(text)) = pieces.last_mut() {
            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    };
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => push(&mut pieces, '\n'),
                Some('t') => push(&mut pieces, '\t'),
                Some(digit @ '1'..='9') => pieces.push(Piece::Group(digit as usize - '0' as usize)),
                Some(c) if !c.is_ascii_alphanumeric() => push(&mut pieces, c),
                _ => return Err("an escape in the replacement needs perl".to_owned()),
            },
            '$' => match chars.next() {
                Some(digit @ '1'..='9') if !chars.peek().is_some_and(char::is_ascii_digit) => {
                    pieces.push(Piece::Group(digit as usize - '0' as usize));
                }
                Some('&') => pieces.push(Piece::Group(0)),
                _ => return Err("variables in the replacement need perl".to_owned()),
            },
            '@' if chars.peek().is_some_and(|next| next.is_alphabetic() || *next == '_') => {
                return Err("arrays in the replacement need perl".to_owned());
            }
            c => push(&mut pieces, c),
        }
    }
    Ok(pieces)
}

fn transliteration(from: &str, to: &str) -> Result<Box<[u8; 256]>, String> {
    let (from, to) = (ranges(from)?, ranges(to)?);
    let last = *to.last().ok_or("tr without a second list needs perl")?;
    let mut map = Box::new([0; 256]);
    for byte in 0..=255_u8 {
        map[usize::from(byte)] = byte;
    }
    // The first of two for one character counts.
    for (index, &byte) in from.iter().enumerate().rev() {
        map[usize::from(byte)] = to.get(index).copied().unwrap_or(last);
    }
    Ok(map)
}

fn ranges(list: &str) -> Result<Vec<u8>, String> {
    if !list.is_ascii() || list.contains('\\') {
        return Err("this tr needs perl".to_owned());
    }
    let bytes = list.as_bytes();
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(&first) = bytes.get(at) {
        match bytes.get(at + 1..at + 3) {
            Some(&[b'-', last]) => {
                all.extend(first..=last);
                at += 3;
            }
            _ => {
                all.push(first);
                at += 1;
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::Program;

    #[test]
    fn what_is_beyond_the_subset_is_refused() {
        for source in [
            "",
            "print 1",
            "s/a/b/e",
            "s/a",
            "s/\\s+$//",
            "s/a/$h{x}/",
            "$x = 1",
            "s/a/b/ if $y",
            "tr/a//d",
            "s/a/b/ and 1",
        ] {
            assert!(Program::parse(source).is_err(), "{source}");
        }
    }
}
