//! Directories that take names which differ in case for the same. e2fsck knows how they are hashed.

use std::process::Command;

use ext4fs::{Error, NewNode, Ownership};

use crate::common::{check, debugfs, has_tool, mke2fs, open, scratch};

const OWNER: Ownership = Ownership { mode: 0o644, uid: 0, gid: 0 };
const UPPER: [&str; 6] = ["NAME", "ÄÖÜ", "ΣΊΣΥΦΟΣ", "ПРИВЕТ", "STRASSE", "CAFE\u{301}"];
const LOWER: [&str; 6] = ["name", "äöü", "σίσυφος", "привет", "straße", "café"];

#[test]
fn names_are_found_whatever_their_case() {
    if !has_tool("casefold", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (hash, arguments) in [
        ("half_md4", "-t ext4 -b 1024 -O casefold"),
        ("tea", "-t ext4 -b 1024 -O casefold,inline_data"),
        ("legacy", "-t ext4 -b 4096 -O casefold,^metadata_csum"),
    ] {
        let path = mke2fs(folder.path(), arguments, 32, None);
        let tuned = Command::new("tune2fs").args(["-E", &format!("hash_alg={hash}")]).arg(&path).output().unwrap();
        assert!(tuned.status.success());
        let (device, mut fs) = open(&path);
        fs.create_dir(b"/top").unwrap();
        let top = fs.resolve(b"/top").unwrap();
        fs.set_casefold(top, true).unwrap();
        let file = fs.create(top, b"First", NewNode::File, OWNER).unwrap();
        for n in 0..300 {
            for upper in UPPER {
                fs.link(top, format!("{upper}-{n}").as_bytes(), file).unwrap();
            }
        }
        check(&mut fs, &device, &path, arguments);
        assert!(String::from_utf8_lossy(&debugfs(&path, "htree_dump /top")).contains("Root node"));
        for n in 0..300 {
            for (upper, lower) in UPPER.iter().zip(LOWER) {
                let name = format!("{lower}-{n}");
                assert_eq!(fs.lookup(top, name.as_bytes()).unwrap(), Some(file), "{arguments}: {name}");
                let again = fs.create(top, name.as_bytes(), NewNode::File, OWNER);
                assert!(matches!(again, Err(Error::AlreadyExists)), "{again:?}");
                if n % 3 == 0 {
                    fs.unlink(top, name.as_bytes()).unwrap();
                    assert_eq!(fs.lookup(top, format!("{upper}-{n}").as_bytes()).unwrap(), None);
                }
            }
        }
        assert!(fs.read_dir(top).unwrap().iter().any(|entry| entry.name == "ÄÖÜ-1".as_bytes()));
        // What is not UTF-8 is like nothing else. (In an index e2fsck 1.47 takes all such names to have one hash, unlike
        // the kernel.)
        fs.create_dir(b"/top/small").unwrap();
        fs.write(b"/top/small/\xffN", b"upper").unwrap();
        fs.write(b"/top/SMALL/\xffn", b"lower").unwrap();
        assert_eq!(fs.read(b"/top/small/\xffN").unwrap(), b"upper");
        // What is made in such a directory is such a directory.
        fs.create_dir(b"/TOP".to_ascii_lowercase().as_slice()).unwrap_err();
        fs.create_dir(b"/top/Below").unwrap();
        fs.write(b"/top/bELOW/File", b"contents").unwrap();
        assert_eq!(fs.read(b"/top/below/FILE").unwrap(), b"contents");
        fs.rename_path(b"/top/below/file", b"/top/below/Other").unwrap();
        assert!(matches!(fs.lookup(fs.root(), b"TOP"), Ok(None)));
        check(&mut fs, &device, &path, arguments);
        fs.scrub().unwrap();
        check(&mut fs, &device, &path, arguments);
        fs.remove_dir_all(b"/top").unwrap();
        check(&mut fs, &device, &path, arguments);
    }
}
