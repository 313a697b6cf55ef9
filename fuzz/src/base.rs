//! The file systems that inputs change, which `make-bases.sh` makes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use block::{Memory, ReadAt};

use crate::input::Input;

/// A file system as it is before the input changes it.
pub(crate) struct Base {
    pub(crate) bytes: Vec<u8>,
    /// Blocks that hold something.
    used: Vec<usize>,
    places: BTreeMap<&'static str, Vec<usize>>,
}

/// All bases have blocks of this length, and inodes of [`INODE`].
pub(crate) const BLOCK: usize = 1024;
pub(crate) const INODE: usize = 256;

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    [
        ("plain", &include_bytes!("../bases/plain.qcow2")[..]),
        ("ext2", include_bytes!("../bases/ext2.qcow2")),
        ("checksums", include_bytes!("../bases/checksums.qcow2")),
        ("inline", include_bytes!("../bases/inline.qcow2")),
        ("journal", include_bytes!("../bases/journal.qcow2")),
    ]
    .map(|(name, image)| Base::new(name, image))
    .into()
});

/// One of the bases: the number is taken modulo how many there are.
pub(crate) fn base(number: u8) -> &'static Base {
    &BASES[usize::from(number) % BASES.len()]
}

pub(crate) const JOURNAL: u8 = 4;

static GUEST: LazyLock<Base> = LazyLock::new(|| Base::new("guest", include_bytes!("../bases/guest.qcow2")));

/// The disk of a guest.
pub(crate) fn guest_disk() -> &'static Base {
    &GUEST
}

static SUBCLUSTERS: LazyLock<Base> =
    LazyLock::new(|| Base::new("subclusters", include_bytes!("../bases/subclusters.qcow2")));

/// The file of an image with extended L2 entries.
pub(crate) fn subclusters() -> &'static Base {
    &SUBCLUSTERS
}

impl Base {
    fn new(name: &str, image: &'static [u8]) -> Self {
        let storage = Arc::new(Memory::from(image.to_vec()));
        let image = qcow2::Image::open_storage(storage, &qcow2::OpenOptions::new()).expect("a base is an image");
        let bytes = block::read_vec(&image, 0, image.len()).expect("a base can be read");
        let used = bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|&byte| byte != 0));
        let used = used.map(|(index, _)| index * BLOCK).collect();
        let places =
            include_str!("../bases/places").lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let places = places.map(|line| {
            let mut words = line.split(' ');
            let place = words.next().expect("a place has a name");
            (place, words.map(|offset| offset.parse().expect("an offset is a number")).collect())
        });
        Self { used, places: places.collect(), bytes }
    }

    /// Where a structure is: the offsets of its blocks, or of an inode. Empty where this base has none.
    pub(crate) fn place(&self, name: &str) -> &[usize] {
        self.places.get(name).map_or(&[], Vec::as_slice)
    }

    /// A copy with changes: how many (modulo 16), and for each which block of those in use, where in it (2 bytes), how
    /// many bytes (modulo 32, and one more), and the bytes.
    pub(crate) fn patched(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..input.u8() % 16 {
            let block = self.used[usize::from(input.u8()) % self.used.len()];
            let within = usize::from(input.u16()) % BLOCK;
            let len = usize::from(input.u8()) % 32 + 1;
            let patch = input.bytes(len.min(BLOCK - within));
            bytes[block + within..][..patch.len()].copy_from_slice(patch);
        }
        bytes
    }

    /// A copy in which these places hold what is taken from the input, `len` bytes each.
    pub(crate) fn filled(&self, places: &[usize], len: usize, input: &mut Input<'_>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for &place in places {
            let fill = input.bytes(len);
            bytes[place..][..fill.len()].copy_from_slice(fill);
        }
        bytes
    }
}
