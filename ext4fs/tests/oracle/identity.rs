//! Label, UUID, permissions, free extents and file handles.

use std::process::Command;

use ext4fs::{Error, FileSystem};

use crate::common::{LAYOUTS, check, e2fsck, has_tool, mke2fs, open, pattern, scratch};

const UUID: [u8; 16] = *b"\xca\xfe\xba\xbe\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x02\x03\x04";

#[test]
fn label_and_uuid_change_everywhere() {
    if !has_tool("label_and_uuid_change_everywhere", "mke2fs") {
        return;
    }
    let folder = scratch();
    let layouts = LAYOUTS.iter().chain(&[("stable inodes", "-t ext4 -b 4096 -O encrypt,stable_inodes")]);
    for (name, arguments) in layouts {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (device, mut fs) = open(&path);
        fs.write(b"/before", &pattern(5000, 1)).unwrap();
        fs.set_label(b"golden").unwrap();
        assert!(matches!(fs.set_label(b"seventeen letters"), Err(Error::Invalid(_))));
        if *name == "stable inodes" {
            assert!(matches!(fs.set_uuid(UUID), Err(Error::Unsupported(_))));
            continue;
        }
        fs.set_uuid(UUID).unwrap();
        fs.write(b"/after", &pattern(5000, 2)).unwrap();
        check(&mut fs, &device, &path, name);
        // What comes later finds and makes the same checksums.
        let (device, mut fs) = open(&path);
        assert_eq!((fs.label(), fs.uuid()), (b"golden".as_slice(), UUID));
        assert_eq!(fs.read(b"/before").unwrap(), pattern(5000, 1));
        fs.remove_file(b"/after").unwrap();
        fs.set_label(b"").unwrap();
        check(&mut fs, &device, &path, name);
        let told = |options: &[&str]| {
            let out = Command::new("dumpe2fs").arg("-h").args(options).arg(&path).output().unwrap();
            String::from_utf8_lossy(&out.stdout).contains("cafebabe-0123-4567-89ab-cdef01020304")
        };
        assert!(told(&[]), "{name}");
        // The copy in the second group, where there are two.
        let size = arguments.split(' ').skip_while(|word| *word != "-b").nth(1).unwrap();
        let second = if size == "1024" { Some("8193") } else { arguments.contains("-g 4096").then_some("4096") };
        if let Some(block) = second.filter(|_| !arguments.contains("-r 0") && !arguments.contains("bigalloc")) {
            let (block, size) = (format!("superblock={block}"), format!("blocksize={size}"));
            assert!(told(&["-o", &block, "-o", &size]), "{name}");
        }
        e2fsck(&path, name);
    }
}

#[test]
fn free_extents_are_what_statfs_counts() {
    if !has_tool("free_extents_are_what_statfs_counts", "mke2fs") {
        return;
    }
    let folder = scratch();
    for (name, arguments) in LAYOUTS {
        let path = mke2fs(folder.path(), arguments, 24, None);
        let (_, mut fs) = open(&path);
        for n in 0..20 {
            fs.write(format!("/{n}").as_bytes(), &pattern(3000 * n, 3)).unwrap();
        }
        (0..20).step_by(3).for_each(|n| fs.remove_file(format!("/{n}").as_bytes()).unwrap());
        let count = |fs: &FileSystem| {
            let (mut free, mut last) = (0, 0);
            fs.free_extents(|run| {
                assert!(run.start < run.end && (run.start > last || last == 0), "{name}: runs are in order, and apart");
                free += run.end - run.start;
                last = run.end;
                Ok(())
            })
            .unwrap();
            free
        };
        assert_eq!(count(&fs), fs.statfs().free_blocks, "{name}");
    }
}

#[test]
fn a_file_handle_reads_writes_and_cuts() {
    if !has_tool("a_file_handle_reads_writes_and_cuts", "mke2fs") {
        return;
    }
    let folder = scratch();
    let path = mke2fs(folder.path(), "-t ext4 -b 1024", 24, None);
    let (device, mut fs) = open(&path);
    assert!(matches!(fs.open_file(b"/missing"), Err(Error::NotFound)));
    assert!(matches!(fs.open_file(b"/"), Err(Error::IsADirectory(2))));
    let mut file = fs.create_file(b"/log").unwrap();
    file.write_at(70_000, b"end").unwrap();
    file.write_at(0, &[5; 10_000]).unwrap();
    file.punch_hole(1000, 5000).unwrap();
    let mut bytes = vec![1; 80_000];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), 70_003);
    assert!(bytes[..1000] == [5; 1000] && bytes[1000..6000] == [0; 5000] && bytes[6000..10_000] == [5; 4000]);
    assert_eq!(&bytes[70_000..70_003], b"end");
    file.set_len(9_000).unwrap();
    assert_eq!(file.metadata().unwrap().size, 9_000);
    // Blocks 1 to 4 are wholly within the hole.
    assert_eq!(file.metadata().unwrap().sectors, 2 * 5);
    file.sync().unwrap();
    fs.set_permissions(b"/log", 0o600).unwrap();
    assert_eq!(fs.metadata_path(b"/log").unwrap().mode, 0o600);
    check(&mut fs, &device, &path, "a file handle");
}
