//! The prefixes of names, which entries hold as a number.

use crate::error::{Error, Result};

/// `system.data`: the rest of a file that lies in its inode.
pub(super) const INLINE_DATA: (u8, &[u8]) = (7, b"data");
/// The index of `system.posix_acl_access`, which has no further name.
pub(super) const ACL_ACCESS: u8 = 2;
/// The index of `system.posix_acl_default`, which has no further name.
pub(super) const ACL_DEFAULT: u8 = 3;

/// The prefixes, those that are whole names first so that `system.` does not take them.
const PREFIXES: [(u8, &[u8]); 9] = [
    (ACL_ACCESS, b"system.posix_acl_access"),
    (ACL_DEFAULT, b"system.posix_acl_default"),
    (8, b"system.richacl"),
    (1, b"user."),
    (4, b"trusted."),
    (5, b"lustre."),
    (6, b"security."),
    (7, b"system."),
    (10, b"gnu."),
];

/// The whole name of an entry. Indexes that have no prefix (9 is that of the encryption context) show as a number, so
/// that such an entry outlives a change of its neighbours.
pub(super) fn join(index: u8, name: &[u8]) -> Vec<u8> {
    match PREFIXES.iter().find(|(number, _)| *number == index) {
        Some((_, prefix)) => [prefix, name].concat(),
        None => [format!("index{index}.").as_bytes(), name].concat(),
    }
}

/// The index and the rest of a name.
///
/// # Errors
/// [`Error::Invalid`] where the prefix is unknown, or the rest longer than 255 bytes or missing.
pub(super) fn split(name: &[u8]) -> Result<(u8, &[u8])> {
    let known = PREFIXES.iter().find_map(|&(index, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        // A name that stands for itself ends with its prefix; the others go on.
        (prefix.ends_with(b".") != rest.is_empty()).then_some((index, rest))
    });
    let (index, rest) = known
        .or_else(|| numbered(name))
        .ok_or(Error::Invalid("the name of an extended attribute has no known prefix"))?;
    if rest.len() > 255 {
        return Err(Error::Invalid("the name of an extended attribute is longer than 255 bytes"));
    }
    Ok((index, rest))
}

/// The reverse of [`join`] for an index without a prefix.
fn numbered(name: &[u8]) -> Option<(u8, &[u8])> {
    let rest = name.strip_prefix(b"index")?;
    let dot = rest.iter().position(|&byte| byte == b'.')?;
    let index: u8 = std::str::from_utf8(&rest[..dot]).ok()?.parse().ok()?;
    (!PREFIXES.iter().any(|(number, _)| *number == index)).then_some((index, &rest[dot + 1..]))
}
