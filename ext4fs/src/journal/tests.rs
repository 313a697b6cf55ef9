//! Replay of journals built by hand, of journals that debugfs and the kernel wrote, and of any bytes.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::superblock::is_clean;
use super::*;
use crate::checksum::crc32c;
use crate::error::Error;
use crate::layout::journal::*;

const BLOCK: usize = 1024;

struct MemoryJournal(Vec<Vec<u8>>);

impl JournalBlocks for MemoryJournal {
    fn block_size(&self) -> usize {
        self.0[0].len()
    }
    fn block_count(&self) -> u32 {
        self.0.len() as u32
    }
    fn read(&self, n: u32) -> Result<Vec<u8>> {
        Ok(self.0[n as usize].clone())
    }
}

fn header(kind: u32, sequence: u32) -> Vec<u8> {
    let mut bytes = [JBD2_MAGIC, kind, sequence].map(u32::to_be_bytes).concat();
    bytes.resize(BLOCK, 0);
    bytes
}

/// A journal of `len` blocks whose log is to start at `start`.
fn empty(len: usize, start: u32, incompat: u32) -> MemoryJournal {
    let mut superblock = header(BLOCK_TYPE_SUPERBLOCK_V2, 0);
    {
        let (raw, _) = JournalSuperblock::mut_from_prefix(&mut superblock).unwrap();
        raw.s_blocksize.set(BLOCK as u32);
        raw.s_maxlen.set(len as u32);
        raw.s_first.set(1);
        raw.s_sequence.set(7);
        raw.s_start.set(start);
        raw.s_feature_incompat.set(incompat);
        raw.s_checksum_type = 4;
        raw.s_checksum.set(crc32c(!0, raw.as_bytes()));
    }
    let mut blocks = vec![vec![0; BLOCK]; len];
    blocks[0] = superblock;
    MemoryJournal(blocks)
}

/// A descriptor block of tags without checksums for these blocks.
fn descriptor(sequence: u32, targets: &[u32]) -> Vec<u8> {
    let mut bytes = header(BLOCK_TYPE_DESCRIPTOR, sequence);
    for (at, target) in targets.iter().enumerate() {
        let last = if at + 1 == targets.len() { TAG_LAST } else { 0 };
        let start = 12 + at * 8;
        bytes[start..start + 4].copy_from_slice(&target.to_be_bytes());
        bytes[start + 6..start + 8].copy_from_slice(&((TAG_SAME_UUID | last) as u16).to_be_bytes());
    }
    bytes
}

fn revoke(sequence: u32, targets: &[u32]) -> Vec<u8> {
    let mut bytes = header(BLOCK_TYPE_REVOKE, sequence);
    bytes[12..16].copy_from_slice(&(16 + 4 * targets.len() as u32).to_be_bytes());
    for (at, target) in targets.iter().enumerate() {
        bytes[16 + at * 4..20 + at * 4].copy_from_slice(&target.to_be_bytes());
    }
    bytes
}

/// Lays blocks into the log from `start` on, around its end.
fn fill(journal: &mut MemoryJournal, start: usize, blocks: Vec<Vec<u8>>) {
    let len = journal.0.len();
    for (at, bytes) in blocks.into_iter().enumerate() {
        journal.0[(start - 1 + at) % (len - 1) + 1] = bytes;
    }
}

fn data(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK]
}

