//! Persistent bitmaps: listing, reading, adding, removing, clearing, enabling, disabling and merging them.
//!
//! The header's extension, which leads to them, need not lie in the sector that a commit switches. So the change is made in
//! steps of which each leaves a sound image: what is new is written and counted; the extension is switched; what is old is
//! given back. A crash in between leaves the old bitmaps or the new ones, and leaked clusters at worst.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::PoisonError;

use byteorder::{BigEndian, ByteOrder};

use crate::bitmap::{self, Bitmap, GRANULARITY_BITS, NAME_MAX};
use crate::commit::{self, Allocator, Changes, Relayout};
use crate::features::Autoclear;
use crate::geometry::Geometry;
use crate::header_extension::BitmapsExtension;
use crate::image::Image;
use crate::l2_entry::OFFSET;
use crate::references::{Accounting, References};
use crate::transaction::is_zero;
use crate::{Error, Result, limits};

/// The bits of a persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirtyBits {
    granularity: u64,
    disk_len: u64,
    /// Bits that one cluster of the file holds.
    bits_per_chunk: u64,
    /// Bytes that hold bits, by the entry of the bitmap's table; no bit is set in those that are missing.
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl DirtyBits {
    fn none(granularity: u64, geometry: &Geometry) -> Self {
        let bits_per_chunk = geometry.cluster_size() * 8;
        Self { granularity, disk_len: geometry.disk_len, bits_per_chunk, chunks: BTreeMap::new() }
    }

    /// Bytes of the disk that each bit stands for.
    #[must_use]
    pub fn granularity(&self) -> u64 {
        self.granularity
    }

    /// The parts of the disk that are dirty, in bytes, in order, and none touching another.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next(at, true);
            at = self.next(start, false);
            let end = at.saturating_mul(self.granularity).min(self.disk_len);
            (start < at).then(|| start * self.granularity..end)
        })
    }

    /// Bytes of the disk that are dirty.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges().map(|range| range.end - range.start).sum()
    }

    /// The first bit from `bit` on that is as told; the number of bits where there is none.
    fn next(&self, mut bit: u64, set: bool) -> u64 {
        while bit < self.bits() {
            let chunk = bit / self.bits_per_chunk;
            let Some(bytes) = self.chunks.get(&chunk) else {
                if !set {
                    return bit;
                }
                bit = self.chunks.range(chunk..).next().map_or(u64::MAX, |(next, _)| next * self.bits_per_chunk);
                continue;
            };
            let within = bit % self.bits_per_chunk;
            let byte = bytes.get((within / 8) as usize).copied().unwrap_or(0);
            let wanted = if set { byte } else { !byte } >> (within % 8);
            if wanted != 0 {
                return (bit + u64::from(wanted.trailing_zeros())).min(self.bits());
            }
            bit = (bit / 8 + 1) * 8;
        }
        self.bits()
    }

    fn bits(&self) -> u64 {
        self.disk_len.div_ceil(self.granularity)
    }

    /// Whether all of `range` is dirty.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        self.next(range.start / self.granularity, false) * self.granularity >= range.end.min(self.disk_len)
    }

    /// The entries of the bitmap's table that hold the bits of `range`.
    pub(crate) fn chunks_of(&self, range: &Range<u64>) -> Range<u64> {
        let last = range.end.div_ceil(self.granularity).min(self.bits());
        range.start / self.granularity / self.bits_per_chunk..last.div_ceil(self.bits_per_chunk)
    }

    pub(crate) fn chunk(&self, chunk: u64) -> Option<&[u8]> {
        self.chunks.get(&chunk).map(|bytes| &**bytes)
    }

    pub(crate) fn set(&mut self, range: Range<u64>) {
        for bit in range.start / self.granularity..range.end.div_ceil(self.granularity).min(self.bits()) {
            let len = self.bits_per_chunk as usize / 8;
            let chunk = self.chunks.entry(bit / self.bits_per_chunk).or_insert_with(|| vec![0; len].into_boxed_slice());
            let within = (bit % self.bits_per_chunk) as usize;
            chunk[within / 8] |= 1 << (within % 8);
        }
    }

    /// The same for a disk of another length: what is added is clean.
    fn resized(mut self, disk_len: u64) -> Self {
        self.disk_len = disk_len;
        let (bits, per_chunk, entries) = (self.bits(), self.bits_per_chunk, self.table_entries());
        self.chunks.retain(|&chunk, _| chunk < entries);
        if let Some(last) = bits.checked_sub(1).and_then(|last| self.chunks.get_mut(&(last / per_chunk))) {
            let end = (bits - 1) % per_chunk + 1;
            for bit in end..end.next_multiple_of(8) {
                last[(bit / 8) as usize] &= !(1 << (bit % 8));
            }
            last[end.div_ceil(8) as usize..].fill(0);
        }
        self
    }

    fn table_entries(&self) -> u64 {
        self.bits().div_ceil(self.bits_per_chunk)
    }
}

