//! Directories with an index: search through the tree, insertion that splits and grows it.
//!
//! <https://docs.kernel.org/filesystems/ext4/directory.html#hash-tree-directories>, kernel `fs/ext4/namei.c`
//! (`dx_probe`, `ext4_htree_next_block`, `ext4_dx_add_entry`, `do_split`, `make_indexed_dir`).

use super::fold::Wanted;
use super::hash::{HashKind, hash_name};
use super::index::{BlockKind, Index, kind_of, max_levels};
use super::{
    DirectoryBlocks, DirectoryBlocksMut, DirectoryFormat, Entry, Found, Place, block, linear, read_block, write_block,
};
use crate::error::{Error, Result};

/// Names whose hashes collide fill at most this many blocks in a tree that is worth reading.
const MAX_COLLISION_BLOCKS: u32 = 65_536;

/// The index blocks from the root to the one above a leaf, each with the entry the search went through.
struct Path {
    indexes: Vec<Index>,
    hash: u32,
    kind: HashKind,
}

/// Searches the leaf that the name's hash leads to, and those that collisions continue in.
pub(super) fn find(
    dir: &(impl DirectoryBlocks + ?Sized),
    f: &DirectoryFormat,
    wanted: &Wanted<'_>,
) -> Result<Option<Found>> {
    if wanted.name == b"." || wanted.name == b".." {
        return linear::find_in(dir, f, 0, wanted);
    }
    let mut path = Path::probe(dir, f, wanted)?;
    for _ in 0..dir.block_count().min(MAX_COLLISION_BLOCKS) {
        let leaf = path.leaf(dir)?;
        if let Some(found) = linear::find_in(dir, f, leaf, wanted)? {
            return Ok(Some(found));
        }
        if !path.continue_collision(dir, f)? {
            return Ok(None);
        }
    }
    let place = Place { inode: dir.inode(), block: 0 };
    Err(Error::corrupt("htree", place, format!("hash {:#010x} must end in fewer blocks", path.hash)))
}

/// Adds an entry to the leaf that its hash leads to, making room where there is none.
pub(super) fn insert(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, e: &Entry) -> Result<()> {
    // Each round but the last splits an index block or adds a level; a tree has at most three levels.
    for _ in 0..8 {
        let mut path = Path::probe(dir, f, &Wanted::new(dir, &e.name))?;
        let number = path.leaf(dir)?;
        let place = Place { inode: dir.inode(), block: number };
        let mut bytes = read_block(dir, f, number)?;
        if kind_of(f, true, number, &bytes) != BlockKind::Leaf {
            return Err(Error::corrupt("htree", place, "must be a block of entries".to_owned()));
        }
        if block::insert(&mut bytes, f, place, e)? {
            return write_block(dir, f, number, bytes);
        }
        let mut entries = Vec::new();
        for slot in block::slots(&bytes, block::entries_end(f), place) {
            let slot = slot?;
            if slot.inode != 0 {
                entries.push(slot.to_entry(f, &bytes));
            }
        }
        entries.push(e.clone());
        // Holes that are each too small may together be enough.
        if let Some(bytes) = block::build(f, dir.checksum_seed(), entries.iter()) {
            return dir.write(number, bytes.into());
        }
        match path.indexes.last_mut() {
            Some(lowest) if !lowest.is_full(f) => return split_leaf(dir, f, lowest, (path.kind, number), entries),
            _ => path.make_room(dir, f)?,
        }
    }
    Err(Error::corrupt("htree", Place { inode: dir.inode(), block: 0 }, "must have room once it was split".to_owned()))
}

