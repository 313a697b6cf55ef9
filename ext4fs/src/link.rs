//! Names: making inodes with a name, giving them other names, renaming.

use crate::directory;
use crate::directory_blocks::{check_name, check_old_name, folds_names};
use crate::extent_edit::init_root;
use crate::features::{Incompat, RoCompat};
use crate::file_system::{FileSystem, ROOT_INODE};
use crate::file_write::check_changeable;
use crate::inode::{Inode, InodeFlags};
use crate::limits::{MAX_LINKS, MAX_SYMLINK_LEN};
use crate::metadata::{DeviceNumber, FileKind, NewNode, Ownership};
use crate::metadata_cache::BlockKind;
use crate::{Error, Result};

/// The bit of `s_encoding_flags` that forbids names which are not of the encoding.
pub(crate) const STRICT: u16 = 1;

impl FileSystem {
    /// Makes a new inode and names it. The name must be new. Owner and permissions are as given, but that a directory's
    /// default access control list holds for what is made in it, as in the kernel, and its project and flags do, too.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::InvalidName`], [`Error::NoSpace`], [`Error::TooManyLinks`] for a
    /// directory in a full one, [`Error::Invalid`] for a symbolic link's target that is empty, too long or holds a NUL, and
    /// for a device's number that does not fit its bits.
    pub fn create(&mut self, directory: u32, name: &[u8], node: NewNode<'_>, ownership: Ownership) -> Result<u32> {
        self.change(|fs| {
            let parent = fs.directory_for_new_name(directory, name)?;
            if fs.find_entry(&parent, name)?.is_some() {
                return Err(Error::AlreadyExists);
            }
            let (kind, target, device) = match node {
                NewNode::File => (FileKind::File, None, None),
                NewNode::Directory => (FileKind::Directory, None, None),
                NewNode::Symlink(target) => (FileKind::Symlink, Some(target), None),
                NewNode::CharDevice(device) => (FileKind::CharDevice, None, Some(device)),
                NewNode::BlockDevice(device) => (FileKind::BlockDevice, None, Some(device)),
                NewNode::Fifo => (FileKind::Fifo, None, Some(DeviceNumber::default())),
                NewNode::Socket => (FileKind::Socket, None, Some(DeviceNumber::default())),
            };
            if device.is_some_and(|device| !device.fits()) {
                return Err(Error::Invalid("a device has a major number of 12 bits and a minor one of 20"));
            }
            if kind == FileKind::Directory {
                fs.check_room_for_subdirectory(&parent)?;
            }
            if target.is_some_and(|t| t.is_empty() || t.len() > fs.max_target_len() || t.contains(&0)) {
                return Err(Error::Invalid("a target has from 1 byte to less than a block, and no NUL"));
            }
            fs.check_room_for_name(&parent, name)?;
            let number = fs.allocate_inode(directory, kind == FileKind::Directory)?;
            fs.zero_inode(number)?;
            let (acls, mode) = fs.inherited_acls(&parent, kind, ownership.mode)?;
            let mut inode = fs.fresh_inode(number, kind, Ownership { mode, ..ownership });
            fs.inherit(&mut inode, kind, &parent);
            match target {
                Some(target) if target.len() < inode.raw.i_block.len() => {
                    inode.raw.i_block[..target.len()].copy_from_slice(target);
                    inode.set_size(target.len() as u64);
                }
                _ if device.is_some() => inode.set_device(device.unwrap_or_default()),
                _ if fs.superblock.features.incompat.contains(Incompat::EXTENTS) => {
                    inode.set_flags(inode.flags() | InodeFlags::EXTENTS);
                    init_root(&mut inode);
                }
                _ => {}
            }
            match target {
                Some(target) if inode.size(&fs.superblock) == 0 => fs.write_inode_at(&mut inode, 0, target)?,
                Some(_) => {}
                None if kind == FileKind::Directory && !fs.fill_inline_directory(&mut inode, directory)? => {
                    fs.fill_directory(&mut inode, directory)?;
                }
                None => {}
            }
            fs.write_inode(&inode)?;
            if !acls.is_empty() {
                fs.store_attributes(&mut inode, Vec::new(), acls)?;
            }
            let mut parent = fs.insert_name(parent, name, number, kind)?;
            if kind == FileKind::Directory {
                fs.add_subdirectory(&mut parent);
                fs.write_inode(&parent)?;
            }
            Ok(number)
        })
    }

