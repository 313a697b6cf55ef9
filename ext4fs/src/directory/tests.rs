//! The directory code against a map, on blocks in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::hash::{HashKind, hash_name};
use super::index::{BlockKind, Index, kind_of};
use super::*;

const INODE: u32 = 12;
const PARENT: u32 = 2;
const SEED: u32 = 0x1234_5678;

#[derive(Default)]
struct MemoryDirectory {
    blocks: Vec<Vec<u8>>,
    indexed: bool,
    folded: bool,
}

impl DirectoryBlocks for MemoryDirectory {
    fn inode(&self) -> u32 {
        INODE
    }
    fn checksum_seed(&self) -> u32 {
        SEED
    }
    fn block_count(&self) -> u32 {
        self.blocks.len() as u32
    }
    fn is_indexed(&self) -> bool {
        self.indexed
    }
    fn has_known_hashes(&self) -> bool {
        !self.folded
    }
    fn read(&self, block: u32, check: Check<'_>) -> Result<Block> {
        check(&self.blocks[block as usize])?;
        Ok(self.blocks[block as usize].clone().into())
    }
}

impl DirectoryBlocksMut for MemoryDirectory {
    fn write(&mut self, block: u32, bytes: Block) -> Result<()> {
        self.blocks[block as usize] = bytes.to_vec();
        Ok(())
    }
    fn append(&mut self, bytes: Vec<u8>) -> Result<u32> {
        self.blocks.push(bytes);
        Ok(self.block_count() - 1)
    }
    fn set_indexed(&mut self, indexed: bool) -> Result<()> {
        self.indexed = indexed;
        Ok(())
    }
}

fn format(block_size: usize) -> DirectoryFormat {
    DirectoryFormat {
        block_size,
        has_file_type: true,
        checksum: true,
        hash_seed: [1, 2, 3, 4],
        default_hash: 1,
        unsigned_hash: false,
        indexed: true,
        large: false,
    }
}

fn new_directory(f: &DirectoryFormat) -> MemoryDirectory {
    MemoryDirectory { blocks: vec![first_block(f, SEED, INODE, PARENT)], ..MemoryDirectory::default() }
}

fn entry(inode: u32, name: &[u8]) -> Entry {
    Entry { inode, file_type: 1, name: name.to_vec() }
}

#[test]
fn an_index_that_leads_astray_is_noticed() {
    let f = format(1024);
    let mut dir = new_directory(&f);
    for n in 0..3000_u32 {
        insert(&mut dir, &f, &entry(n + 20, format!("name-{n:0>40}").as_bytes())).unwrap();
    }
    check_index(&dir, &f).unwrap();
    let node = Index::read(&dir, &f, 0, BlockKind::Root).unwrap().child(0);
    // In an index block: an entry's hash, and then the block that it leads to. In a leaf: a name.
    for (block, at, what) in [(0, 40, "hash"), (0, 44, "block"), (node, 40, "hash"), (node, 44, "block")] {
        let sound = dir.blocks[block as usize].clone();
        let changed = &mut dir.blocks[block as usize];
        let next: [u8; 4] = changed[at + 8..at + 12].try_into().unwrap();
        changed[at..at + 4].copy_from_slice(&next);
        let kind = if block == 0 { BlockKind::Root } else { BlockKind::Node };
        index::set_checksum(changed, &f, kind, SEED);
        let found = check_index(&dir, &f);
        assert!(matches!(found, Err(Error::Corrupt(_))), "{what} in block {block}: {found:?}");
        dir.blocks[block as usize] = sound;
    }
    let leaf = Index::read(&dir, &f, node, BlockKind::Node).unwrap().child(3) as usize;
    dir.blocks[leaf][10] ^= 1;
    block::set_leaf_checksum(&mut dir.blocks[leaf], &f, SEED);
    assert!(matches!(check_index(&dir, &f), Err(Error::Corrupt(_))));
}

fn scrub(f: &DirectoryFormat, indexed: bool, block: usize, bytes: &mut [u8]) -> Result<u64> {
    let owner = BlockOwner { inode: INODE, checksum_seed: SEED, indexed };
    scrub_block(f, owner, block as u32, bytes, &mut |_| Ok(()))
}

