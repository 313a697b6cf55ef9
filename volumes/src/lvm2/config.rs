//! The text in which LVM2 keeps its metadata: `key = value` and `section { ... }`, in order. lvm2 `libdm/libdm-config.c`.

use super::physical_volume::Corrupt;

/// How deep sections and lists may lie in each other; LVM2 needs 5.
const MAX_DEPTH: usize = 16;

/// What a key has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Integer(i64),
    /// A number with a fraction, as it is written. Nothing that we read is one.
    Float(String),
    Text(String),
    List(Vec<Self>),
    Section(Section),
}

/// Keys and what they have, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Section {
    entries: Vec<(String, Value)>,
    /// Places in `entries` in the order of the keys, none of which is there twice.
    by_key: Vec<usize>,
}

impl Section {
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        let found = self.by_key.binary_search_by(|at| self.entries[*at].0.as_str().cmp(key)).ok()?;
        Some(&self.entries[self.by_key[found]].1)
    }

    pub(crate) fn section(&self, key: &str) -> Option<&Self> {
        match self.get(key)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// The sections in this one, with their names.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (&str, &Self)> {
        self.entries.iter().filter_map(|(key, value)| match value {
            Value::Section(section) => Some((key.as_str(), section)),
            _ => None,
        })
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn list(&self, key: &str) -> &[Value] {
        match self.get(key) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Whether a list of words holds this one.
    pub(crate) fn lists(&self, key: &str, word: &str) -> bool {
        self.list(key).iter().any(|value| matches!(value, Value::Text(text) if text == word))
    }

    /// A number that has to be there and not negative.
    pub(crate) fn number(&self, key: &'static str) -> Result<u64, Corrupt> {
        match self.get(key) {
            Some(Value::Integer(number)) => {
                u64::try_from(*number).map_err(|_| Corrupt::new(format!("{key} is {number}, expected 0 or more")))
            }
            _ => Err(Corrupt::new(format!("there is no number {key}"))),
        }
    }
}

/// Parses a whole text.
pub(crate) fn parse(text: &[u8]) -> Result<Section, Corrupt> {
    let mut parser = Parser { text, at: 0 };
    let section = parser.section(0)?;
    match parser.peek() {
        None => Ok(section),
        Some(byte) => Err(parser.unexpected(byte)),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// The next byte that is neither blank nor comment. A NUL ends the text.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at).copied()? {
                0 => return None,
                b'#' => self.skip(|byte| byte != b'\n' && byte != 0),
                byte if byte.is_ascii_whitespace() => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn skip(&mut self, matches: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|byte| matches(*byte)) {
            self.at += 1;
        }
    }

    fn take(&mut self, matches: impl Fn(u8) -> bool) -> String {
        let start = self.at;
        self.skip(matches);
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn unexpected(&self, byte: u8) -> Corrupt {
        Corrupt::new(format!("byte {} of the metadata is {:?}", self.at, char::from(byte)))
    }

    fn end(&self) -> Corrupt {
        Corrupt::new(format!("the metadata ends at byte {}, within something", self.at))
    }

    /// Entries up to a closing brace, which is left, or the end.
    fn section(&mut self, depth: usize) -> Result<Section, Corrupt> {
        if depth > MAX_DEPTH {
            return Err(Corrupt::new(format!("sections lie more than {MAX_DEPTH} deep in each other")));
        }
        let mut section = Section::default();
        while let Some(byte) = self.peek() {
            if byte == b'}' && depth > 0 {
                break;
            }
            let key = self.take(|byte| byte.is_ascii_alphanumeric() || b"_-.+/@:".contains(&byte));
            if key.is_empty() {
                return Err(self.unexpected(byte));
            }
            let value = match self.peek().ok_or_else(|| self.end())? {
                b'{' => {
                    self.at += 1;
                    let inner = self.section(depth + 1)?;
                    self.close(b'}')?;
                    Value::Section(inner)
                }
                b'=' => {
                    self.at += 1;
                    self.value(depth)?
                }
                byte => return Err(self.unexpected(byte)),
            };
            section.entries.push((key, value));
        }
        let entries = &section.entries;
        section.by_key = (0..entries.len()).collect();
        section.by_key.sort_unstable_by(|a, b| entries[*a].0.cmp(&entries[*b].0));
        match section.by_key.windows(2).find(|pair| entries[pair[0]].0 == entries[pair[1]].0) {
            Some(pair) => Err(Corrupt::new(format!("{} is there twice", entries[pair[0]].0))),
            None => Ok(section),
        }
    }

    fn close(&mut self, expected: u8) -> Result<(), Corrupt> {
        match self.peek() {
            Some(byte) if byte == expected => {
                self.at += 1;
                Ok(())
            }
            Some(byte) => Err(self.unexpected(byte)),
            None => Err(self.end()),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Corrupt> {
        if depth > MAX_DEPTH {
            return Err(Corrupt::new(format!("lists lie more than {MAX_DEPTH} deep in each other")));
        }
        match self.peek().ok_or_else(|| self.end())? {
            b'"' => self.text(),
            b'[' => {
                self.at += 1;
                let mut list = Vec::new();
                loop {
                    match self.peek().ok_or_else(|| self.end())? {
                        b']' => break,
                        b',' if !list.is_empty() => self.at += 1,
                        _ => list.push(self.value(depth + 1)?),
                    }
                }
                self.close(b']')?;
                Ok(Value::List(list))
            }
            byte if byte.is_ascii_digit() || byte == b'-' || byte == b'+' => {
                let digits = self.take(|byte| byte.is_ascii_digit() || b"+-.".contains(&byte));
                if digits.contains('.') {
                    return Ok(Value::Float(digits));
                }
                let number = digits.parse().map_err(|_| Corrupt::new(format!("{digits} is no number")))?;
                Ok(Value::Integer(number))
            }
            byte => Err(self.unexpected(byte)),
        }
    }

    /// A text in quotes, in which a backslash stands before quotes and backslashes.
    fn text(&mut self) -> Result<Value, Corrupt> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.text.get(self.at).copied() {
                None | Some(0) => return Err(self.end()),
                Some(b'"') => break,
                Some(b'\\') => {
                    bytes.push(self.text.get(self.at + 1).copied().ok_or_else(|| self.end())?);
                    self.at += 2;
                }
                Some(byte) => {
                    bytes.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_in_order() {
        let text = b"my-vg {\nid = \"a\\\"b\"\t# not this\nseqno=3\nf = 1.5\nstatus = [\"READ\", \"WRITE\",]\n\
            empty = []\npv0 { pe = -1 } }\n# end\nversion = 1\n\0rubbish {";
        let section = parse(text).unwrap();
        assert_eq!(section.entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["my-vg", "version"]);
        let group = section.section("my-vg").unwrap();
        assert_eq!(group.text("id"), Some("a\"b"));
        assert_eq!(group.number("seqno").unwrap(), 3);
        assert!(group.lists("status", "WRITE") && !group.lists("status", "VISIBLE"));
        assert_eq!(group.get("empty"), Some(&Value::List(Vec::new())));
        assert_eq!(group.get("f"), Some(&Value::Float("1.5".to_owned())));
        assert!(group.section("pv0").unwrap().number("pe").is_err());
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        let deep = "a{".repeat(10_000);
        let lists = format!("a={}", "[".repeat(10_000));
        for text in
            ["a", "a {", "a = ", "a = \"b", "a = \"b\\", "= 1", "a = 1 }", "a = [1", "a=1 a=2", "a = --1", &deep]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(lists.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in "([a-c]|[{}\\[\\]=#\"\\\\,\n 0-9.-]){0,64}", bytes: Vec<u8>) {
            let _ = parse(text.as_bytes());
            let _ = parse(&bytes);
        }
    }
}
