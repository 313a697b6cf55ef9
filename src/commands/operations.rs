//! `goldenseal operations`: what there is to perform.

use anyhow::Result;

use crate::args::Operations;
use crate::exit_code::ExitCode;
use crate::render;

pub(crate) fn run(args: &Operations) -> Result<ExitCode> {
    if args.json {
        render::json::print(&serde_json::json!({ "operations": seal::operations() }))?;
    } else if args.markdown {
        render::text::line(&seal::operations_markdown());
    } else {
        render::text::operations(args.verbose);
    }
    Ok(ExitCode::Done)
}
