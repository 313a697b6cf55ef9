//! The search for what was removed, in all that a sealed image holds.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use block::{ExtentKind, ReadAt};
use guest::Guest;
use seal::{GuestPath, Trace, TraceSearch};
use serde::Serialize;

/// Bytes of something that was removed, and are still there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Found {
    /// What they were in.
    pub(crate) removed: String,
    /// The files that hold them now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) in_files: Vec<GuestPath>,
    /// Where on the disk they lie; in no file, if no files are named.
    pub(crate) disk_offsets: Vec<u64>,
    /// Where in the file of the image they lie, where the disk does not have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) host_offsets: Vec<u64>,
}

/// What a search found, and how much it looked at.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Residue {
    pub(crate) searched_for: usize,
    pub(crate) bytes_searched: u64,
    pub(crate) found: Vec<Found>,
    /// What is only in files that come with the system, below `/usr`: bytes that every system of the kind has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) shipped: Vec<Found>,
}

/// As many bytes are searched at a time by one thread.
const PIECE: u64 = 1 << 20;
/// As many places are told of one thing.
const MAX_PLACES: usize = 16;

/// What is nobody's secret: the UUIDs that the disk itself goes by.
pub(crate) fn without_names_of_volumes(traces: &[Trace], guest: &Guest) -> Vec<Trace> {
    let is_name = |trace: &Trace| {
        guest.volumes().iter().filter_map(|volume| volume.uuid.as_ref()).any(|uuid| {
            let text = String::from_utf8_lossy(&trace.bytes).to_ascii_lowercase();
            let uuid = uuid.to_ascii_lowercase();
            text == uuid || text == uuid.replace('-', "")
        })
    };
    traces.iter().filter(|trace| !is_name(trace)).cloned().collect()
}

/// Searches a disk, and names the files that hold what is found.
pub(crate) fn search_disk(disk: &dyn ReadAt, guest: &Guest, traces: &[Trace]) -> Result<Residue> {
    let search = TraceSearch::new(traces);
    let (places, bytes_searched) = search_device(disk, &search, &[whole(disk)])?;
    let mut residue = Residue { searched_for: traces.len(), bytes_searched, ..Residue::default() };
    let offsets: Vec<u64> = places.values().flatten().copied().collect();
    let owners = if offsets.is_empty() { BTreeMap::new() } else { guest.files_at(&offsets)? };
    for (index, offsets) in places {
        let Some(trace) = traces.get(index) else { continue };
        let files = offsets.iter().filter_map(|offset| owners.get(offset)).flatten();
        let files: BTreeSet<&Vec<u8>> = files.collect();
        let is_shipped =
            |offset: &u64| owners.get(offset).is_some_and(|files| files.iter().any(|file| is_of_distribution(file)));
        let found = Found {
            removed: trace.path.to_string(),
            in_files: files.into_iter().map(|file| GuestPath::from(file.as_slice())).collect(),
            host_offsets: Vec::new(),
            disk_offsets: offsets,
        };
        if found.disk_offsets.iter().all(is_shipped) { &mut residue.shipped } else { &mut residue.found }.push(found);
    }
    residue.found.sort();
    residue.shipped.sort();
    Ok(residue)
}

/// Whether a file comes with the system: then what it holds is in every system of the kind.
fn is_of_distribution(path: &[u8]) -> bool {
    path.starts_with(b"/usr/") && !path.starts_with(b"/usr/local/")
}