/// Fails where [`insert`] would.
pub(super) fn check_room(dir: &dyn DirectoryBlocks, f: &DirectoryFormat, name: &[u8]) -> Result<()> {
    let path = Path::probe(dir, f, &Wanted::new(dir, name))?;
    let full = path.indexes.iter().all(|index| index.is_full(f));
    if !full || path.indexes.first().is_some_and(|root| root.levels() < usize::from(max_levels(f))) {
        return Ok(());
    }
    let number = path.leaf(dir)?;
    let place = Place { inode: dir.inode(), block: number };
    let bytes = read_block(dir, f, number)?;
    let mut needed = block::rec_len_for(name.len());
    for slot in block::slots(&bytes, block::entries_end(f), place) {
        needed += slot?.needed();
    }
    if needed <= block::entries_end(f) { Ok(()) } else { Err(Error::NoSpace("the directory's index is full")) }
}

/// Moves the entries of a directory of one block to a second, makes the first the root of a tree, and adds the entry.
pub(super) fn convert_and_insert(dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat, e: &Entry) -> Result<()> {
    if HashKind::from_version(f.default_hash).is_none() {
        return Err(Error::Unsupported(format!("htree hash version {}", f.default_hash)));
    }
    let place = Place { inode: dir.inode(), block: 0 };
    let bytes = read_block(dir, f, 0)?;
    let mut entries = Vec::new();
    let mut dots = [None; 2];
    for (at, slot) in block::slots(&bytes, block::entries_end(f), place).enumerate() {
        let slot = slot?;
        match (at, slot.name(&bytes)) {
            (0, b".") | (1, b"..") if slot.inode != 0 => dots[at] = Some(slot.inode),
            _ if slot.inode != 0 => entries.push(slot.to_entry(f, &bytes)),
            _ => {}
        }
    }
    let [Some(_), Some(parent)] = dots else {
        return Err(Error::corrupt("directory block", place, "must begin with `.` and `..`".to_owned()));
    };
    let leaf = block::build(f, dir.checksum_seed(), entries.iter())
        .ok_or_else(|| Error::corrupt("directory block", place, "must hold less than a block".to_owned()))?;
    let leaf = dir.append(leaf)?;
    Index::new_root(f, dir.inode(), parent, leaf).write(dir, f)?;
    dir.set_indexed(true)?;
    insert(dir, f, e)
}

impl Path {
    /// Walks from the root to the index block above the leaf that the name belongs to.
    fn probe(dir: &(impl DirectoryBlocks + ?Sized), f: &DirectoryFormat, wanted: &Wanted<'_>) -> Result<Self> {
        let root = Index::read(dir, f, 0, BlockKind::Root)?;
        let version = root.hash_version();
        let kind = HashKind::from_version(version)
            .ok_or_else(|| Error::Unsupported(format!("inode {}: htree hash version {version}", dir.inode())))?;
        let hash = hash_name(kind, f.unsigned_hash, f.hash_seed, wanted.hashed());
        let levels = root.levels();
        let mut indexes = vec![root];
        for _ in 0..levels {
            let Some(index) = indexes.last_mut() else { break };
            index.at = index.position(hash);
            let child = child_of(dir, index)?;
            indexes.push(Index::read(dir, f, child, BlockKind::Node)?);
        }
        if let Some(lowest) = indexes.last_mut() {
            lowest.at = lowest.position(hash);
        }
        Ok(Self { indexes, hash, kind })
    }

    /// The leaf that the path leads to.
    fn leaf(&self, dir: &(impl DirectoryBlocks + ?Sized)) -> Result<u32> {
        match self.indexes.last() {
            Some(lowest) => child_of(dir, lowest),
            None => Err(Error::corrupt("htree", Place { inode: dir.inode(), block: 0 }, "must have a root".to_owned())),
        }
    }

    /// Goes on to the next leaf if it begins with the same hash. Returns whether it does.
    fn continue_collision(&mut self, dir: &(impl DirectoryBlocks + ?Sized), f: &DirectoryFormat) -> Result<bool> {
        let Some(turn) = self.indexes.iter().rposition(|index| index.at + 1 < index.count()) else { return Ok(false) };
        let depth = self.indexes.len();
        let index = &mut self.indexes[turn];
        if index.hash(index.at + 1) & !1 != self.hash {
            return Ok(false);
        }
        index.at += 1;
        self.indexes.truncate(turn + 1);
        while self.indexes.len() < depth {
            let child = child_of(dir, &self.indexes[self.indexes.len() - 1])?;
            self.indexes.push(Index::read(dir, f, child, BlockKind::Node)?);
        }
        Ok(true)
    }