/// Checks that every name lies in a leaf whose range of hashes holds its hash, and that every block is in the tree.
fn check_tree(dir: &MemoryDirectory, f: &DirectoryFormat) -> usize {
    fn walk(
        dir: &MemoryDirectory,
        f: &DirectoryFormat,
        block: u32,
        depth: usize,
        low: u32,
        high: u64,
        seen: &mut Vec<u32>,
    ) {
        seen.push(block);
        if depth == 0 {
            let bytes = read_block(dir, f, block).unwrap();
            assert_eq!(kind_of(f, true, block, &bytes), BlockKind::Leaf);
            let kind = HashKind::from_version(f.default_hash).unwrap();
            for slot in block::slots(&bytes, block::entries_end(f), Place { inode: INODE, block }) {
                let slot = slot.unwrap();
                if slot.inode != 0 {
                    let hash = hash_name(kind, f.unsigned_hash, f.hash_seed, slot.name(&bytes));
                    assert!(hash >= low & !1 && u64::from(hash) < high, "{hash:#x} in {low:#x}..{high:#x}");
                }
            }
            return;
        }
        let index = Index::read(dir, f, block, if block == 0 { BlockKind::Root } else { BlockKind::Node }).unwrap();
        for at in 0..index.count() {
            let low = if at == 0 { low } else { index.hash(at) };
            // A hash with bit 0 set lets the range before it end with that very hash.
            let high = if at + 1 < index.count() { u64::from(index.hash(at + 1)) } else { high };
            assert!(u64::from(low) <= high);
            walk(dir, f, index.child(at), depth - 1, low, high, seen);
        }
    }
    let root = Index::read(dir, f, 0, BlockKind::Root).unwrap();
    let mut seen = Vec::new();
    walk(dir, f, 0, root.levels() + 1, 0, 1 << 32, &mut seen);
    seen.sort_unstable();
    assert_eq!(seen, (0..dir.block_count()).collect::<Vec<_>>());
    root.levels()
}

fn check_equal(dir: &MemoryDirectory, f: &DirectoryFormat, model: &BTreeMap<Vec<u8>, u32>) {
    let listed = list(dir, f).unwrap();
    let mut names: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for found in listed {
        assert!(names.insert(found.name, found.inode).is_none());
    }
    assert_eq!(names.remove(b".".as_slice()), Some(INODE));
    assert_eq!(names.remove(b"..".as_slice()), Some(PARENT));
    assert_eq!(&names, model);
    for (name, inode) in model {
        assert_eq!(lookup(dir, f, name).unwrap().unwrap().inode, *inode);
    }
    if dir.indexed && f.indexed {
        check_tree(dir, f);
    }
}

#[test]
fn hashes_are_those_of_debugfs() {
    // debugfs -R 'dx_hash -h <version> -s 01020304-0506-0708-090a-0b0c0d0e0f10 <name>'
    let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
    let long = "a".repeat(73) + "éz";
    let cases: [(HashKind, bool, &str, u32); 12] = [
        (HashKind::Legacy, false, "passwd", 0x98b8_cd7c),
        (HashKind::Legacy, false, "Übung_äöü", 0x896a_1098),
        (HashKind::Legacy, true, "Übung_äöü", 0x332c_ca1a),
        (HashKind::HalfMd4, false, "passwd", 0xbdfe_309a),
        (HashKind::HalfMd4, false, "Übung_äöü", 0x2c89_fa18),
        (HashKind::HalfMd4, true, "Übung_äöü", 0x2238_8284),
        (HashKind::HalfMd4, false, &long, 0x7d1a_c6fc),
        (HashKind::HalfMd4, true, &long, 0x4e08_323c),
        (HashKind::Tea, false, "passwd", 0x7ae5_f0da),
        (HashKind::Tea, false, "Übung_äöü", 0xe384_aaa4),
        (HashKind::Tea, true, "Übung_äöü", 0x3b65_1302),
        (HashKind::Tea, true, &long, 0x7567_c850),
    ];
    for (kind, unsigned, name, hash) in cases {
        assert_eq!(hash_name(kind, unsigned, seed, name.as_bytes()), hash, "{kind:?} {unsigned} {name}");
    }
    assert_eq!(hash_name(HashKind::HalfMd4, false, [0; 4], b"passwd"), 0xeadd_3d7e);
    assert_eq!(hash_name(HashKind::Tea, false, [0; 4], b"passwd"), 0x3ae7_fc66);
}

#[test]
fn first_block_holds_dots_and_tail() {
    let f = format(1024);
    let bytes = first_block(&f, SEED, INODE, PARENT);
    assert_eq!(&bytes[..24], b"\x0c\0\0\0\x0c\0\x01\x02.\0\0\0\x02\0\0\0\xe8\x03\x02\x02..\0\0");
    assert_eq!(&bytes[1012..1020], b"\0\0\0\0\x0c\0\0\xde");
    let dir = MemoryDirectory { blocks: vec![bytes], ..MemoryDirectory::default() };
    check_equal(&dir, &f, &BTreeMap::new());
}

