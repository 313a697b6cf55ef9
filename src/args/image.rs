//! The command line of `goldenseal image`: the names of qemu-img.

mod bitmap_actions;
mod change;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

pub(crate) use bitmap_actions::{BitmapAction, BitmapActions};
pub(crate) use change::{Bitmap, Commit, Preallocation, Resize, ResizeBy, Snapshot};

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
    #[arg(short = 'f', long, value_name = "FORMAT")]
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
    #[arg(long, conflicts_with = "format")]
    pub(crate) image_opts: bool,
    /// Those that the image's options tell.
    #[arg(skip)]
    pub(crate) passphrases: Passphrases,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// Image to describe
    pub(crate) image: PathBuf,
    /// How the result is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    /// Describe the backing files, too
    #[arg(long)]
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
    #[arg(short = 'F', value_name = "FORMAT")]
    pub(crate) second_format: Option<Format>,
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

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// Image to make
    pub(crate) image: PathBuf,
    /// Bytes of the disk: a number, with k, M, G, T, P or E behind it for powers of 1024
    #[arg(value_parser = size)]
    pub(crate) size: u64,
    /// Format of the image
    #[arg(short = 'f', long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) format: Format,
    /// Options of the format: cluster_size, refcount_bits, extended_l2, compression_type, encrypt.format, encrypt.key-secret
    #[arg(short = 'o', value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// A passphrase, and a name for it: secret,id=ID,file=FILE (may be repeated)
    #[arg(long = "object", value_name = "SECRET")]
    pub(crate) objects: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Convert {
    /// Image to read
    pub(crate) image: PathBuf,
    /// Image to write; a file of that name is replaced once the new one is whole
    pub(crate) target: PathBuf,
    /// Format of the new image
    #[arg(short = 'O', value_name = "FORMAT", default_value = "raw")]
    pub(crate) target_format: Format,
    /// Options of the format: cluster_size, refcount_bits, extended_l2, compression_type, encrypt.format, encrypt.key-secret
    #[arg(short = 'o', value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
    /// Compress the new image
    #[arg(short, long)]
    pub(crate) compress: bool,
    /// Threads that compress; by default as many as there are processors
    #[arg(short = 'm', value_name = "COUNT")]
    pub(crate) threads: Option<usize>,
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
pub(crate) struct Measure {
    /// Image that the new one is to be made of
    #[arg(required_unless_present = "size", conflicts_with = "size")]
    pub(crate) image: Option<PathBuf>,
    /// Bytes of the disk, where there is no image yet
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Format of the new image
    #[arg(short = 'O', value_name = "FORMAT", default_value = "raw")]
    pub(crate) target_format: Format,
    /// Options of the format: cluster_size, refcount_bits, extended_l2
    #[arg(short = 'o', value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
    /// How the result is printed
    #[arg(long, value_name = "HOW", default_value = "human")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) source: Source,
}

/// A number of bytes, with a letter for a power of 1024 behind it.
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
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is no number of bytes"))?;
    number.checked_mul(1 << shift).filter(|&size| size <= i64::MAX as u64).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_qemu_reads_them() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("10G"), Ok(10 << 30));
        for wrong in ["", "k", "-1", "1x", "16E", "1.5"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
