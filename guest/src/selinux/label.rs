//! The form of a label.

/// The attribute that holds the label, with a NUL at its end.
pub(crate) const LABEL: &[u8] = b"security.selinux";

/// The label that the kernel gives a new file for want of a rule: its directory's, with the role of objects.
/// `user:role:type[:level]`: the level may hold colons of its own.
pub(crate) fn for_new(directory: &[u8]) -> Option<Vec<u8>> {
    let text = directory.strip_suffix(b"\0").unwrap_or(directory);
    let mut parts = text.splitn(3, |&byte| byte == b':');
    let (user, _role, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = rest.split(|&byte| byte == b':').next()?;
    if user.is_empty() || kind.is_empty() || text.contains(&0) {
        return None;
    }
    let mut label = user.to_vec();
    label.extend_from_slice(b":object_r:");
    label.extend_from_slice(rest);
    label.push(0);
    Some(label)
}

#[cfg(test)]
mod tests {
    use super::for_new;

    #[test]
    fn role_is_replaced_and_the_rest_kept() {
        let label = for_new(b"system_u:object_r:etc_t:s0\0").unwrap();
        assert_eq!(label, b"system_u:object_r:etc_t:s0\0");
        let label = for_new(b"staff_u:staff_r:user_home_t:s0-s0:c0.c1023").unwrap();
        assert_eq!(label, b"staff_u:object_r:user_home_t:s0-s0:c0.c1023\0");
        assert_eq!(for_new(b"u:r:t\0").unwrap(), b"u:object_r:t\0");
    }

    #[test]
    fn what_is_no_context_is_not_copied() {
        for bad in [&b""[..], b"\0", b"unlabeled", b"a:b", b":r:t:s0\0", b"u:r::s0\0", b"u:r:t\0x\0"] {
            assert_eq!(for_new(bad), None);
        }
    }
}
