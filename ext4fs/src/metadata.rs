//! What callers are told of an inode: its kind, its times, its `stat`.

/// A moment: seconds since the epoch, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00:00 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanoseconds: u32,
}

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

impl FileKind {
    /// The kind that the upper four bits of `i_mode` tell.
    pub(crate) fn from_mode(mode: u16) -> Option<Self> {
        match mode & 0xF000 {
            0x1000 => Some(Self::Fifo),
            0x2000 => Some(Self::CharDevice),
            0x4000 => Some(Self::Directory),
            0x6000 => Some(Self::BlockDevice),
            0x8000 => Some(Self::File),
            0xA000 => Some(Self::Symlink),
            0xC000 => Some(Self::Socket),
            _ => None,
        }
    }

    /// The upper four bits of `i_mode`.
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0x1000,
            Self::CharDevice => 0x2000,
            Self::Directory => 0x4000,
            Self::BlockDevice => 0x6000,
            Self::File => 0x8000,
            Self::Symlink => 0xA000,
            Self::Socket => 0xC000,
        }
    }

    /// The kind that a directory entry's file type tells; 0 tells nothing.
    pub(crate) fn from_file_type(file_type: u8) -> Option<Self> {
        match file_type {
            1 => Some(Self::File),
            2 => Some(Self::Directory),
            3 => Some(Self::CharDevice),
            4 => Some(Self::BlockDevice),
            5 => Some(Self::Fifo),
            6 => Some(Self::Socket),
            7 => Some(Self::Symlink),
            _ => None,
        }
    }

    /// A directory entry's file type.
    pub(crate) fn file_type(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}

/// What `stat` tells of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The inode's number.
    pub inode: u32,
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
    /// Space used, in units of 512 bytes.
    pub sectors: u64,
    /// Number of names.
    pub links: u32,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
    /// When it was made, where the inode has a field for it.
    pub created: Option<Timestamp>,
    /// Which device it stands for; [`DeviceNumber::default`] where it is none.
    pub device: DeviceNumber,
}

/// The number of a device: its driver, and which of the driver's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceNumber {
    /// 12 bits.
    pub major: u32,
    /// 20 bits.
    pub minor: u32,
}

impl DeviceNumber {
    /// Whether both parts fit their bits.
    pub(crate) fn fits(self) -> bool {
        self.major < 1 << 12 && self.minor < 1 << 20
    }

    /// As the first two words of `i_block` have it: small numbers in the first, as ever, others in the second.
    pub(crate) fn encode(self) -> [u32; 2] {
        let Self { major, minor } = self;
        if major < 256 && minor < 256 {
            return [major << 8 | minor, 0];
        }
        [0, minor & 0xFF | major << 8 | (minor & !0xFF) << 12]
    }

    /// The reverse of [`Self::encode`].
    pub(crate) fn decode([old, new]: [u32; 2]) -> Self {
        if old != 0 {
            return Self { major: old >> 8 & 0xFF, minor: old & 0xFF };
        }
        Self { major: new >> 8 & 0xFFF, minor: new & 0xFF | new >> 12 & 0xF_FF00 }
    }
}

bitflags::bitflags! {
    /// What chattr(1) sets of an inode.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct FileFlags: u32 {
        /// `s`: to be overwritten when it is deleted.
        const SECURE_DELETION = 0x1;
        /// `u`: to be kept when it is deleted.
        const UNDELETABLE = 0x2;
        /// `S`: written at once.
        const SYNCHRONOUS = 0x8;
        /// `i`: neither contents nor names may change.
        const IMMUTABLE = 0x10;
        /// `a`: only what comes behind the end may be written.
        const APPEND_ONLY = 0x20;
        /// `d`: not to be dumped.
        const NO_DUMP = 0x40;
        /// `A`: the time of access stays.
        const NO_ACCESS_TIME = 0x80;
        /// `j`: contents go through the journal.
        const JOURNAL_DATA = 0x4000;
        /// `t`: the end is not merged with others'.
        const NO_TAIL_MERGING = 0x8000;
        /// `D`: changes of the directory are written at once.
        const SYNCHRONOUS_DIRECTORY = 0x1_0000;
        /// `T`: the top of a hierarchy.
        const TOP_DIRECTORY = 0x2_0000;
    }
}

/// One name in a directory. `.` and `..` are never reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// The inode that it names.
    pub inode: u32,
    /// What it names.
    pub kind: FileKind,
}

/// What a new inode is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNode<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
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

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that hold nothing.
    pub free_blocks: u64,
    /// Inodes in all.
    pub inodes: u32,
    /// Inodes that are not in use.
    pub free_inodes: u32,
}
