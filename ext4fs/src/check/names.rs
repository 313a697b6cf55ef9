//! Names: what they lead to, how many an inode has, and whether a directory has them once and where they belong.

use std::collections::{HashMap, HashSet};

use super::{note, push};
use crate::directory::{self, Entry};
use crate::directory_blocks::folds_names;
use crate::features::Compat;
use crate::file_system::{FileSystem, ROOT_INODE};
use crate::inode::{Inode, InodeFlags};
use crate::link::STRICT;
use crate::metadata::FileKind;
use crate::{Corrupt, Result, bitmap};

/// The link count that says of a directory that it has too many subdirectories to be counted.
const UNCOUNTED: u16 = 1;
/// The shortest name that encryption leaves.
const SHORTEST_ENCRYPTED: usize = 16;

/// A directory that is looked at, and who holds it.
struct Place {
    inode: Inode,
    parent: u32,
}

impl Place {
    fn of(&self, entry: &Entry) -> String {
        format!("directory inode {}, name {:?}", self.inode.number, String::from_utf8_lossy(&entry.name))
    }

    fn encrypted(&self) -> bool {
        self.inode.flags().contains(InodeFlags::ENCRYPT)
    }
}

impl FileSystem {
    /// Walks over all names, then over all inodes in use.
    pub(super) fn check_names(&self, problems: &mut Vec<Corrupt>) -> Result<()> {
        // Names of each inode; of a directory its own `.`, its name, and the `..` of each subdirectory.
        let mut links: HashMap<u32, u32> = HashMap::from([(ROOT_INODE, 2)]);
        let mut pending = vec![(ROOT_INODE, ROOT_INODE)];
        while let Some((number, parent)) = pending.pop() {
            let read = self.directory_inode(number).and_then(|inode| Ok((self.entries(&inode)?, inode)));
            let (entries, inode) = match read {
                Ok(read) => read,
                Err(error) => {
                    note(Err(error), problems)?;
                    continue;
                }
            };
            let place = Place { inode, parent };
            note(self.check_order(&place.inode), problems)?;
            self.check_spelling(&place, &entries, problems);
            for entry in entries {
                if self.check_entry_target(&place, &entry, &mut links, problems)? {
                    pending.push((entry.inode, number));
                }
            }
        }
        self.check_links(&links, problems)
    }

    /// The order within a directory's index.
    fn check_order(&self, inode: &Inode) -> Result<()> {
        let indexed = inode.flags().contains(InodeFlags::INDEX) && !inode.flags().contains(InodeFlags::INLINE_DATA);
        if !indexed || !self.superblock.features.compat.contains(Compat::DIR_INDEX) {
            return Ok(());
        }
        directory::check_index(&self.directory(inode)?, &self.directory_format)
    }

    /// That `.` and `..` come first, that no name is there twice, and that names are such as the directory takes.
    fn check_spelling(&self, place: &Place, entries: &[Entry], problems: &mut Vec<Corrupt>) {
        let number = place.inode.number;
        if !place.inode.flags().contains(InodeFlags::INLINE_DATA) {
            let first = entries.iter().take(2).map(|entry| entry.name.as_slice());
            if !first.eq([b".".as_slice(), b".."]) {
                let expected = "begins with `.` and `..`".to_owned();
                push(problems, "directory", format!("inode {number}"), expected);
            }
        }
        let strict = self.superblock.raw.s_encoding_flags.get() & STRICT != 0 && folds_names(&place.inode);
        let mut seen = HashSet::with_capacity(entries.len());
        for entry in entries {
            if !seen.insert(entry.name.as_slice()) {
                push(problems, "directory entry", place.of(entry), "a directory has a name once".to_owned());
            }
            if strict && directory::fold(&entry.name).is_none() {
                push(problems, "directory entry", place.of(entry), "the name is of the encoding".to_owned());
            }
            let dots = entry.name == b"." || entry.name == b"..";
            if place.encrypted() && !dots && entry.name.len() < SHORTEST_ENCRYPTED {
                let expected = format!("an encrypted name has {SHORTEST_ENCRYPTED} bytes or more");
                push(problems, "directory entry", place.of(entry), expected);
            }
        }
    }

