//! XFS as a guest needs it.

use crate::{
    DirEntry, Error, FileKind, FileSystem, InodeNumber, Metadata, NewNode, Ownership, Result, ScrubReport, Timestamp,
};

/// A file system of `xfs`.
#[derive(Debug)]
pub(crate) struct Xfs(pub(crate) xfs::FileSystem);

impl From<xfs::Error> for Error {
    fn from(error: xfs::Error) -> Self {
        match error {
            xfs::Error::Io(error) => Self::Io(error),
            xfs::Error::NotFound => Self::NotFound,
            xfs::Error::AlreadyExists => Self::AlreadyExists,
            xfs::Error::NotADirectory(_) => Self::NotADirectory,
            xfs::Error::IsADirectory(_) => Self::IsADirectory,
            xfs::Error::DirectoryNotEmpty => Self::NotEmpty,
            xfs::Error::NotAFile(_) => Self::NotAFile,
            xfs::Error::NotASymlink(_) => Self::NotALink,
            xfs::Error::NoSpace(_) => Self::NoSpace,
            error => Self::file_system(error),
        }
    }
}

fn kind(kind: xfs::FileKind) -> FileKind {
    match kind {
        xfs::FileKind::File => FileKind::File,
        xfs::FileKind::Directory => FileKind::Directory,
        xfs::FileKind::Symlink => FileKind::Symlink,
        xfs::FileKind::CharDevice => FileKind::CharDevice,
        xfs::FileKind::BlockDevice => FileKind::BlockDevice,
        xfs::FileKind::Fifo => FileKind::Fifo,
        xfs::FileKind::Socket => FileKind::Socket,
    }
}

fn from_xfs(time: xfs::Timestamp) -> Timestamp {
    Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

pub(crate) fn to_xfs(time: Timestamp) -> xfs::Timestamp {
    xfs::Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

impl FileSystem for Xfs {
    fn type_name(&self) -> &'static str {
        "xfs"
    }

    fn uuid(&self) -> Option<uuid::Uuid> {
        Some(uuid::Uuid::from_bytes(self.0.uuid())).filter(|uuid| !uuid.is_nil())
    }

    fn label(&self) -> Vec<u8> {
        self.0.label().to_vec()
    }

    fn root(&self) -> InodeNumber {
        InodeNumber(self.0.root())
    }

    fn read_only_reason(&self) -> Option<String> {
        self.0.read_only_reason().map(str::to_owned)
    }

    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let metadata = self.0.metadata(inode.0)?;
        Ok(Metadata {
            inode,
            kind: kind(metadata.kind),
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            links: metadata.links,
            accessed: from_xfs(metadata.accessed),
            modified: from_xfs(metadata.modified),
            changed: from_xfs(metadata.changed),
        })
    }

    fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>> {
        Ok(self.0.lookup(directory.0, name)?.map(InodeNumber))
    }

    fn read_dir(&self, directory: InodeNumber) -> Result<Vec<DirEntry>> {
        let entries = self.0.read_dir(directory.0)?.into_iter();
        let entry = |entry: xfs::DirEntry| DirEntry {
            name: entry.name,
            inode: InodeNumber(entry.inode),
            kind: kind(entry.kind),
        };
        Ok(entries.map(entry).collect())
    }

    fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        Ok(self.0.read_link(inode.0)?)
    }

    fn read_at(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Ok(self.0.read_at(inode.0, offset, buf)?)
    }

    fn xattr_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>> {
        Ok(self.0.xattr_names(inode.0)?)
    }

    fn xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.xattr(inode.0, name)?)
    }

    fn data_ranges(&self, inode: InodeNumber, visit: &mut dyn FnMut(std::ops::Range<u64>)) -> Result<()> {
        Ok(self.0.data_ranges(inode.0, visit)?)
    }

    fn set_clock(&mut self, now: Timestamp) {
        self.0.set_clock(to_xfs(now));
    }

    fn create(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        node: NewNode<'_>,
        ownership: Ownership,
    ) -> Result<InodeNumber> {
        let node = match node {
            NewNode::File => xfs::NewNode::File,
            NewNode::Directory => xfs::NewNode::Directory,
            NewNode::Symlink(target) => xfs::NewNode::Symlink(target),
        };
        let Ownership { mode, uid, gid } = ownership;
        Ok(InodeNumber(self.0.create(directory.0, name, node, xfs::Ownership { mode, uid, gid })?))
    }

    fn link(&mut self, directory: InodeNumber, name: &[u8], inode: InodeNumber) -> Result<()> {
        Ok(self.0.link(directory.0, name, inode.0)?)
    }

    fn unlink(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.unlink(directory.0, name)?)
    }

    fn remove_dir(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.remove_dir(directory.0, name)?)
    }

    fn rename(&mut self, from: InodeNumber, from_name: &[u8], to: InodeNumber, to_name: &[u8]) -> Result<()> {
        Ok(self.0.rename(from.0, from_name, to.0, to_name)?)
    }

    fn write_at(&mut self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()> {
        Ok(self.0.write_at(inode.0, offset, data)?)
    }

    fn set_len(&mut self, inode: InodeNumber, len: u64) -> Result<()> {
        Ok(self.0.set_len(inode.0, len)?)
    }

    fn set_mode(&mut self, inode: InodeNumber, mode: u32) -> Result<()> {
        Ok(self.0.set_mode(inode.0, mode)?)
    }

    fn set_owner(&mut self, inode: InodeNumber, uid: u32, gid: u32) -> Result<()> {
        Ok(self.0.set_owner(inode.0, uid, gid)?)
    }

    fn set_times(&mut self, inode: InodeNumber, accessed: Timestamp, modified: Timestamp) -> Result<()> {
        Ok(self.0.set_times(inode.0, to_xfs(accessed), to_xfs(modified))?)
    }

    fn set_xattr(&mut self, inode: InodeNumber, name: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.set_xattr(inode.0, name, value)?)
    }

    fn remove_xattr(&mut self, inode: InodeNumber, name: &[u8]) -> Result<()> {
        Ok(self.0.remove_xattr(inode.0, name)?)
    }

    fn set_uuid(&mut self, uuid: uuid::Uuid) -> Result<()> {
        Ok(self.0.set_uuid(uuid.into_bytes())?)
    }

    fn scrub(&mut self) -> Result<ScrubReport> {
        Ok(ScrubReport { bytes_zeroed: self.0.scrub()?.bytes_zeroed })
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}
