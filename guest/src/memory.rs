//! A file system in memory: for tests, for examples, and for trees that come from elsewhere than a disk.

use std::collections::BTreeMap;

use crate::path;
use crate::{
    DirEntry, Error, FileKind, FileSystem, InodeNumber, Metadata, NewNode, Ownership, Result, ScrubReport, Timestamp,
};

/// The longest that a file may grow: 1 GiB.
const MAX_FILE: u64 = 1 << 30;
const ROOT: u64 = 2;

/// A file system in memory, with hard links, symbolic links, extended attributes, owners, modes and times.
///
/// The `add_*` calls build a tree by path, making missing parents; links are not followed by them.
#[derive(Debug, Clone)]
pub struct MemoryFileSystem {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    now: Timestamp,
    uuid: Option<uuid::Uuid>,
    label: Vec<u8>,
    read_only: Option<String>,
}

#[derive(Debug, Clone)]
struct Inode {
    content: Content,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Directory { names: BTreeMap<Vec<u8>, u64>, parent: u64 },
    Symlink(Vec<u8>),
    Special(FileKind),
}

impl Content {
    fn kind(&self) -> FileKind {
        match self {
            Self::File(_) => FileKind::File,
            Self::Directory { .. } => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::Special(kind) => *kind,
        }
    }
}

