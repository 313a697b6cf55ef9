//! ext2, ext3 and ext4 as a guest needs them.

use crate::{
    DirEntry, Error, FileKind, FileSystem, InodeNumber, Metadata, NewNode, Ownership, Result, ScrubReport, Timestamp,
};

/// A file system of `ext4fs`.
#[derive(Debug)]
pub(crate) struct Ext4(pub(crate) ext4fs::FileSystem);

impl From<ext4fs::Error> for Error {
    fn from(error: ext4fs::Error) -> Self {
        match error {
            ext4fs::Error::Io(error) => Self::Io(error),
            ext4fs::Error::NotFound => Self::NotFound,
            ext4fs::Error::AlreadyExists => Self::AlreadyExists,
            ext4fs::Error::NotADirectory(_) => Self::NotADirectory,
            ext4fs::Error::IsADirectory(_) => Self::IsADirectory,
            ext4fs::Error::DirectoryNotEmpty => Self::NotEmpty,
            ext4fs::Error::NotAFile(_) => Self::NotAFile,
            ext4fs::Error::NotASymlink(_) => Self::NotALink,
            ext4fs::Error::NoSpace(_) => Self::NoSpace,
            error => Self::file_system(error),
        }
    }
}

fn number(inode: InodeNumber) -> Result<u32> {
    u32::try_from(inode.0).map_err(|_| Error::Corrupt(format!("there is no inode {}", inode.0)))
}

fn kind(kind: ext4fs::FileKind) -> FileKind {
    match kind {
        ext4fs::FileKind::File => FileKind::File,
        ext4fs::FileKind::Directory => FileKind::Directory,
        ext4fs::FileKind::Symlink => FileKind::Symlink,
        ext4fs::FileKind::CharDevice => FileKind::CharDevice,
        ext4fs::FileKind::BlockDevice => FileKind::BlockDevice,
        ext4fs::FileKind::Fifo => FileKind::Fifo,
        ext4fs::FileKind::Socket => FileKind::Socket,
    }
}

fn from_ext4(time: ext4fs::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

pub(crate) fn to_ext4(time: Timestamp) -> ext4fs::Timestamp {
    ext4fs::Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

impl FileSystem for Ext4 {
    fn type_name(&self) -> &'static str {
        self.0.type_name()
    }

    fn uuid(&self) -> Option<uuid::Uuid> {
        Some(uuid::Uuid::from_bytes(self.0.uuid())).filter(|uuid| !uuid.is_nil())
    }

    fn label(&self) -> Vec<u8> {
        self.0.label().to_vec()
    }

    fn root(&self) -> InodeNumber {
        InodeNumber(self.0.root().into())
    }

    fn read_only_reason(&self) -> Option<String> {
        self.0.read_only_reason().map(str::to_owned)
    }

    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let metadata = self.0.metadata(number(inode)?)?;
        Ok(Metadata {
            inode,
            kind: kind(metadata.kind),
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            links: metadata.links,
            accessed: from_ext4(metadata.accessed),
            modified: from_ext4(metadata.modified),
            changed: from_ext4(metadata.changed),
        })
    }

    fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>> {
        Ok(self.0.lookup(number(directory)?, name)?.map(|inode| InodeNumber(inode.into())))
    }

    fn read_dir(&self, directory: InodeNumber) -> Result<Vec<DirEntry>> {
        let entries = self.0.read_dir(number(directory)?)?.into_iter();
        let entry = |entry: ext4fs::DirEntry| DirEntry {
            name: entry.name,
            inode: InodeNumber(entry.inode.into()),
            kind: kind(entry.kind),
        };
        Ok(entries.map(entry).collect())
    }

    fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        Ok(self.0.read_link(number(inode)?)?)
    }

    fn read_at(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Ok(self.0.read_at(number(inode)?, offset, buf)?)
    }

    fn xattr_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>> {
        Ok(self.0.xattr_names(number(inode)?)?)
    }

    fn xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.xattr(number(inode)?, name)?)
    }

    fn data_ranges(&self, inode: InodeNumber, visit: &mut dyn FnMut(std::ops::Range<u64>)) -> Result<()> {
        Ok(self.0.data_ranges(number(inode)?, visit)?)
    }

    fn set_clock(&mut self, now: Timestamp) {
        self.0.set_clock(to_ext4(now));
    }

    fn create(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        node: NewNode<'_>,
        ownership: Ownership,
    ) -> Result<InodeNumber> {
        let node = match node {
            NewNode::File => ext4fs::NewNode::File,
            NewNode::Directory => ext4fs::NewNode::Directory,
            NewNode::Symlink(target) => ext4fs::NewNode::Symlink(target),
        };
        let Ownership { mode, uid, gid } = ownership;
        let inode = self.0.create(number(directory)?, name, node, ext4fs::Ownership { mode, uid, gid })?;
        Ok(InodeNumber(inode.into()))
    }

    fn link(&mut self, directory: InodeNumber, name: &[u8], inode: InodeNumber) -> Result<()> {
        Ok(self.0.link(number(directory)?, name, number(inode)?)?)
    }

    fn unlink(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.unlink(number(directory)?, name)?)
    }

    fn remove_dir(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.remove_dir(number(directory)?, name)?)
    }

    fn rename(&mut self, from: InodeNumber, from_name: &[u8], to: InodeNumber, to_name: &[u8]) -> Result<()> {
        Ok(self.0.rename(number(from)?, from_name, number(to)?, to_name)?)
    }

    fn write_at(&mut self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()> {
        Ok(self.0.write_at(number(inode)?, offset, data)?)
    }

    fn set_len(&mut self, inode: InodeNumber, len: u64) -> Result<()> {
        Ok(self.0.set_len(number(inode)?, len)?)
    }

    fn set_mode(&mut self, inode: InodeNumber, mode: u32) -> Result<()> {
        Ok(self.0.set_mode(number(inode)?, mode)?)
    }

    fn set_owner(&mut self, inode: InodeNumber, uid: u32, gid: u32) -> Result<()> {
        Ok(self.0.set_owner(number(inode)?, uid, gid)?)
    }

    fn set_times(&mut self, inode: InodeNumber, accessed: Timestamp, modified: Timestamp) -> Result<()> {
        Ok(self.0.set_times(number(inode)?, to_ext4(accessed), to_ext4(modified))?)
    }

    fn set_xattr(&mut self, inode: InodeNumber, name: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.set_xattr(number(inode)?, name, value)?)
    }

    fn remove_xattr(&mut self, inode: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.remove_xattr(number(inode)?, name)?)
    }

    fn set_uuid(&mut self, uuid: uuid::Uuid) -> Result<()> {
        Ok(self.0.set_uuid(uuid.into_bytes())?)
    }

    fn uuid_adds_feature(&self) -> Option<&'static str> {
        self.0.uuid_adds_feature()
    }

    fn scrub(&mut self) -> Result<ScrubReport> {
        Ok(ScrubReport { bytes_zeroed: self.0.scrub()?.bytes_zeroed })
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}
