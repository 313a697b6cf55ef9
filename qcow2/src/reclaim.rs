//! Giving back what nobody uses: free clusters of the file become holes, and its end is cut off.

use std::collections::HashMap;

use block::{ExtentKind, ReadAt, Storage, WriteAt};

use crate::Result;
use crate::image::{Image, State};
use crate::l2_entry::{L2Entry, Stream};
use crate::references::References;

/// What was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Bytes of the file that held something and now read as zeros or are cut off.
    pub bytes: u64,
}

/// What [`reclaim`] would give back, but for what lies between compressed streams.
pub(crate) fn stale_bytes(image: &Image, counts: &References) -> Result<u64> {
    let storage = &*image.storage;
    let mut stale = 0;
    let mut runs = unused_runs(image, counts);
    runs.extend(runs_not_held(image, &image.state(), counts)?);
    for (start, stop) in runs {
        let mut at = start;
        while at < stop {
            let extent = storage.extent_at(at, stop - at)?;
            if extent.kind == ExtentKind::Data && !reads_as_zeros(storage, at, extent.len)? {
                stale += extent.len;
            }
            at += extent.len;
        }
    }
    Ok(stale)
}

/// The runs of bytes of the file that no cluster in use covers.
fn unused_runs(image: &Image, counts: &References) -> Vec<(u64, u64)> {
    let geometry = image.geometry;
    let len = image.storage.len();
    let clusters = len.div_ceil(geometry.cluster_size());
    let mut runs = Vec::new();
    let mut cluster = 0;
    while cluster < clusters {
        let start = cluster;
        while cluster < clusters && counts.get(cluster) == 0 {
            cluster += 1;
        }
        if cluster > start {
            runs.push((start << geometry.cluster_bits, (cluster << geometry.cluster_bits).min(len)));
        }
        cluster += 1;
    }
    runs
}

/// The runs of bytes in host clusters that one entry alone uses and that it says to read as zeros or from elsewhere: what
/// was there before may still be.
fn runs_not_held(image: &Image, state: &State, counts: &References) -> Result<Vec<(u64, u64)>> {
    let geometry = image.geometry;
    let mut runs = Vec::new();
    // In a data file the parts that are not held are given back as entries change.
    if !counts.any_partly_held || geometry.external_data {
        return Ok(runs);
    }
    for l1_index in 0..image.l1(state)?.len() {
        let Some((offset, table)) = image.l2_table(state, l1_index)? else { continue };
        for l2_index in 0..table.len() {
            let entry = image.decode_entry(offset, &table, l2_index)?;
            let Some(host) = entry.host().filter(|&host| counts.get(geometry.host_cluster_at(host).0) == 1) else {
                continue;
            };
            let held = entry.subclusters().allocated;
            let mut at = 0;
            while at < geometry.cluster_size() {
                let index = (at / geometry.subcluster_size()) as u32;
                let start = host + at;
                at += geometry.subcluster_size();
                if held >> index & 1 == 0 && start < image.storage.len() {
                    runs.push((start, (host + at).min(image.storage.len())));
                }
            }
        }
    }
    Ok(runs)
}

/// Makes every byte of the file that `counts` calls unused read as zeros. The new tables must be safe on the disk. May be
/// interrupted, and repeated: what is a hole already is left alone.
pub(crate) fn reclaim(image: &Image, state: &State, counts: &References) -> Result<Reclaimed> {
    let geometry = image.geometry;
    let storage = &*image.storage;
    let mut reclaimed = Reclaimed::default();
    let end = (counts.end() << geometry.cluster_bits).max(geometry.cluster_size().min(storage.len()));
    if storage.len() > end {
        reclaimed.bytes += storage.len() - end;
        storage.set_len(end)?;
    }
    for (start, stop) in unused_runs(image, counts) {
        reclaimed.bytes += clear(storage, start, stop)?;
    }
    for (start, stop) in runs_not_held(image, state, counts)? {
        reclaimed.bytes += clear(storage, start, stop)?;
    }
    if counts.any_compressed && state.header.roots.snapshots == 0 {
        reclaimed.bytes += clear_between_streams(image, state, counts)?;
    }
    Ok(reclaimed)
}

/// Punches what holds data between two offsets of the file; returns how many bytes that was.
fn clear(storage: &dyn Storage, start: u64, stop: u64) -> Result<u64> {
    let mut at = start;
    let mut cleared = 0;
    while at < stop {
        let extent = storage.extent_at(at, stop - at)?;
        // Where holes cannot be told from data, zeros are not written again.
        if extent.kind == ExtentKind::Data && !reads_as_zeros(storage, at, extent.len)? {
            storage.discard(at, extent.len)?;
            cleared += extent.len;
        }
        at += extent.len;
    }
    Ok(cleared)
}

fn reads_as_zeros(storage: &dyn Storage, start: u64, len: u64) -> Result<bool> {
    let mut buf = vec![0; len.min(1 << 20) as usize];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(buf.len() as u64) as usize;
        storage.read_at(start + done, &mut buf[..step])?;
        if !crate::transaction::is_zero(&buf[..step]) {
            return Ok(false);
        }
        done += step as u64;
    }
    Ok(true)
}

/// Host clusters that hold compressed streams may hold, between them, what is left of streams that were freed.
fn clear_between_streams(image: &Image, state: &State, counts: &References) -> Result<u64> {
    let geometry = image.geometry;
    let mut streams: Vec<Stream> = Vec::new();
    for l1_index in 0..image.l1(state)?.len() {
        let Some((offset, table)) = image.l2_table(state, l1_index)? else { continue };
        for l2_index in 0..table.len() {
            if let L2Entry::Compressed(stream) = image.decode_entry(offset, &table, l2_index)? {
                streams.push(stream);
            }
        }
    }
    streams.sort_unstable();
    // A damaged image may have a stream lead into something else; only clusters that streams alone use are touched.
    let mut users: HashMap<u64, u32> = HashMap::new();
    for cluster in streams.iter().flat_map(|stream| stream.host_clusters(&geometry)) {
        *users.entry(cluster).or_default() += 1;
    }
    let streams_alone = |cluster: u64| users.get(&cluster) == Some(&counts.get(cluster));
    let mut cleared = 0;
    let mut covered = 0;
    for stream in &streams {
        // A gap belongs to streams only within the clusters where the last stream ended and this one starts: clusters
        // between them are free, and done with, or hold something else.
        let gap_end = stream.offset;
        if covered < gap_end {
            let tail_end = covered.next_multiple_of(geometry.cluster_size()).min(gap_end);
            let head = gap_end & !(geometry.cluster_size() - 1);
            cleared += clear_zeroing(image, &streams_alone, covered, tail_end)?;
            cleared += clear_zeroing(image, &streams_alone, head.max(tail_end), gap_end)?;
        }
        covered = covered.max(stream.end());
    }
    let tail_end = covered.next_multiple_of(geometry.cluster_size());
    Ok(cleared + clear_zeroing(image, &streams_alone, covered, tail_end)?)
}

/// Zeroes a part of one host cluster that is in use, unless it reads as zeros already.
fn clear_zeroing(image: &Image, may_clear: &dyn Fn(u64) -> bool, start: u64, stop: u64) -> Result<u64> {
    let stop = stop.min(image.storage.len());
    if start >= stop
        || !may_clear(start >> image.geometry.cluster_bits)
        || reads_as_zeros(&*image.storage, start, stop - start)?
    {
        return Ok(0);
    }
    image.storage.write_zeroes(start, stop - start)?;
    Ok(stop - start)
}
