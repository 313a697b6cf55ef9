//! The three feature words of a version 3 header. Unknown bits are kept, and judged where the image is opened.

bitflags::bitflags! {
    /// Features without which an image cannot be read rightly.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Incompatible: u64 {
        /// Refcounts may be wrong and have to be rebuilt before writing.
        const DIRTY = 1 << 0;
        /// Something in the metadata is wrong; the image must not be written.
        const CORRUPT = 1 << 1;
        /// Guest clusters are in another file.
        const EXTERNAL_DATA_FILE = 1 << 2;
        /// The header names the compression of clusters.
        const COMPRESSION_TYPE = 1 << 3;
        /// L2 entries are 16 bytes and describe subclusters.
        const EXTENDED_L2 = 1 << 4;
        const _ = !0;
    }

    /// Features that may be ignored.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Compatible: u64 {
        /// Refcount updates may be put off, with the dirty bit set.
        const LAZY_REFCOUNTS = 1 << 0;
        const _ = !0;
    }

    /// Features whose bit a writer that does not know them must clear.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Autoclear: u64 {
        /// The persistent bitmaps are consistent with the contents.
        const BITMAPS = 1 << 0;
        /// The external data file can be read as a raw image.
        const RAW_EXTERNAL_DATA = 1 << 1;
        const _ = !0;
    }
}

impl Incompatible {
    /// What this crate handles.
    pub(crate) const HANDLED: Self = Self::DIRTY
        .union(Self::CORRUPT)
        .union(Self::EXTERNAL_DATA_FILE)
        .union(Self::COMPRESSION_TYPE)
        .union(Self::EXTENDED_L2);

    /// The name of the first feature that is set and not handled.
    pub(crate) fn first_unhandled(self) -> Option<String> {
        let rest = self.difference(Self::HANDLED);
        if rest.is_empty() {
            None
        } else {
            Some(format!("unknown incompatible feature, bit {}", rest.bits().trailing_zeros()))
        }
    }
}
