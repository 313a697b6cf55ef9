//! `image create`: a new image that holds nothing.

use std::process::ExitCode;

use anyhow::Result;
use block::{Error as BlockError, Extent, ExtentKind, ReadAt};

use super::{convert, options};
use crate::args::image::Create;
use crate::render::progress::Progress;

/// A disk that holds nothing.
struct Empty(u64);

impl ReadAt for Empty {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> block::Result<()> {
        BlockError::check_range(offset, buf.len() as u64, self.0)?;
        buf.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64, max_len: u64) -> block::Result<Extent> {
        BlockError::check_range(offset, max_len.max(1), self.0)?;
        Ok(Extent { len: max_len, kind: ExtentKind::Hole })
    }
}

pub(super) fn run(args: &Create) -> Result<ExitCode> {
    let read = options::read(&args.options, args.format, false, &args.objects)?;
    // As in QEMU, a disk is whole sectors long.
    let disk = Empty(args.size.next_multiple_of(512));
    convert::write(&disk, &args.image, args.format, &read, &Progress::bytes("writing", 0, true))?;
    if !args.quiet {
        crate::render::image::line(&format!("Made {}: {} bytes", args.image.display(), disk.0));
    }
    Ok(ExitCode::SUCCESS)
}
