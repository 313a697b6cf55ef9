//! All operations there are.

use std::sync::LazyLock;

use crate::operation::Operation;
use crate::operations::{TABLE, WITH_LOGIC};

/// All operations, in the order in which they are performed: that of their names, and `customize` last.
#[must_use]
pub fn operations() -> &'static [&'static Operation] {
    static ALL: LazyLock<Vec<&'static Operation>> = LazyLock::new(|| {
        let mut all: Vec<_> = TABLE.iter().chain(WITH_LOGIC.iter().copied()).collect();
        all.sort_unstable_by_key(|operation| (operation.name == "customize", operation.name));
        all
    });
    &ALL
}

/// The operation of a name.
#[must_use]
pub fn operation(name: &str) -> Option<&'static Operation> {
    operations().iter().copied().find(|operation| operation.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Treatment;

    #[test]
    fn names_are_unique_and_in_order() {
        let (last, others) = operations().split_last().unwrap();
        assert!(others.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(last.name, "customize");
        assert_eq!(operation("machine-id").unwrap().name, "machine-id");
        assert!(operation("nonsense").is_none());
    }

    #[test]
    fn patterns_are_ones_that_all_their_readers_understand() {
        for operation in operations() {
            for step in operation.steps {
                for pattern in step.patterns {
                    let in_home = pattern.strip_prefix("~/").is_some_and(|name| !name.contains(['*', '/']));
                    let is_home = *pattern == "~" && operation.perform.is_some();
                    assert!(pattern.starts_with('/') || in_home || is_home, "{pattern}");
                    assert!(!pattern.contains(['?', '[', '{', '\\']), "{pattern}");
                    // A glob knows no `**`; the operation has to do its own looking.
                    assert!(!pattern.contains("**") || operation.perform.is_some(), "{pattern}");
                }
                let writes = matches!(step.treatment, Treatment::Edit | Treatment::Create | Treatment::ReplaceByLink);
                assert!(!writes || operation.perform.is_some(), "{}", operation.name);
            }
            assert!(
                (!operation.steps.is_empty() || operation.name == "customize") && !operation.about.is_empty(),
                "{}",
                operation.name
            );
        }
    }
}
