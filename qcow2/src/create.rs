//! Writing a new image: compact, without holes of its own, and compressed if wanted.

use block::{ReadAt, Storage};
use byteorder::{BigEndian, ByteOrder};
use zerocopy::IntoBytes;

use crate::address::{GuestCluster, HostCluster};
use crate::compress::Compressor;
use crate::crypt::Crypt;
use crate::features::{Autoclear, Incompatible};
use crate::geometry::Geometry;
use crate::header::{self, Roots};
use crate::header_extension::CryptoExtension;
use crate::l2_entry::{self, COPIED, RawEntry};
use crate::l2_table::L2Table;
use crate::pack::{BATCH, Packed, PackedCluster, Packer, next_batch};
use crate::refcount::encode_block;
use crate::{Compression, Error, Result, limits, pipeline};

/// What a new image is to be like.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    cluster_size: u64,
    refcount_bits: u32,
    extended_l2: bool,
    compression: Option<Compression>,
    small_window: bool,
    threads: usize,
    #[cfg(feature = "luks")]
    encryption: Option<crate::LuksOptions>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl CreateOptions {
    /// Version 3, clusters of 64 KiB, refcounts of 16 bits, not compressed: what `qemu-img create` makes.
    #[must_use]
    pub fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cluster_size: 64 * 1024,
            refcount_bits: 16,
            extended_l2: false,
            compression: None,
            small_window: false,
            threads,
            #[cfg(feature = "luks")]
            encryption: None,
        }
    }

    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    #[must_use]
    pub fn cluster_size(mut self, bytes: u64) -> Self {
        self.cluster_size = bytes;
        self
    }

    /// Width of a refcount in bits: a power of two up to 64.
    #[must_use]
    pub fn refcount_bits(mut self, bits: u32) -> Self {
        self.refcount_bits = bits;
        self
    }

    /// Makes L2 entries tell how each of a cluster's 32 subclusters is held. Clusters must have at least 16 KiB.
    #[must_use]
    pub fn extended_l2(mut self, extended: bool) -> Self {
        self.extended_l2 = extended;
        self
    }

    /// Compresses every cluster that gets shorter by it.
    #[must_use]
    pub fn compression(mut self, compression: Option<Compression>) -> Self {
        self.compression = compression;
        self
    }

    /// Encrypts what the disk holds. An encrypted image cannot be compressed.
    #[cfg(feature = "luks")]
    #[must_use]
    pub fn encryption(mut self, encryption: Option<crate::LuksOptions>) -> Self {
        self.encryption = encryption;
        self
    }

    /// The passphrase of the encryption.
    #[cfg(feature = "luks")]
    pub(crate) fn passphrase(&self) -> Option<crate::Secret> {
        self.encryption.as_ref().map(|luks| luks.passphrase().clone())
    }

    /// Bytes of the header of the encryption; none without one.
    pub(crate) fn crypto_len(&self) -> u64 {
        #[cfg(feature = "luks")]
        return self.encryption.as_ref().map_or(0, crate::LuksOptions::header_len);
        #[cfg(not(feature = "luks"))]
        0
    }

    /// A new header of the encryption, with all key material, and what encrypts with its key.
    fn crypt(&self) -> Result<Option<(Vec<u8>, Crypt)>> {
        #[cfg(feature = "luks")]
        {
            if self.encryption.is_some() && self.compression.is_some() {
                return Err(Error::Invalid("an encrypted image cannot be compressed".to_owned()));
            }
            self.encryption.as_ref().map(crate::LuksOptions::create).transpose()
        }
        #[cfg(not(feature = "luks"))]
        Ok(None)
    }

    /// Whether zlib clusters are to refer no further back than 4 KiB, as those that QEMU writes. They are larger, and take
    /// longer. QEMU, and every other reader that was tried, takes those with the full window of 32 KiB, too.
    #[must_use]
    pub fn small_window(mut self, small: bool) -> Self {
        self.small_window = small;
        self
    }

    /// Threads that compress; the bytes written do not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// What not every version of the format has: the refcount width in bits, extended L2 entries, compression.
    pub(crate) fn needs_of_version(&self) -> (u32, bool, Option<Compression>) {
        (self.refcount_bits, self.extended_l2, self.compression)
    }

    pub(crate) fn geometry(&self, disk_len: u64) -> Result<Geometry> {
        let cluster_bits = self.cluster_size.trailing_zeros();
        if !self.cluster_size.is_power_of_two() || !limits::CLUSTER_BITS.contains(&cluster_bits) {
            let size = self.cluster_size;
            return Err(Error::Invalid(format!(
                "the cluster size must be a power of two from 512 to 2097152, not {size}"
            )));
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            let bits = self.refcount_bits;
            return Err(Error::Invalid(format!("refcounts must be 1, 2, 4, 8, 16, 32 or 64 bits wide, not {bits}")));
        }
        if self.extended_l2 && cluster_bits < limits::EXTENDED_L2_CLUSTER_BITS {
            let size = self.cluster_size;
            return Err(Error::Invalid(format!(
                "extended L2 entries need clusters of at least 16384 bytes, not {size}"
            )));
        }
        let refcount_order = self.refcount_bits.trailing_zeros();
        let geometry =
            Geometry { cluster_bits, disk_len, refcount_order, extended_l2: self.extended_l2, external_data: false };
        if disk_len > i64::MAX as u64 - (1 << 21) || geometry.l1_entries() * 8 > limits::L1_BYTES {
            return Err(Error::Invalid(format!("a disk of {disk_len} bytes is too large for this cluster size")));
        }
        Ok(geometry)
    }
}

