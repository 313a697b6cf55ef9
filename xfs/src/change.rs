//! Changing names and inodes.

use crate::bytes::{put, put_checksum, put32, put64};
use crate::directory::{Entry, is_name};
use crate::extents::{Extent, Extents};
use crate::file_system::FileSystem;
use crate::inode::{Fork, Format, Inode};
use crate::limits::MAX_SYMLINK_LEN;
use crate::listing::Directory;
use crate::metadata::{FileKind, NewNode, Ownership, Timestamp};
use crate::space::owner;
use crate::{Error, Result};

/// Directories may lie at most this deep in each other: a bound for walking up.
const MAX_DEPTH: usize = 1 << 16;

impl FileSystem {
    /// Sets the time that changes are stamped with from now on.
    pub fn set_clock(&mut self, now: Timestamp) {
        self.clock = now;
    }

    /// Runs a change. One that fails after it has begun to change things leaves them half done, so it poisons.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(reason) = &self.read_only {
            return Err(Error::ReadOnly(reason.clone()));
        }
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        let before = self.store.changes();
        let result = change(self);
        self.poisoned |= result.is_err() && self.store.changes() != before;
        result
    }

    /// Makes a new inode and names it. The name must be new.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::InvalidName`], [`Error::NotADirectory`], [`Error::NoSpace`], and what the image
    /// or the device has against it.
    pub fn create(&mut self, directory: u64, name: &[u8], node: NewNode<'_>, ownership: Ownership) -> Result<u64> {
        self.check_new_name(directory, name)?;
        if let NewNode::Symlink(target) = node
            && (target.is_empty() || target.len() as u64 > MAX_SYMLINK_LEN - 1 || target.contains(&0))
        {
            return Err(Error::Invalid("a symbolic link's target has 1 to 1023 bytes, and no NUL"));
        }
        self.change(|fs| {
            let mut inode = fs.allocate_inode(directory)?;
            let kind = match node {
                NewNode::File => FileKind::File,
                NewNode::Directory => FileKind::Directory,
                NewNode::Symlink(_) => FileKind::Symlink,
            };
            inode.set_mode(kind.mode_bits() | (ownership.mode & 0o7777) as u16);
            inode.set_owner(ownership.uid, ownership.gid);
            inode.set_links(if kind == FileKind::Directory { 2 } else { 1 });
            let now = fs.clock;
            inode.set_accessed(now);
            inode.set_modified(now);
            inode.set_changed(now);
            inode.set_created(now);
            match node {
                NewNode::File => {}
                NewNode::Directory => {
                    // Small and empty until it is written.
                    inode.set_format(Fork::Data, Format::Local);
                    let wide = directory > u32::MAX.into();
                    let mut bytes = vec![0, u8::from(wide)];
                    if wide {
                        bytes.extend(directory.to_be_bytes())
                    } else {
                        bytes.extend((directory as u32).to_be_bytes())
                    }
                    Self::put_local(&mut inode, Fork::Data, &bytes);
                    inode.set_size(bytes.len() as u64);
                    fs.known.forget(inode.number);
                    fs.known.changed.insert(inode.number, Directory::new(directory).into());
                }
                NewNode::Symlink(target) => fs.put_target(&mut inode, target)?,
            }
            fs.put_inode(&mut inode)?;
            fs.add_entry(directory, name, inode.number, kind)?;
            if kind == FileKind::Directory {
                fs.change_links(directory, 1)?;
            }
            Ok(inode.number)
        })
    }

    /// Puts a symbolic link's target into its inode, or into blocks.
    pub(crate) fn put_target(&mut self, inode: &mut Inode, target: &[u8]) -> Result<()> {
        inode.set_size(target.len() as u64);
        if Self::put_local(inode, Fork::Data, target) {
            return Ok(());
        }
        const HEADER: usize = 56;
        let payload = self.sb.block_size - HEADER;
        let wanted = target.len().div_ceil(payload) as u64;
        let mut list = Vec::new();
        let mut done = 0_usize;
        let mut at = 0;
        while at < wanted {
            let (block, len) = self.allocate(wanted - at, owner(inode.number, Fork::Data, at, false))?;
            // Each extent has one header.
            let mut bytes = vec![0; len as usize * self.sb.block_size];
            let part = &target[done..(done + bytes.len() - HEADER).min(target.len())];
            put(&mut bytes, 0, b"XSLM");
            put32(&mut bytes, 4, done as u32);
            put32(&mut bytes, 8, part.len() as u32);
            put(&mut bytes, 16, &self.sb.meta_uuid);
            put64(&mut bytes, 32, inode.number);
            put64(&mut bytes, 40, self.sb.daddr(block));
            put(&mut bytes, HEADER, part);
            put_checksum(&mut bytes, 12);
            self.store.put_run(block, &bytes)?;
            done += part.len();
            list.push(Extent { offset: at, block, len, unwritten: false });
            at += len;
        }
        self.put_extents(inode, Fork::Data, &Extents::default(), &list)
    }

    /// Gives an inode (no directory) another name.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::IsADirectory`], [`Error::TooManyLinks`], and as [`FileSystem::create`].
    pub fn link(&mut self, directory: u64, name: &[u8], inode: u64) -> Result<()> {
        self.check_new_name(directory, name)?;
        let found = self.inode(inode)?;
        let kind = found.kind()?;
        if kind == FileKind::Directory {
            return Err(Error::IsADirectory(inode));
        }
        if found.links() >= i32::MAX as u32 {
            return Err(Error::TooManyLinks(inode));
        }
        self.change(|fs| {
            fs.add_entry(directory, name, inode, kind)?;
            fs.change_links(inode, 1)
        })
    }

    /// Takes a name from an inode that is no directory; the inode goes with its last name.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsADirectory`], and what the image or the device has against it.
    pub fn unlink(&mut self, directory: u64, name: &[u8]) -> Result<()> {
        let inode = self.named(directory, name)?;
        if self.inode(inode)?.kind()? == FileKind::Directory {
            return Err(Error::IsADirectory(inode));
        }
        self.change(|fs| {
            fs.remove_entry(directory, name)?;
            fs.drop_link(inode)
        })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`], [`Error::DirectoryNotEmpty`], and what the image or the device has
    /// against it.
    pub fn remove_dir(&mut self, directory: u64, name: &[u8]) -> Result<()> {
        let inode = self.named(directory, name)?;
        self.check_empty(inode)?;
        self.change(|fs| {
            fs.remove_entry(directory, name)?;
            fs.change_links(directory, -1)?;
            fs.drop_directory(inode)
        })
    }

    /// Renames as rename(2) does, replacing the target.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidName`], [`Error::DirectoryNotEmpty`], [`Error::IsADirectory`],
    /// [`Error::NotADirectory`], and [`Error::Invalid`] where a directory would go into itself.
    pub fn rename(&mut self, from: u64, from_name: &[u8], to: u64, to_name: &[u8]) -> Result<()> {
        if !is_name(from_name) || !is_name(to_name) {
            return Err(Error::InvalidName);
        }
        let moved = self.named(from, from_name)?;
        let kind = self.inode(moved)?.kind()?;
        let is_directory = kind == FileKind::Directory;
        let replaced = self.lookup(to, to_name)?;
        if replaced == Some(moved) {
            return Ok(());
        }
        if is_directory {
            self.check_not_below(to, moved)?;
        }
        if let Some(replaced) = replaced {
            match (is_directory, self.inode(replaced)?.kind()? == FileKind::Directory) {
                (true, true) => self.check_empty(replaced)?,
                (true, false) => return Err(Error::NotADirectory(replaced)),
                (false, true) => return Err(Error::IsADirectory(replaced)),
                (false, false) => {}
            }
        }
        self.change(|fs| {
            if let Some(replaced) = replaced {
                fs.remove_entry(to, to_name)?;
                if is_directory {
                    fs.change_links(to, -1)?;
                    fs.drop_directory(replaced)?;
                } else {
                    fs.drop_link(replaced)?;
                }
            }
            fs.remove_entry(from, from_name)?;
            fs.add_entry(to, to_name, moved, kind)?;
            if is_directory && from != to {
                fs.change_links(from, -1)?;
                fs.change_links(to, 1)?;
                fs.listing_mut(moved)?.parent = to;
            }
            fs.change_links(moved, 0)
        })
    }

    /// Sets the permission bits.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_mode(&mut self, inode: u64, mode: u32) -> Result<()> {
        self.change_inode(inode, |inode| inode.set_mode(inode.mode() & 0xf000 | (mode & 0o7777) as u16))
    }

    /// Sets owner and group.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_owner(&mut self, inode: u64, uid: u32, gid: u32) -> Result<()> {
        self.change_inode(inode, |inode| inode.set_owner(uid, gid))
    }

    /// Sets the times of last access and change of contents.
    ///
    /// # Errors
    /// What the image or the device has against it.
    pub fn set_times(&mut self, inode: u64, accessed: Timestamp, modified: Timestamp) -> Result<()> {
        self.change_inode(inode, |inode| {
            inode.set_accessed(accessed);
            inode.set_modified(modified);
        })
    }

    /// Sets an extended attribute by its full name (`security.selinux`).
    ///
    /// # Errors
    /// [`Error::Invalid`] where no such name can be, [`Error::NoSpace`] where attributes need more than one leaf.
    pub fn set_xattr(&mut self, inode: u64, name: &[u8], value: &[u8]) -> Result<()> {
        self.change_xattr(inode, name, Some(value))
    }

    /// Removes an extended attribute; missing is fine.
    ///
    /// # Errors
    /// As [`FileSystem::set_xattr`].
    pub fn remove_xattr(&mut self, inode: u64, name: &[u8]) -> Result<()> {
        self.change_xattr(inode, name, None)
    }

    fn change_inode(&mut self, number: u64, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let mut inode = self.inode(number)?;
        let now = self.clock;
        self.change(|fs| {
            change(&mut inode);
            inode.set_changed(now);
            fs.put_inode(&mut inode)
        })
    }

    fn check_new_name(&self, directory: u64, name: &[u8]) -> Result<()> {
        if !is_name(name) {
            return Err(Error::InvalidName);
        }
        match self.lookup(directory, name)? {
            Some(_) => Err(Error::AlreadyExists),
            None => Ok(()),
        }
    }

    fn named(&self, directory: u64, name: &[u8]) -> Result<u64> {
        self.lookup(directory, name)?.ok_or(Error::NotFound)
    }

    fn check_empty(&self, directory: u64) -> Result<()> {
        self.check_directory(directory)?;
        if self.listing(directory)?.len() == 0 { Ok(()) } else { Err(Error::DirectoryNotEmpty) }
    }

    /// That a directory is not another one, nor below it.
    fn check_not_below(&self, directory: u64, above: u64) -> Result<()> {
        let mut at = directory;
        for _ in 0..MAX_DEPTH {
            if at == above {
                return Err(Error::Invalid("a directory cannot be moved into itself"));
            }
            if at == self.sb.root_inode {
                return Ok(());
            }
            at = self.listing(at)?.parent;
        }
        Err(Error::corrupt("directory", format_args!("inode {directory}"), "is below the root"))
    }

    fn add_entry(&mut self, directory: u64, name: &[u8], inode: u64, kind: FileKind) -> Result<()> {
        let entry = Entry { name: name.to_vec(), inode, file_type: kind.file_type() };
        self.listing_mut(directory)?.insert(entry);
        self.stamp_directory(directory)
    }

    fn remove_entry(&mut self, directory: u64, name: &[u8]) -> Result<()> {
        self.listing_mut(directory)?.remove(name).ok_or(Error::NotFound)?;
        self.stamp_directory(directory)
    }

    fn stamp_directory(&mut self, directory: u64) -> Result<()> {
        let mut inode = self.inode(directory)?;
        inode.set_modified(self.clock);
        inode.set_changed(self.clock);
        self.put_inode(&mut inode)
    }

    fn change_links(&mut self, number: u64, by: i32) -> Result<()> {
        let mut inode = self.inode(number)?;
        let links = inode.links().checked_add_signed(by).filter(|links| *links > 0);
        inode.set_links(links.ok_or_else(|| inode.corrupt("an inode with names counts them"))?);
        inode.set_changed(self.clock);
        self.put_inode(&mut inode)
    }

    fn drop_link(&mut self, number: u64) -> Result<()> {
        let inode = self.inode(number)?;
        if inode.links() > 1 { self.change_links(number, -1) } else { self.drop_inode(inode) }
    }

    fn drop_directory(&mut self, number: u64) -> Result<()> {
        self.known.changed.remove(&number);
        self.known.forget(number);
        let inode = self.inode(number)?;
        self.drop_inode(inode)
    }

    /// Gives all that an inode has back, and the inode itself.
    pub(crate) fn drop_inode(&mut self, mut inode: Inode) -> Result<()> {
        self.release_fork(&mut inode, Fork::Data)?;
        self.release_fork(&mut inode, Fork::Attr)?;
        self.touched.remove(&inode.number);
        self.free_inode(&inode)
    }
}
