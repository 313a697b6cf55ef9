//! Matching one name against one part of a pattern, as fnmatch(3) does with `FNM_PERIOD`, byte by byte.

/// A part of a pattern, between two slashes.
#[derive(Debug)]
pub(super) enum Part {
    /// A name: nothing to match.
    Plain(Vec<u8>),
    /// Something to match.
    Pattern(Pattern),
}

/// A part with something to match.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug)]
enum Token {
    Byte(u8),
    Any,
    Star,
    /// Which bytes match.
    Set(Box<[bool; 256]>),
}

impl Part {
    pub(super) fn new(text: &[u8]) -> Self {
        let tokens = tokens(text);
        let bytes: Option<Vec<u8>> = tokens
            .iter()
            .map(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            })
            .collect();
        bytes.map_or(Self::Pattern(Pattern { tokens }), Self::Plain)
    }
}

fn tokens(text: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        tokens.push(match byte {
            b'?' => Token::Any,
            b'*' if matches!(tokens.last(), Some(Token::Star)) => continue,
            b'*' => Token::Star,
            b'[' => match set(&text[at..]) {
                Some((set, len)) => {
                    at += len;
                    Token::Set(set)
                }
                // Without its end it is a bracket.
                None => Token::Byte(b'['),
            },
            b'\\' => match text.get(at) {
                Some(&escaped) => {
                    at += 1;
                    Token::Byte(escaped)
                }
                None => Token::Byte(b'\\'),
            },
            byte => Token::Byte(byte),
        });
    }
    tokens
}

/// The set that a bracket expression means, and its length after the opening bracket.
fn set(text: &[u8]) -> Option<(Box<[bool; 256]>, usize)> {
    let mut set = Box::new([false; 256]);
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let first = usize::from(negated);
    let mut at = first;
    loop {
        let &byte = text.get(at)?;
        if byte == b']' && at > first {
            break;
        }
        if byte == b'['
            && text.get(at + 1) == Some(&b':')
            && let Some((class, len)) = class(&text[at + 2..])
        {
            (0..=255_u8).filter(class).for_each(|byte| set[usize::from(byte)] = true);
            at += 2 + len;
            continue;
        }
        let (low, next) = set_byte(text, at)?;
        at = next;
        // A hyphen at the end stands for itself.
        if text.get(at) == Some(&b'-') && text.get(at + 1).is_some_and(|&byte| byte != b']') {
            let (high, next) = set_byte(text, at + 1)?;
            at = next;
            (low..=high).for_each(|byte| set[usize::from(byte)] = true);
        } else {
            set[usize::from(low)] = true;
        }
    }
    if negated {
        set.iter_mut().for_each(|matches| *matches = !*matches);
    }
    Some((set, at + 1))
}

/// One byte in a bracket expression, and where the next is.
fn set_byte(text: &[u8], at: usize) -> Option<(u8, usize)> {
    match text.get(at)? {
        b'\\' => Some((*text.get(at + 1)?, at + 2)),
        &byte => Some((byte, at + 1)),
    }
}

/// Which bytes are of a class.
type Class = fn(&u8) -> bool;

/// The class that is named before `:]`, and the length of both.
fn class(text: &[u8]) -> Option<(Class, usize)> {
    let end = text.windows(2).position(|two| two == b":]")?;
    let class: Class = match &text[..end] {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    };
    Some((class, end + 2))
}

impl Pattern {
    /// Whether a name matches. A leading dot is matched by a dot only.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        if name.first() == Some(&b'.') && !matches!(self.tokens.first(), Some(Token::Byte(b'.'))) {
            return false;
        }
        let (mut token, mut at) = (0, 0);
        // Where to go on when the last star has to take one byte more. Earlier stars never need to.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let step = match (self.tokens.get(token), name.get(at)) {
                (None, None) => return true,
                (Some(Token::Star), _) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                (Some(Token::Any), Some(_)) => true,
                (Some(Token::Byte(byte)), Some(found)) => byte == found,
                (Some(Token::Set(set)), Some(&found)) => set[usize::from(found)],
                _ => false,
            };
            if step {
                (token, at) = (token + 1, at + 1);
                continue;
            }
            match &mut retry {
                Some((after_star, taken)) if *taken < name.len() => {
                    *taken += 1;
                    (token, at) = (*after_star, *taken);
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Part;

    fn matches(pattern: &str, name: &str) -> bool {
        match Part::new(pattern.as_bytes()) {
            Part::Plain(plain) => plain == name.as_bytes(),
            Part::Pattern(pattern) => pattern.matches(name.as_bytes()),
        }
    }

    #[test]
    fn stars_backtrack_without_exploding() {
        assert!(matches("*a*b*c", "xaxbxbxc"));
        assert!(!matches("*a*b*c", "xaxcxb"));
        let name = "a".repeat(255);
        assert!(!matches(&"a*".repeat(100), &name.replace('a', "b")));
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &name));
    }

    #[test]
    fn plain_parts_are_known() {
        assert!(matches!(Part::new(b"a\\*b"), Part::Plain(name) if name == b"a*b"));
        assert!(matches!(Part::new(b"a[b"), Part::Plain(name) if name == b"a[b"));
        assert!(matches!(Part::new(b"a?"), Part::Pattern(_)));
    }
}
