//! A passphrase in memory.

use std::sync::Arc;

use zeroize::Zeroizing;

/// A passphrase. Its bytes are overwritten with zeros when the last copy is dropped, and are never printed.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// The passphrase made of exactly these bytes. A newline at their end is part of it.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(passphrase: &str) -> Self {
        Self::new(passphrase.as_bytes().to_vec())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::from("geheim")), "Secret(..)");
        assert_eq!(Secret::from("geheim\n").as_bytes(), b"geheim\n");
    }
}
