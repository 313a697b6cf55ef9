//! POSIX ACLs: the compact form of the disk and the form in which kernels hand them out.
//!
//! Kernel `fs/ext4/acl.h` (`ext4_acl_header`, `ext4_acl_entry`, `ext4_acl_entry_short`) and
//! `include/uapi/linux/posix_acl_xattr.h`. Both begin with a version of 32 bits; an entry is a tag and permissions of
//! 16 bits each and an id of 32 bits, which the disk leaves out where the tag has no use for it.

use std::fmt::Display;

use crate::error::{Error, Result};

const DISK_VERSION: u32 = 1;
const XATTR_VERSION: u32 = 2;
/// The id of entries that have none.
const NO_ID: [u8; 4] = [0xff; 4];

/// Whether entries with this tag have an id; `None` for a tag that does not exist.
fn has_id(tag: u16) -> Option<bool> {
    match tag {
        // ACL_USER, ACL_GROUP
        0x02 | 0x08 => Some(true),
        // ACL_USER_OBJ, ACL_GROUP_OBJ, ACL_MASK, ACL_OTHER
        0x01 | 0x04 | 0x10 | 0x20 => Some(false),
        _ => None,
    }
}

fn tag_of(entry: &[u8]) -> Option<bool> {
    has_id(u16::from_le_bytes([*entry.first()?, *entry.get(1)?]))
}

/// From the form of the disk to that of `xattr(7)`.
///
/// # Errors
/// [`Error::Corrupt`] where it is none.
pub(super) fn from_disk(value: &[u8], place: &dyn Display) -> Result<Vec<u8>> {
    let convert = || {
        let mut rest = value.strip_prefix(&DISK_VERSION.to_le_bytes())?;
        let mut converted = XATTR_VERSION.to_le_bytes().to_vec();
        while !rest.is_empty() {
            let (head, after) = rest.split_at_checked(4)?;
            converted.extend(head);
            rest = if tag_of(head)? {
                let (id, after) = after.split_at_checked(4)?;
                converted.extend(id);
                after
            } else {
                converted.extend(NO_ID);
                after
            };
        }
        Some(converted)
    };
    convert().ok_or_else(|| Error::corrupt("ACL", place, "must be version 1 with entries of known tags"))
}

/// From the form of `xattr(7)` to that of the disk.
///
/// # Errors
/// [`Error::Invalid`] where it is none.
pub(super) fn to_disk(value: &[u8]) -> Result<Vec<u8>> {
    let convert = || {
        let rest = value.strip_prefix(&XATTR_VERSION.to_le_bytes())?;
        let mut converted = DISK_VERSION.to_le_bytes().to_vec();
        let entries = rest.chunks_exact(8);
        if !entries.remainder().is_empty() {
            return None;
        }
        for entry in entries {
            converted.extend(if tag_of(entry)? { entry } else { &entry[..4] });
        }
        Some(converted)
    };
    convert().ok_or(Error::Invalid("an ACL is malformed"))
}

/// What something new with permissions `mode` takes from its directory's default ACL: its access ACL, unless the
/// permissions say all of it, and its permissions.
///
/// # Errors
/// [`Error::Invalid`] where the ACL is malformed.
pub(crate) fn inherit(default: &[u8], mode: u32) -> Result<(Option<Vec<u8>>, u32)> {
    const MALFORMED: Error = Error::Invalid("the directory's default ACL is malformed");
    let (head, entries) = default.split_at_checked(4).ok_or(MALFORMED)?;
    let mut acl = head.to_vec();
    let mut wanted = mode & 0o777;
    let mut extended = false;
    // The entry that stands for the group in the permissions: the mask, if there is one.
    let mut group = None;
    for entry in entries.chunks_exact(8) {
        let at = acl.len() + 2;
        acl.extend_from_slice(entry);
        let allowed = u32::from(u16::from_le_bytes([entry[2], entry[3]])) & 7;
        let mut narrow = |shift: u32, wanted: &mut u32| {
            let both = allowed & (*wanted >> shift);
            *wanted = *wanted & !(7 << shift) | both << shift;
            acl[at..at + 2].copy_from_slice(&(both as u16).to_le_bytes());
        };
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0x01 => narrow(6, &mut wanted),
            0x20 => narrow(0, &mut wanted),
            0x04 if group.is_none() => group = Some((at, allowed)),
            0x04 => {}
            0x10 => (group, extended) = (Some((at, allowed)), true),
            0x02 | 0x08 => extended = true,
            _ => return Err(MALFORMED),
        }
    }
    let (at, allowed) = group.ok_or(MALFORMED)?;
    let both = allowed & (wanted >> 3);
    wanted = wanted & !0o070 | both << 3;
    acl[at..at + 2].copy_from_slice(&(both as u16).to_le_bytes());
    Ok((extended.then_some(acl), mode & !0o777 | wanted))
}