#[test]
fn log_goes_around_and_ends_where_nothing_was_committed() {
    let mut journal = empty(12, 9, 0);
    let commit = |sequence| header(BLOCK_TYPE_COMMIT, sequence);
    fill(
        &mut journal,
        9,
        vec![
            descriptor(7, &[100, 50]),
            data(1),
            data(2),
            commit(7),
            descriptor(8, &[100]),
            data(3),
            commit(8),
            descriptor(9, &[200]),
            data(4),
        ],
    );
    let found = replay(&journal, 1000).unwrap();
    assert_eq!(found.transactions, 2);
    assert_eq!(found.blocks, [(50, data(2)), (100, data(3))]);
    let (raw, _) = JournalSuperblock::ref_from_prefix(&found.superblock).unwrap();
    assert_eq!((raw.s_start.get(), raw.s_sequence.get()), (0, 10));
    assert!(is_clean(&found.superblock).unwrap() && !is_clean(&journal.0[0]).unwrap());
    // Replayed and written back, there is nothing left to do.
    journal.0[0] = found.superblock.clone();
    let again = replay(&journal, 1000).unwrap();
    assert_eq!(
        again,
        Replay { blocks: Vec::new(), superblock: found.superblock, fast_commits: Vec::new(), transactions: 0 }
    );
    assert!(matches!(replay(&empty(12, 9, 0), 1000), Ok(Replay { transactions: 0, .. })));
}

#[test]
fn revokes_void_what_came_before_and_not_after() {
    let mut journal = empty(20, 1, 1);
    let commit = |sequence| header(BLOCK_TYPE_COMMIT, sequence);
    fill(
        &mut journal,
        1,
        vec![
            descriptor(7, &[10, 20, 30]),
            data(1),
            data(2),
            data(3),
            commit(7),
            // 10 is revoked and stays so, 20 is written again later, 30 is revoked where it is never committed.
            revoke(8, &[10, 20]),
            commit(8),
            descriptor(9, &[20]),
            data(9),
            commit(9),
            revoke(10, &[30]),
        ],
    );
    assert_eq!(replay(&journal, 1000).unwrap().blocks, [(20, data(9)), (30, data(3))]);
}

#[test]
fn numbers_of_transactions_wrap() {
    assert!(revoke::is_after(1, u32::MAX));
    assert!(!revoke::is_after(u32::MAX, 1));
    assert!(!revoke::is_after(5, 5));
}

#[test]
fn blocks_outside_the_file_system_are_refused() {
    let mut journal = empty(12, 1, 0);
    fill(&mut journal, 1, vec![descriptor(7, &[1000]), data(1), header(BLOCK_TYPE_COMMIT, 7)]);
    assert!(matches!(replay(&journal, 1000), Err(Error::Corrupt(_))));
    assert_eq!(replay(&journal, 1001).unwrap().blocks.len(), 1);
}

