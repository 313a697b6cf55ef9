//! `goldenseal cat`: contents of a guest's files, byte for byte.

use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::open_guest;
use crate::args::Cat;
use crate::exit_code::ExitCode;
use crate::render;

pub(crate) fn run(args: &Cat) -> Result<ExitCode> {
    let guest = open_guest(&args.image, &args.open)?;
    let mut out = std::io::stdout().lock();
    let mut buf = vec![0; 1 << 20];
    for path in &args.paths {
        let mut offset = 0;
        loop {
            let read = guest
                .read_at(path.as_bytes(), offset, &mut buf)
                .with_context(|| format!("cannot read {}", render::escape(path)))?;
            if read == 0 {
                break;
            }
            out.write_all(&buf[..read]).context("cannot write to the standard output")?;
            offset += read as u64;
        }
    }
    out.flush().context("cannot write to the standard output")?;
    Ok(ExitCode::Done)
}
