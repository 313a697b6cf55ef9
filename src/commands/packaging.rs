//! What a package of the program holds beside it: completions and manual pages, made from the command line itself.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::args::{Args, Completions, ManualPages};
use crate::exit_code::ExitCode;

pub(crate) fn completions(args: &Completions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "goldenseal", &mut script);
    std::io::stdout().write_all(&script).context("cannot write to the standard output")?;
    Ok(ExitCode::Done)
}

pub(crate) fn manual_pages(args: &ManualPages) -> Result<ExitCode> {
    let command = Args::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &args.folder)
        .with_context(|| format!("cannot write manual pages to {}", args.folder.display()))?;
    Ok(ExitCode::Done)
}
