//! The command line of `goldenseal image`: the names of qemu-img.

mod bitmap_actions;
mod change;
mod make;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

pub(crate) use bitmap_actions::{BitmapAction, BitmapActions};
pub(crate) use change::{Amend, Bitmap, Commit, Preallocation, Rebase, Resize, ResizeBy, Snapshot};
pub(crate) use make::{Convert, Create, Measure};

use super::Format;
use crate::secret::Passphrases;

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Describe an image
    Info(Info),
    /// Check an image; exit code 2 if it is corrupt, 3 if it has leaks, 63 if its format cannot be checked
    Check(Check),
    /// Tell where the bytes of a disk are held
    Map(Map),
    /// Compare two disks; exit code 1 if they differ
    Compare(Compare),
    /// Make an empty image
    Create(Create),
    /// Write a disk to a new image
    Convert(Convert),
    /// Tell how large a file an image needs
    Measure(Measure),
    /// List, make, apply and delete internal snapshots
    Snapshot(Snapshot),
    /// Change the length of a disk
    Resize(Resize),
    /// Add, remove and change persistent bitmaps
    Bitmap(Bitmap),
    /// Write what an overlay holds into its backing file
    Commit(Commit),
    /// Put an image on top of another backing file, or of none
    Rebase(Rebase),
    /// Change what an image is: version, refcount width, features
    Amend(Amend),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text
    Human,
    /// JSON with qemu-img's keys
    Json,
}

/// Which image is read, and how.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Source {
    /// The image's format; by default it is told by the file's first bytes
    #[arg(short = 'f', long, alias = "a-format", value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Read an image that another program may be writing: take no locks
    #[arg(short = 'U', long)]
    pub(crate) force_share: bool,
    /// Folder where a backing file or a data file may be, besides the image's own (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) backing_dir: Vec<PathBuf>,
    /// A passphrase, and a name for it: secret,id=ID,file=FILE (may be repeated)
    #[arg(long = "object", value_name = "SECRET")]
    pub(crate) objects: Vec<String>,
    /// IMAGE is not a name but options: driver=qcow2,encrypt.key-secret=ID,file.filename=FILE
    #[arg(long, alias = "source-image-opts", conflicts_with = "format")]
    pub(crate) image_opts: bool,
    /// Those that the image's options tell.
    #[arg(skip)]
    pub(crate) passphrases: Passphrases,
    /// Threads that decompress for one read; 0 is one.
    #[arg(skip)]
    pub(crate) threads: usize,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// Image to describe
    pub(crate) image: PathBuf,
    /// How the result is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    /// Describe the backing files, too
    #[arg(short = 'b', long)]
    pub(crate) backing_chain: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// What a check repairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Repair {
    /// Space that nobody uses
    Leaks,
    /// Whatever can be repaired
    All,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Check {
    /// Image to check
    pub(crate) image: PathBuf,
    /// How the result is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    /// Repair what is found
    #[arg(short = 'r', long, value_name = "WHAT")]
    pub(crate) repair: Option<Repair>,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 'T', long, value_name = "MODE", hide = true)]
    pub(crate) cache: Option<String>,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Map {
    /// Image to look at
    pub(crate) image: PathBuf,
    /// How the result is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    /// Where the map begins
    #[arg(short = 's', long, value_name = "BYTES", value_parser = size, default_value = "0")]
    pub(crate) start_offset: u64,
    /// How much of the disk is mapped
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = size)]
    pub(crate) max_length: Option<u64>,
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Compare {
    /// One image
    pub(crate) first: PathBuf,
    /// The other
    pub(crate) second: PathBuf,
    /// The other image's format
    #[arg(short = 'F', long = "b-format", value_name = "FORMAT")]
    pub(crate) second_format: Option<Format>,
    /// Disks differ, too, where they are of different lengths, or hold zeros in different ways
    #[arg(short, long)]
    pub(crate) strict: bool,
    /// How QEMU is to cache the files; taken for the sake of scripts, and without effect
    #[arg(short = 'T', long, value_name = "MODE", hide = true)]
    pub(crate) cache: Option<String>,
    /// Draw a progress bar
    #[arg(short, long)]
    pub(crate) progress: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
    /// Those that the other image's options tell.
    #[arg(skip)]
    pub(crate) second_passphrases: Passphrases,
}

/// A number of bytes, with a letter for a power of 1024 behind it, and before that perhaps a fraction.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        "e" => 60,
        other => return Err(format!("{other:?} is no power of 1024: k, M, G, T, P or E")),
    };
    let wrong = || format!("{digits:?} is no number of bytes");
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) || (shift == 0 && whole.len() < digits.len()) {
        return Err(wrong());
    }
    let number: u64 = whole.parse().map_err(|_| wrong())?;
    let part: f64 = format!("0.{fraction}0").parse().map_err(|_| wrong())?;
    let size = number.checked_mul(1 << shift).and_then(|size| size.checked_add((part * (1u64 << shift) as f64) as u64));
    size.filter(|&size| size <= i64::MAX as u64).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("10G"), Ok(10 << 30));
        assert_eq!(size("1.5k"), Ok(1536));
        assert_eq!(size("0.25M"), Ok(1 << 18));
        assert_eq!(size("10B"), Ok(10));
        for wrong in ["", "k", "-1", "1x", "16E", "1.5", "1kb", "0x10k", "1e3", ".5k", "1.-5k", "1.5.5k"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
