//! `goldenseal inspect`: what is on a disk.

use anyhow::Result;
use guest::{Guest, OpenOptions};

use super::now;
use crate::args::Inspect;
use crate::disk;
use crate::exit_code::ExitCode;
use crate::render::{self, Inspection};

pub(crate) fn run(args: &Inspect) -> Result<ExitCode> {
    let device = disk::open_read_only(&args.image, &args.open)?;
    let layout = volumes::discover(&device)?;
    let options = OpenOptions { root: args.open.root.clone(), read_only: true, now: now() };
    // A disk without a guest is still worth looking at.
    let guest = Guest::open_read_only(device.clone(), &options);
    let inspection = Inspection::new(&args.image, &layout, &device, guest.as_ref())?;
    if args.json {
        render::json::print(&inspection)?;
    } else {
        render::text::inspection(&inspection);
    }
    Ok(guest.map(|_| ExitCode::Done)?)
}
