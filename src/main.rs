//! `goldenseal`: turns a used virtual machine image into a golden image, straight on the image file.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod disk;
mod exit_code;
mod render;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let args = args::Args::parse();
    match commands::run(&args) {
        Ok(code) => code,
        Err(error) => {
            // Whoever reads our output has had enough (`head`): not worth a word.
            if !exit_code::is_broken_pipe(&error) {
                render::text::error(&error);
            }
            exit_code::of_error(&error).into()
        }
    }
}
