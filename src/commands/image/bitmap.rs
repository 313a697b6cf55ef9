//! `image bitmap`: persistent bitmaps.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::{format, open_closed, open_to_change};
use crate::args::Format;
use crate::args::image::{Bitmap, BitmapAction};
use crate::exit_code::Usage;

pub(super) fn run(args: &Bitmap) -> Result<ExitCode> {
    let wrong = |text: &str| Err(Usage(text.to_owned()).into());
    let merges = args.actions.0.iter().any(|action| matches!(action, BitmapAction::Merge(_)));
    if args.granularity.is_some() && !args.actions.0.contains(&BitmapAction::Add) {
        return wrong("a granularity is of use only with --add");
    }
    if args.source_file.is_some() && !merges {
        return wrong("a source file is of use only with --merge");
    }
    let name = &args.bitmap;
    let mut image = open_to_change(&args.image, &args.source)?;
    for action in &args.actions.0 {
        let done = match action {
            BitmapAction::Add => image.add_bitmap(name, args.granularity),
            BitmapAction::Remove => image.remove_bitmap(name),
            BitmapAction::Clear => image.clear_bitmap(name),
            BitmapAction::Enable => image.enable_bitmap(name),
            BitmapAction::Disable => image.disable_bitmap(name),
            BitmapAction::Merge(source) => match &args.source_file {
                None => image.merge_bitmap(name, source),
                Some(file) => {
                    if format(file, args.source_format)? == Format::Raw {
                        return wrong("a raw image has no bitmaps");
                    }
                    let reading = || format!("cannot read bitmap {source:?} of {}", file.display());
                    let bits = open_closed(file, &args.source)?.read_bitmap(source).with_context(reading)?;
                    image.merge_dirty_bits(name, &bits)
                }
            },
        };
        done.with_context(|| format!("cannot change bitmap {name:?} of {}", args.image.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
