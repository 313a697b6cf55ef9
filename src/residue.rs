//! The search for what was removed, in all that a sealed image holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use block::{ExtentKind, ReadAt};
use guest::{FileKind, Guest, Walk};
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
    let (places, bytes_searched) = search_device(disk, &search)?;
    let mut residue = Residue { searched_for: traces.len(), bytes_searched, found: Vec::new() };
    if places.is_empty() {
        return Ok(residue);
    }
    let owners = owners(guest, traces, &places)?;
    for (index, offsets) in places {
        let Some(trace) = traces.get(index) else { continue };
        residue.found.push(Found {
            removed: trace.path.to_string(),
            in_files: owners.get(&index).cloned().unwrap_or_default(),
            disk_offsets: offsets,
            host_offsets: Vec::new(),
        });
    }
    residue.found.sort();
    Ok(residue)
}

/// Searches the bytes of an image's file, and adds what the disk did not show.
pub(crate) fn search_host_file(file: &dyn ReadAt, traces: &[Trace], residue: &mut Residue) -> Result<()> {
    let search = TraceSearch::new(traces);
    let (places, bytes) = search_device(file, &search)?;
    residue.bytes_searched += bytes;
    for (index, offsets) in places {
        let Some(trace) = traces.get(index) else { continue };
        let removed = trace.path.to_string();
        if residue.found.iter().all(|found| found.removed != removed) {
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

type Places = BTreeMap<usize, Vec<u64>>;

/// Where the traces are on a device, and how many bytes of it hold anything.
fn search_device(device: &dyn ReadAt, search: &TraceSearch<'_>) -> Result<(Places, u64)> {
    if search.is_empty() {
        return Ok((Places::new(), 0));
    }
    let overlap = search.overlap() as u64;
    let mut pieces = Vec::new();
    let (mut at, mut total) = (0, 0);
    while at < device.len() {
        let extent = device.extent_at(at, device.len() - at)?;
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

/// The files of the guest that hold what was found.
fn owners(guest: &Guest, traces: &[Trace], places: &Places) -> Result<BTreeMap<usize, Vec<GuestPath>>> {
    let numbers: Vec<usize> = places.keys().copied().collect();
    let wanted: Vec<Trace> = numbers.iter().filter_map(|&index| traces.get(index).cloned()).collect();
    let search = TraceSearch::new(&wanted);
    let mut owners: BTreeMap<usize, Vec<GuestPath>> = BTreeMap::new();
    let mut files = Vec::new();
    guest.walk(b"/", &mut |path, metadata| {
        if metadata.kind == FileKind::File && metadata.size >= 16 {
            files.push(path.to_vec());
        }
        Ok(Walk::Continue)
    })?;
    let mut buf = vec![0; PIECE as usize + search.overlap()];
    for path in files {
        let mut found = BTreeSet::new();
        let mut offset = 0;
        loop {
            let got = guest.read_at(&path, offset, &mut buf)?;
            search.find(&buf[..got], &mut |index, _| {
                found.insert(index);
            });
            if got <= search.overlap() {
                break;
            }
            offset += (got - search.overlap()) as u64;
        }
        for index in found {
            if let Some(&number) = numbers.get(index) {
                let files = owners.entry(number).or_default();
                if files.len() < MAX_PLACES {
                    files.push(GuestPath::from(path.as_slice()));
                }
            }
        }
    }
    Ok(owners)
}