/// Searches the bytes of an image's file that its disk does not show: `shown` are ranges of the file that the disk shows
/// as they are, in order. Adds what is found.
pub(crate) fn search_host_file(
    file: &dyn ReadAt,
    shown: &[Range<u64>],
    traces: &[Trace],
    residue: &mut Residue,
) -> Result<()> {
    let search = TraceSearch::new(traces);
    let overlap = search.overlap() as u64;
    let mut hidden: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    for range in shown.iter().cloned().chain(std::iter::once(file.len()..file.len())) {
        if range.start > at {
            // What begins or ends in it may do the other in what is shown.
            let range = at.saturating_sub(overlap)..(range.start + overlap).min(file.len());
            match hidden.last_mut() {
                Some(last) if last.end >= range.start => last.end = range.end,
                _ => hidden.push(range),
            }
        }
        at = at.max(range.end);
    }
    let (places, bytes) = search_device(file, &search, &hidden)?;
    residue.bytes_searched += bytes;
    for (index, offsets) in places {
        let Some(trace) = traces.get(index) else { continue };
        let removed = trace.path.to_string();
        if residue.found.iter().chain(&residue.shipped).all(|found| found.removed != removed) {
            residue.found.push(Found {
                removed,
                in_files: Vec::new(),
                disk_offsets: Vec::new(),
                host_offsets: offsets,
            });
        }
    }
    residue.found.sort();
    Ok(())
}

fn whole(device: &dyn ReadAt) -> Range<u64> {
    0..device.len()
}

type Places = BTreeMap<usize, Vec<u64>>;

/// Where the traces are in some ranges of a device, and how many bytes of these hold anything.
fn search_device(device: &dyn ReadAt, search: &TraceSearch<'_>, ranges: &[Range<u64>]) -> Result<(Places, u64)> {
    if search.is_empty() {
        return Ok((Places::new(), 0));
    }
    let overlap = search.overlap() as u64;
    let mut pieces = Vec::new();
    let mut total = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let extent = device.extent_at(at, range.end - at)?;
            let end = at + extent.len.max(1);
            if extent.kind == ExtentKind::Data {
                total += end - at;
                let mut start = at;
                while start < end {
                    let stop = (start + PIECE).min(end);
                    // What begins here may end in the next extent.
                    pieces.push((start, (stop + overlap).min(device.len())));
                    start = stop;
                }
            }
            at = end;
        }
    }
    let next = AtomicUsize::new(0);
    let places = Mutex::new(Places::new());
    let work = || -> Result<()> {
        let mut buf = Vec::new();
        while let Some(&(start, end)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            buf.resize((end - start) as usize, 0);
            device.read_at(start, &mut buf)?;
            search.find(&buf, &mut |index, offset| {
                let mut places = places.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let offsets = places.entry(index).or_default();
                let offset = start + offset as u64;
                if offsets.len() < MAX_PLACES && !offsets.contains(&offset) {
                    offsets.push(offset);
                }
            });
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let mut places = places.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    places.values_mut().for_each(|offsets| offsets.sort_unstable());
    Ok((places, total))
}

#[cfg(test)]
mod tests {
    use block::{Memory, WriteAt};

    use super::*;

    /// What the disk shows was searched there; all else of the file is searched here, over its borders, too.
    #[test]
    fn the_file_is_searched_where_the_disk_does_not_show_it() {
        let bytes = b"0123456789abcdef-secret".to_vec();
        let traces = [Trace { path: b"/gone"[..].into(), bytes: bytes.clone() }];
        let shown = [1000..2000, 2000..3000, 5000..6000];
        for (at, is_found) in [
            (0, true),
            (990, true),
            (977, true),
            (1500, false),
            (1990, false),
            (2990, true),
            (3000, true),
            (4000, true),
            (4990, true),
            (5500, false),
            (5990, true),
            (7000, true),
        ] {
            let file = Memory::new(8192);
            file.write_at(at, &bytes).unwrap();
            let mut residue = Residue::default();
            search_host_file(&file, &shown, &traces, &mut residue).unwrap();
            let offsets: Vec<u64> = residue.found.iter().flat_map(|found| found.host_offsets.clone()).collect();
            assert_eq!(offsets, if is_found { vec![at] } else { Vec::new() }, "at {at}");
        }
        // A raw image's disk shows all of its file.
        let file = Memory::new(8192);
        file.write_at(100, &bytes).unwrap();
        let mut residue = Residue::default();
        search_host_file(&file, std::slice::from_ref(&(0..u64::MAX)), &traces, &mut residue).unwrap();
        assert!(residue.found.is_empty() && residue.bytes_searched == 0);
    }
}