/// Writes an image of all that `source` holds to `storage`, which must be empty, and flushes it. Clusters that are zeros
/// take no space. `progress` is told how many bytes of `source` are done.
///
/// A crash leaves a file without a valid header: it is written last.
///
/// # Errors
/// [`Error::Invalid`] for options that the format does not allow, [`Error::Io`] from either device.
pub fn create(
    storage: &dyn Storage,
    source: &dyn ReadAt,
    options: &CreateOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let geometry = options.geometry(source.len())?;
    let mut writer = Writer {
        storage,
        geometry,
        counts: vec![1],
        stream_end: 0,
        l1: vec![0; geometry.l1_entries() as usize],
        l2: None,
        held: Vec::new(),
        held_at: 0,
        crypt: None,
    };
    if let Some((header, crypt)) = options.crypt()? {
        writer.put_crypto_header(&header, crypt)?;
    }
    let workers = if options.compression.is_some() { options.threads } else { 1 };
    let mut packers = Vec::new();
    for _ in 0..workers {
        let compressor = options.compression.map(|kind| {
            Compressor::new(kind, geometry.cluster_len(), options.small_window).map_err(Error::Unsupported)
        });
        packers.push(Packer { source, geometry, compressor: compressor.transpose()?, input: Vec::new() });
    }
    let mut at = 0;
    pipeline::in_order(
        packers.into_iter().map(|mut packer| move |batch| packer.pack(batch)).collect(),
        || next_batch(source, &geometry, &mut at),
        |batch| {
            writer.put_batch(&batch)?;
            progress((batch.end << geometry.cluster_bits).min(source.len()));
            Ok(())
        },
    )?;
    progress(source.len());
    writer.finish(options.compression)
}

struct Writer<'a> {
    storage: &'a dyn Storage,
    geometry: Geometry,
    /// Refcount of every cluster so far.
    counts: Vec<u64>,
    /// Where the last compressed stream ended: the next one may follow in the same cluster.
    stream_end: u64,
    l1: Vec<u64>,
    /// The L2 table that is being filled: which, and its entries.
    l2: Option<(usize, L2Table)>,
    /// What is to be written next, and where: neighbours go to the file together.
    held: Vec<u8>,
    held_at: u64,
    /// What encrypts the disk, and where its header is.
    crypt: Option<(Crypt, CryptoExtension)>,
}

