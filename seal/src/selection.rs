//! Which operations a run performs, and the grammar of `--operations` and `--enable`.

use std::collections::BTreeSet;

use crate::operation::Operation;
use crate::registry::operations;

/// A choice among the operations.
///
/// ```
/// use seal::{Argument, Selection};
///
/// let selection = Selection::from_arguments(&[Argument::Operations("defaults,-ssh-userdir"), Argument::Operations("user-account")])?;
/// assert!(selection.contains("machine-id") && selection.contains("user-account"));
/// assert!(!selection.contains("ssh-userdir"));
/// # Ok::<(), seal::SelectionError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    names: BTreeSet<&'static str>,
}

/// One `--operations` or `--enable` of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument<'a> {
    /// `--enable LIST`: exactly these operations.
    Enable(&'a str),
    /// `--operations LIST`: adds and, after a `-`, removes operations, `defaults` and `all`, from left to right.
    Operations(&'a str),
}

impl Argument<'_> {
    fn option(&self) -> &'static str {
        match self {
            Self::Enable(_) => "--enable",
            Self::Operations(_) => "--operations",
        }
    }
}

/// What is wrong with a list of operations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    /// `--enable` twice.
    #[error("--enable may be given only once")]
    EnableTwice,
    /// `--enable` after `--operations`.
    #[error("--enable may not follow --operations")]
    EnableAfterOperations,
    /// An empty list.
    #[error("{option}: the list of operations is empty")]
    Empty {
        /// The option that it was given to.
        option: &'static str,
    },
    /// Nothing between two commas, before the first, after the last, or after a `-`.
    #[error("{option}: the name of an operation is missing in '{list}'")]
    EmptyName {
        /// The option that it was given to.
        option: &'static str,
        /// The whole list.
        list: String,
    },
    /// No operation has this name.
    #[error("{option}: '{name}' is not a known operation")]
    Unknown {
        /// The option that it was given to.
        option: &'static str,
        /// The name.
        name: String,
    },
}

impl Selection {
    /// The operations that are enabled when nothing is said.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            names: operations().iter().filter(|operation| operation.enabled).map(|operation| operation.name).collect(),
        }
    }

    /// All operations.
    #[must_use]
    pub fn all() -> Self {
        Self { names: operations().iter().map(|operation| operation.name).collect() }
    }

    /// No operation.
    #[must_use]
    pub fn none() -> Self {
        Self { names: BTreeSet::new() }
    }

    /// What a command line selects, its arguments in their order; [`Selection::defaults`] if there are none.
    ///
    /// The first `--operations` begins with nothing selected, unless it follows an `--enable`, whose list it changes.
    ///
    /// # Errors
    /// [`SelectionError`], for the first argument that is wrong.
    pub fn from_arguments(arguments: &[Argument<'_>]) -> Result<Self, SelectionError> {
        let mut chosen: Option<Self> = None;
        let mut last = None;
        for argument in arguments {
            let option = argument.option();
            match (argument, last) {
                (Argument::Enable(_), Some(Argument::Enable(_))) => return Err(SelectionError::EnableTwice),
                (Argument::Enable(_), Some(_)) => return Err(SelectionError::EnableAfterOperations),
                (Argument::Enable(""), None) => return Err(SelectionError::Empty { option }),
                _ => {}
            }
            let chosen = chosen.get_or_insert_with(Self::none);
            let (Argument::Enable(list) | Argument::Operations(list)) = argument;
            for name in list.split(',') {
                let missing = || SelectionError::EmptyName { option, list: (*list).to_owned() };
                match (argument, name, name.strip_prefix('-')) {
                    (_, "", _) | (Argument::Operations(_), _, Some("")) => return Err(missing()),
                    (Argument::Operations(_), "defaults", _) => chosen.names.append(&mut Self::defaults().names),
                    (Argument::Operations(_), "all", _) => *chosen = Self::all(),
                    (Argument::Operations(_), "-all", _) => *chosen = Self::none(),
                    (Argument::Operations(_), "-defaults", _) => {
                        let defaults = Self::defaults();
                        chosen.names.retain(|name| !defaults.contains(name));
                    }
                    (Argument::Operations(_), _, Some(name)) => {
                        chosen.names.remove(known(option, name)?);
                    }
                    (_, name, _) => {
                        chosen.names.insert(known(option, name)?);
                    }
                }
            }
            last = Some(*argument);
        }
        Ok(chosen.unwrap_or_else(Self::defaults))
    }

    /// The selection without the operations that virt-sysprep does not have.
    #[must_use]
    pub fn of_virt_sysprep(mut self) -> Self {
        self.names.retain(|name| crate::is_of_virt_sysprep(name));
        self
    }

    /// Whether the operation of this name is selected.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The selected operations, in the order in which they are performed.
    pub fn operations(&self) -> impl Iterator<Item = &'static Operation> + Clone + '_ {
        operations().iter().copied().filter(|operation| self.contains(operation.name))
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self::defaults()
    }
}