impl Image {
    /// The persistent bitmaps, in the order of the image's directory; none where a program that does not know bitmaps has
    /// written the image since.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the directory is damaged, [`Error::Io`].
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        match self.extensions.bitmaps {
            Some(extension) if self.has_bitmaps() => bitmap::read_directory(&*self.storage, &self.geometry, &extension),
            _ => Ok(Vec::new()),
        }
    }

    /// What a persistent bitmap says.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is none of that name or it was not stored, [`Error::Corrupt`], [`Error::Io`].
    pub fn read_bitmap(&self, name: &str) -> Result<DirtyBits> {
        let bitmaps = self.bitmaps()?;
        self.dirty_bits(&bitmaps[position(&bitmaps, name)?])
    }

    pub(crate) fn dirty_bits(&self, bitmap: &Bitmap) -> Result<DirtyBits> {
        if bitmap.in_use {
            return Err(not_stored(&bitmap.name));
        }
        let mut bits = DirtyBits::none(bitmap.granularity, &self.geometry);
        let corrupt = |expected: String| Error::corrupt("bitmap table", bitmap.table_offset, expected);
        let (needed, found) = (bits.table_entries(), bitmap.table_entries);
        if needed != found || bits.bits() / 8 > limits::BITMAP_BYTES {
            return Err(corrupt(format!("it must have {needed} entries for a disk of this length, found {found}")));
        }
        let size = self.geometry.cluster_size();
        let mut held = 0;
        for (chunk, entry) in bitmap.read_table(&*self.storage)?.into_iter().enumerate() {
            let (host, ones) = (entry & OFFSET, entry & 1 != 0);
            if host == 0 && !ones {
                continue;
            }
            let bytes = if host == 0 {
                vec![0xff; size as usize]
            } else if self.geometry.is_aligned(host) {
                block::read_vec(&*self.storage, host, size)?
            } else {
                return Err(corrupt(format!("a cluster's offset must be aligned, found {host:#x}")));
            };
            held += if host == 0 { 0 } else { size };
            if held > self.storage.len() {
                return Err(corrupt("no cluster of bits may be used twice".to_owned()));
            }
            bits.chunks.insert(chunk as u64, bytes.into());
        }
        Ok(bits)
    }

    /// Adds a persistent bitmap without dirty bits, enabled. Each bit stands for `granularity` bytes of the disk; by default
    /// for a cluster, but no less than 4 KiB and no more than 64 KiB.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is taken, empty or longer than 1023 bytes, and for a granularity that is not a power
    /// of two from 512 to 2^31 or too fine for the disk; [`Error::Unsupported`] in version 2, and where the header has no room;
    /// [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn add_bitmap(&mut self, name: &str, granularity: Option<u64>) -> Result<()> {
        let granularity = granularity.unwrap_or_else(|| self.geometry.cluster_size().clamp(4096, 65_536));
        if !granularity.is_power_of_two() || !GRANULARITY_BITS.contains(&granularity.trailing_zeros()) {
            return Err(Error::Invalid(format!("a bit must stand for 2^9 to 2^31 bytes, not {granularity}")));
        }
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Error::Invalid(format!("a bitmap's name must have 1 to {NAME_MAX} bytes")));
        }
        let bits = DirtyBits::none(granularity, &self.geometry);
        if bits.bits() / 8 > limits::BITMAP_BYTES || bits.table_entries() * 8 > limits::BITMAP_TABLE_BYTES {
            return Err(Error::Invalid(format!("a bitmap with a bit for every {granularity} bytes is too large")));
        }
        self.change_bitmaps(|_, bitmaps| {
            if bitmaps.iter().any(|(bitmap, _)| bitmap.name == name) {
                return Err(Error::Invalid(format!("there is a bitmap called {name:?} already")));
            }
            if bitmaps.len() >= limits::BITMAPS as usize {
                return Err(Error::Unsupported(format!("more than {} bitmaps", limits::BITMAPS)));
            }
            bitmaps.push((Bitmap::new(name, granularity.trailing_zeros()), Some(bits)));
            Ok(())
        })
    }

    /// Removes a persistent bitmap.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is none of that name; [`Error::ReadOnly`], [`Error::Corrupt`], [`Error::Io`].
    pub fn remove_bitmap(&mut self, name: &str) -> Result<()> {
        self.change_bitmaps(|_, bitmaps| {
            let index = position_of(bitmaps, name)?;
            bitmaps.remove(index);
            Ok(())
        })
    }

    /// Unsets all bits of a persistent bitmap.
    ///
    /// # Errors
    /// As [`Image::remove_bitmap`]; also [`Error::Invalid`] for a bitmap that was not stored.
    pub fn clear_bitmap(&mut self, name: &str) -> Result<()> {
        self.change_bitmaps(|image, bitmaps| {
            let index = usable(bitmaps, name)?;
            bitmaps[index].1 = Some(DirtyBits::none(bitmaps[index].0.granularity, &image.geometry));
            Ok(())
        })
    }

    /// Has a persistent bitmap record, from now on, what is written.
    ///
    /// # Errors
    /// As [`Image::clear_bitmap`].
    pub fn enable_bitmap(&mut self, name: &str) -> Result<()> {
        self.change_bitmaps(|_, bitmaps| {
            let index = usable(bitmaps, name)?;
            bitmaps[index].0.set_enabled(true);
            Ok(())
        })
    }

    /// Has a persistent bitmap stay as it is from now on, whatever is written.
    ///
    /// # Errors
    /// As [`Image::clear_bitmap`].
    pub fn disable_bitmap(&mut self, name: &str) -> Result<()> {
        self.change_bitmaps(|_, bitmaps| {
            let index = usable(bitmaps, name)?;
            bitmaps[index].0.set_enabled(false);
            Ok(())
        })
    }

    /// Sets, in the persistent bitmap `target`, all that is set in `source`.
    ///
    /// # Errors
    /// As [`Image::clear_bitmap`].
    pub fn merge_bitmap(&mut self, target: &str, source: &str) -> Result<()> {
        self.change_bitmaps(|image, bitmaps| {
            let (target, source) = (usable(bitmaps, target)?, usable(bitmaps, source)?);
            let mut bits = image.dirty_bits(&bitmaps[target].0)?;
            image.dirty_bits(&bitmaps[source].0)?.ranges().for_each(|range| bits.set(range));
            bitmaps[target].1 = Some(bits);
            Ok(())
        })
    }

    /// Sets, in the persistent bitmap `target`, all that is set in `bits`, which may come from another image.
    ///
    /// # Errors
    /// As [`Image::clear_bitmap`].
    pub fn merge_dirty_bits(&mut self, target: &str, bits: &DirtyBits) -> Result<()> {
        self.change_bitmaps(|image, bitmaps| {
            let target = usable(bitmaps, target)?;
            let mut merged = image.dirty_bits(&bitmaps[target].0)?;
            bits.ranges().for_each(|range| merged.set(range));
            bitmaps[target].1 = Some(merged);
            Ok(())
        })
    }

    /// All bitmaps, as they are to be for a disk of another length.
    pub(crate) fn resized_bitmaps(&self, new: &Geometry) -> Result<Vec<(Bitmap, Option<DirtyBits>)>> {
        let mut resized = Vec::new();
        for bitmap in self.bitmaps()? {
            let bits = self.dirty_bits(&bitmap)?.resized(new.disk_len);
            if bits.bits() / 8 > limits::BITMAP_BYTES || bits.table_entries() * 8 > limits::BITMAP_TABLE_BYTES {
                let name = &bitmap.name;
                return Err(Error::Invalid(format!("bitmap {name:?} would be too large for a disk of that length")));
            }
            resized.push((bitmap, Some(bits)));
        }
        Ok(resized)
    }

    /// Replaces the bitmaps by what `change` makes of them: those that it gives bits are written anew.
    fn change_bitmaps(
        &mut self,
        change: impl FnOnce(&Self, &mut Vec<(Bitmap, Option<DirtyBits>)>) -> Result<()>,
    ) -> Result<()> {
        self.check_writable()?;
        if self.version < 3 {
            return Err(Error::Unsupported("persistent bitmaps in a version 2 image".to_owned()));
        }
        *self.tracked.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        let accounting = Accounting::take(self, &*self.settled()?)?;
        let mut bitmaps: Vec<_> = self.bitmaps()?.into_iter().map(|bitmap| (bitmap, None)).collect();
        change(self, &mut bitmaps)?;
        if bitmaps.is_empty() {
            return self.drop_bitmaps(&accounting);
        }
        let place = self.place_for_extension()?;

        let mut placing = Placing::new(self, &accounting, accounting.references.clone());
        let placed = self.poison_on_error(|| placing.bitmaps(bitmaps));
        let (counts, allocator) = placing.into_parts();
        let extension = placed?;
        let relayout = Relayout { counts, l1: None, snapshots: None, disk_len: self.geometry.disk_len };
        self.relayout_with(&accounting, Changes { allocator, relayout: Some(relayout), ..Changes::default() })?;

        self.poison_on_error(|| self.write_extension(&extension, &place))?;
        self.extensions.bitmaps = Some(extension);
        self.extensions.bitmaps_at = Some(place.at);
        self.extensions.end = self.extensions.end.max(place.at + BitmapsExtension::LEN);
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.header.roots.autoclear |= Autoclear::BITMAPS;
        if let (Some(offset), Some((name, _))) = (place.backing_name, &mut state.header.backing_name) {
            *name = offset;
        }
        self.give_back()
    }

    /// Frees what nothing leads to any more, and writes the feature bits.
    fn give_back(&mut self) -> Result<()> {
        let accounting = self.poison_on_error(|| Accounting::take(self, &*self.settled()?))?;
        let counts = accounting.references.clone();
        let relayout = Relayout { counts, l1: None, snapshots: None, disk_len: self.geometry.disk_len };
        self.relayout(&accounting, relayout)
    }

    fn drop_bitmaps(&mut self, accounting: &Accounting) -> Result<()> {
        self.poison_on_error(|| {
            // Any other commit drops them.
            commit::commit(self, accounting, Changes { force: true, ..Changes::default() })?;
            let Some(at) = self.extensions.bitmaps_at else { return Ok(()) };
            if at + BitmapsExtension::LEN == self.extensions.end {
                self.storage.write_at(at, &[0; 8])?;
                self.storage.flush()?;
            }
            Ok(())
        })?;
        if self.extensions.bitmaps_at.is_some_and(|at| at + BitmapsExtension::LEN == self.extensions.end) {
            self.extensions.end -= BitmapsExtension::LEN;
            (self.extensions.bitmaps, self.extensions.bitmaps_at) = (None, None);
        }
        Ok(())
    }

    /// Where the header's extension is, or can be.
    fn place_for_extension(&self) -> Result<Place> {
        if let Some(at) = self.extensions.bitmaps_at {
            return Ok(Place { at, is_new: false, backing_name: None });
        }
        let at = self.extensions.end;
        let end = at + BitmapsExtension::LEN + 8;
        let mut place = Place { at, is_new: true, backing_name: None };
        let mut used = end;
        if let Some((offset, len)) = self.state().header.backing_name {
            // Usually the name follows the extensions at once, and has to make room.
            if offset < end {
                let moved = (offset + u64::from(len)).max(end).next_multiple_of(8);
                place.backing_name = Some(moved);
                used = moved + u64::from(len);
            }
        }
        if used > self.geometry.cluster_size().min(self.storage.len()) {
            return Err(Error::Unsupported("persistent bitmaps where the header has no room for them".to_owned()));
        }
        Ok(place)
    }

    fn write_extension(&self, extension: &BitmapsExtension, place: &Place) -> Result<()> {
        let bytes = extension.encode();
        let data_at = place.at + 8;
        if place.is_new {
            let header = self.state().header.clone();
            if let (Some(moved), Some((offset, len))) = (place.backing_name, header.backing_name) {
                let name = block::read_vec(&*self.storage, offset, u64::from(len))?;
                self.storage.write_at(moved, &name)?;
                self.storage.flush()?;
                self.storage.write_at(8, &moved.to_be_bytes())?;
                self.storage.flush()?;
            }
            // Behind the end marker nothing is read, so the rest can be written first, and then the head over the marker.
            self.storage.write_at(data_at, &[&bytes[8..], &[0; 8]].concat())?;
            self.storage.flush()?;
            self.storage.write_at(place.at, &bytes[..8])?;
        } else {
            // Where a crash could tear it, the bitmaps are called inconsistent until it is whole.
            let torn = data_at / 512 != (data_at + 23) / 512;
            if torn {
                self.write_autoclear(self.state().header.roots.autoclear - Autoclear::BITMAPS)?;
            }
            self.storage.write_at(data_at, &bytes[8..])?;
            if torn {
                self.storage.flush()?;
                self.write_autoclear(self.state().header.roots.autoclear | Autoclear::BITMAPS)?;
            }
        }
        Ok(self.storage.flush()?)
    }

    fn write_autoclear(&self, autoclear: Autoclear) -> Result<()> {
        self.storage.write_at(88, &autoclear.bits().to_be_bytes())?;
        Ok(self.storage.flush()?)
    }
}

