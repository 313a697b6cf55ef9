//! The file contexts of a policy: `file_contexts` with `.homedirs`, `.local`, `.subs` and `.subs_dist`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex::bytes::Regex;

use super::specification::Specification;
use super::substitution::Substitutions;
use crate::{Error, FileKind, Guest, Result};

/// More lines than this is no policy: the largest have some ten thousand.
const MAX_SPECIFICATIONS: usize = 100_000;
/// So many compiled patterns are kept: neighbours are labelled by the same few.
const MAX_KEPT: usize = 128;

/// What a policy says of paths.
#[derive(Debug)]
pub(super) struct FileContexts {
    /// In the order in which they are tried: plain paths before patterns, the last line of the files first.
    specifications: Vec<Specification>,
    substitutions: Substitutions,
    substitutions_of_distribution: Substitutions,
    compiled: Mutex<HashMap<usize, Option<Regex>>>,
}

impl FileContexts {
    /// Reads the policy's files; all but the first may be missing.
    ///
    /// # Errors
    /// What the guest says of the first, and [`Error::Corrupt`] where there are too many lines.
    pub(super) fn read(guest: &Guest, path: &[u8]) -> Result<Self> {
        let optional = |suffix: &[u8]| match guest.read(&[path, suffix].concat()) {
            Ok(text) => Ok(text),
            Err(error) if matches!(error.cause(), Error::NotFound | Error::NotADirectory) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let mut specifications = Vec::new();
        for text in [guest.read(path)?, optional(b".homedirs")?, optional(b".local")?] {
            for line in text.split(|&byte| byte == b'\n') {
                specifications.extend(Specification::parse(line));
                if specifications.len() > MAX_SPECIFICATIONS {
                    let path = crate::path::display(path);
                    return Err(Error::Corrupt(format!("{path} has more than {MAX_SPECIFICATIONS} lines")));
                }
            }
        }
        specifications.reverse();
        // A stable sort: the order within the two kinds stays.
        specifications.sort_by_key(|specification| !specification.is_exact);
        Ok(Self {
            specifications,
            substitutions: Substitutions::parse(&optional(b".subs")?),
            substitutions_of_distribution: Substitutions::parse(&optional(b".subs_dist")?),
            compiled: Mutex::default(),
        })
    }

    /// The label of a path, without a NUL at its end.
    pub(super) fn lookup(&self, path: &[u8], kind: FileKind) -> Option<Vec<u8>> {
        let own = self.substitutions.apply(path);
        let path = own.as_deref().unwrap_or(path);
        let distribution = self.substitutions_of_distribution.apply(path);
        let path = distribution.as_deref().unwrap_or(path);
        let candidates = self.specifications.iter().enumerate().filter(|(_, spec)| spec.may_match(path, kind));
        for (index, specification) in candidates {
            if specification.is_exact || self.matches(index, specification, path) {
                return specification.label.as_deref().map(<[u8]>::to_vec);
            }
        }
        None
    }

    fn matches(&self, index: usize, specification: &Specification, path: &[u8]) -> bool {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= MAX_KEPT {
            compiled.clear();
        }
        let pattern = compiled.entry(index).or_insert_with(|| specification.compile());
        pattern.as_ref().is_some_and(|pattern| pattern.is_match(path))
    }
}