impl Default for MemoryFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFileSystem {
    /// A file system that holds an empty root directory of root's, 0755.
    #[must_use]
    pub fn new() -> Self {
        let root = Inode::new(
            Content::Directory { names: BTreeMap::new(), parent: ROOT },
            Ownership { mode: 0o755, uid: 0, gid: 0 },
            Timestamp::default(),
        );
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            now: Timestamp::default(),
            uuid: None,
            label: Vec::new(),
            read_only: None,
        }
    }

    /// Says which UUID it has.
    #[must_use]
    pub fn with_uuid(mut self, uuid: uuid::Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Sets the label.
    pub fn set_label(&mut self, label: &[u8]) {
        self.label = label.to_vec();
    }

    /// Says that a guest is not to write it, and why.
    pub fn set_read_only(&mut self, reason: Option<&str>) {
        self.read_only = reason.map(str::to_owned);
    }

    /// Makes a directory, 0755, with its parents. One that exists is fine.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] where something else is in the way.
    pub fn add_dir(&mut self, path: impl AsRef<[u8]>) -> Result<InodeNumber> {
        let mut here = InodeNumber(ROOT);
        for name in path::components(path.as_ref()) {
            here = match self.lookup(here, name)? {
                Some(inode) => inode,
                None => self.create(here, name, NewNode::Directory, Ownership { mode: 0o755, uid: 0, gid: 0 })?,
            };
        }
        self.names(here)?;
        Ok(here)
    }

    /// Makes a regular file, 0644, with its parents.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], and as [`MemoryFileSystem::add_dir`].
    pub fn add_file(&mut self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Result<InodeNumber> {
        let inode = self.add(path.as_ref(), Content::File(data.as_ref().to_vec()), 0o644)?;
        Ok(inode)
    }

    /// Makes a symbolic link, with its parents.
    ///
    /// # Errors
    /// As [`MemoryFileSystem::add_file`].
    pub fn add_symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<InodeNumber> {
        self.add(path.as_ref(), Content::Symlink(target.as_ref().to_vec()), 0o777)
    }

    /// Makes a device, pipe or socket, with its parents. For the other kinds it makes an empty file, directory or a
    /// link to `/`.
    ///
    /// # Errors
    /// As [`MemoryFileSystem::add_file`].
    pub fn add_special(&mut self, path: impl AsRef<[u8]>, kind: FileKind) -> Result<InodeNumber> {
        match kind {
            FileKind::File => self.add_file(path, b""),
            FileKind::Directory => self.add_dir(path),
            FileKind::Symlink => self.add_symlink(path, b"/"),
            kind => self.add(path.as_ref(), Content::Special(kind), 0o644),
        }
    }

    fn add(&mut self, path: &[u8], content: Content, mode: u32) -> Result<InodeNumber> {
        let (parent, name) = path::split_name(path)?;
        let directory = self.add_dir(parent)?;
        self.insert(directory, name, content, Ownership { mode, uid: 0, gid: 0 })
    }

    fn inode(&self, inode: InodeNumber) -> Result<&Inode> {
        self.inodes.get(&inode.0).ok_or_else(|| Error::Corrupt(format!("there is no inode {}", inode.0)))
    }

    fn inode_mut(&mut self, inode: InodeNumber) -> Result<&mut Inode> {
        self.inodes.get_mut(&inode.0).ok_or_else(|| Error::Corrupt(format!("there is no inode {}", inode.0)))
    }

    fn names(&self, directory: InodeNumber) -> Result<&BTreeMap<Vec<u8>, u64>> {
        match &self.inode(directory)?.content {
            Content::Directory { names, .. } => Ok(names),
            _ => Err(Error::NotADirectory),
        }
    }

    /// A directory's names, to be changed: its times change too.
    fn names_mut(&mut self, directory: InodeNumber) -> Result<&mut BTreeMap<Vec<u8>, u64>> {
        let now = self.now;
        let inode = self.inode_mut(directory)?;
        let Content::Directory { names, .. } = &mut inode.content else { return Err(Error::NotADirectory) };
        (inode.modified, inode.changed) = (now, now);
        Ok(names)
    }

    /// A regular file's bytes, to be changed: its times change too.
    fn data_mut(&mut self, file: InodeNumber) -> Result<&mut Vec<u8>> {
        let now = self.now;
        let inode = self.inode_mut(file)?;
        let Content::File(data) = &mut inode.content else { return Err(Error::NotAFile) };
        (inode.modified, inode.changed) = (now, now);
        Ok(data)
    }

    fn insert(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        content: Content,
        ownership: Ownership,
    ) -> Result<InodeNumber> {
        check_name(name)?;
        if self.names(directory)?.contains_key(name) {
            return Err(Error::AlreadyExists);
        }
        let number = self.next;
        self.next += 1;
        if content.kind() == FileKind::Directory {
            self.inode_mut(directory)?.links += 1;
        }
        self.names_mut(directory)?.insert(name.to_vec(), number);
        self.inodes.insert(number, Inode::new(content, ownership, self.now));
        Ok(InodeNumber(number))
    }

    /// Takes a name from an inode; the inode goes with its last one.
    fn drop_name(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        let number = self.names_mut(directory)?.remove(name).ok_or(Error::NotFound)?;
        let now = self.now;
        let inode = self.inode_mut(InodeNumber(number))?;
        inode.changed = now;
        if inode.content.kind() == FileKind::Directory {
            self.inodes.remove(&number);
            self.inode_mut(directory)?.links -= 1;
        } else if inode.links > 1 {
            inode.links -= 1;
        } else {
            self.inodes.remove(&number);
        }
        Ok(())
    }

    /// Whether `directory` is `top` or below it.
    fn is_within(&self, directory: InodeNumber, top: InodeNumber) -> Result<bool> {
        let mut here = directory.0;
        loop {
            if here == top.0 {
                return Ok(true);
            }
            match &self.inode(InodeNumber(here))?.content {
                Content::Directory { parent, .. } if *parent != here => here = *parent,
                _ => return Ok(false),
            }
        }
    }
}

impl Inode {
    fn new(content: Content, ownership: Ownership, now: Timestamp) -> Self {
        let links = if content.kind() == FileKind::Directory { 2 } else { 1 };
        let Ownership { mode, uid, gid } = ownership;
        Self { content, mode, uid, gid, links, accessed: now, modified: now, changed: now, xattrs: BTreeMap::new() }
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    match name {
        b"" | b"." | b".." => Err(Error::InvalidPath("it is no name")),
        name if name.len() > path::MAX_NAME => Err(Error::PathTooLong),
        name if name.contains(&b'/') || name.contains(&0) => Err(Error::InvalidPath("it is no name")),
        _ => Ok(()),
    }
}

impl FileSystem for MemoryFileSystem {
    fn type_name(&self) -> &'static str {
        "memory"
    }

    fn uuid(&self) -> Option<uuid::Uuid> {
        self.uuid
    }

    fn label(&self) -> Vec<u8> {
        self.label.clone()
    }

    fn root(&self) -> InodeNumber {
        InodeNumber(ROOT)
    }

    fn read_only_reason(&self) -> Option<String> {
        self.read_only.clone()
    }

    fn metadata(&self, number: InodeNumber) -> Result<Metadata> {
        let inode = self.inode(number)?;
        let size = match &inode.content {
            Content::File(data) | Content::Symlink(data) => data.len() as u64,
            Content::Directory { .. } | Content::Special(_) => 0,
        };
        Ok(Metadata {
            inode: number,
            kind: inode.content.kind(),
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size,
            links: inode.links,
            accessed: inode.accessed,
            modified: inode.modified,
            changed: inode.changed,
        })
    }

    fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>> {
        Ok(self.names(directory)?.get(name).copied().map(InodeNumber))
    }

    fn read_dir(&self, directory: InodeNumber) -> Result<Vec<DirEntry>> {
        let entry = |(name, &number): (&Vec<u8>, &u64)| {
            let kind = self.inode(InodeNumber(number))?.content.kind();
            Ok(DirEntry { name: name.clone(), inode: InodeNumber(number), kind })
        };
        self.names(directory)?.iter().map(entry).collect()
    }

    fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        match &self.inode(inode)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::NotALink),
        }
    }

    fn read_at(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Content::File(data) = &self.inode(inode)?.content else { return Err(Error::NotAFile) };
        let rest = usize::try_from(offset).ok().and_then(|offset| data.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn xattr_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>> {
        Ok(self.inode(inode)?.xattrs.keys().cloned().collect())
    }

    fn xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.inode(inode)?.xattrs.get(name).cloned())
    }

    fn set_clock(&mut self, now: Timestamp) {
        self.now = now;
    }

    fn create(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        node: NewNode<'_>,
        ownership: Ownership,
    ) -> Result<InodeNumber> {
        let content = match node {
            NewNode::File => Content::File(Vec::new()),
            NewNode::Directory => Content::Directory { names: BTreeMap::new(), parent: directory.0 },
            NewNode::Symlink(target) => Content::Symlink(target.to_vec()),
        };
        self.insert(directory, name, content, ownership)
    }

    fn link(&mut self, directory: InodeNumber, name: &[u8], inode: InodeNumber) -> Result<()> {
        check_name(name)?;
        if self.inode(inode)?.content.kind() == FileKind::Directory {
            return Err(Error::IsADirectory);
        }
        if self.names(directory)?.contains_key(name) {
            return Err(Error::AlreadyExists);
        }
        self.names_mut(directory)?.insert(name.to_vec(), inode.0);
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        inode.links += 1;
        inode.changed = now;
        Ok(())
    }

    fn unlink(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        let inode = self.lookup(directory, name)?.ok_or(Error::NotFound)?;
        match self.inode(inode)?.content.kind() {
            FileKind::Directory => Err(Error::IsADirectory),
            _ => self.drop_name(directory, name),
        }
    }

    fn remove_dir(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        let inode = self.lookup(directory, name)?.ok_or(Error::NotFound)?;
        if !self.names(inode)?.is_empty() {
            return Err(Error::NotEmpty);
        }
        self.drop_name(directory, name)
    }

    fn rename(&mut self, from: InodeNumber, from_name: &[u8], to: InodeNumber, to_name: &[u8]) -> Result<()> {
        check_name(to_name)?;
        let moved = self.lookup(from, from_name)?.ok_or(Error::NotFound)?;
        let is_directory = self.inode(moved)?.content.kind() == FileKind::Directory;
        if is_directory && self.is_within(to, moved)? {
            return Err(Error::InvalidPath("a directory cannot be moved below itself"));
        }
        if let Some(replaced) = self.lookup(to, to_name)? {
            if replaced == moved {
                return Ok(());
            }
            match (is_directory, self.inode(replaced)?.content.kind() == FileKind::Directory) {
                (true, true) => self.remove_dir(to, to_name)?,
                (false, false) => self.unlink(to, to_name)?,
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
            }
        }
        self.names_mut(from)?.remove(from_name);
        self.names_mut(to)?.insert(to_name.to_vec(), moved.0);
        let now = self.now;
        let inode = self.inode_mut(moved)?;
        inode.changed = now;
        if let Content::Directory { parent, .. } = &mut inode.content {
            *parent = to.0;
            self.inode_mut(from)?.links -= 1;
            self.inode_mut(to)?.links += 1;
        }
        Ok(())
    }

    fn write_at(&mut self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE).ok_or(Error::NoSpace)?;
        let bytes = self.data_mut(inode)?;
        if bytes.len() < end as usize {
            bytes.resize(end as usize, 0);
        }
        bytes[offset as usize..end as usize].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&mut self, inode: InodeNumber, len: u64) -> Result<()> {
        if len > MAX_FILE {
            return Err(Error::NoSpace);
        }
        self.data_mut(inode)?.resize(len as usize, 0);
        Ok(())
    }

    fn set_mode(&mut self, inode: InodeNumber, mode: u32) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        (inode.mode, inode.changed) = (mode, now);
        Ok(())
    }

    fn set_owner(&mut self, inode: InodeNumber, uid: u32, gid: u32) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        (inode.uid, inode.gid, inode.changed) = (uid, gid, now);
        Ok(())
    }

    fn set_times(&mut self, inode: InodeNumber, accessed: Timestamp, modified: Timestamp) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        (inode.accessed, inode.modified, inode.changed) = (accessed, modified, now);
        Ok(())
    }

    fn set_xattr(&mut self, inode: InodeNumber, name: &[u8], value: &[u8]) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        inode.xattrs.insert(name.to_vec(), value.to_vec());
        inode.changed = now;
        Ok(())
    }

    fn remove_xattr(&mut self, inode: InodeNumber, name: &[u8]) -> Result<()> {
        let now = self.now;
        let inode = self.inode_mut(inode)?;
        if inode.xattrs.remove(name).is_some() {
            inode.changed = now;
        }
        Ok(())
    }

    /// There is no disk below: what was removed is gone already.
    fn set_uuid(&mut self, uuid: uuid::Uuid) -> Result<()> {
        self.uuid = Some(uuid);
        Ok(())
    }

    fn scrub(&mut self) -> Result<ScrubReport> {
        Ok(ScrubReport::default())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
