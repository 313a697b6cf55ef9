//! The command line of `goldenseal image`: the names of qemu-img.

mod bitmap_actions;
mod change;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

pub(crate) use bitmap_actions::{BitmapAction, BitmapActions};
pub(crate) use change::{Amend, Bitmap, Commit, Preallocation, Rebase, Resize, ResizeBy, Snapshot};

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
    #[arg(short = 'F', value_name = "FORMAT")]
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

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// Image to make
    pub(crate) image: PathBuf,
    /// Bytes of the disk: a number, with k, M, G, T, P or E behind it for powers of 1024; by default those of the backing file
    #[arg(value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Format of the image
    #[arg(short = 'f', long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) format: Format,
    /// Options of the format: compat, cluster_size, refcount_bits, extended_l2, lazy_refcounts, compression_type, preallocation,
    /// backing_file, backing_fmt, data_file, data_file_raw, size, encrypt.format, encrypt.key-secret
    #[arg(short = 'o', value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
    /// Backing file: a path, from the folder of IMAGE where it is relative
    #[arg(short = 'b', long = "backing", value_name = "NAME")]
    pub(crate) backing: Option<String>,
    /// The backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<Format>,
    /// Do not open the backing file
    #[arg(short = 'u', long)]
    pub(crate) backing_unsafe: bool,
    /// Folder where a file behind the backing file may be, besides its own (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) backing_dir: Vec<PathBuf>,
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
    /// Options of the format: compat, cluster_size, refcount_bits, extended_l2, lazy_refcounts, compression_type, preallocation,
    /// backing_file, backing_fmt, encrypt.format, encrypt.key-secret
    #[arg(short = 'o', value_name = "NAME=VALUE,...", value_delimiter = ',')]
    pub(crate) options: Vec<String>,
    /// Make the new image an overlay of this backing file: what that holds is left out
    #[arg(short = 'B', long = "backing", value_name = "NAME")]
    pub(crate) backing: Option<String>,
    /// The backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<Format>,
    /// Read this internal snapshot: its id or name, or snapshot.id=ID, or snapshot.name=NAME
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,
    /// Write to an image that exists, and is long enough
    #[arg(short = 'n', long)]
    pub(crate) no_create: bool,
    /// Zeros that become holes are as long as this at least, in a raw image; 0 makes none
    #[arg(short = 'S', long, value_name = "BYTES", value_parser = size)]
    pub(crate) sparse_size: Option<u64>,
    /// Write out of order; taken for the sake of scripts, and without effect
    #[arg(short = 'W', long, hide = true)]
    pub(crate) oob: bool,
    /// How QEMU is to cache the new file; taken for the sake of scripts, and without effect
    #[arg(short = 't', long, value_name = "MODE", hide = true)]
    pub(crate) target_cache: Option<String>,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 'T', long, value_name = "MODE", hide = true)]
    pub(crate) source_cache: Option<String>,
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
    /// Measure what this internal snapshot holds: its id or name, or snapshot.id=ID, or snapshot.name=NAME
    #[arg(short = 'l', long, value_name = "SNAPSHOT", conflicts_with = "size")]
    pub(crate) snapshot: Option<String>,
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
