//! Brace expansion: `{a,b}` becomes two patterns.

use crate::{Error, Result};

/// What one pattern may expand to.
const MAX_ALTERNATIVES: usize = 4096;

/// All alternatives of a pattern, in the order of their spelling. As in glob(3), a brace without its partner stands for
/// itself, braces may be nested, and one alternative is enough, even an empty one.
pub(super) fn expand(pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut done = Vec::new();
    // Each is a pattern, with how much at its start holds no more braces. Last in, first out: hence the reversals.
    let mut open = vec![(pattern.to_vec(), 0)];
    while let Some((pattern, from)) = open.pop() {
        if done.len() + open.len() >= MAX_ALTERNATIVES {
            return Err(Error::InvalidPattern("its braces expand to too many alternatives"));
        }
        match first_group(&pattern, from) {
            None => done.push(pattern),
            Some(group) => {
                let after = &pattern[group.close + 1..];
                let mut start = group.open + 1;
                let mut alternatives = Vec::new();
                for end in group.commas.iter().copied().chain(std::iter::once(group.close)) {
                    alternatives.push(([&pattern[..group.open], &pattern[start..end], after].concat(), group.open));
                    start = end + 1;
                }
                open.extend(alternatives.into_iter().rev());
            }
        }
    }
    Ok(done)
}

struct Group {
    open: usize,
    /// The commas between the alternatives.
    commas: Vec<usize>,
    close: usize,
}

/// The first group of braces at or after `from`. If that is not closed, no later one counts either.
fn first_group(pattern: &[u8], from: usize) -> Option<Group> {
    let mut at = from;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' => at += 1,
            b'{' => return group_at(pattern, at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The group that opens at `open`, if it is closed.
fn group_at(pattern: &[u8], open: usize) -> Option<Group> {
    let mut depth = 0_usize;
    let mut commas = Vec::new();
    let mut at = open + 1;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(Group { open, commas, close: at }),
            b'}' => depth -= 1,
            b',' if depth == 0 => commas.push(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn expanded(pattern: &str) -> Vec<String> {
        let all = expand(pattern.as_bytes()).unwrap();
        all.into_iter().map(|one| String::from_utf8(one).unwrap()).collect()
    }

    #[test]
    fn braces_expand_in_order_and_nest() {
        assert_eq!(expanded("/a"), ["/a"]);
        assert_eq!(expanded("/{a,b}"), ["/a", "/b"]);
        assert_eq!(expanded("/x{,.gz,{1,2}.z}y"), ["/xy", "/x.gzy", "/x1.zy", "/x2.zy"]);
        assert_eq!(expanded("/{a,b}/{c,d}"), ["/a/c", "/a/d", "/b/c", "/b/d"]);
        assert_eq!(expanded("/{a}"), ["/a"]);
        assert_eq!(expanded("/{}"), ["/"]);
        assert_eq!(expanded("/{a,[,}]}"), ["/a]}", "/[]}", "/]}"]);
    }

    #[test]
    fn braces_without_meaning_stay() {
        for literal in ["/{a,b", "/{a/{b,c}", "/a}", "/\\{a,b\\}", "/a,b"] {
            assert_eq!(expanded(literal), [literal]);
        }
    }

    #[test]
    fn too_many_alternatives_are_refused() {
        assert!(expand("/{a,b}".repeat(13).as_bytes()).is_err());
        assert!(expand("{,".repeat(5000).as_bytes()).is_ok());
    }
}
