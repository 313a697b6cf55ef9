//! The commands that make images, or tell how large one would be.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::{Output, Source, size};
use crate::args::Format;

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
    #[arg(short = 'o', long, value_name = "NAME=VALUE,...")]
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
    /// Images to read, one behind the other, and last the image to write; a file of that name is replaced once the new one
    /// is whole
    #[arg(required = true, num_args = 2.., value_names = ["IMAGE", "TARGET"])]
    pub(crate) images: Vec<PathBuf>,
    /// Format of the new image
    #[arg(short = 'O', long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) target_format: Format,
    /// Options of the format: compat, cluster_size, refcount_bits, extended_l2, lazy_refcounts, compression_type, preallocation,
    /// backing_file, backing_fmt, data_file, data_file_raw, encrypt.format, encrypt.key-secret
    #[arg(short = 'o', long = "target-options", value_name = "NAME=VALUE,...")]
    pub(crate) options: Vec<String>,
    /// TARGET is not a name but options, as with --image-opts; only with -n
    #[arg(long, requires = "no_create", conflicts_with_all = ["target_format", "options"])]
    pub(crate) target_image_opts: bool,
    /// Make the new image an overlay of this backing file: what that holds is left out
    #[arg(short = 'B', long = "backing", value_name = "NAME")]
    pub(crate) backing: Option<String>,
    /// The backing file's format
    #[arg(short = 'F', long, value_name = "FORMAT")]
    pub(crate) backing_format: Option<Format>,
    /// Read this internal snapshot: its id or name, or snapshot.id=ID, or snapshot.name=NAME
    #[arg(short = 'l', long, alias = "source-snapshot", value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<String>,
    /// Write to an image that exists, and is long enough
    #[arg(short = 'n', long)]
    pub(crate) no_create: bool,
    /// The image that exists reads as zeros: none are written
    #[arg(long, requires = "no_create")]
    pub(crate) target_is_zero: bool,
    /// Zeros that become holes are as long as this at least, in a raw image; 0 makes none
    #[arg(short = 'S', long, value_name = "BYTES", value_parser = sparse_size)]
    pub(crate) sparse_size: Option<u64>,
    /// Copy the persistent bitmaps, too
    #[arg(long)]
    pub(crate) bitmaps: bool,
    /// Leave out bitmaps that were not stored by who used them last
    #[arg(long, requires = "bitmaps")]
    pub(crate) skip_broken_bitmaps: bool,
    /// Write zeros for what cannot be read, and say what that was
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Bytes that are copied in a second at most
    #[arg(short = 'r', long, value_name = "BYTES", value_parser = rate)]
    pub(crate) rate: Option<u64>,
    /// Write out of order; taken for the sake of scripts, and without effect
    #[arg(short = 'W', long, alias = "oob-writes", hide = true)]
    pub(crate) oob: bool,
    /// Have the host copy; taken for the sake of scripts, and without effect
    #[arg(short = 'C', long, hide = true)]
    pub(crate) copy_range_offloading: bool,
    /// How QEMU is to cache the new file; taken for the sake of scripts, and without effect
    #[arg(short = 't', long, value_name = "MODE", hide = true)]
    pub(crate) target_cache: Option<String>,
    /// How QEMU is to cache the file; taken for the sake of scripts, and without effect
    #[arg(short = 'T', long, value_name = "MODE", hide = true)]
    pub(crate) source_cache: Option<String>,
    /// Compress what is written
    #[arg(short, long)]
    pub(crate) compress: bool,
    /// Threads that compress; by default as many as there are processors
    #[arg(short = 'm', long = "parallel", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=16))]
    pub(crate) threads: Option<u64>,
    /// Draw a progress bar
    #[arg(short, long)]
    pub(crate) progress: bool,
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) source: Source,
    /// The same as --format
    #[arg(long, value_name = "FORMAT", hide = true, conflicts_with_all = ["format", "image_opts"])]
    pub(crate) source_format: Option<Format>,
}

impl Convert {
    /// The images that are read.
    pub(crate) fn sources(&self) -> &[PathBuf] {
        self.images.split_last().map(|(_, sources)| sources).unwrap_or_default()
    }

    /// The image that is written.
    pub(crate) fn target(&self) -> &Path {
        self.images.last().map(PathBuf::as_path).unwrap_or_else(|| Path::new(""))
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Measure {
    /// Image that the new one is to be made of
    #[arg(required_unless_present = "size", conflicts_with = "size")]
    pub(crate) image: Option<PathBuf>,
    /// Bytes of the disk, where there is no image yet
    #[arg(short, long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Format of the new image
    #[arg(short = 'O', long, value_name = "FORMAT", default_value = "raw")]
    pub(crate) target_format: Format,
    /// Options of the format: cluster_size, refcount_bits, extended_l2
    #[arg(short = 'o', long, value_name = "NAME=VALUE,...")]
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

/// What holes are made of: whole sectors, and as many as QEMU takes.
fn sparse_size(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    let fits = size.is_multiple_of(512) && size <= 16 << 20;
    if fits { Ok(size) } else { Err("must be a multiple of 512 up to 16M".to_owned()) }
}

/// Bytes in a second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let rate = size(text)?;
    if rate > 0 { Ok(rate) } else { Err("must be more than 0".to_owned()) }
}
