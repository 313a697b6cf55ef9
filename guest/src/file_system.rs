//! What a guest needs of a file system. Each file system crate is fitted to this trait by one adapter.

use crate::Result;

/// The number of an inode within one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeNumber(pub u64);

/// What a directory entry or an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A moment: seconds since the epoch, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What `stat` tells of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The inode's number.
    pub inode: InodeNumber,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Number of names.
    pub links: u32,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
}

/// One name in a directory. `.` and `..` are never reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// The inode that it names.
    pub inode: InodeNumber,
    /// What it names.
    pub kind: FileKind,
}

/// What a new inode is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewNode<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
}

/// Who owns a new inode and who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a scrub found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Bytes that held something and now read as zeros.
    pub bytes_zeroed: u64,
}

/// A file system, by inodes and names. Names and paths are bytes. Nothing is resolved here: a symbolic link is an
/// inode like any other. Writing takes `&mut self`; what is written may stay in memory until [`FileSystem::flush`].
pub trait FileSystem: Send + Sync + std::fmt::Debug {
    /// The type as mount(8) names it: `ext4`.
    fn type_name(&self) -> &'static str;
    /// The UUID.
    fn uuid(&self) -> Option<uuid::Uuid>;
    /// The label, without trailing NULs; empty where there is none.
    fn label(&self) -> Vec<u8>;
    /// The root directory.
    fn root(&self) -> InodeNumber;
    /// Whether it can be written, and if not, why.
    fn read_only_reason(&self) -> Option<String>;

    /// What `stat` would tell.
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata>;
    /// The inode that `name` has in `directory`, if any. `.` and `..` are not looked up.
    fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<Option<InodeNumber>>;
    /// All entries but `.` and `..`, in the order of the disk.
    fn read_dir(&self, directory: InodeNumber) -> Result<Vec<DirEntry>>;
    /// A symbolic link's target.
    fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>>;
    /// Reads at most `buf.len()` bytes of a regular file at `offset`; fewer only at its end.
    fn read_at(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// Names of all extended attributes, each with its prefix (`security.selinux`).
    fn xattr_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>>;
    /// An extended attribute's value.
    fn xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Calls `visit` with each range of the device below, in bytes, that holds contents of a regular file. None where
    /// nothing of the kind is known.
    fn data_ranges(&self, inode: InodeNumber, visit: &mut dyn FnMut(std::ops::Range<u64>)) -> Result<()> {
        let _ = (inode, visit);
        Ok(())
    }

    /// The time that changes are stamped with from now on.
    fn set_clock(&mut self, now: Timestamp);
    /// Makes a new inode and names it. The name must be new.
    fn create(
        &mut self,
        directory: InodeNumber,
        name: &[u8],
        node: NewNode<'_>,
        ownership: Ownership,
    ) -> Result<InodeNumber>;
    /// Gives an inode (no directory) another name.
    fn link(&mut self, directory: InodeNumber, name: &[u8], inode: InodeNumber) -> Result<()>;
    /// Takes a name from an inode that is no directory; the inode goes with its last name.
    fn unlink(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&mut self, directory: InodeNumber, name: &[u8]) -> Result<()>;
    /// Renames as rename(2) does, replacing the target.
    fn rename(&mut self, from: InodeNumber, from_name: &[u8], to: InodeNumber, to_name: &[u8]) -> Result<()>;
    /// Writes all of `data` at `offset` of a regular file, growing it where needed.
    fn write_at(&mut self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()>;
    /// Sets a regular file's length. What lies after the end reads as zeros on the disk, too.
    fn set_len(&mut self, inode: InodeNumber, len: u64) -> Result<()>;
    /// Sets the permission bits.
    fn set_mode(&mut self, inode: InodeNumber, mode: u32) -> Result<()>;
    /// Sets owner and group.
    fn set_owner(&mut self, inode: InodeNumber, uid: u32, gid: u32) -> Result<()>;
    /// Sets the times of last access and change of contents.
    fn set_times(&mut self, inode: InodeNumber, accessed: Timestamp, modified: Timestamp) -> Result<()>;
    /// Sets an extended attribute.
    fn set_xattr(&mut self, inode: InodeNumber, name: &[u8], value: &[u8]) -> Result<()>;
    /// Removes an extended attribute; missing is fine.
    fn remove_xattr(&mut self, inode: InodeNumber, name: &[u8]) -> Result<()>;

    /// Gives the file system another UUID, wherever it keeps it.
    fn set_uuid(&mut self, uuid: uuid::Uuid) -> Result<()>;
    /// A feature that it gets with another UUID, and that whatever reads it then has to know.
    fn uuid_adds_feature(&self) -> Option<&'static str> {
        None
    }

    /// Makes all that the file system does not use read as zeros: free blocks, the journal's old contents, deleted
    /// names and inodes, slack. Bytes that are zero already are not written.
    fn scrub(&mut self) -> Result<ScrubReport>;
    /// Writes all that is still in memory to the device below.
    fn flush(&mut self) -> Result<()>;
}