#[test]
fn superblocks_that_cannot_be_are_refused() {
    let damages: [(usize, u32); 8] = [(0, 1), (4, 5), (12, 4096), (16, 13), (20, 0), (20, 12), (28, 12), (40, 8 | 16)];
    for (offset, value) in damages {
        let mut journal = empty(12, 1, 0);
        journal.0[0][offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        assert!(matches!(replay(&journal, 1000), Err(Error::Corrupt(_))), "{offset} {value}");
    }
    let mut journal = empty(12, 1, 0x40);
    assert!(matches!(replay(&journal, 1000), Err(Error::Unsupported(_))));
    journal = empty(12, 1, 16);
    journal.0[0][28] ^= 1;
    assert!(matches!(replay(&journal, 1000), Err(Error::Corrupt(_))));
}

/// A block with one fast commit, of one name.
fn committed_fast(sequence: u32, features: u8, damage: u32) -> Vec<u8> {
    let mut bytes = vec![9, 0, 8, 0, features, 0, 0, 0];
    bytes.extend(sequence.to_le_bytes());
    bytes.extend([4, 0, 9, 0, 2, 0, 0, 0, 12, 0, 0, 0, b'n']);
    // The tail's length covers the rest of the block.
    let rest = (BLOCK - bytes.len() - 4) as u16;
    bytes.extend([8_u16.to_le_bytes(), rest.to_le_bytes()].concat());
    bytes.extend(sequence.to_le_bytes());
    let sum = crc32c(0, &bytes) ^ damage;
    bytes.extend(sum.to_le_bytes());
    bytes.resize(BLOCK, 0);
    bytes
}

#[test]
fn fast_commits_count_when_they_are_whole_and_on_top() {
    let mut journal = empty(300, 1, 0x20);
    fill(&mut journal, 1, vec![descriptor(7, &[1]), data(1), header(BLOCK_TYPE_COMMIT, 7)]);
    let mut put = |blocks: &[Vec<u8>]| {
        journal.0[300 - 255..300 - 255 + blocks.len()].clone_from_slice(blocks);
        replay(&journal, 1000).map(|found| found.fast_commits.len())
    };
    assert_eq!(put(&[committed_fast(8, 0, 0)]).unwrap(), 1);
    assert_eq!(put(&[committed_fast(8, 0, 0), committed_fast(8, 0, 0), committed_fast(8, 0, 1)]).unwrap(), 2);
    // On top of transaction 6, that is an old one.
    assert_eq!(put(&[committed_fast(7, 0, 0)]).unwrap(), 0);
    assert_eq!(put(&[committed_fast(8, 0, 1)]).unwrap(), 0);
    assert!(matches!(put(&[committed_fast(8, 1, 0)]), Err(Error::Unsupported(_))));
    let found = scan_one(&committed_fast(8, 0, 0));
    assert_eq!(found, [FastCommit::Link { parent: 2, inode: 12, name: b"n".to_vec() }]);
}

fn scan_one(block: &[u8]) -> Vec<FastCommit> {
    fast_commit::scan(&MemoryJournal(vec![block.to_vec()]), 0..1, 8).unwrap()
}

#[test]
fn scrubbed_superblock_keeps_its_fields() {
    let mut clean = empty(12, 0, 16).0[0].clone();
    clean.resize(4096, 7);
    let scrubbed = scrubbed_superblock(&clean).unwrap();
    assert_eq!(scrubbed[..1024], clean[..1024]);
    assert!(scrubbed[1024..].iter().all(|&byte| byte == 0));
    assert!(matches!(scrubbed_superblock(&empty(12, 1, 16).0[0]), Err(Error::Invalid(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_journal_ends(
        words in prop::collection::vec((1..11_usize, 0..256_usize, prop_oneof![0..12_u32, Just(JBD2_MAGIC), any::<u32>()]), 0..60),
        incompat in prop_oneof![Just(0), Just(3), Just(1)],
        start in 1..11_u32,
    ) {
        let mut journal = empty(12, start, incompat);
        fill(&mut journal, start as usize, vec![
            descriptor(7, &[10, 20, 30]), data(1), data(2), data(3), revoke(7, &[5]), header(BLOCK_TYPE_COMMIT, 7),
            descriptor(8, &[10]), data(5), header(BLOCK_TYPE_COMMIT, 8),
        ]);
        for (block, word, value) in words {
            // Half of them near the start of a block, where the fields are.
            let word = if word % 2 == 0 { word / 16 } else { word };
            journal.0[block][word * 4..word * 4 + 4].copy_from_slice(&value.to_be_bytes());
        }
        if let Ok(found) = replay(&journal, 1000) {
            prop_assert!(found.blocks.len() <= 11);
            prop_assert!(found.blocks.iter().all(|(block, _)| *block < 1000));
        }
    }
}

/// Runs a program of e2fsprogs and returns what it says; any exit status below 4 is one of success.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code().is_some_and(|code| code < 4), "{program} {arguments:?}: {said}");
    said
}

/// Whether the tools that judge are there; says so if not.
fn oracles(test: &str) -> bool {
    for tool in ["mke2fs", "debugfs", "e2fsck"] {
        if Command::new(tool).arg("-V").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "{tool} is not installed");
            println!("SKIPPED {test}: {tool} is not installed");
            return false;
        }
    }
    true
}

/// The journal of an image, read out by debugfs.
fn journal_of(image: &Path, scratch: &Path, block_size: usize) -> MemoryJournal {
    let dumped = scratch.join("journal");
    run("debugfs", &["-R", &format!("dump <8> {}", dumped.display()), image.to_str().unwrap()]);
    MemoryJournal(fs::read(dumped).unwrap().chunks(block_size).map(<[u8]>::to_vec).collect())
}

/// The compatible and incompatible features of a journal.
fn features_of(superblock: &[u8]) -> (u32, u32) {
    let (raw, _) = JournalSuperblock::ref_from_prefix(superblock).unwrap();
    (raw.s_feature_compat.get(), raw.s_feature_incompat.get())
}

/// Replays an image's journal by our code and by e2fsck, and compares all blocks but the two superblocks.
fn compare_with_e2fsck(image: &Path, scratch: &Path, block_size: usize) -> Replay {
    let journal = journal_of(image, scratch, block_size);
    let mut ours = fs::read(image).unwrap();
    let found = replay(&journal, (ours.len() / block_size) as u64).unwrap();
    for (block, bytes) in &found.blocks {
        let start = *block as usize * block_size;
        ours[start..start + block_size].copy_from_slice(bytes);
    }
    let said = run("debugfs", &["-R", "bmap <8> 0", image.to_str().unwrap()]);
    let first: usize = said.lines().find_map(|line| line.trim().parse().ok()).unwrap();
    let superblock = first * block_size..(first + 1) * block_size;
    ours[superblock.clone()].copy_from_slice(&found.superblock);

    let theirs_path = scratch.join("theirs");
    fs::copy(image, &theirs_path).unwrap();
    run("e2fsck", &["-y", "-E", "journal_only", theirs_path.to_str().unwrap()]);
    let mut theirs = fs::read(&theirs_path).unwrap();
    let sequence = |image: &[u8]| u32::from_be_bytes(image[superblock.start + 24..][..4].try_into().unwrap());
    assert!(revoke::is_after(sequence(&ours) + 1, sequence(&theirs)), "{} {}", sequence(&ours), sequence(&theirs));
    for image in [&mut ours, &mut theirs] {
        image[1024..2048].fill(0);
        image[superblock.clone()].fill(0);
    }
    let differing = ours.chunks(block_size).zip(theirs.chunks(block_size)).position(|(a, b)| a != b);
    assert_eq!(differing, None, "the first block that differs");
    found
}

#[test]
fn journals_of_debugfs_are_replayed_as_e2fsck_does() {
    if !oracles("journals_of_debugfs_are_replayed_as_e2fsck_does") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let mut escaped = JBD2_MAGIC.to_be_bytes().to_vec();
    escaped.resize(5 * 1024, b'e');
    escaped[2048..2052].copy_from_slice(&JBD2_MAGIC.to_be_bytes());
    fs::write(path("escaped"), &escaped).unwrap();
    fs::write(path("first"), vec![b'1'; 30 * 1024]).unwrap();
    fs::write(path("second"), vec![b'2'; 12 * 1024]).unwrap();
    for features in ["^64bit,^metadata_csum", "64bit,^metadata_csum", "^64bit,metadata_csum", "64bit,metadata_csum"] {
        // Version 1 is what debugfs makes of `-c` where metadata has none, and sums revoke blocks wrongly.
        let versions: &[&str] = if features.contains("^metadata") { &["", "-c"] } else { &["", "-c -v 2", "-c -v 3"] };
        for &version in versions {
            let revokes = version != "-c";
            let image = path("image");
            let _ = fs::remove_file(&image);
            let features = format!("has_journal,{features}");
            run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-O", &features, image.to_str().unwrap(), "16M"]);
            let commands = format!(
                "jo {version}\njw -b 9000-9029 {first}\njw -b 9100-9104 {escaped}\njc\n\
                 {revoke}\
                 jo {version}\njw -b 9005-9016 {second}\njc\n",
                revoke = if revokes { format!("jo {version}\njw -r 9000-9010,9100\njc\n") } else { String::new() },
                first = path("first").display(),
                second = path("second").display(),
                escaped = path("escaped").display(),
            );
            fs::write(path("commands"), commands).unwrap();
            let said = run("debugfs", &["-w", "-f", path("commands").to_str().unwrap(), image.to_str().unwrap()]);
            let found = compare_with_e2fsck(&image, scratch.path(), BLOCK);
            let (checksum, flags) = features_of(&found.superblock);
            assert_eq!(checksum, u32::from(version == "-c"));
            let expected = match version {
                "-c -v 2" => 8,
                "-c -v 3" => 16,
                _ => 0,
            };
            let wide = if features.contains("^64bit") { 0 } else { 2 };
            assert_eq!(flags & !1, expected | wide, "{features} {version}: {said}");
            assert_eq!(found.transactions, if revokes { 4 } else { 3 }, "{features} {version}: {said}");
            let blocks: std::collections::BTreeMap<_, _> = found.blocks.into_iter().collect();
            assert_ne!(blocks.contains_key(&9000) && blocks.contains_key(&9100), revokes, "{features} {version}");
            assert_eq!(blocks[&9102][..4], JBD2_MAGIC.to_be_bytes());
            assert_eq!((blocks[&9005][0], blocks[&9029][0]), (b'2', b'1'));
        }
    }
}

/// A loop mount that is undone when dropped.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn journals_of_the_kernel_are_replayed_as_e2fsck_does() {
    const TEST: &str = "journals_of_the_kernel_are_replayed_as_e2fsck_does";
    if !oracles(TEST) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (image, point, copy) = (scratch.path().join("image"), scratch.path().join("mnt"), scratch.path().join("copy"));
    fs::create_dir(&point).unwrap();
    // Without metadata_csum the mount option gives version 1 checksums, with it version 3 is always on.
    for (features, options) in [
        ("^metadata_csum,^64bit", ""),
        ("^metadata_csum,64bit", ",journal_checksum"),
        ("metadata_csum,64bit", ""),
        ("metadata_csum,^64bit", ",data=writeback,journal_async_commit"),
    ] {
        let _ = fs::remove_file(&image);
        run(
            "mke2fs",
            &["-q", "-F", "-t", "ext4", "-b", "1024", "-J", "size=1", "-O", features, image.to_str().unwrap(), "16M"],
        );
        let mounted = Command::new("mount")
            .args(["-o", &format!("loop,commit=300{options}")])
            .args([&image, &point])
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            assert!(std::env::var_os("CI").is_none(), "cannot mount");
            println!("SKIPPED {TEST}: cannot mount");
            return;
        }
        let mount = Mount(&point);
        // Directories come and go so that their blocks are revoked, and the log of 1 MiB goes around some times.
        for round in 0..12 {
            let directory = point.join(format!("d{}", round % 3));
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir(&directory).unwrap();
            for n in 0..60 {
                fs::write(directory.join(format!("{n:0>80}")), JBD2_MAGIC.to_be_bytes().repeat(600)).unwrap();
            }
            assert!(Command::new("sync").arg("-f").arg(&point).status().unwrap().success());
        }
        // What the page cache of the file shows is what the loop device wrote: a disk after a power cut.
        fs::copy(&image, &copy).unwrap();
        drop(mount);
        let found = compare_with_e2fsck(&copy, scratch.path(), BLOCK);
        assert!(found.transactions > 0 && !found.blocks.is_empty(), "{features}{options}: nothing to replay");
        let revoke = header(BLOCK_TYPE_REVOKE, 0)[..8].to_vec();
        assert!(journal_of(&copy, scratch.path(), BLOCK).0.iter().any(|block| block[..8] == revoke), "no revokes");
        let (checksum, flags) = features_of(&found.superblock);
        assert_eq!(checksum == 1, features.contains("^metadata") && !options.is_empty(), "{features}{options}");
        assert_eq!(flags & 16 != 0, !features.contains("^metadata"), "{features}{options}");
    }
}