/// Where the header's extension goes.
struct Place {
    at: u64,
    /// There is none yet: the end marker is there.
    is_new: bool,
    /// Where the backing file's name has to go to make room.
    backing_name: Option<u64>,
}

/// Writes bitmaps to clusters that are free on disk.
pub(crate) struct Placing<'a> {
    image: &'a Image,
    accounting: &'a Accounting,
    counts: References,
    allocator: Allocator,
}

impl<'a> Placing<'a> {
    pub(crate) fn new(image: &'a Image, accounting: &'a Accounting, counts: References) -> Self {
        Self { image, accounting, counts, allocator: Allocator::default() }
    }

    /// The references from then on, and who handed them out.
    pub(crate) fn into_parts(self) -> (References, Allocator) {
        (self.counts, self.allocator)
    }

    pub(crate) fn bitmaps(&mut self, bitmaps: Vec<(Bitmap, Option<DirtyBits>)>) -> Result<BitmapsExtension> {
        let mut entries = Vec::new();
        for (mut bitmap, bits) in bitmaps {
            if let Some(bits) = bits {
                let mut table = vec![0; bits.table_entries() as usize];
                for (&chunk, bytes) in bits.chunks.iter().filter(|(_, bytes)| !is_zero(bytes)) {
                    if let Some(entry) = table.get_mut(chunk as usize) {
                        *entry = self.place(bytes)?;
                    }
                }
                let mut bytes = vec![0; table.len() * 8];
                BigEndian::write_u64_into(&table, &mut bytes);
                bitmap.set_table(self.place(&bytes)?, table.len() as u64);
            }
            entries.push(bitmap);
        }
        let directory = bitmap::encode_directory(&entries);
        let directory_offset = self.place(&directory)?;
        let (count, directory_len) = (entries.len() as u32, directory.len() as u64);
        Ok(BitmapsExtension { count, reserved: 0, directory_len, directory_offset })
    }

