//! Attributes encoded and read back, and bytes that kernels wrote.

use proptest::prelude::*;

use super::*;

fn set(pairs: &[(&str, &[u8])]) -> Vec<Xattr> {
    pairs.iter().map(|(name, value)| Xattr::new(*name, *value)).collect()
}

fn decoded(layout: &Layout, block: u64, seed: Option<u32>) -> Vec<Xattr> {
    let mut all = decode_in_inode(&layout.in_inode, 12).unwrap();
    if let Some(bytes) = &layout.block {
        let mut bytes = bytes.clone();
        finish_block(&mut bytes, block, seed);
        all.extend(decode_block(&bytes, 12, block, seed).unwrap());
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[test]
fn selinux_label_lies_in_the_inode() {
    let label = b"system_u:object_r:shadow_t:s0\0";
    let layout = encode(&set(&[("security.selinux", label)]), 96, 4096).unwrap();
    assert_eq!(layout.block, None);
    let mut expected = vec![0; 96];
    // Magic; name of 7 bytes, index 6, value at 60 from the first entry (92 - 32), size 30, no hash.
    expected[..20].copy_from_slice(b"\0\0\x02\xea\x07\x06\x3c\0\0\0\0\0\x1e\0\0\0\0\0\0\0");
    expected[20..27].copy_from_slice(b"selinux");
    expected[64..94].copy_from_slice(label);
    assert_eq!(layout.in_inode, expected);
}

#[test]
fn no_attributes_leave_zeros() {
    assert_eq!(encode(&[], 96, 4096).unwrap(), Layout { in_inode: vec![0; 96], block: None });
    assert_eq!(decode_in_inode(&[0; 96], 12).unwrap(), []);
    assert_eq!(decode_in_inode(&[], 12).unwrap(), []);
}

#[test]
fn block_is_sorted_by_index_length_and_name() {
    let attributes =
        set(&[("user.bb", b"2"), ("security.x", b"4"), ("user.a", b"1"), ("user.ba", b"3"), ("user.abc", b"5")]);
    let layout = encode(&attributes, 0, 1024).unwrap();
    let mut block = layout.block.unwrap();
    finish_block(&mut block, 77, Some(5));
    let names: Vec<_> = decode_block(&block, 12, 77, Some(5)).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, [&b"user.a"[..], b"user.ba", b"user.bb", b"user.abc", b"security.x"]);
    assert!(matches!(decode_block(&block, 12, 78, Some(5)), Err(Error::Corrupt(_))));
    assert_eq!(block_refcount(&block), 1);
    set_block_refcount(&mut block, 3, 77, Some(5));
    assert_eq!(block_refcount(&block), 3);
    assert_eq!(decode_block(&block, 12, 77, Some(5)).unwrap().len(), 5);
}

#[test]
fn acls_change_form() {
    // Version 2, then user_obj rw-, user 1000 r--, group_obj r--, mask r--, other ---.
    let shown = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\xff\xff\xff\xff\
        \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    let stored = b"\x01\0\0\0\x01\0\x06\0\x02\0\x04\0\xe8\x03\0\0\x04\0\x04\0\x10\0\x04\0\x20\0\0\0";
    assert_eq!(acl::to_disk(shown).unwrap(), stored);
    assert_eq!(acl::from_disk(stored, &"here").unwrap(), shown);
    for end in 1..stored.len() {
        // A list that ends between entries is one; all else is not.
        let whole = [4, 8, 16, 20, 24].contains(&end);
        assert_eq!(acl::from_disk(&stored[..end], &"here").is_ok(), whole, "{end}");
    }
    assert!(acl::to_disk(&shown[..shown.len() - 1]).is_err());
    assert!(acl::to_disk(b"\x02\0\0\0\x03\0\x06\0\xff\xff\xff\xff").is_err());
    let attributes = set(&[("system.posix_acl_access", shown), ("system.posix_acl_default", shown)]);
    let layout = encode(&attributes, 100, 1024).unwrap();
    assert_eq!(decoded(&layout, 9, None), attributes);
}

#[test]
fn values_in_inodes_and_unknown_indexes_survive() {
    let mut large = Xattr::new("user.large", Vec::new());
    (large.value_inode, large.value_size, large.hash) = (4711, 70_000, 0xdead_beef);
    let attributes = vec![Xattr::new("index9.c", *b"context"), large];
    for space in [0, 96] {
        assert_eq!(decoded(&encode(&attributes, space, 1024).unwrap(), 9, Some(1)), attributes);
    }
}

#[test]
fn inline_data_stays_in_the_inode() {
    let attributes = set(&[("user.first", &[1; 40]), ("system.data", &[2; 60])]);
    let layout = encode(&attributes, 96, 1024).unwrap();
    assert_eq!(decode_in_inode(&layout.in_inode, 12).unwrap()[0].name, b"system.data");
    assert!(matches!(encode(&set(&[("system.data", &[2; 80])]), 96, 1024), Err(Error::NoSpace(_))));
}

#[test]
fn full_spaces_are_filled_and_no_more() {
    // 1024 bytes: header 32, end 4, entry 16 + 4 for `user.abcd`.
    assert!(encode(&set(&[("user.abcd", &[1; 968])]), 0, 1024).is_ok());
    assert!(matches!(encode(&set(&[("user.abcd", &[1; 969])]), 0, 1024), Err(Error::NoSpace(_))));
    // 96 bytes in an inode: magic 4, end 4, entry 20.
    assert_eq!(encode(&set(&[("user.abcd", &[1; 68])]), 96, 1024).unwrap().block, None);
    assert!(encode(&set(&[("user.abcd", &[1; 69])]), 96, 1024).unwrap().block.is_some());
    // Small first leaves no room for the large anywhere; large first does.
    let awkward = set(&[("user.abcd", &[1; 20]), ("user.abce", &[1; 968]), ("user.abcf", &[1; 64])]);
    assert_eq!(decoded(&encode(&awkward, 136, 1024).unwrap(), 9, None).len(), 3);
}

#[test]
fn callers_faults_are_named() {
    for name in ["selinux", "user.", "index1.x", "", "index999.x"] {
        assert!(matches!(encode(&set(&[(name, b"")]), 96, 1024), Err(Error::Invalid(_))), "{name}");
    }
    let long = format!("user.{}", "n".repeat(256));
    assert!(matches!(encode(&set(&[(&long, b"")]), 96, 1024), Err(Error::Invalid(_))));
    let twice = set(&[("user.a", b""), ("user.a", b"1")]);
    assert!(matches!(encode(&twice, 96, 1024), Err(Error::Invalid(_))));
}

#[test]
fn scrub_wipes_what_no_attribute_has() {
    let attributes = set(&[("user.a", b"12345"), ("security.x", b"1"), ("user.empty", b"")]);
    let layout = encode(&attributes, 120, 1024).unwrap();
    let mut dirty = layout.in_inode.clone();
    // Between the entries and the values, behind a name, behind a value.
    let entries_end = 4 + 20 + 20 + 24 + END;
    const END: usize = 4;
    for at in [entries_end, 4 + 17, 119] {
        assert_eq!(dirty[at], 0, "{at}");
        dirty[at] = 0x55;
    }
    assert_eq!(scrub_in_inode(&mut dirty, 12).unwrap(), 3);
    assert_eq!(dirty, layout.in_inode);
    assert_eq!(scrub_in_inode(&mut dirty, 12).unwrap(), 0);
    let mut garbage = vec![7; 40];
    assert_eq!(scrub_in_inode(&mut garbage, 12).unwrap(), 40);

    let mut block = encode(&attributes, 0, 1024).unwrap().block.unwrap();
    block[900] = 1;
    finish_block(&mut block, 5, Some(6));
    assert_eq!(scrub_block(&mut block, 5, Some(6)).unwrap(), 1);
    assert_eq!(decode_block(&block, 12, 5, Some(6)).unwrap().len(), 3);
    assert_eq!(scrub_block(&mut block, 5, Some(6)).unwrap(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_decoded(
        mut attributes in prop::collection::btree_map("(user|trusted|security|system)\\.[a-z]{1,30}", prop::collection::vec(any::<u8>(), 0..200), 0..12),
        space in 0..300_usize,
        seed in prop::option::of(any::<u32>()),
    ) {
        attributes.remove("system.data");
        let attributes: Vec<_> = attributes.into_iter().map(|(name, value)| Xattr::new(name, value)).collect();
        match encode(&attributes, space, 1024) {
            Ok(layout) => {
                prop_assert_eq!(layout.in_inode.len(), space);
                let mut sorted = attributes;
                sorted.sort_by(|a, b| a.name.cmp(&b.name));
                prop_assert_eq!(decoded(&layout, 1 << 33, seed), sorted);
            }
            Err(error) => {
                let space_error = matches!(error, Error::NoSpace(_));
                prop_assert!(space_error);
                let total: usize = attributes.iter().map(|a| 20 + a.name.len() + a.value.len()).sum();
                prop_assert!(total > 600, "{} bytes do not fit", total);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(prop_oneof![0..40_u8, any::<u8>()], 0..300)) {
        let _ = decode_in_inode(&bytes, 12);
        let _ = decode_block(&bytes, 12, 1, Some(1));
        for (at, byte) in bytes.iter_mut().zip(crate::layout::xattr::XATTR_MAGIC.to_le_bytes()) {
            *at = byte;
        }
        let _ = decode_in_inode(&bytes, 12);
        if bytes.len() > 12 {
            bytes[8..12].copy_from_slice(&[1, 0, 0, 0]);
        }
        let _ = decode_block(&bytes, 12, 1, None);
    }
}
