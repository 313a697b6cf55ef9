//! What each inode says of itself: its length, its blocks, its flags, its target; and what all of them use together.

use super::{note, push};
use crate::extent_tree::{Node, root_node};
use crate::features::{Compat, Incompat, RoCompat};
use crate::file_system::{FileSystem, ROOT_INODE};
use crate::inline_data;
use crate::inode::{self, Inode, InodeFlags};
use crate::mapping::Place;
use crate::quota::Usages;
use crate::scrub::BAD_BLOCKS_INODE;
use crate::{Corrupt, Error, Result, bitmap, xattr, zeros};

impl FileSystem {
    /// Looks at every inode, in use or not, and compares what they use with what quota files say.
    pub(super) fn check_inodes(&self, problems: &mut Vec<Corrupt>) -> Result<()> {
        let mut usages = Usages::default();
        for group in 0..self.superblock.group_count {
            let inode_bitmap = self.inode_bitmap(group)?;
            let first = group * self.superblock.inodes_per_group + 1;
            let mut directories = 0;
            self.for_each_slot(group, |number, slot| {
                let used = bitmap::is_set(&inode_bitmap, number - first);
                if !used && zeros::is_zero(slot) {
                    return Ok(());
                }
                let checked = inode::check_checksum(slot, &self.superblock, number);
                if !used || checked.is_err() || number == BAD_BLOCKS_INODE {
                    return note(checked, problems);
                }
                let inode = Inode::decode(slot, number)?;
                // Reserved inodes may be marked as in use and be blank.
                if inode.kind().is_err() && number < self.superblock.first_inode {
                    return Ok(());
                }
                directories += u32::from(inode.is_directory());
                note(self.check_inode(&inode, &mut usages), problems)
            })?;
            let told = self.group(group)?.used_dirs;
            if told != directories {
                let expected = format!("{directories} directories are in use, found {told}");
                push(problems, "group descriptor", format!("group {group}"), expected);
            }
        }
        note(self.check_usages(&usages), problems)
    }

    /// The first contradiction within one inode in use.
    fn check_inode(&self, inode: &Inode, usages: &mut Usages) -> Result<()> {
        self.check_flags(inode)?;
        if inode.links() > 0 && inode.raw.i_dtime.get() != 0 {
            return Err(wrong(inode, format!("an inode in use has no i_dtime, found {}", inode.raw.i_dtime)));
        }
        let attributes = self.attributes(inode)?;
        if inode.flags().contains(InodeFlags::ENCRYPT)
            && !attributes.iter().any(|attribute| attribute.name == xattr::ENCRYPTION_CONTEXT)
        {
            return Err(wrong(inode, "an encrypted inode has the attribute that says how".to_owned()));
        }
        let values: Vec<u64> = attributes
            .iter()
            .filter(|attribute| attribute.value_inode != 0)
            .map(|attribute| u64::from(attribute.value_size))
            .collect();
        self.check_size_and_blocks(inode, &values)?;
        let size = inode.size(&self.superblock);
        if inode.flags().contains(InodeFlags::INLINE_DATA) && !inode.is_file() {
            let rest = attributes.iter().find(|attribute| attribute.name == inline_data::ATTRIBUTE);
            let held = (inode.raw.i_block.len() + rest.map_or(0, |rest| rest.value.len())) as u64;
            if size != held {
                return Err(wrong(inode, format!("i_size says that {held} bytes are inline, found {size}")));
            }
        }
        if inode.is_symlink() {
            self.check_target(inode)?;
        }
        if inode.maps_blocks(&self.superblock) && inode.flags().contains(InodeFlags::EXTENTS) {
            self.check_extent_keys(inode, &root_node(inode, &self.superblock)?)?;
        }
        if inode.links() > 0 {
            self.count_usage(inode, 1 + values.len() as i64, usages);
        }
        Ok(())
    }

    /// That an inode has no flag of a feature that the file system has not.
    fn check_flags(&self, inode: &Inode) -> Result<()> {
        let features = self.superblock.features;
        let casefold = features.incompat.contains(Incompat::CASEFOLD) && inode.is_directory();
        let index = features.compat.contains(Compat::DIR_INDEX) && inode.is_directory();
        let may = [
            (InodeFlags::INLINE_DATA, features.incompat.contains(Incompat::INLINE_DATA), "INLINE_DATA"),
            (InodeFlags::EXTENTS, features.incompat.contains(Incompat::EXTENTS), "EXTENTS"),
            (InodeFlags::VERITY, features.ro_compat.contains(RoCompat::VERITY), "VERITY"),
            (InodeFlags::CASEFOLD, casefold, "CASEFOLD"),
            (InodeFlags::INDEX, index, "INDEX"),
        ];
        if inode.xattr_block() != 0 && !features.compat.contains(Compat::EXT_ATTR) {
            return Err(wrong(inode, format!("it may not have attributes, found block {}", inode.xattr_block())));
        }
        match may.iter().find(|(flag, may, _)| !may && inode.flags().contains(*flag)) {
            Some((_, _, name)) => Err(wrong(inode, format!("it may not have the flag {name}"))),
            None => Ok(()),
        }
    }