    /// Writes `bytes` to clusters of their own; returns their offset, or 0 where there are no bytes.
    fn place(&mut self, bytes: &[u8]) -> Result<u64> {
        let geometry = self.image.geometry;
        let clusters = (bytes.len() as u64).div_ceil(geometry.cluster_size());
        if clusters == 0 {
            return Ok(0);
        }
        let first = self.allocator.allocate(self.accounting, clusters)?;
        (first.0..first.0 + clusters).for_each(|cluster| self.counts.allocate(cluster));
        let mut padded = bytes.to_vec();
        padded.resize((clusters << geometry.cluster_bits) as usize, 0);
        commit::write_cluster(self.image, first, &padded)?;
        Ok(geometry.host_offset(first))
    }
}

fn position(bitmaps: &[Bitmap], name: &str) -> Result<usize> {
    bitmaps
        .iter()
        .position(|bitmap| bitmap.name == name)
        .ok_or_else(|| Error::Invalid(format!("no bitmap is called {name:?}")))
}

fn position_of(bitmaps: &[(Bitmap, Option<DirtyBits>)], name: &str) -> Result<usize> {
    bitmaps
        .iter()
        .position(|(bitmap, _)| bitmap.name == name)
        .ok_or_else(|| Error::Invalid(format!("no bitmap is called {name:?}")))
}

/// The place of a bitmap whose bits mean something.
fn usable(bitmaps: &[(Bitmap, Option<DirtyBits>)], name: &str) -> Result<usize> {
    let index = position_of(bitmaps, name)?;
    if bitmaps[index].0.in_use {
        return Err(not_stored(name));
    }
    Ok(index)
}

fn not_stored(name: &str) -> Error {
    Error::Invalid(format!("bitmap {name:?} was not stored by who used it last, and can only be removed"))
}