impl Writer<'_> {
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        if self.storage.len() < end {
            self.storage.set_len(end)?;
        }
        Ok(self.storage.write_at(offset, bytes)?)
    }

    /// Writes `bytes`, at the latest with [`Writer::write_held`].
    fn hold(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.held_at + self.held.len() as u64 != offset || self.held.len() as u64 >= BATCH {
            self.write_held()?;
            self.held_at = offset;
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn write_held(&mut self) -> Result<()> {
        if !self.held.is_empty() {
            self.write(self.held_at, &self.held)?;
            self.held.clear();
        }
        Ok(())
    }

    /// Takes `clusters` whole clusters in a row.
    fn allocate(&mut self, clusters: u64) -> HostCluster {
        let first = self.counts.len() as u64;
        self.counts.resize((first + clusters) as usize, 1);
        HostCluster(first)
    }

    /// Takes `len` bytes for a compressed stream, behind the last one where they fit.
    fn allocate_stream(&mut self, len: u64) -> Result<u64> {
        let size = self.geometry.cluster_size();
        let room = self.stream_end.next_multiple_of(size) - self.stream_end;
        let at_the_end = self.stream_end.div_ceil(size) == self.counts.len() as u64;
        let offset =
            if room > 0 && (len <= room || at_the_end) { self.stream_end } else { self.counts.len() as u64 * size };
        let last = (offset + len - 1) / size;
        if last as usize >= self.counts.len() {
            self.counts.resize(last as usize + 1, 0);
        }
        for count in &mut self.counts[(offset / size) as usize..=last as usize] {
            *count += 1;
            if *count > self.geometry.refcount_max() {
                return Err(Error::Invalid("refcounts are too narrow for compressed clusters".to_owned()));
            }
        }
        self.stream_end = offset + len;
        Ok(offset)
    }

    /// Writes the header of the encryption, and encrypts from then on.
    fn put_crypto_header(&mut self, header: &[u8], crypt: Crypt) -> Result<()> {
        let len = header.len() as u64;
        let first = self.allocate(len.div_ceil(self.geometry.cluster_size()));
        let offset = self.geometry.host_offset(first);
        self.write(offset, header)?;
        self.crypt = Some((crypt, CryptoExtension { offset, len }));
        Ok(())
    }

    fn put_batch(&mut self, batch: &Packed) -> Result<()> {
        let mut rest = &batch.bytes[..];
        for &PackedCluster { cluster, len, compressed } in &batch.clusters {
            let (bytes, after) = rest.split_at(len);
            rest = after;
            self.put(cluster, bytes, compressed)?;
        }
        Ok(())
    }

    fn put(&mut self, cluster: GuestCluster, bytes: &[u8], compressed: bool) -> Result<()> {
        let (l1_index, l2_index) = self.geometry.table_indices(cluster);
        if self.l2.as_ref().is_some_and(|(index, _)| *index != l1_index) {
            self.finish_l2()?;
        }
        let raw = if compressed {
            let offset = self.allocate_stream(bytes.len() as u64)?;
            self.hold(offset, bytes)?;
            let descriptor = l2_entry::encode_compressed(offset, bytes.len() as u64, &self.geometry)?;
            RawEntry::compressed(descriptor)
        } else {
            let host = self.allocate(1);
            let offset = self.geometry.host_offset(host);
            match &self.crypt {
                Some((crypt, _)) => crypt.write(self.storage, offset, bytes)?,
                None => self.hold(offset, bytes)?,
            }
            RawEntry::data(offset, &self.geometry)
        };
        let empty = || (l1_index, L2Table::empty(&self.geometry));
        self.l2.get_or_insert_with(empty).1.set(l2_index, raw);
        Ok(())
    }

    fn finish_l2(&mut self) -> Result<()> {
        if let Some((l1_index, table)) = self.l2.take() {
            let host = self.allocate(1);
            self.write(self.geometry.host_offset(host), &table.encode())?;
            self.l1[l1_index] = self.geometry.host_offset(host) | COPIED;
        }
        Ok(())
    }

    fn finish(mut self, compression: Option<Compression>) -> Result<()> {
        self.finish_l2()?;
        self.write_held()?;
        let geometry = self.geometry;
        let l1_clusters = (self.l1.len() as u64 * 8).div_ceil(geometry.cluster_size());
        // A disk of no bytes has no table, and its place is 0.
        let l1 = if l1_clusters == 0 { HostCluster(0) } else { self.allocate(l1_clusters) };
        let mut bytes = vec![0; (l1_clusters << geometry.cluster_bits) as usize];
        BigEndian::write_u64_into(&self.l1, &mut bytes[..self.l1.len() * 8]);
        if l1_clusters > 0 {
            self.write(geometry.host_offset(l1), &bytes)?;
        }

        // Refcount blocks and table count themselves: take more until they suffice.
        let per_block = geometry.refcounts_per_block();
        let (mut blocks, mut table_clusters) = (0, 0);
        loop {
            let all = self.counts.len() as u64 + blocks + table_clusters;
            let wanted = (all.div_ceil(per_block), (blocks.max(1) * 8).div_ceil(geometry.cluster_size()));
            if wanted.0 <= blocks && wanted.1 <= table_clusters {
                break;
            }
            (blocks, table_clusters) = (blocks.max(wanted.0), table_clusters.max(wanted.1));
        }
        let table = self.allocate(table_clusters);
        let first_block = self.allocate(blocks);
        let mut table_bytes = vec![0; (table_clusters << geometry.cluster_bits) as usize];
        self.counts.resize((blocks * per_block) as usize, 0);
        for (index, counts) in self.counts.chunks(per_block as usize).enumerate() {
            let offset = geometry.host_offset(HostCluster(first_block.0 + index as u64));
            BigEndian::write_u64(&mut table_bytes[index * 8..], offset);
            self.write(offset, &encode_block(counts, geometry.refcount_order))?;
        }
        self.write(geometry.host_offset(table), &table_bytes)?;
        self.storage.flush()?;

        let compression = compression.unwrap_or(Compression::Zlib);
        let mut incompatible = Incompatible::empty();
        incompatible.set(Incompatible::COMPRESSION_TYPE, compression != Compression::Zlib);
        incompatible.set(Incompatible::EXTENDED_L2, geometry.extended_l2);
        let roots = Roots {
            l1_offset: geometry.host_offset(l1),
            l1_entries: self.l1.len() as u32,
            refcount_table_offset: geometry.host_offset(table),
            refcount_table_clusters: table_clusters as u32,
            snapshots_offset: 0,
            snapshots: 0,
            incompatible,
            autoclear: Autoclear::empty(),
        };
        let extension = self.crypt.as_ref().map(|(_, extension)| *extension);
        let mut header = header::encode_new(&geometry, &roots, compression, extension.is_some()).as_bytes().to_vec();
        header.extend(extension.iter().flat_map(CryptoExtension::encode));
        self.write(0, &header)?;
        Ok(self.storage.flush()?)
    }
}