#[test]
fn tree_grows_to_its_limit() {
    let mut f = format(1024);
    let name = |n: u32| format!("{n:0>200}").into_bytes();
    for large in [false, true] {
        f.large = large;
        let mut dir = new_directory(&f);
        let mut model = BTreeMap::new();
        let mut levels = 0;
        // 123 entries in the root, 126 in each node and 4 names in each leaf: the second level comes below 62,000.
        for n in 1..=60_000 {
            match insert(&mut dir, &f, &entry(n, &name(n))) {
                Ok(()) => model.insert(name(n), n),
                Err(Error::NoSpace(_)) => break,
                Err(error) => panic!("{error}"),
            };
        }
        if dir.indexed {
            levels = check_tree(&dir, &f);
        }
        assert_eq!(levels, if large { 2 } else { 1 });
        assert_eq!(model.len() == 60_000, large, "{} names", model.len());
        check_equal(&dir, &f, &model);
    }
}

/// Names of 240 bytes of which many have one hash with another, found by trying many.
fn colliding_names(f: &DirectoryFormat) -> Vec<Vec<Vec<u8>>> {
    let kind = HashKind::from_version(f.default_hash).unwrap();
    let mut classes: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
    for n in 0..150_000_u32 {
        let name = format!("{n:_>240}").into_bytes();
        classes.entry(hash_name(kind, f.unsigned_hash, f.hash_seed, &name)).or_default().push(name);
    }
    classes.into_values().filter(|class| class.len() > 1).collect()
}

#[test]
fn collisions_continue_in_the_next_leaf() {
    let mut f = format(1024);
    f.default_hash = 0;
    let hash = |name: &[u8]| hash_name(HashKind::Legacy, f.unsigned_hash, f.hash_seed, name);
    let mut continued = 0;
    for class in colliding_names(&f).iter().take(20) {
        let filler = |n: u32| format!("{n:+>240}").into_bytes();
        let fillers = |above: bool| (0..500).map(filler).filter(move |name| (hash(name) > hash(&class[0])) == above);
        // Four of these names fit a leaf: the fifth, the twin of the second, is where the leaf is split.
        let lower = fillers(false).take(1);
        let upper = fillers(true).take(2);
        let (mut dir, mut model) = (new_directory(&f), BTreeMap::new());
        let first = lower.chain([class[0].clone()]).chain(upper).chain([class[1].clone()]);
        for name in first.chain((1000..1300).map(filler)) {
            let inode = 100 + model.len() as u32;
            insert(&mut dir, &f, &entry(inode, &name)).unwrap();
            model.insert(name, inode);
        }
        let root = Index::read(&dir, &f, 0, BlockKind::Root).unwrap();
        continued += usize::from((1..root.count()).any(|at| root.hash(at) & 1 == 1));
        check_equal(&dir, &f, &model);
        for name in model.keys() {
            assert_eq!(remove(&mut dir, &f, name).unwrap().unwrap().name, *name);
        }
        check_equal(&dir, &f, &BTreeMap::new());
    }
    assert!(continued >= 15, "{continued} leaves that continue a hash");
}

#[test]
fn damaged_checksums_are_found() {
    let f = format(1024);
    let mut dir = new_directory(&f);
    for n in 0..200_u32 {
        insert(&mut dir, &f, &entry(n + 20, format!("name-{n:0>60}").as_bytes())).unwrap();
    }
    for block in 0..dir.blocks.len() {
        let at = if block == 0 { 33 } else { 9 };
        dir.blocks[block][at] ^= 1;
        assert!(matches!(list(&dir, &f), Err(Error::Corrupt(_))), "block {block}");
        dir.blocks[block][at] ^= 1;
    }
    assert_eq!(list(&dir, &f).unwrap().len(), 202);
}

#[test]
fn directory_without_the_feature_loses_its_index() {
    for checksum in [false, true] {
        let mut f = format(1024);
        f.checksum = checksum;
        let mut dir = new_directory(&f);
        let mut model = BTreeMap::new();
        for n in 1..900_u32 {
            let name = format!("name-{n:0>90}").into_bytes();
            insert(&mut dir, &f, &entry(n, &name)).unwrap();
            model.insert(name, n);
        }
        assert_eq!(check_tree(&dir, &f), 1);
        f.indexed = false;
        check_equal(&dir, &f, &model);
        insert(&mut dir, &f, &entry(5, b"five")).unwrap();
        model.insert(b"five".to_vec(), 5);
        assert!(!dir.indexed);
        check_equal(&dir, &f, &model);
    }
}