    /// Gives an inode (no directory) another name.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::InvalidName`], [`Error::NoSpace`], [`Error::IsADirectory`], [`Error::TooManyLinks`].
    pub fn link(&mut self, directory: u32, name: &[u8], inode: u32) -> Result<()> {
        self.change(|fs| {
            let parent = fs.directory_for_new_name(directory, name)?;
            if fs.find_entry(&parent, name)?.is_some() {
                return Err(Error::AlreadyExists);
            }
            let mut inode = fs.inode(inode)?;
            check_changeable(&inode)?;
            let kind = inode.kind()?;
            if kind == FileKind::Directory {
                return Err(Error::IsADirectory(inode.number));
            }
            if inode.links() >= MAX_LINKS {
                return Err(Error::TooManyLinks(inode.number));
            }
            fs.check_project(&inode, &parent)?;
            fs.check_room_for_name(&parent, name)?;
            inode.set_links(inode.links() + 1);
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)?;
            fs.insert_name(parent, name, inode.number, kind)?;
            Ok(())
        })
    }

    /// Renames as rename(2) does, replacing the target.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::DirectoryNotEmpty`], [`Error::IsADirectory`], [`Error::NotADirectory`] where the
    /// target cannot be replaced; [`Error::Invalid`] where a directory would be moved into itself.
    pub fn rename(&mut self, from: u32, from_name: &[u8], to: u32, to_name: &[u8]) -> Result<()> {
        self.change(|fs| {
            let old_parent = fs.directory_inode(from)?;
            check_old_name(&old_parent, from_name)?;
            check_changeable(&old_parent)?;
            let new_parent = fs.directory_for_new_name(to, to_name)?;
            let entry = fs.find_entry(&old_parent, from_name)?.ok_or(Error::NotFound)?;
            let mut inode = fs.inode(entry.inode)?;
            check_changeable(&inode)?;
            let kind = inode.kind()?;
            if kind == FileKind::Directory && from != to {
                fs.check_not_below(to, inode.number)?;
            }
            fs.check_project(&inode, &new_parent)?;
            let replaced = match fs.find_entry(&new_parent, to_name)? {
                Some(target) if target.inode == inode.number => return Ok(()),
                Some(target) => Some(fs.replaceable(target.inode, kind)?),
                None => None,
            };
            let replaces_directory = replaced.as_ref().is_some_and(Inode::is_directory);
            let moves_directory = kind == FileKind::Directory && from != to;
            if moves_directory && !replaces_directory {
                fs.check_room_for_subdirectory(&new_parent)?;
            }
            if replaced.is_none() {
                fs.check_room_for_name(&new_parent, to_name)?;
            }
            if let Some(replaced) = replaced {
                fs.replace_name(new_parent, to_name, inode.number, kind)?;
                if replaces_directory {
                    fs.drop_subdirectory(to)?;
                }
                fs.drop_link(replaced)?;
            } else {
                fs.insert_name(new_parent, to_name, inode.number, kind)?;
            }
            fs.remove_name(from, from_name)?;
            if moves_directory {
                inode = fs.set_parent(inode, to)?;
                fs.drop_subdirectory(from)?;
                let mut parent = fs.directory_inode(to)?;
                fs.add_subdirectory(&mut parent);
                fs.write_inode(&parent)?;
            }
            inode.set_changed(fs.clock);
            fs.write_inode(&inode)
        })
    }

    fn directory_for_new_name(&self, number: u32, name: &[u8]) -> Result<Inode> {
        check_name(name)?;
        let inode = self.directory_inode(number)?;
        check_changeable(&inode)?;
        let strict = self.superblock.raw.s_encoding_flags.get() & STRICT != 0;
        if strict && folds_names(&inode) && directory::fold(name).is_none() {
            return Err(Error::InvalidName);
        }
        if inode.flags().contains(InodeFlags::ENCRYPT) {
            return Err(Error::Unsupported(format!("new names in inode {number}, whose names are encrypted")));
        }
        Ok(inode)
    }

    /// A new inode that has one name, or as a directory two, and is otherwise empty.
    pub(crate) fn fresh_inode(&self, number: u32, kind: FileKind, ownership: Ownership) -> Inode {
        let mut inode = Inode::new(number, &self.superblock);
        inode.raw.i_mode = kind.mode_bits().into();
        inode.set_permissions(ownership.mode);
        inode.set_owner(ownership.uid, ownership.gid);
        inode.set_links(if kind == FileKind::Directory { 2 } else { 1 });
        inode.set_accessed(self.clock);
        inode.set_modified(self.clock);
        inode.set_changed(self.clock);
        inode.set_created(self.clock);
        // The kernel draws it at random, so that NFS can tell inodes of one number apart; we must give the same
        // image each time, and the clock and the number tell them apart as well.
        let seed = self.clock.seconds.to_le_bytes();
        inode.raw.i_generation = crate::checksum::crc32c(number, &seed).into();
        inode
    }

    /// Gives a new inode the flags and the project that it takes from its directory.
    fn inherit(&self, inode: &mut Inode, kind: FileKind, parent: &Inode) {
        inode.set_flags(inode.flags() | parent.flags() & InodeFlags::inherited_by(kind));
        if self.superblock.features.ro_compat.contains(RoCompat::PROJECT)
            && parent.flags().contains(InodeFlags::PROJINHERIT)
        {
            inode.set_project(parent.project());
        }
    }

    /// Fails where a directory takes only what is of its own project.
    fn check_project(&self, inode: &Inode, parent: &Inode) -> Result<()> {
        let one_project = self.superblock.features.ro_compat.contains(RoCompat::PROJECT)
            && parent.flags().contains(InodeFlags::PROJINHERIT);
        if one_project && inode.project() != parent.project() {
            return Err(Error::Invalid("the directory takes only what is of its own project"));
        }
        Ok(())
    }

    /// Gives a directory that has nothing its first block.
    pub(crate) fn fill_directory(&mut self, inode: &mut Inode, parent: u32) -> Result<()> {
        let (block, _) = self.place_data(inode, 0, 1)?;
        let seed = inode.checksum_seed(&self.superblock);
        let bytes = directory::first_block(&self.directory_format, seed, inode.number, parent);
        let kind = BlockKind::Directory { inode: inode.number, logical: 0, indexed: false };
        self.cache.put(block, kind, bytes)?;
        inode.set_size(self.superblock.block_size as u64);
        self.add_mapping(inode, 0, block, 1)
    }

    fn max_target_len(&self) -> usize {
        MAX_SYMLINK_LEN.min(self.superblock.block_size - 1)
    }

    /// Whether directories with more links than fit say 1 link.
    fn dir_nlink(&self) -> bool {
        self.superblock.features.ro_compat.contains(RoCompat::DIR_NLINK)
    }

    fn check_room_for_subdirectory(&self, parent: &Inode) -> Result<()> {
        if parent.links() >= MAX_LINKS && !self.dir_nlink() { Err(Error::TooManyLinks(parent.number)) } else { Ok(()) }
    }

    /// Counts the `..` of a new subdirectory.
    pub(crate) fn add_subdirectory(&self, parent: &mut Inode) {
        match parent.links() {
            1 => {}
            links if links >= MAX_LINKS => parent.set_links(1),
            links => parent.set_links(links + 1),
        }
    }

    /// Discounts the `..` of a subdirectory that went.
    pub(crate) fn drop_subdirectory(&mut self, parent: u32) -> Result<()> {
        let mut parent = self.directory_inode(parent)?;
        if parent.links() > 2 {
            parent.set_links(parent.links() - 1);
        }
        self.touch_directory(parent)?;
        Ok(())
    }

    /// The inode that a rename replaces, if something of `kind` may replace it.
    fn replaceable(&self, number: u32, kind: FileKind) -> Result<Inode> {
        let target = self.inode(number)?;
        check_changeable(&target)?;
        match (kind == FileKind::Directory, target.is_directory()) {
            (true, false) => Err(Error::NotADirectory(number)),
            (false, true) => Err(Error::IsADirectory(number)),
            (true, true) => self.check_empty(&target).map(|()| target),
            (false, false) => Ok(target),
        }
    }

    /// Fails where `directory` is `inode` or lies below it.
    fn check_not_below(&self, directory: u32, inode: u32) -> Result<()> {
        let mut at = directory;
        // More steps up than there are inodes would be a loop.
        for _ in 0..self.superblock.inodes_count {
            if at == inode {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            if at == ROOT_INODE {
                return Ok(());
            }
            at = self.parent_of(at)?;
        }
        Err(Error::corrupt("directory", format_args!("inode {directory}"), "the root is above it"))
    }
}
