//! IDs that are replaced by others, in all the ways that configuration spells them.

use std::collections::HashMap;

use regex::bytes::Regex;

/// IDs that are replaced by others of the same length.
#[derive(Debug)]
pub(crate) struct Renames {
    /// Old and new, by every spelling.
    spellings: HashMap<Vec<u8>, Vec<u8>>,
    any: Regex,
}

/// How an ID is written where it is not written as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A UUID or what udev makes of one: letters may be capital ones, and it stands by itself.
    Uuid,
    /// One of LVM2, which is written without hyphens, too, and next to another.
    Lvm,
}

impl Renames {
    /// IDs, old and new. `None` if there are none.
    pub(crate) fn new(kind: Kind, pairs: &[(String, String)]) -> Option<Self> {
        let mut spellings = HashMap::new();
        for (old, new) in pairs {
            // The first spelling counts: one without letters has no capital ones.
            let mut add = |old: String, new: String| {
                spellings.entry(old.into_bytes()).or_insert_with(|| new.into_bytes());
            };
            // As in the name of a unit of systemd.
            let escape = |id: &str| id.replace('-', "\\x2d");
            add(old.clone(), new.clone());
            add(escape(old), escape(new));
            match kind {
                Kind::Uuid => {
                    let upper = |id: &str| id.to_ascii_uppercase();
                    add(upper(old), upper(new));
                }
                Kind::Lvm => {
                    let bare = |id: &str| id.replace('-', "");
                    add(bare(old), bare(new));
                }
            }
        }
        let olds: Vec<String> =
            spellings.keys().map(|old: &Vec<u8>| regex::escape(&String::from_utf8_lossy(old))).collect();
        if olds.is_empty() {
            return None;
        }
        let edge = if kind == Kind::Uuid { "\\b" } else { "" };
        // Escaped literals make a valid expression, and a disk has not so many volumes that it would be too large.
        let any = Regex::new(&format!("(?-u){edge}(?:{}){edge}", olds.join("|"))).ok()?;
        Some(Self { spellings, any })
    }

    pub(crate) fn are_in(&self, bytes: &[u8]) -> bool {
        self.any.is_match(bytes)
    }

    /// The bytes with every old ID replaced.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Vec<u8> {
        let replaced = self.any.replace_all(bytes, |found: &regex::bytes::Captures<'_>| {
            let old = found.get(0).map_or(&[][..], |place| place.as_bytes());
            self.spellings.get(old).cloned().unwrap_or_else(|| old.to_vec())
        });
        replaced.into_owned()
    }

    /// Every spelling, old and new, each pair of the same length.
    pub(crate) fn texts(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut texts: Vec<_> = self.spellings.iter().map(|(old, new)| (text(old), text(new))).collect();
        texts.sort_unstable();
        texts
    }

    /// The length of the longest spelling.
    pub(crate) fn longest(&self) -> usize {
        self.spellings.keys().map(Vec::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_replaced_in_every_spelling() {
        let old = "0d3c1b5e-9a77-4f2b-8c1d-5e6f7a8b9c0d";
        let new = "11111111-2222-4333-8444-555555555555";
        let renames = Renames::new(Kind::Uuid, &[(old.to_owned(), new.to_owned())]).unwrap();
        let text = format!(
            "UUID={old} / ext4\nresume=UUID={}\nRequires=dev-disk-by\\x2duuid-{}.device\nx{old} {old}0\n",
            old.to_uppercase(),
            old.replace('-', "\\x2d")
        );
        assert!(renames.are_in(text.as_bytes()));
        let replaced = String::from_utf8(renames.replace(text.as_bytes())).unwrap();
        assert_eq!(
            replaced,
            format!(
                "UUID={new} / ext4\nresume=UUID={new}\nRequires=dev-disk-by\\x2duuid-{}.device\nx{old} {old}0\n",
                new.replace('-', "\\x2d")
            )
        );
        assert!(!renames.are_in(format!("x{old}").as_bytes()));
        let digits = Renames::new(Kind::Uuid, &[("12345678-02".to_owned(), "abcdef01-02".to_owned())]).unwrap();
        assert_eq!(digits.replace(b"PARTUUID=12345678-02"), b"PARTUUID=abcdef01-02");
        assert!(Renames::new(Kind::Uuid, &[]).is_none());
    }

    #[test]
    fn ids_of_lvm2_are_found_next_to_others() {
        let (old, new) = ("AbCdEf-1234-5678-9aBc-dEfG-hIjK-lMnOpQ", "ZzZzZz-0000-1111-2222-3333-4444-YyYyYy");
        let renames = Renames::new(Kind::Lvm, &[(old.to_owned(), new.to_owned())]).unwrap();
        let text = format!("/dev/disk/by-id/dm-uuid-LVM-{}rest\nset root='lvmid/{old}/x'\n", old.replace('-', ""));
        let replaced = String::from_utf8(renames.replace(text.as_bytes())).unwrap();
        assert_eq!(
            replaced,
            format!("/dev/disk/by-id/dm-uuid-LVM-{}rest\nset root='lvmid/{new}/x'\n", new.replace('-', ""))
        );
    }
}
