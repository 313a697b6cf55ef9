//! An identity that was replaced.

/// An identity on the disk that was replaced by a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewedId {
    /// What has it: a volume (`gpt:2`), a group (`lvm:vg0`), or the partition table (`table`).
    pub of: String,
    /// As it was, the way that configuration files spell it.
    pub old: String,
    /// As it is now, spelt the same way and of the same length.
    pub new: String,
}

impl RenewedId {
    pub(crate) fn new(of: String, old: &str, new: &str) -> Self {
        Self { of, old: old.to_owned(), new: new.to_owned() }
    }
}