    /// Splits the highest index block that has to be split so that the lowest can be, or adds a level below the root.
    fn make_room(mut self, dir: &mut dyn DirectoryBlocksMut, f: &DirectoryFormat) -> Result<()> {
        let mut node = Index::new_node(f);
        let top = self.indexes.iter().rposition(|index| !index.is_full(f));
        if let Some(parent) = top {
            let (upper, lower) = self.indexes.split_at_mut(parent + 1);
            let (Some(parent), Some(full)) = (upper.last_mut(), lower.first_mut()) else {
                return Ok(());
            };
            let hash = full.move_entries(full.count() / 2, &mut node);
            let number = node.append(dir, f)?;
            full.write(dir, f)?;
            parent.insert_after(parent.at, hash, number);
            return parent.write(dir, f);
        }
        let Some(root) = self.indexes.first_mut() else { return Ok(()) };
        if root.levels() >= usize::from(max_levels(f)) {
            return Err(Error::NoSpace("the directory's index is full"));
        }
        root.move_entries(0, &mut node);
        let number = node.append(dir, f)?;
        root.grow(number);
        root.write(dir, f)
    }
}

/// Spreads the entries of a full leaf over it and a new one, by their hashes.
fn split_leaf(
    dir: &mut dyn DirectoryBlocksMut,
    f: &DirectoryFormat,
    index: &mut Index,
    (kind, leaf): (HashKind, u32),
    entries: Vec<Entry>,
) -> Result<()> {
    let hash_of =
        |entry: &Entry| hash_name(kind, f.unsigned_hash, f.hash_seed, Wanted::new(&*dir, &entry.name).hashed());
    let mut hashed: Vec<(u32, Entry)> = entries.into_iter().map(|entry| (hash_of(&entry), entry)).collect();
    hashed.sort_by_key(|(hash, _)| *hash);
    let split = middle(&hashed);
    let (low, high) = hashed.split_at(split);
    let seed = dir.checksum_seed();
    let halves = (
        block::build(f, seed, low.iter().map(|(_, entry)| entry)),
        block::build(f, seed, high.iter().map(|(_, entry)| entry)),
    );
    let ((Some(low_bytes), Some(high_bytes)), Some((before, _)), Some((hash, _))) = (halves, low.last(), high.first())
    else {
        // A block has room for three names of any length, so half its entries and one more fit.
        let place = Place { inode: dir.inode(), block: leaf };
        return Err(Error::corrupt("directory block", place, "must be one that two blocks can hold".to_owned()));
    };
    let number = dir.append(high_bytes)?;
    dir.write(leaf, low_bytes.into())?;
    index.insert_after(index.at, hash | u32::from(before == hash), number);
    index.write(dir, f)
}

/// Where to cut a sorted leaf so that the larger part is as small as can be.
fn middle(hashed: &[(u32, Entry)]) -> usize {
    let size = |(_, entry): &(u32, Entry)| block::rec_len_for(entry.name.len());
    let total: usize = hashed.iter().map(size).sum();
    let (mut best, mut best_size, mut low) = (1, usize::MAX, 0);
    for (at, item) in hashed.iter().enumerate() {
        if at > 0 && low.max(total - low) < best_size {
            (best, best_size) = (at, low.max(total - low));
        }
        low += size(item);
    }
    best
}

/// The block below the entry that the search went through.
fn child_of(dir: &(impl DirectoryBlocks + ?Sized), index: &Index) -> Result<u32> {
    let child = index.child(index.at);
    if child == 0 || child >= dir.block_count() {
        let place = Place { inode: dir.inode(), block: index.block };
        let rule = format!("entry {} must lead to a block from 1 to {}, found {child}", index.at, dir.block_count());
        return Err(Error::corrupt("htree", place, rule));
    }
    Ok(child)
}