/// The operation's name, as the registry has it.
fn known(option: &'static str, name: &str) -> Result<&'static str, SelectionError> {
    let operation = crate::operation(name);
    operation.map(|one| one.name).ok_or_else(|| SelectionError::Unknown { option, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(arguments: &[Argument<'_>]) -> Result<Vec<&'static str>, SelectionError> {
        Ok(Selection::from_arguments(arguments)?.operations().map(|operation| operation.name).collect())
    }

    fn operations_of(lists: &[&str]) -> Result<Vec<&'static str>, SelectionError> {
        select(&lists.iter().map(|list| Argument::Operations(list)).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let off: Vec<_> = Selection::all().operations().filter(|one| !one.enabled).map(|one| one.name).collect();
        let sysprep: Vec<_> = off.iter().filter(|name| crate::is_of_virt_sysprep(name)).collect();
        assert_eq!(
            sysprep,
            [
                &"ca-certificates",
                &"firewall-rules",
                &"flag-reconfiguration",
                &"kerberos-data",
                &"user-account",
                &"fs-uuids"
            ]
        );
        assert_eq!(Selection::from_arguments(&[]).unwrap(), Selection::defaults());
        assert_eq!(Selection::all().operations().count(), Selection::defaults().operations().count() + off.len());
    }

    #[test]
    fn operations_are_added_and_removed_from_left_to_right() {
        assert_eq!(operations_of(&["utmp,machine-id"]).unwrap(), ["machine-id", "utmp"]);
        assert_eq!(operations_of(&["utmp", "machine-id,-utmp"]).unwrap(), ["machine-id"]);
        assert_eq!(operations_of(&["-utmp,utmp"]).unwrap(), ["utmp"]);
        assert_eq!(operations_of(&["-tmp-files"]).unwrap(), [""; 0]);
        assert_eq!(operations_of(&["all,-all,rpm-db"]).unwrap(), ["rpm-db"]);
        assert_eq!(
            operations_of(&["all,-defaults"]).unwrap().len(),
            Selection::all().operations().filter(|one| !one.enabled).count()
        );
        let without = operations_of(&["defaults,-tmp-files"]).unwrap();
        assert_eq!(without.len(), Selection::defaults().operations().count() - 1);
        assert_eq!(operations_of(&["user-account,all"]).unwrap().len(), crate::operations().len());
    }

    #[test]
    fn enable_takes_exactly_its_list() {
        assert_eq!(select(&[Argument::Enable("utmp,rpm-db")]).unwrap(), ["rpm-db", "utmp"]);
        assert_eq!(select(&[Argument::Enable("utmp,rpm-db"), Argument::Operations("-utmp")]).unwrap(), ["rpm-db"]);
        for meta in ["all", "defaults", "-utmp", "utmp,-rpm-db"] {
            let error = select(&[Argument::Enable(meta)]).unwrap_err();
            assert!(matches!(error, SelectionError::Unknown { option: "--enable", .. }), "{meta}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |arguments: &[Argument<'_>]| select(arguments).unwrap_err();
        let (utmp, of_utmp) = (Argument::Enable("utmp"), Argument::Operations("utmp"));
        assert_eq!(error(&[utmp, utmp]), SelectionError::EnableTwice);
        assert_eq!(error(&[of_utmp, utmp]), SelectionError::EnableAfterOperations);
        assert_eq!(error(&[utmp, of_utmp, utmp]), SelectionError::EnableAfterOperations);
        assert_eq!(error(&[Argument::Enable("")]), SelectionError::Empty { option: "--enable" });
        for list in ["", ",", "utmp,", ",utmp", "utmp,,rpm-db", "-"] {
            let error = error(&[Argument::Operations(list)]);
            assert!(matches!(error, SelectionError::EmptyName { option: "--operations", .. }), "{list}: {error}");
        }
        for name in ["nonsense", "-nonsense", "UTMP", " utmp", "utmp ", "--utmp"] {
            let error = error(&[Argument::Operations(name)]);
            assert!(matches!(error, SelectionError::Unknown { .. }), "{name}: {error}");
        }
        assert_eq!(
            error(&[Argument::Enable("no\u{301}pe")]).to_string(),
            "--enable: 'no\u{301}pe' is not a known operation"
        );
    }
}