#[test]
fn folded_names_are_found_without_the_tree() {
    let f = format(1024);
    let mut dir = new_directory(&f);
    for n in 0..900_u32 {
        insert(&mut dir, &f, &entry(n + 20, format!("name-{n:0>60}").as_bytes())).unwrap();
    }
    dir.folded = true;
    assert_eq!(list(&dir, &f).unwrap().len(), 902);
    // Were the hash that of another name, the tree would lead elsewhere.
    let other = DirectoryFormat { hash_seed: [9; 4], ..f };
    assert_eq!(lookup(&dir, &other, format!("name-{:0>60}", 7).as_bytes()).unwrap().unwrap().inode, 27);
    assert!(matches!(insert(&mut dir, &other, &entry(5, b"new")), Err(Error::Unsupported(_))));
}

#[test]
fn dotdot_can_be_replaced_and_not_removed() {
    let f = format(1024);
    let mut dir = new_directory(&f);
    for n in 0..100_u32 {
        insert(&mut dir, &f, &entry(n + 20, format!("name-{n:0>60}").as_bytes())).unwrap();
    }
    assert!(dir.indexed);
    assert!(replace_inode(&mut dir, &f, b"..", 77, 2).unwrap());
    assert_eq!(lookup(&dir, &f, b"..").unwrap().unwrap().inode, 77);
    assert!(matches!(remove(&mut dir, &f, b".."), Err(Error::Invalid(_))));
    assert!(!replace_inode(&mut dir, &f, b"absent", 77, 2).unwrap());
    check_tree(&dir, &f);
}

#[test]
fn scrub_wipes_what_older_kernels_leave() {
    for checksum in [false, true] {
        let mut f = format(1024);
        f.checksum = checksum;
        let mut dir = new_directory(&f);
        let mut model = BTreeMap::new();
        for n in 1..400_u32 {
            let name = format!("name-{n:0>60}").into_bytes();
            insert(&mut dir, &f, &entry(n, &name)).unwrap();
            model.insert(name, n);
        }
        // Removal as it was before kernels wiped: only rec_len and inode change.
        for n in (1..400_u32).filter(|n| n % 3 != 0) {
            let name = format!("name-{n:0>60}").into_bytes();
            let mut found = find(&dir, &f, &name).unwrap().unwrap();
            let removed = found.bytes[found.slot.offset..found.slot.offset + found.slot.rec_len].to_vec();
            let bytes = std::sync::Arc::make_mut(&mut found.bytes);
            block::remove(bytes, &found.slot, found.previous, &f);
            bytes[found.slot.offset + 6..found.slot.offset + found.slot.rec_len].copy_from_slice(&removed[6..]);
            write_block(&mut dir, &f, found.block, found.bytes).unwrap();
            model.remove(&name);
        }
        // What an index keeps beyond its count when it was split.
        let at = index::unused(&dir.blocks[0], &f, BlockKind::Root).end - 3;
        dir.blocks[0][at] = 0x77;
        let holds = |dir: &MemoryDirectory, text: &[u8]| {
            dir.blocks.iter().any(|block| block.windows(text.len()).any(|bytes| bytes == text))
        };
        let removed = format!("name-{:0>60}", 100).into_bytes();
        assert!(holds(&dir, &removed[1..]));
        for (number, bytes) in dir.blocks.iter_mut().enumerate() {
            scrub(&f, true, number, bytes).unwrap();
            assert_eq!(scrub(&f, true, number, bytes).unwrap(), 0);
        }
        assert_eq!(dir.blocks[0][at], 0);
        assert!(!holds(&dir, &removed[1..]));
        check_equal(&dir, &f, &model);
    }
}

