//! `goldenseal`: turns a used virtual machine image into a golden image, straight on the image file.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod disk;
mod dropin;
mod exit_code;
mod render;
mod residue;
mod secret;

use clap::Parser;

fn main() -> std::process::ExitCode {
    // A link to the program under the name of another tool takes that tool's options.
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    if let Some(tool) = words.next().as_deref().and_then(dropin::Tool::of_program) {
        return dropin::run(tool, &words.collect::<Vec<_>>());
    }
    // `image` ends as qemu-img does.
    let is_image = std::env::args_os().nth(1).is_some_and(|command| command == "image");
    let mut args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to be told that this cannot be printed.
            let _ = error.print();
            return exit_code::of_usage(&error, is_image);
        }
    };
    match commands::run(&mut args) {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads our output has had enough (`head`): not worth a word.
            if !exit_code::is_broken_pipe(&error) {
                render::text::error(&error);
            }
            if is_image { exit_code::ExitCode::Error.into() } else { exit_code::of_error(&error).into() }
        }
    }
}
