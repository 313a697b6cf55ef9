//! Names that are the same but for their case (`casefold`): folded and decomposed, as Unicode 12.1 says.
//!
//! <https://docs.kernel.org/admin-guide/ext4.html#case-insensitive-file-name-lookups>, kernel `fs/unicode/utf8-core.c`
//! (`utf8_casefold`). A name that is not UTF-8, or has code points that Unicode 12.1 does not know, is the same as itself alone.

use unicase::UniCase;
use unicode_normalization::UnicodeNormalization;

use super::DirectoryBlocks;
use super::unicode_12_1::{is_ignorable, is_known};

/// What names are compared and hashed by, or `None` for a name that is only compared byte by byte.
pub(crate) fn fold(name: &[u8]) -> Option<Vec<u8>> {
    if name.is_ascii() {
        return Some(name.to_ascii_lowercase());
    }
    let text = std::str::from_utf8(name).ok().filter(|text| text.chars().all(is_known))?;
    // What folding composes or leaves in another order is decomposed again.
    let decomposed: String = text.nfd().collect();
    let folded = UniCase::unicode(decomposed).to_folded_case();
    Some(folded.nfd().filter(|code_point| !is_ignorable(*code_point)).collect::<String>().into_bytes())
}

/// A name to be found.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a [u8],
    folded: Option<Vec<u8>>,
}

impl<'a> Wanted<'a> {
    /// A name to be found in a directory.
    pub(super) fn new(dir: &(impl DirectoryBlocks + ?Sized), name: &'a [u8]) -> Self {
        Self { name, folded: if dir.folds_names() { fold(name) } else { None } }
    }

    /// Whether this is the name of an entry.
    pub(super) fn is(&self, name: &[u8]) -> bool {
        name == self.name || self.folded.is_some() && self.folded == fold(name)
    }

    /// What the name is hashed by.
    pub(super) fn hashed(&self) -> &[u8] {
        self.folded.as_deref().unwrap_or(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_as_unicode_12_1_says() {
        let same = |a: &str, b: &str| fold(a.as_bytes()).unwrap() == fold(b.as_bytes()).unwrap();
        assert!(same("README", "readme") && same("Straße", "STRASSE") && same("caf\u{e9}", "CAFE\u{301}"));
        assert!(same("\u{3a3}\u{3c2}", "\u{3c3}\u{3c3}") && same("soft\u{ad}hyphen", "softhyphen"));
        assert!(!same("i", "\u{131}"));
        assert_eq!(fold(b"\xff"), None);
        // Added by Unicode 13.
        assert_eq!(fold("\u{a7c7}".as_bytes()), None);
    }
}