    /// `i_size` beside the last block, and `i_blocks` beside all that the inode has.
    fn check_size_and_blocks(&self, inode: &Inode, values: &[u64]) -> Result<()> {
        let (ratio, block_size) = (u64::from(self.superblock.cluster_ratio), self.superblock.block_size as u64);
        let (mut clusters, mut next_cluster, mut end, mut written_end) = (0, 0, 0, 0);
        self.for_each_mapping(inode, |mapping| {
            let first = u64::from(mapping.logical) / ratio;
            end = u64::from(mapping.logical) + u64::from(mapping.len);
            if matches!(mapping.place, Place::Written(_)) {
                written_end = end;
            }
            let after = end.div_ceil(ratio);
            clusters += after - first.max(next_cluster).min(after);
            next_cluster = after;
            // What is not surveyed for owners may lead to one block many times over.
            if clusters > self.superblock.blocks_count {
                return Err(wrong(inode, format!("it has at most {} blocks", self.superblock.blocks_count)));
            }
            Ok(())
        })?;
        self.for_each_map_block(inode, &mut |_| {
            clusters += 1;
            Ok(())
        })?;
        clusters += u64::from(inode.xattr_block() != 0);
        clusters += values.iter().map(|len| len.div_ceil(block_size * ratio)).sum::<u64>();
        let (sectors, told) = (clusters * ratio * (block_size / 512), inode.sectors(&self.superblock));
        if sectors != told {
            return Err(wrong(inode, format!("i_blocks says {sectors} sectors, found {told}")));
        }
        let size = inode.size(&self.superblock);
        let mapped = inode.maps_blocks(&self.superblock);
        let blocks = size / block_size;
        let reserved = u64::from(self.superblock.raw.s_prealloc_dir_blocks);
        if mapped && inode.is_directory() && (blocks > end || blocks + reserved < end) {
            return Err(wrong(inode, format!("i_size is that of {end} blocks, found {size}")));
        }
        let behind = written_end > 0 && size < (written_end - 1) * block_size;
        if mapped && inode.is_file() && behind && !inode.flags().contains(InodeFlags::VERITY) {
            return Err(wrong(inode, format!("i_size reaches the last of {written_end} blocks, found {size}")));
        }
        Ok(())
    }

    /// That a symbolic link's target is as long as its inode says: no NUL before its end, and one after it.
    fn check_target(&self, inode: &Inode) -> Result<()> {
        let size = inode.size(&self.superblock);
        let told = || wrong(inode, format!("a target has from 1 byte to less than a block, and no NUL, found {size}"));
        if size == 0 || size >= self.superblock.block_size as u64 {
            return Err(told());
        }
        if inode.flags().intersects(InodeFlags::ENCRYPT | InodeFlags::INLINE_DATA) {
            return Ok(());
        }
        if inode.is_fast_symlink(&self.superblock) {
            let len = inode.raw.i_block.iter().position(|byte| *byte == 0);
            return if len == Some(size as usize) { Ok(()) } else { Err(told()) };
        }
        let mapping = self.map(inode, 0)?;
        let Place::Written(block) = mapping.place else { return Err(told()) };
        let mut bytes = vec![0; self.superblock.block_size];
        self.cache.read_run(block, 0, &mut bytes)?;
        let len = bytes.iter().position(|byte| *byte == 0);
        if len == Some(size as usize) { Ok(()) } else { Err(told()) }
    }

    /// That the key of each index entry is the first of the node that it leads to.
    fn check_extent_keys(&self, inode: &Inode, node: &Node<'_>) -> Result<()> {
        for index in 0..if node.depth == 0 { 0 } else { node.entries } {
            let Some((key, block)) = node.child(index) else { break };
            // The walk that found the blocks has checked all nodes, so the depth ends this.
            let keys = key..node.key(index + 1).unwrap_or(u32::MAX);
            let bytes = self.extent_node(inode, block, node.depth - 1, keys)?;
            let Some(child) = Node::decode(&bytes) else { continue };
            if child.key(0) != Some(key) {
                let place = format_args!("inode {}, block {block}", inode.number);
                let expected = format!("begins with key {key}, found {:?}", child.key(0));
                return Err(Error::corrupt("extent node", place, expected));
            }
            self.check_extent_keys(inode, &child)?;
        }
        Ok(())
    }

    fn count_usage(&self, inode: &Inode, inodes: i64, usages: &mut Usages) {
        if inode.number == ROOT_INODE || inode.number >= self.superblock.first_inode {
            usages.add(self, inode, inodes);
        }
    }
}

fn wrong(inode: &Inode, expected: String) -> Error {
    Error::corrupt("inode", format_args!("inode {}", inode.number), expected)
}
