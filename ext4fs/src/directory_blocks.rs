//! A directory's blocks, as the directory code wants them, over an inode.

use crate::Result;
use crate::directory::{self, Check, DirectoryBlocks, DirectoryBlocksMut};
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeFlags};
use crate::mapping::Place;
use crate::metadata_cache::{Block, BlockKind};
use crate::{Error, limits};

/// A directory to be read.
pub(crate) struct Directory<'a> {
    fs: &'a FileSystem,
    inode: &'a Inode,
}

/// A directory to be changed. The inode is written back with each change of it.
pub(crate) struct DirectoryMut<'a> {
    fs: &'a mut FileSystem,
    pub inode: Inode,
}

impl FileSystem {
    /// The blocks of a directory.
    pub(crate) fn directory<'a>(&'a self, inode: &'a Inode) -> Result<Directory<'a>> {
        self.check_directory(inode)?;
        Ok(Directory { fs: self, inode })
    }

    /// The blocks of a directory, to be changed.
    pub(crate) fn directory_mut(&mut self, inode: Inode) -> Result<DirectoryMut<'_>> {
        self.check_directory(&inode)?;
        Ok(DirectoryMut { fs: self, inode })
    }

    fn check_directory(&self, inode: &Inode) -> Result<()> {
        let size = inode.size(&self.superblock);
        let blocks = size / self.superblock.block_size as u64;
        let whole = size.is_multiple_of(self.superblock.block_size as u64);
        if !whole || blocks == 0 || blocks > self.superblock.blocks_count.min(u64::from(u32::MAX)) {
            let expected = format!("a directory's size is that of its blocks, found {size}");
            return Err(Error::corrupt("directory", format_args!("inode {}", inode.number), expected));
        }
        Ok(())
    }

    fn directory_block(&self, inode: &Inode, logical: u32) -> Result<u64> {
        match self.map(inode, logical)?.place {
            Place::Written(block) => Ok(block),
            _ => {
                let place = format_args!("inode {}, block {logical}", inode.number);
                Err(Error::corrupt("directory", place, "has no holes"))
            }
        }
    }

    /// A block of a directory, which `check` judges unless it was judged as this block of this directory before.
    fn read_directory_block(&self, inode: &Inode, logical: u32, check: Check<'_>) -> Result<Block> {
        let block = self.directory_block(inode, logical)?;
        self.cache.get(block, directory_kind(inode, logical), check)
    }

    fn directory_block_count(&self, inode: &Inode) -> u32 {
        (inode.size(&self.superblock) / self.superblock.block_size as u64) as u32
    }
}

impl DirectoryBlocks for Directory<'_> {
    fn inode(&self) -> u32 {
        self.inode.number
    }

    fn checksum_seed(&self) -> u32 {
        self.inode.checksum_seed(&self.fs.superblock)
    }

    fn block_count(&self) -> u32 {
        self.fs.directory_block_count(self.inode)
    }

    fn is_indexed(&self) -> bool {
        self.inode.flags().contains(InodeFlags::INDEX)
    }

    fn folds_names(&self) -> bool {
        folds_names(self.inode)
    }

    fn has_known_hashes(&self) -> bool {
        !self.inode.flags().contains(InodeFlags::CASEFOLD | InodeFlags::ENCRYPT)
    }

    fn has_encrypted_names(&self) -> bool {
        self.inode.flags().contains(InodeFlags::ENCRYPT)
    }

    fn read(&self, block: u32, check: Check<'_>) -> Result<Block> {
        self.fs.read_directory_block(self.inode, block, check)
    }
}

impl DirectoryBlocks for DirectoryMut<'_> {
    fn inode(&self) -> u32 {
        self.inode.number
    }

    fn checksum_seed(&self) -> u32 {
        self.inode.checksum_seed(&self.fs.superblock)
    }

    fn block_count(&self) -> u32 {
        self.fs.directory_block_count(&self.inode)
    }

    fn is_indexed(&self) -> bool {
        self.inode.flags().contains(InodeFlags::INDEX)
    }

    fn folds_names(&self) -> bool {
        folds_names(&self.inode)
    }

    fn has_known_hashes(&self) -> bool {
        !self.inode.flags().contains(InodeFlags::CASEFOLD | InodeFlags::ENCRYPT)
    }

    fn has_encrypted_names(&self) -> bool {
        self.inode.flags().contains(InodeFlags::ENCRYPT)
    }

    fn read(&self, block: u32, check: Check<'_>) -> Result<Block> {
        self.fs.read_directory_block(&self.inode, block, check)
    }
}

impl DirectoryBlocksMut for DirectoryMut<'_> {
    fn write(&mut self, logical: u32, bytes: Block) -> Result<()> {
        let block = self.fs.directory_block(&self.inode, logical)?;
        self.fs.cache.put(block, directory_kind(&self.inode, logical), bytes)
    }

    fn append(&mut self, bytes: Vec<u8>) -> Result<u32> {
        let logical = self.block_count();
        self.fs.require_blocks(1 + self.fs.map_growth(1))?;
        let (block, _) = self.fs.place_data(&mut self.inode, logical, 1)?;
        self.fs.add_mapping(&mut self.inode, logical, block, 1)?;
        self.fs.cache.put(block, directory_kind(&self.inode, logical), bytes)?;
        self.inode.set_size((u64::from(logical) + 1) * self.fs.superblock.block_size as u64);
        self.fs.write_inode(&self.inode)?;
        Ok(logical)
    }

    fn set_indexed(&mut self, indexed: bool) -> Result<()> {
        let mut flags = self.inode.flags();
        flags.set(InodeFlags::INDEX, indexed);
        self.inode.set_flags(flags);
        self.fs.write_inode(&self.inode)
    }
}

/// What a block of a directory was checked as: as which of its blocks, and whether as one of an index.
fn directory_kind(inode: &Inode, logical: u32) -> BlockKind {
    BlockKind::Directory { inode: inode.number, logical, indexed: inode.flags().contains(InodeFlags::INDEX) }
}

/// Whether a name can be given to a new entry.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > limits::MAX_NAME_LEN
        || name == b"."
        || name == b".."
        || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad { Err(Error::InvalidName) } else { Ok(()) }
}

/// Whether a name can be that of an entry of `parent`: where names are encrypted any bytes can.
pub(crate) fn check_old_name(parent: &Inode, name: &[u8]) -> Result<()> {
    let encrypted = parent.flags().contains(InodeFlags::ENCRYPT);
    if encrypted && !matches!(name, b"." | b"..") { Ok(()) } else { check_name(name) }
}

/// Whether a directory takes names that differ in case for the same. Encrypted names are ciphertext.
pub(crate) fn folds_names(directory: &Inode) -> bool {
    directory.flags().contains(InodeFlags::CASEFOLD) && !directory.flags().contains(InodeFlags::ENCRYPT)
}

/// Whether two names are the same in a directory.
pub(crate) fn is_same_name(directory: &Inode, a: &[u8], b: &[u8]) -> bool {
    let folded = || directory::fold(a).is_some_and(|a| Some(a) == directory::fold(b));
    a == b || folds_names(directory) && folded()
}
