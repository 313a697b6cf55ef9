//! Paths that match a shell pattern, as glob(3) with `GLOB_BRACE` finds them inside the guest.

mod brace;
mod pattern;

use crate::error::Context;
use crate::path;
use crate::{Error, FileKind, Guest, Result};
use pattern::{Part, Pattern};

/// Paths that one alternative may lead to. Directories in an image that contain each other would give any number.
const MAX_PATHS: usize = 1 << 21;

impl Guest {
    /// The paths that match a pattern, sorted, each once; none where nothing matches. `*`, `?` and `[...]` match within
    /// one name and no leading dot, `{a,b}` is expanded first, and a backslash takes a character's meaning. Links on the
    /// way are followed inside the guest; a link that matches is reported, wherever it leads. A pattern that ends in `/`
    /// matches directories only, which are reported without it. `.` and `..` are matched by their own spelling only.
    ///
    /// A directory is listed only where the pattern has something to match in it: plain names are looked up.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`] where the pattern is not absolute or its braces expand to too many; what the file
    /// system says.
    pub fn glob(&self, pattern: &str) -> Result<Vec<Vec<u8>>> {
        let mut found = Vec::new();
        for alternative in brace::expand(pattern.as_bytes())? {
            self.glob_one(&alternative, &mut found).at("match", pattern.as_bytes())?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn glob_one(&self, pattern: &[u8], found: &mut Vec<Vec<u8>>) -> Result<()> {
        if pattern.first() != Some(&b'/') {
            return Err(Error::InvalidPattern("it is not absolute"));
        }
        let directories_only = pattern.ends_with(b"/");
        let mut parts: Vec<Part> = path::components(pattern).map(Part::new).collect();
        // Plain names at the end are looked up at once, after the directories above them are known.
        let plain = parts.iter().rposition(|part| matches!(part, Part::Pattern(_))).map_or(0, |last| last + 1);
        let tail = parts.split_off(plain);

        let mut bases = vec![Vec::new()];
        for (at, part) in parts.iter().enumerate() {
            match part {
                Part::Plain(name) => bases.iter_mut().for_each(|base| path::push(base, name)),
                Part::Pattern(pattern) => {
                    let is_last = at + 1 == parts.len() && tail.is_empty() && !directories_only;
                    let mut deeper = Vec::new();
                    for base in &bases {
                        self.match_names(base, pattern, is_last, &mut deeper)?;
                    }
                    bases = deeper;
                }
            }
        }
        for mut base in bases {
            for part in &tail {
                if let Part::Plain(name) = part {
                    path::push(&mut base, name);
                }
            }
            if base.is_empty() {
                base.push(b'/');
            }
            // What was listed exists, unless more is asked of it.
            let matches = match (directories_only, tail.is_empty() && !parts.is_empty()) {
                (true, _) => self.find_directory(&base)?.is_some(),
                (false, true) => true,
                (false, false) => self.lstat(&base)?.is_some(),
            };
            if matches {
                found.push(base);
            }
        }
        Ok(())
    }

    /// The names in the directory at `base` that match.
    fn match_names(&self, base: &[u8], pattern: &Pattern, is_last: bool, found: &mut Vec<Vec<u8>>) -> Result<()> {
        let base_or_root = if base.is_empty() { b"/" } else { base };
        let Some(directory) = self.find_directory(base_or_root)? else { return Ok(()) };
        for entry in self.entries(directory.location())?.iter() {
            // Nothing can lie below the other kinds.
            let can_lead_on = matches!(entry.kind, FileKind::Directory | FileKind::Symlink);
            if (is_last || can_lead_on) && pattern.matches(&entry.name) {
                if found.len() >= MAX_PATHS {
                    return Err(Error::Corrupt(format!("more than {MAX_PATHS} paths match")));
                }
                found.push(path::join(base, &entry.name));
            }
        }
        Ok(())
    }
}
