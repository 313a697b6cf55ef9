//! `image info`: what an image is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use qcow2::ImageInfo;
use serde_json::{Map, Value, json};

use super::{format, open_closed, open_options, open_raw, opening};
use crate::args::Format;
use crate::args::image::{Info, Output};
use crate::render::{image_info, json as print_json};

/// An image as it is described.
pub(crate) struct Description {
    pub(crate) filename: String,
    /// Nothing for a raw image.
    pub(crate) qcow2: Option<ImageInfo>,
    /// Where its backing file is, as the image's own name leads there.
    pub(crate) backing_path: Option<String>,
    pub(crate) virtual_size: u64,
    /// The file's length, in whole sectors as QEMU counts it.
    pub(crate) file_len: u64,
    pub(crate) actual_size: u64,
}

pub(super) fn run(args: &Info) -> Result<ExitCode> {
    let chain = describe_chain(args)?;
    match (args.output, args.backing_chain) {
        (Output::Human, _) => image_info::info(&chain),
        (Output::Json, true) => print_json::print(&chain.iter().map(to_json).collect::<Vec<_>>())?,
        (Output::Json, false) => print_json::print(&chain.first().map(to_json))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The image, and those behind it where they are asked for.
fn describe_chain(args: &Info) -> Result<Vec<Description>> {
    let mut wanted = format(&args.image, args.source.format)?;
    let mut places: Vec<Option<PathBuf>> = Vec::new();
    if args.backing_chain && wanted == Format::Qcow2 {
        // Whatever the chain names is judged, and loops are found, before any of it is described.
        let opened = qcow2::Image::open(&args.image, &open_options(&args.source));
        let opened = opened.with_context(|| opening(&args.image))?;
        let mut layer = Some(&opened);
        while let Some(image) = layer {
            // Where it is told in JSON, what it leads to is told by who opened it.
            let in_json = image.backing_name().is_some_and(|backing| backing.name.starts_with("json:"));
            places.push(image.backing_path().filter(|_| in_json).map(Path::to_owned));
            layer = image.backing_image();
        }
    }
    let mut path = args.image.clone();
    let mut chain = Vec::new();
    loop {
        let described = describe(&path, wanted, args)?;
        let info = described.qcow2.as_ref();
        let backing = info.and_then(|info| info.backing_filename.clone());
        let is_raw = info.and_then(|info| info.backing_filename_format.as_deref()) == Some("raw");
        chain.push(described);
        match backing.filter(|_| args.backing_chain) {
            Some(name) => {
                let place = places.get(chain.len() - 1).cloned().flatten();
                path = place.unwrap_or_else(|| backing_path(&path, &name));
            }
            None => return Ok(chain),
        }
        wanted = if is_raw { Format::Raw } else { Format::Qcow2 };
    }
}

fn describe(path: &Path, format: Format, args: &Info) -> Result<Description> {
    let metadata = std::fs::metadata(path).with_context(|| opening(path))?;
    let file_len = block::ReadAt::len(&open_raw(path, &args.source)?).next_multiple_of(512);
    let qcow2 = match format {
        Format::Raw => None,
        Format::Qcow2 => Some(open_closed(path, &args.source)?.info().with_context(|| opening(path))?),
    };
    let backing = qcow2.as_ref().and_then(|info| info.backing_filename.as_deref());
    Ok(Description {
        backing_path: backing.map(|name| {
            if name.starts_with("json:") { name.to_owned() } else { backing_path(path, name).display().to_string() }
        }),
        filename: path.display().to_string(),
        virtual_size: qcow2.as_ref().map_or(file_len, |info| info.virtual_size),
        qcow2,
        file_len,
        actual_size: metadata.blocks() * 512,
    })
}

/// Where the backing file is that the image at `path` names.
pub(super) fn backing_path(path: &Path, name: &str) -> PathBuf {
    let name = Path::new(name.strip_prefix("file:").unwrap_or(name));
    match path.parent() {
        Some(folder) if name.is_relative() => folder.join(name),
        _ => name.to_owned(),
    }
}

/// The object that qemu-img prints.
fn to_json(described: &Description) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    let file = json!({
        "children": [],
        "virtual-size": described.file_len,
        "filename": described.filename,
        "format": "file",
        "actual-size": described.actual_size,
        "format-specific": { "type": "file", "data": {} },
        "dirty-flag": false,
    });
    set("children", json!([{ "name": "file", "info": file }]));
    set("virtual-size", json!(described.virtual_size));
    set("filename", json!(described.filename));
    set("actual-size", json!(described.actual_size));
    let Some(info) = &described.qcow2 else {
        set("format", json!("raw"));
        set("dirty-flag", json!(false));
        return Value::Object(object);
    };
    set("format", json!("qcow2"));
    set("cluster-size", json!(info.cluster_size));
    set("dirty-flag", json!(info.dirty_flag));
    if info.encrypt.is_some() {
        set("encrypted", json!(true));
    }
    if !info.snapshots.is_empty() {
        set("snapshots", json!(info.snapshots));
    }
    if let Some(name) = &info.backing_filename {
        set("backing-filename", json!(name));
        set("full-backing-filename", json!(described.backing_path));
    }
    if let Some(format) = &info.backing_filename_format {
        set("backing-filename-format", json!(format));
    }
    set("format-specific", json!({ "type": "qcow2", "data": specific(info) }));
    Value::Object(object)
}

fn specific(info: &ImageInfo) -> Value {
    let mut data = Map::new();
    let mut set = |key: &str, value: Value| data.insert(key.to_owned(), value);
    set("compression-type", json!(info.compression_type));
    set("refcount-bits", json!(info.refcount_bits));
    if let Some(encrypt) = &info.encrypt {
        set("encrypt", json!(encrypt));
    }
    if info.version < 3 {
        set("compat", json!("0.10"));
        return Value::Object(data);
    }
    set("compat", json!("1.1"));
    set("lazy-refcounts", json!(info.lazy_refcounts));
    set("corrupt", json!(info.corrupt));
    set("extended-l2", json!(info.extended_l2));
    if let Some(name) = &info.data_file {
        set("data-file", json!(name));
        set("data-file-raw", json!(info.data_file_raw));
    }
    if !info.bitmaps.is_empty() {
        set("bitmaps", json!(info.bitmaps));
    }
    Value::Object(data)
}
