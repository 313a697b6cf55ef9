//! `image map`: where the bytes of a disk are held.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::{ExtentKind, ReadAt};
use qcow2::MapEntry;

use super::info::backing_path;
use super::{format, open_closed, open_options, open_raw, opening};
use crate::args::Format;
use crate::args::image::{Map, Output, Source};
use crate::render::image;

/// The runs of the disk that an image holds.
pub(super) fn entries(path: &Path, wanted: Option<Format>, source: &Source) -> Result<Vec<MapEntry>> {
    if format(path, wanted)? == Format::Raw {
        return map_raw(&open_raw(path, source)?);
    }
    let opened = qcow2::Image::open(path, &open_options(source)).with_context(|| opening(path))?;
    let mut entries = Vec::new();
    let mapped = opened.map_chain(&mut |entry| entries.push(*entry));
    mapped.with_context(|| format!("cannot map {}", path.display()))?;
    Ok(entries)
}

/// What of the runs lies between two offsets of the disk.
fn clip(entries: Vec<MapEntry>, start: u64, end: u64) -> Vec<MapEntry> {
    let clipped = entries.into_iter().filter_map(|entry| {
        let (from, to) = (entry.start.max(start), (entry.start + entry.length).min(end));
        let offset = entry.offset.map(|offset| offset + (from.max(entry.start) - entry.start));
        (from < to).then(|| MapEntry { start: from, length: to - from, offset, ..entry })
    });
    clipped.collect()
}

pub(super) fn run(args: &Map) -> Result<ExitCode> {
    let end = args.max_length.map_or(u64::MAX, |len| args.start_offset.saturating_add(len));
    let all = entries(&args.image, args.source.format, &args.source)?;
    let is_empty = all.is_empty();
    let mut entries = clip(all, args.start_offset, end);
    if args.output == Output::Json {
        if is_empty && args.start_offset == 0 {
            // Of a disk of no bytes QEMU tells one run of none.
            let (present, zero, data, compressed) = (false, false, false, false);
            entries.push(MapEntry { start: 0, length: 0, depth: 0, present, zero, data, compressed, offset: None });
        }
        image::map_json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    if entries.iter().any(|entry| entry.data && entry.offset.is_none()) {
        bail!("some clusters are compressed, and have no place that can be told; --output=json names them");
    }
    let depth = entries.iter().map(|entry| entry.depth).max().unwrap_or(0);
    let mut files = Vec::new();
    let mut path = args.image.clone();
    for layer in 0..=depth {
        // Only an image has another file behind it.
        let info = if layer < depth || format(&path, args.source.format)? == Format::Qcow2 && layer == 0 {
            Some(open_closed(&path, &args.source)?.info().with_context(|| opening(&path))?)
        } else {
            None
        };
        let data_file = info.as_ref().and_then(|info| info.data_file.as_deref());
        files.push(data_file.map_or_else(|| path.clone(), |name| backing_path(&path, name)));
        let below = info.and_then(|info| info.backing_filename).unwrap_or_default();
        path = backing_path(&path, &below);
    }
    image::map(&entries, &files);
    Ok(ExitCode::SUCCESS)
}

/// The runs of a raw file.
fn map_raw(file: &dyn ReadAt) -> Result<Vec<MapEntry>> {
    let mut entries: Vec<MapEntry> = Vec::new();
    let mut start = 0;
    while start < file.len() {
        let extent = file.extent_at(start, file.len() - start).context("cannot map the file")?;
        let data = extent.kind == ExtentKind::Data;
        let (present, compressed) = (true, false);
        let (length, offset) = (extent.len, Some(start));
        match entries.last_mut() {
            Some(last) if last.data == data => last.length += length,
            _ => entries.push(MapEntry { start, length, depth: 0, present, zero: !data, data, compressed, offset }),
        }
        start += length;
    }
    Ok(entries)
}
