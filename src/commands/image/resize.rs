//! `image resize`: a longer or a shorter disk.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use block::{HostFile, ReadAt, Storage, WriteAt};

use super::{format, open_options, open_raw_to_change, opening};
use crate::args::Format;
use crate::args::image::{Preallocation, Resize, ResizeBy};
use crate::render::image;

pub(super) fn run(args: &Resize) -> Result<ExitCode> {
    let path = &args.image;
    let resizing = || format!("cannot resize {}", path.display());
    match format(path, args.source.format)? {
        Format::Raw => {
            let file = open_raw_to_change(path)?;
            // As in QEMU, a disk is whole sectors long.
            let len = new_len(file.len(), args)?.next_multiple_of(512);
            resize_raw(&file, len, args.preallocation).with_context(resizing)?;
        }
        Format::Qcow2 => {
            let options = open_options(&args.source).writable(true);
            let mut opened = qcow2::Image::open(path, &options).with_context(|| opening(path))?;
            let len = new_len(opened.len(), args)?;
            opened.resize_with(len, args.preallocation.into()).with_context(resizing)?;
        }
    }
    if !args.quiet {
        image::line("Image resized.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The length asked for, which is shorter than the old one only if that is asked for, too.
fn new_len(old: u64, args: &Resize) -> Result<u64> {
    let len = match args.size {
        ResizeBy::To(len) => Some(len),
        ResizeBy::Up(more) => old.checked_add(more),
        ResizeBy::Down(less) => old.checked_sub(less),
    };
    let Some(len) = len else { bail!("a disk of {old} bytes cannot change by that much") };
    if len < old && !args.shrink {
        bail!("what lies beyond {len} of {old} bytes would be lost; --shrink says that this is meant");
    }
    if len < old && args.preallocation != Preallocation::Off {
        bail!("nothing is added that could be preallocated");
    }
    Ok(len)
}

fn resize_raw(file: &HostFile, len: u64, preallocation: Preallocation) -> Result<()> {
    let old = file.len();
    if preallocation == Preallocation::Metadata {
        bail!("raw images have no metadata to preallocate");
    }
    file.set_len(len)?;
    if len > old {
        qcow2::Preallocation::from(preallocation).fill(file, old, len - old)?;
    }
    Ok(file.flush()?)
}
