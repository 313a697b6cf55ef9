//! `image map`: where the bytes of a disk are held.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::{ExtentKind, ReadAt};
use qcow2::MapEntry;

use super::info::backing_path;
use super::{format, open_closed, open_options, open_raw, opening};
use crate::args::Format;
use crate::args::image::{Map, Output};
use crate::render::image;

pub(super) fn run(args: &Map) -> Result<ExitCode> {
    let entries = match format(&args.image, args.source.format)? {
        Format::Raw => map_raw(&open_raw(&args.image, &args.source)?)?,
        Format::Qcow2 => {
            let opened = qcow2::Image::open(&args.image, &open_options(&args.source));
            let mut entries = Vec::new();
            let mapped = opened.with_context(|| opening(&args.image))?.map_chain(&mut |entry| entries.push(*entry));
            mapped.with_context(|| format!("cannot map {}", args.image.display()))?;
            entries
        }
    };
    if args.output == Output::Json {
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
