//! `image check`: what is wrong with an image, and its repair.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use qcow2::{CheckReport, Image};
use serde::Serialize;

use super::{closed, format, open_closed, opening};
use crate::args::Format;
use crate::args::image::{Check, Output, Repair};
use crate::render::{image, json};

/// What `--output=json` prints.
#[derive(Serialize)]
struct Json<'a> {
    filename: &'a str,
    format: &'static str,
    #[serde(flatten)]
    report: CheckReport,
}

pub(super) fn run(args: &Check) -> Result<ExitCode> {
    if format(&args.image, args.source.format)? == Format::Raw {
        image::diagnostic("raw images cannot be checked");
        return Ok(ExitCode::from(63));
    }
    let mut tell = |problem: &qcow2::Problem| image::diagnostic(&problem.to_string());
    let checking = || format!("cannot check {}", args.image.display());
    let report = match args.repair {
        None => open_closed(&args.image, &args.source)?.check(&mut tell).with_context(checking)?,
        Some(repair) => {
            let options = closed(&args.source).repair(true);
            let opened = Image::open(&args.image, &options).with_context(|| opening(&args.image))?;
            let repair = match repair {
                Repair::Leaks => qcow2::Repair::Leaks,
                Repair::All => qcow2::Repair::All,
            };
            opened.repair(repair, &mut tell).with_context(checking)?
        }
    };
    if args.output == Output::Json {
        json::print(&Json { filename: &args.image.display().to_string(), format: "qcow2", report })?;
    } else if !args.quiet {
        image::check(&report);
    }
    Ok(ExitCode::from(match report {
        CheckReport { check_errors: 1.., .. } => 1,
        CheckReport { corruptions: 1.., .. } => 2,
        CheckReport { leaks: 1.., .. } => 3,
        _ => 0,
    }))
}
