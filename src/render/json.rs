//! JSON on the standard output.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::ImageReport;

/// Prints one object.
pub(crate) fn print(value: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).context("cannot write to the standard output")?;
    writeln!(out).context("cannot write to the standard output")
}

/// Prints the report of one image as it is, those of several as a list in one object.
pub(crate) fn reports(reports: &[ImageReport]) -> Result<()> {
    match reports {
        [report] => print(report),
        reports => print(&serde_json::json!({ "images": reports })),
    }
}
