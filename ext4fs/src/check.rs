//! A read-only check: what owns blocks, what is marked as in use, and what has names.

use std::collections::HashMap;

use crate::file_system::{FileSystem, ROOT_INODE};
use crate::inode::InodeFlags;
use crate::scrub::ScrubOptions;
use crate::{Corrupt, Error, Result, bitmap};

/// The link count that says of a directory that it has too many subdirectories to be counted.
const UNCOUNTED: u16 = 1;
/// More problems than these are not listed.
const MAX_PROBLEMS: usize = 1000;

impl FileSystem {
    /// Looks for contradictions, and writes nothing. What is compared: checksums and bounds of all structures, blocks with two
    /// owners, blocks and inodes that are owned or named but marked free, or marked as in use but owned by nobody, the groups'
    /// counts, names and link counts of all inodes, `..` of directories, and inodes without names. Of each of the
    /// first kinds only the first problem is listed; of names and links all are, up to 1000. Not compared: the order
    /// within indexes of directories, and the number of blocks that an inode says it has.
    ///
    /// Memory: about 24 bytes for each inode in use and 16 for each extent.
    ///
    /// # Errors
    /// [`Error::Io`]; what the image has against it is a problem that is listed.
    pub fn check(&self) -> Result<Vec<Corrupt>> {
        let mut problems = Vec::new();
        note(self.check_blocks(), &mut problems)?;
        note(self.check_names(&mut problems), &mut problems)?;
        Ok(problems)
    }

    /// The first contradiction between what owns blocks and what is marked.
    fn check_blocks(&self) -> Result<()> {
        let owned = self.check_owners(&ScrubOptions::default())?;
        let all = self.superblock.blocks_count - self.superblock.first_data_block;
        let free = self.free_blocks();
        if self.superblock.cluster_ratio == 1 && owned + free != all {
            let expected = format!("{} blocks are in use, found {owned} that have an owner", all - free);
            return Err(Error::Corrupt(corrupt("block bitmap", "all groups", expected)));
        }
        Ok(())
    }

    /// Walks over all names, then over all inodes in use.
    fn check_names(&self, problems: &mut Vec<Corrupt>) -> Result<()> {
        // Names of each inode; of a directory its own `.`, its name, and the `..` of each subdirectory.
        let mut links: HashMap<u32, u32> = HashMap::from([(ROOT_INODE, 2)]);
        let mut pending = vec![(ROOT_INODE, ROOT_INODE)];
        while let Some((number, parent)) = pending.pop() {
            let entries = match self.directory_inode(number).and_then(|inode| self.entries(&inode)) {
                Ok(entries) => entries,
                Err(error) => {
                    note(Err(error), problems)?;
                    continue;
                }
            };
            for entry in entries {
                let place = || format!("directory inode {number}, name {:?}", String::from_utf8_lossy(&entry.name));
                if entry.name == b"." || entry.name == b".." {
                    let expected = if entry.name == b"." { number } else { parent };
                    if entry.inode != expected {
                        push(
                            problems,
                            "directory entry",
                            place(),
                            format!("leads to inode {expected}, found {}", entry.inode),
                        );
                    }
                    continue;
                }
                let (group, index) = self.superblock.locate_inode(entry.inode)?;
                if !bitmap::is_set(&self.inode_bitmap(group)?, index) {
                    push(problems, "inode bitmap", place(), format!("inode {} is in use", entry.inode));
                    continue;
                }
                let directory = match self.inode(entry.inode) {
                    Ok(inode) => inode.is_directory(),
                    Err(error) => {
                        note(Err(error), problems)?;
                        continue;
                    }
                };
                let known = links.entry(entry.inode).or_insert(0);
                if directory && *known > 0 {
                    push(problems, "directory entry", place(), "a directory has one name".to_owned());
                    continue;
                }
                *known += if directory { 2 } else { 1 };
                if directory {
                    *links.entry(number).or_insert(0) += 1;
                    pending.push((entry.inode, number));
                }
            }
        }
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
                match links.get(&number) {
                    None => push(problems, "inode", format!("inode {number}"), "an inode in use has a name".to_owned()),
                    Some(names) if *names != found && !uncounted => {
                        push(
                            problems,
                            "inode",
                            format!("inode {number}"),
                            format!("i_links_count is {names}, found {found}"),
                        );
                    }
                    Some(_) => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn corrupt(structure: &'static str, place: impl Into<String>, expected: String) -> Corrupt {
    Corrupt { structure, place: place.into(), expected }
}

fn push(problems: &mut Vec<Corrupt>, structure: &'static str, place: String, expected: String) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(corrupt(structure, place, expected));
    }
}

/// Lists what an image has against itself, and passes other errors on.
fn note(result: Result<()>, problems: &mut Vec<Corrupt>) -> Result<()> {
    match result {
        Err(Error::Corrupt(problem)) => problems.push(problem),
        Err(Error::NotADirectory(inode)) => {
            problems.push(corrupt(
                "directory entry",
                format!("inode {inode}"),
                "is the directory that it is named as".to_owned(),
            ));
        }
        other => return other,
    }
    Ok(())
}
