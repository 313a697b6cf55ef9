//! The commands that change an image in place.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};

use super::make::rate;
use super::{BitmapActions, Output, Source, size};
use crate::args::Format;

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("action").multiple(false))]
pub(crate) struct Snapshot {
    /// List the snapshots; so does no option at all
    #[arg(short, long, group = "action")]
    pub(crate) list: bool,
    /// Make a snapshot of this name
    #[arg(short, long, group = "action", value_name = "NAME")]
    pub(crate) create: Option<String>,
    /// Make the disk what it was when this snapshot was made
    #[arg(short, long, group = "action", value_name = "SNAPSHOT")]
    pub(crate) apply: Option<String>,
    /// Delete the snapshot of this name
    #[arg(short, long, group = "action", value_name = "NAME")]
    pub(crate) delete: Option<String>,
    /// Image to work on
    pub(crate) image: PathBuf,
    /// How the list is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// How clusters that are added are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preallocation {
    /// Not at all
    Off,
    /// With a place of their own
    Metadata,
    /// With a place for which the host has set space aside
    Falloc,
    /// With a place that is filled with zeros
    Full,
}

impl From<Preallocation> for qcow2::Preallocation {
    fn from(mode: Preallocation) -> Self {
        match mode {
            Preallocation::Off => Self::Off,
            Preallocation::Metadata => Self::Metadata,
            Preallocation::Falloc => Self::Falloc,
            Preallocation::Full => Self::Full,
        }
    }
}

/// A length, or how much it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResizeBy {
    /// To this length.
    To(u64),
    /// By so many bytes more.
    Up(u64),
    /// By so many bytes less.
    Down(u64),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Resize {
    /// Image to resize
    pub(crate) image: PathBuf,
    /// The new length in bytes, or with + or - before it what is added or cut off; k, M, G, T, P or E behind it are powers of
    /// 1024
    #[arg(value_parser = resize_by, allow_hyphen_values = true, value_name = "[+|-]SIZE")]
    pub(crate) size: ResizeBy,
    /// Make the disk shorter: what is beyond its new end is lost
    #[arg(long)]
    pub(crate) shrink: bool,
    /// How what is added is held
    #[arg(long, value_name = "HOW", default_value = "off")]
    pub(crate) preallocation: Preallocation,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

fn resize_by(text: &str) -> Result<ResizeBy, String> {
    Ok(match text.split_at_checked(1) {
        Some(("+", more)) => ResizeBy::Up(size(more)?),
        Some(("-", less)) => ResizeBy::Down(size(less)?),
        _ => ResizeBy::To(size(text)?),
    })
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bitmap {
    #[command(flatten)]
    pub(crate) actions: BitmapActions,
    /// Bytes of the disk that each bit of a new bitmap stands for; by default a cluster's, from 4k to 64k
    #[arg(short, long, value_name = "BYTES", value_parser = size)]
    pub(crate) granularity: Option<u64>,
    /// The image that holds the bitmap to merge, where it is another
    #[arg(short = 'b', long, value_name = "IMAGE")]
    pub(crate) source_file: Option<PathBuf>,
    /// That image's format
    #[arg(short = 'F', long, value_name = "FORMAT", requires = "source_file")]
    pub(crate) source_format: Option<Format>,
    /// Image to work on
    pub(crate) image: PathBuf,
    /// Name of the bitmap
    pub(crate) bitmap: String,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Commit {
    /// Overlay to commit
    pub(crate) image: PathBuf,
    /// Commit to this image of the backing chain, and all between them with it; implies -d
    #[arg(short = 'b', long = "base", value_name = "IMAGE")]
    pub(crate) base: Option<String>,
    /// Leave in the overlay what it holds
    #[arg(short = 'd', long = "drop", alias = "keep")]
    pub(crate) keep: bool,
    /// Bytes that are committed in a second at most
    #[arg(short = 'r', long, value_name = "BYTES", value_parser = rate)]
    pub(crate) rate: Option<u64>,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 't', long, value_name = "MODE", hide = true)]
    pub(crate) cache: Option<String>,
    /// Draw a progress bar
    #[arg(short, long)]
    pub(crate) progress: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rebase {
    /// Image whose backing file changes
    pub(crate) image: PathBuf,
    /// The new backing file: a path, from the folder of IMAGE where it is relative; "" is none
    #[arg(short = 'b', long = "backing", value_name = "NAME", required_unless_present = "unsafe_mode")]
    pub(crate) backing: Option<String>,
    /// The new backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<String>,
    /// Change the name alone: what the disk holds changes where the backing files differ
    #[arg(short = 'u', long = "backing-unsafe")]
    pub(crate) unsafe_mode: bool,
    /// Compress the clusters that are copied up
    #[arg(short, long)]
    pub(crate) compress: bool,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 't', long, value_name = "MODE", hide = true)]
    pub(crate) cache: Option<String>,
    /// How QEMU is to cache the backing file; taken for the sake of scripts, and without effect
    #[arg(short = 'T', long, value_name = "MODE", hide = true)]
    pub(crate) backing_cache: Option<String>,
    /// Draw a progress bar
    #[arg(short, long)]
    pub(crate) progress: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Amend {
    /// Image to change
    pub(crate) image: PathBuf,
    /// What is to be different: compat, lazy_refcounts, refcount_bits, size, data_file, data_file_raw; of an encrypted image the
    /// key slots: encrypt.state (active, inactive), encrypt.keyslot, encrypt.new-secret, encrypt.old-secret, encrypt.iter-time
    #[arg(short = 'o', long, value_name = "NAME=VALUE,...", required = true)]
    pub(crate) options: Vec<String>,
    /// Erase a key slot even where it is the last one, and overwrite one that is in use: what the disk holds may be lost
    #[arg(long)]
    pub(crate) force: bool,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 't', long, value_name = "MODE", hide = true)]
    pub(crate) cache: Option<String>,
    /// Draw a progress bar; nothing that is amended takes long
    #[arg(short, long, hide = true)]
    pub(crate) progress: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[cfg(test)]
mod tests {
    use super::{ResizeBy, resize_by};

    #[test]
    fn lengths_are_absolute_or_relative() {
        assert_eq!(resize_by("1M"), Ok(ResizeBy::To(1 << 20)));
        assert_eq!(resize_by("+2k"), Ok(ResizeBy::Up(2048)));
        assert_eq!(resize_by("-512"), Ok(ResizeBy::Down(512)));
        for wrong in ["", "+", "--1", "+-1", "k"] {
            assert!(resize_by(wrong).is_err(), "{wrong}");
        }
    }
}
