//! A guest on a file system with random damage: opened, walked, changed and scrubbed without a panic or a hang.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::process::Command;
use std::sync::{Arc, LazyLock};

use block::Memory;
use guest::{FileKind, Guest, OpenOptions, Walk};
use proptest::prelude::*;

/// A small root file system of each kind; none where mke2fs is not installed.
static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let temp = tempfile::tempdir().unwrap();
    let tree = temp.path().join("tree");
    for directory in ["etc", "home/ann", "var/log/deep/er"] {
        std::fs::create_dir_all(tree.join(directory)).unwrap();
    }
    std::fs::write(tree.join("etc/os-release"), "ID=test\n").unwrap();
    std::fs::write(tree.join("etc/fstab"), "LABEL=x /home ext4\n/dev/sda1 / ext4\n").unwrap();
    std::fs::write(tree.join("var/log/large"), vec![b'x'; 300_000]).unwrap();
    std::os::unix::fs::symlink("var/log", tree.join("log")).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), tree.join("slow")).unwrap();
    for at in 0..60 {
        std::fs::write(tree.join(format!("var/log/file-{at}-{}", "y".repeat(60))), "z").unwrap();
    }
    let options: [&[&str]; 3] = [&["-t", "ext4"], &["-t", "ext3"], &["-t", "ext4", "-O", "^metadata_csum,^64bit"]];
    let make = |(number, options): (usize, &&[&str])| {
        let file = temp.path().join(number.to_string());
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-q", "-F", "-b", "1024", "-d"]).arg(&tree);
        let output = mke2fs.args(*options).arg(&file).arg("4M").output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(file).ok()
    };
    options.iter().enumerate().filter_map(make).collect()
});

/// What sealing does, in short. Errors are fine.
fn use_guest(disk: Arc<Memory>) -> guest::Result<()> {
    let mut guest = Guest::open(disk, &OpenOptions { root: Some("disk".to_owned()), ..OpenOptions::default() })?;
    let mut files = Vec::new();
    let walked = guest.walk(b"/", &mut |path, metadata| {
        if metadata.kind == FileKind::File {
            files.push(path.to_vec());
        }
        Ok(Walk::Continue)
    });
    for path in &files {
        let _ = guest.read(path);
        let _ = guest.xattr_names(path);
    }
    let _ = guest.glob("/{home,var}/*/*/*");
    for path in guest.glob("/log/file-1*").unwrap_or_default() {
        let _ = guest.remove_file(&path);
    }
    let _ = guest.write(b"/etc/hostname", b"localhost\n");
    let _ = guest.set_len(b"/var/log/large", 100);
    let _ = guest.create_dir_all(b"/var/log/new/directory", 0o755);
    let _ = guest.remove_all(b"/var/log/deep", &mut |_, _| ());
    let _ = guest.rename(b"/etc/hostname", b"/var/log/hostname");
    let _ = guest.scrub();
    let _ = guest.flush();
    walked
}

#[test]
fn undamaged_it_works() {
    if IMAGES.is_empty() {
        println!("SKIPPED undamaged_it_works: mke2fs is not installed");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "mke2fs has to be installed in CI");
    }
    for image in IMAGES.iter() {
        use_guest(Arc::new(Memory::from(image.clone()))).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn damage_gives_errors(
        which in any::<prop::sample::Index>(),
        // What is first on the disk holds the superblock, descriptors, bitmaps, inodes and the first directories.
        near in proptest::collection::vec((1024_usize..300_000, any::<u8>()), 0..40),
        far in proptest::collection::vec((0_usize..4 << 20, any::<u8>()), 0..40),
    ) {
        if !IMAGES.is_empty() {
            let mut image = which.get(&IMAGES).clone();
            for (at, byte) in near.into_iter().chain(far) {
                image[at] = byte;
            }
            let _ = use_guest(Arc::new(Memory::from(image)));
        }
    }

    /// Damage at the places that lead elsewhere: superblock, descriptors, and the inode table without checksums.
    #[test]
    fn aimed_damage_gives_errors(
        field in 0_usize..256,
        inode in 0_usize..40,
        word in 0_usize..32,
        value in prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), 0_u32..5000],
    ) {
        for image in IMAGES.iter().skip(1) {
            let put = |mut image: Vec<u8>, at: usize| {
                image[at..at + 4].copy_from_slice(&value.to_le_bytes());
                let _ = use_guest(Arc::new(Memory::from(image)));
            };
            put(image.clone(), 1024 + field * 4);
            put(image.clone(), 2048 + word * 4);
            let table = u32::from_le_bytes(image[2048 + 8..2048 + 12].try_into().unwrap()) as usize * 1024;
            let size = usize::from(u16::from_le_bytes(image[1024 + 88..1024 + 90].try_into().unwrap()));
            put(image.clone(), table + inode * size + word * 4);
        }
    }
}