#[test]
fn malformed_entries_are_errors() {
    let mut f = format(1024);
    f.checksum = false;
    let good = new_directory(&f);
    // rec_len: zero, odd, past the end, too short for the name; a name with a slash; one of no bytes.
    let damages: [(usize, &[u8]); 7] =
        [(16, &[0, 0]), (16, &[13, 0]), (16, &[0xff, 0x7f]), (16, &[0xf8, 3]), (18, &[255]), (20, b"/x"), (18, &[0])];
    for (offset, damage) in damages {
        let mut dir = MemoryDirectory { blocks: good.blocks.clone(), ..MemoryDirectory::default() };
        if damage == [255] {
            dir.blocks[0][16..18].copy_from_slice(&[12, 0]);
        }
        dir.blocks[0][offset..offset + damage.len()].copy_from_slice(damage);
        assert!(matches!(list(&dir, &f), Err(Error::Corrupt(_))), "{offset} {damage:?}");
    }
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Insert(u16),
    Remove(u16),
    Replace(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3000_u16).prop_map(Step::Insert),
        2 => (0..3000_u16).prop_map(Step::Remove),
        1 => (0..3000_u16).prop_map(Step::Replace),
    ];
    prop::collection::vec(step, 0..4000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn directory_is_a_map(
        steps in steps(),
        hash in 0..3_u8,
        large_blocks: bool,
        checksum: bool,
        unsigned_hash: bool,
        indexed: bool,
        longest in 4..250_usize,
    ) {
        let mut f = format(if large_blocks { 4096 } else { 1024 });
        (f.default_hash, f.checksum, f.unsigned_hash, f.indexed) = (hash, checksum, unsigned_hash, indexed);
        // Lengths vary with the number, and bytes above 127 tell signed hashes from unsigned ones.
        let name = |n: u16| {
            let width = 1 + usize::from(n) * 31 % longest;
            let mut name = format!("{n:\u{e9}>width$}").into_bytes();
            name.truncate(255);
            if !name.ends_with(n.to_string().as_bytes()) {
                name = n.to_string().into_bytes();
            }
            name
        };
        let mut dir = new_directory(&f);
        let mut model: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            let inode = at as u32 + 100;
            match *step {
                Step::Insert(n) => {
                    let found = lookup(&dir, &f, &name(n)).unwrap();
                    prop_assert_eq!(found.map(|entry| entry.inode), model.get(&name(n)).copied());
                    if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(name(n)) {
                        vacant.insert(inode);
                        insert(&mut dir, &f, &entry(inode, &name(n))).unwrap();
                    }
                }
                Step::Remove(n) => {
                    let removed = remove(&mut dir, &f, &name(n)).unwrap();
                    prop_assert_eq!(removed.map(|entry| entry.inode), model.remove(&name(n)));
                }
                Step::Replace(n) => {
                    let replaced = replace_inode(&mut dir, &f, &name(n), inode, 7).unwrap();
                    prop_assert_eq!(replaced, model.contains_key(&name(n)));
                    model.entry(name(n)).and_modify(|found| *found = inode);
                }
            }
        }
        check_equal(&dir, &f, &model);
        // What was removed left nothing behind.
        let tree = dir.indexed;
        for (number, bytes) in dir.blocks.iter_mut().enumerate() {
            let before = bytes.clone();
            prop_assert_eq!(scrub(&f, tree, number, bytes).unwrap(), 0);
            prop_assert!(before == *bytes);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 1024),
        indexed: bool,
        checksum: bool,
        plausible: bool,
    ) {
        let mut f = format(1024);
        f.checksum = checksum;
        let mut dir = new_directory(&f);
        for n in 0..40_u32 {
            insert(&mut dir, &f, &entry(n + 20, format!("name-{n:0>60}").as_bytes())).unwrap();
        }
        dir.indexed = indexed;
        // Some bytes of a good directory replaced, or all of a block.
        for (at, window) in bytes.chunks(4).enumerate().take(if plausible { 12 } else { 256 }) {
            let block = if plausible { at % dir.blocks.len() } else { 0 };
            let offset = if plausible { usize::from(window[1]) * 4 % 1000 } else { at * 4 };
            dir.blocks[block][offset..offset + 4].copy_from_slice(window);
        }
        for (block, bytes) in dir.blocks.iter_mut().enumerate() {
            match kind_of(&f, indexed, block as u32, bytes) {
                BlockKind::Leaf => block::set_leaf_checksum(bytes, &f, SEED),
                kind => index::set_checksum(bytes, &f, kind, SEED),
            }
        }
        let _ = list(&dir, &f);
        let _ = lookup(&dir, &f, b"name-000000000000000000000000000000000000000000000000000000000007");
        let _ = insert(&mut dir, &f, &entry(9, b"nine"));
        let _ = remove(&mut dir, &f, b"nine");
        let _ = replace_inode(&mut dir, &f, b"..", 5, 2);
        for (block, bytes) in dir.blocks.iter_mut().enumerate() {
            let _ = scrub(&f, indexed, block, bytes);
        }
    }
}