    /// What a name leads to. Returns whether it is a directory that is to be looked at, too.
    fn check_entry_target(
        &self,
        place: &Place,
        entry: &Entry,
        links: &mut HashMap<u32, u32>,
        problems: &mut Vec<Corrupt>,
    ) -> Result<bool> {
        let wrong = |problems: &mut Vec<Corrupt>, structure, expected: String| {
            push(problems, structure, place.of(entry), expected);
            Ok(false)
        };
        let told = |kind: FileKind| if self.directory_format.has_file_type { kind.file_type() } else { 0 };
        // Inline directories keep no `.`, and of their `..` only the inode.
        let inline = place.inode.flags().contains(InodeFlags::INLINE_DATA);
        if entry.name == b"." || entry.name == b".." {
            let expected = if entry.name == b"." { place.inode.number } else { place.parent };
            if entry.inode != expected {
                let expected = format!("leads to inode {expected}, found {}", entry.inode);
                return wrong(problems, "directory entry", expected);
            }
            if !inline && ![0, told(FileKind::Directory)].contains(&entry.file_type) {
                return wrong(problems, "directory entry", format!("is a directory's, found kind {}", entry.file_type));
            }
            return Ok(false);
        }
        let (group, index) = self.superblock.locate_inode(entry.inode)?;
        if !bitmap::is_set(&self.inode_bitmap(group)?, index) {
            return wrong(problems, "inode bitmap", format!("inode {} is in use", entry.inode));
        }
        let inode = match self.inode(entry.inode) {
            Ok(inode) => inode,
            Err(error) => {
                note(Err(error), problems)?;
                return Ok(false);
            }
        };
        let kind = inode.kind()?;
        // A kind that is not told is asked of the inode.
        if ![0, told(kind)].contains(&entry.file_type) {
            let expected =
                format!("tells kind {} as inode {} does, found {}", told(kind), entry.inode, entry.file_type);
            push(problems, "directory entry", place.of(entry), expected);
        }
        let may_be_encrypted = matches!(kind, FileKind::File | FileKind::Directory | FileKind::Symlink);
        if place.encrypted() && may_be_encrypted && !inode.flags().contains(InodeFlags::ENCRYPT) {
            push(problems, "directory entry", place.of(entry), "leads to an encrypted inode".to_owned());
        }
        let directory = kind == FileKind::Directory;
        let known = links.entry(entry.inode).or_insert(0);
        if directory && *known > 0 {
            return wrong(problems, "directory entry", "a directory has one name".to_owned());
        }
        *known += if directory { 2 } else { 1 };
        if directory {
            *links.entry(place.inode.number).or_insert(0) += 1;
        }
        Ok(directory)
    }

    /// That every inode in use has as many names as it says.
    fn check_links(&self, links: &HashMap<u32, u32>, problems: &mut Vec<Corrupt>) -> Result<()> {
        let raw = &self.superblock.raw;
        let nameless = [raw.s_orphan_file_inum, raw.s_usr_quota_inum, raw.s_grp_quota_inum, raw.s_prj_quota_inum];
        for group in 0..self.superblock.group_count {
            let inode_bitmap = self.inode_bitmap(group)?;
            let first = group * self.superblock.inodes_per_group + 1;
            self.for_each_slot(group, |number, _| {
                let reserved = number < self.superblock.first_inode && number != ROOT_INODE;
                if reserved
                    || !bitmap::is_set(&inode_bitmap, number - first)
                    || nameless.iter().any(|n| n.get() == number)
                {
                    return Ok(());
                }
                let inode = self.inode(number)?;
                if inode.flags().contains(InodeFlags::EA_INODE) {
                    return Ok(());
                }
                let found = u32::from(inode.links());
                let uncounted = inode.is_directory() && inode.links() == UNCOUNTED;
                let place = || format!("inode {number}");
                match links.get(&number) {
                    None => push(problems, "inode", place(), "an inode in use has a name".to_owned()),
                    Some(names) if *names != found && !uncounted => {
                        push(problems, "inode", place(), format!("i_links_count is {names}, found {found}"));
                    }
                    Some(_) => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
